"""What the runs of a sweep share, in the words of the flags, and what the core makes of it."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from absl import flags

from linear_cifar.augment import Augmentation, horizontal_flip, in_turn, random_shift
from linear_cifar.config import Config
from linear_cifar.dataset import TrainSplit
from linear_cifar.losses import get_loss
from linear_cifar.params import numpy_params
from linear_cifar.schedules import SCHEDULES, Schedule
from linear_cifar.sweep import Initializer, jax_params
from linear_cifar.training import Recipe, heavy_ball, sgd

# As the products' precision is called on the command line, and as `jax.numpy.matmul` calls it.
PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32"}
# Initial weights: (seed, d, K, dtype) → parameters.
INITS: dict[str, Callable[..., Any]] = {"jax": jax_params, "numpy": numpy_params}


class Settings(NamedTuple):
    """Flags of the same names; the seeds are `--seed` and those after it."""

    train: TrainSplit
    val_size: int
    loss: str
    flip: bool
    shift: int
    epochs: int
    schedule: str
    average: int
    shuffle: bool
    init: str
    dtype: str
    precision: str
    seeds: tuple[int, ...]
    watch: tuple[str, ...]
    max_loss: float | None

    @property
    def open_ended(self) -> bool:
        """Whether the epochs are the same whatever number of them follows."""
        return self.schedule == "constant" and self.average == 1

    def recipe(self, configs: Sequence[Config]) -> Recipe:
        """The recipe of a sweep of these configurations."""
        return Recipe(
            get_loss(self.loss),
            # A velocity takes memory and time: only where one is asked for.
            heavy_ball if any(config.momentum for config in configs) else sgd,
            _augmentation(self.flip, self.shift),
            self.shuffle,
            PRECISIONS[self.precision],
        )

    def initializer(self, d: int, K: int) -> Initializer:
        """Initial weights of d features and K classes."""
        return partial(INITS[self.init], d=d, K=K, dtype=jnp.dtype(self.dtype))

    def eta_factor(self) -> Schedule:
        """The schedule over these epochs."""
        return SCHEDULES[self.schedule](self.epochs)


class Variant(NamedTuple):
    """One sweep of an experiment, by its name."""

    name: str
    settings: Settings
    configs: tuple[Config, ...]

    @property
    def size(self) -> tuple[int, int]:
        """How many seeds and configurations there are."""
        return len(self.settings.seeds), len(self.configs)

    @property
    def runs(self) -> int:
        """How many there are: configurations times seeds."""
        return math.prod(self.size)


@cache
def _augmentation(flip: bool, shift: int) -> Augmentation | None:
    """The same function each time, as JAX compiles a program for each."""
    augmentations: list[Augmentation] = [horizontal_flip] if flip else []
    if shift:
        augmentations.append(partial(random_shift, pixels=shift))
    return in_turn(augmentations)


def from_flags(**fixed: Any) -> Settings:
    """The settings that the flags give, but for those that the experiment itself fixes."""
    own = [name for name in Settings._fields if name not in fixed]
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in own} | fixed
    values["seeds"] = tuple(range(flags.FLAGS.seed, flags.FLAGS.seed + flags.FLAGS.seeds))
    # In this order, the validation images always among them.
    values["watch"] = tuple(name for name in ("train", "val", "test") if name in ("val", *values["watch"]))
    return Settings(**values)
