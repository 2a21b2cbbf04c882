"""Many runs, seeds × configurations, trained side by side, epoch by epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from linear_cifar import config
from linear_cifar.config import Config
from linear_cifar.evaluation import Examples, Metrics, evaluate, mean
from linear_cifar.layout import OF_CONFIGS, OF_RUNS, Layout, lay_out
from linear_cifar.params import Params, init_params
from linear_cifar.schedules import Schedule
from linear_cifar.standardizer import Standardizer
from linear_cifar.training import Recipe, State, hyper_of, init_state, train_epoch

# W [K, d] and b [K] to start from, by the seed.
Initializer = Callable[[int], Params]


class Stream(IntEnum):
    """The independent uses of a seed."""

    INIT = 0
    EPOCH = 1


class Record(NamedTuple):
    """What is measured in an epoch of S seeds × C configurations (stacked: in E epochs), as NumPy arrays.

    `running` is averaged over the epoch's batches, each before its update; `watched` are of the
    parameters after the epoch, by the name of the examples; `norm` is their ‖W‖ (Frobenius); `finite` tells
    whether the parameters and the running loss are.
    """

    running: Metrics
    watched: dict[str, Metrics]
    norm: Float[np.ndarray, "*epochs S C"]
    finite: Bool[np.ndarray, "*epochs S C"]


class Epoch(NamedTuple):
    """Where S × C runs stand after an epoch.

    `averaged` are the parameters that count: those of `state`, or their mean over the last epochs, where
    that was asked for. Both are at the layout's places.
    """

    number: int  # 1-based
    record: Record
    state: State
    averaged: Params
    layout: Layout

    @property
    def params(self) -> Params:
        """The parameters that count, W [S, C, K, d] and b [S, C, K], as NumPy arrays."""
        return self.layout.gather(self.averaged)


def stream(seed: int, use: Stream) -> PRNGKeyArray:
    """The random key of one use of a seed."""
    return jax.random.fold_in(jax.random.key(seed), use)


def jax_params(seed: int, d: int, K: int, dtype: DTypeLike = jnp.float32) -> Params:
    """The parameters that a sweep starts from by itself, see `init_params`."""
    return init_params(stream(seed, Stream.INIT), d, K, dtype=dtype)


def sweep(
    configs: Sequence[Config],
    train: Examples,
    watch: Mapping[str, Examples],
    standardizer: Standardizer,
    recipe: Recipe,
    epochs: int,
    seeds: Sequence[int] = (0,),
    init: Initializer | None = None,
    devices: Sequence[jax.Device] | None = None,
    schedule: Schedule | None = None,
    average: int = 1,
) -> Iterator[Epoch]:
    """Trains every configuration from every seed at once and yields after each epoch.

    Each run depends on its configuration and seed alone, not on what runs beside it: all configurations
    of a seed start from the same weights and see the same examples, augmented alike, in the same order.

    Args:
      configs: the C configurations, in any order; equal ones are allowed.
      train: n training examples.
      watch: what to evaluate after every epoch, by name: validation examples, say.
      standardizer: of the training features, see `fit_standardizer`.
      recipe: what all runs share.
      epochs: how many passes over the training examples.
      seeds: the S seeds, each of weights, order and augmentation.
      init: parameters to start from, `jax_params` by default; their type is that of all arithmetic.
      devices: the runs are divided among; all local ones by default.
      schedule: of η over the epochs; constant by default.
      average: over how many of the last epochs' ends the parameters are averaged (Izmailov et al. 2018).

    Raises:
      ValueError: when first iterated, if there are no configurations or seeds, or a configuration is out of
        range (a batch larger than n too), or `average` is.
    """
    n, d = train.features.shape
    if not configs or not seeds:
        raise ValueError("a sweep needs at least one configuration and one seed")
    if not 1 <= average <= epochs:
        raise ValueError(f"average is {average}: give a number of epochs from 1 to {epochs}")
    for one in configs:
        config.check(one, n)
    init = init or partial(jax_params, d=d, K=train.targets.shape[1])
    starts = [init(seed) for seed in seeds]
    W, _ = starts[0]
    layout = lay_out([one.batch for one in configs], len(seeds), devices or jax.local_devices(), W.nbytes)
    hyper = layout.split(hyper_of([configs[i] for i in layout.order], W.dtype), OF_CONFIGS)
    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(starts[i] for i in layout.seeds))
    state = layout.split(init_state(start, hyper, recipe.optimizer), OF_RUNS)
    roots = jnp.stack([stream(seeds[i], Stream.EPOCH) for i in layout.seeds])
    train, watch, standardizer = layout.copy((train, dict(watch), standardizer))
    averaged = state.params
    for number in range(1, epochs + 1):
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(roots, number)
        factor = schedule(number - 1) if schedule else 1.0
        now = hyper._replace(eta=hyper.eta * np.asarray(factor, hyper.eta.dtype))
        state, sums, finite = train_epoch(state, now, train, standardizer, keys, layout, recipe)
        averaged = _average(averaged, state.params, max(1, number - epochs + average))
        watched = {
            name: evaluate(averaged, examples, standardizer, recipe.loss, recipe.precision)
            for name, examples in watch.items()
        }
        record = layout.gather(Record(mean(sums, n), watched, _norm(averaged.W), finite))
        yield Epoch(number, record, state, averaged, layout)


def _average(averaged: Params, params: Params, count: int) -> Params:
    """The mean of `count` parameters, from that of all but the last of them."""
    if count == 1:
        return params
    return jax.tree.map(lambda mean, new: mean + (new - mean) / count, averaged, params)


@jax.jit
def _norm(W: Float[Array, "S C K d"]) -> Float[Array, "S C"]:
    return jnp.sqrt(jnp.sum(W**2, axis=(-2, -1)))
