"""The flags that the experiments share. Each is checked as it is parsed, before anything is loaded."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from experiments.hosts import define_hosts
from experiments.recipes import RECIPES, define_recipe
from experiments.settings import INITS, PRECISIONS
from linear_cifar.config import Config, check, grid
from linear_cifar.losses import LOSSES
from linear_cifar.schedules import SCHEDULES

FLAGS = flags.FLAGS

# What is defined below belongs to the experiment that calls for it, and stands in its --help.
flags.disclaim_key_flags()


class _ListParser(flags.ArgumentParser):
    """A comma-separated list, or one item, each checked as fields of a configuration."""

    def __init__(self, read: Callable[[str], Any], fields: tuple[str, ...], expected: str) -> None:
        self.read, self.fields, self.expected = read, fields, expected
        self.syntactic_help = expected

    def parse(self, argument: str | Sequence[Any]) -> tuple[Any, ...]:
        try:
            items = tuple(map(self.read, argument.split(","))) if isinstance(argument, str) else argument
            values = [item if isinstance(item, tuple) else (item,) for item in items]
            settings = [dict(zip(self.fields, value, strict=True)) for value in values]
        except ValueError:
            raise ValueError(f"expected {self.expected}") from None
        for one in settings:
            check(Config(**({"eta": 0, "batch": 1, "lam": 0} | one)))
        return tuple(items)

    def flag_type(self) -> str:
        return "values"


class _ListSerializer(flags.ArgumentSerializer):
    def serialize(self, value: Sequence[Any]) -> str:
        return ",".join(":".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value)


def _define_list(name: str, default: Sequence[Any], help: str, **parser: Any) -> None:
    flags.DEFINE(_ListParser(**parser), name, tuple(default), help, serializer=_ListSerializer())


def define_axis(field: str, number: type[int] | type[float], default: Sequence[float], help: str) -> None:
    """Defines a flag of that name for an axis of a sweep: one value or several."""
    kind = "whole numbers" if number is int else "numbers"
    _define_list(field, default, help, read=number, fields=(field,), expected=f"{kind} separated by commas")


def define_pairs(name: str, default: Sequence[tuple[float, float]], help: str) -> None:
    """Defines a flag of pairs η:λ."""

    def read(word: str) -> tuple[float, ...]:
        return tuple(float(part) for part in word.split(":"))

    expected = "pairs eta:lam separated by commas"
    _define_list(name, default, help, read=read, fields=("eta", "lam"), expected=expected)


def define_grid(eta: Sequence[float], batch: Sequence[int], lam: Sequence[float]) -> None:
    """Defines an axis for each setting of a configuration; the arguments are this experiment's defaults."""
    define_axis("eta", float, eta, "learning rate η")
    define_axis("batch", int, batch, "mini-batch size")
    define_axis("lam", float, lam, "L2 strength λ")
    define_axis("q", float, (0.0,), "power of the loss: 0 is cross-entropy, 1 the mean absolute error")
    define_axis("momentum", float, (0.0,), "of the descent")


def grid_of_flags() -> tuple[Config, ...]:
    """The configurations that the axes of `define_grid` span."""
    return grid(FLAGS.eta, FLAGS.batch, FLAGS.lam, FLAGS.q, FLAGS.momentum)


def define_run(
    *,
    epochs: int,
    train: str,
    flip: bool,
    seeds: int = 1,
    watch: Sequence[str] = (),
    recipes: Sequence[str] = tuple(RECIPES),
    fixed: Sequence[str] = (),
) -> None:
    """Defines what every training experiment has; the arguments are this experiment's defaults.

    Args:
      epochs, train, flip, seeds, watch: values of those flags.
      recipes: which ones make sense here.
      fixed: flags that this experiment lacks, since it sets what they say by itself.
    """
    define_recipe(recipes)
    flags.DEFINE_integer("epochs", epochs, "passes over the training images", lower_bound=1)
    flags.DEFINE_enum(
        "loss", "softmax", list(LOSSES), "softmax cross-entropy or multiple binary cross-entropy"
    )
    flags.DEFINE_bool("flip", flip, "mirror each training image with probability 0.5, anew every epoch")
    flags.DEFINE_integer(
        "shift",
        0,
        "move each training image by up to so many pixels, anew every epoch",
        lower_bound=0,
        upper_bound=31,
    )
    flags.DEFINE_enum(
        "schedule",
        "constant",
        list(SCHEDULES),
        "of η over the epochs: cosine falls to almost nothing, step to a tenth after half of them and a "
        "hundredth after three quarters",
    )
    flags.DEFINE_integer(
        "average", 1, "over how many of the last epochs' ends the weights are averaged", lower_bound=1
    )
    flags.DEFINE_float(
        "max_loss",
        None,
        "a run whose mean training loss of an epoch is higher counts as diverged (default: only one whose "
        "numbers are no longer finite)",
        lower_bound=0,
    )
    flags.register_validator(
        "max_loss", lambda loss: loss is None or math.isfinite(loss), "give a number that is finite"
    )
    flags.DEFINE_bool("shuffle", True, "take the training images in a new order every epoch")
    flags.DEFINE_enum("init", "jax", list(INITS), "whose random numbers are the initial weights")
    flags.DEFINE_enum("dtype", "float32", ["float32", "float64"], "of all arithmetic")
    flags.DEFINE_enum(
        "train",
        train,
        ["full", "batch1"],
        "images to train on: all 50,000 less a validation split at their end, or data_batch_1 with "
        "data_batch_2 for validation",
    )
    flags.DEFINE_integer(
        "val_size", 1_000, "validation images with --train=full", lower_bound=1, upper_bound=49_999
    )
    flags.DEFINE_list("watch", list(watch), "train, test: measure these too after every epoch")
    flags.register_validator(
        "watch",
        lambda names: set(names) <= {"train", "val", "test"},
        "name some of train, val and test",
    )
    flags.DEFINE_integer(
        "seed", 0, "the first seed, of weights, order, flips and shifts", lower_bound=0, upper_bound=2**31
    )
    flags.DEFINE_integer(
        "seeds", seeds, "how many seeds, one after the other", lower_bound=1, upper_bound=1_000_000
    )
    define_data()
    flags.DEFINE_enum(
        "precision",
        "float32",
        list(PRECISIONS),
        "of matrix products on accelerators; CPUs always use float32",
    )
    flags.DEFINE_string(
        "out",
        None,
        "folder for the results (default: results/<experiment>/<time>); a run that is there is gone on with, "
        "or extended by more seeds, epochs or configurations",
    )
    flags.DEFINE_integer(
        "save_every",
        None,
        "epochs from one save of the state to the next (default: so that saving takes 2 % of the time)",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "block_runs",
        None,
        "runs trained at a time, the rest after them (default: as many as fit the memory)",
        lower_bound=1,
    )
    define_hosts()
    for name in fixed:
        delattr(FLAGS, name)


def define_data(dataset: str = "auto") -> None:
    """Defines where the images come from; `dataset` is the default."""
    flags.DEFINE_enum(
        "dataset",
        dataset,
        ["auto", "cifar10", "synthetic"],
        "cifar10: a local copy or a download, else an error; synthetic: made-up images of the same "
        "shapes; auto: cifar10 where it can be had, else synthetic with a banner that says so",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder with CIFAR-10 in any of its published layouts, or to download it to "
        "(default: $TFDS_DATA_DIR, else tensorflow-datasets' own)",
    )
