"""Many runs, seeds × configurations, trained side by side, epoch by epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from linear_cifar import config
from linear_cifar.config import Config
from linear_cifar.evaluation import Examples, Metrics, evaluate, mean
from linear_cifar.layout import OF_CONFIGS, OF_RUNS, Layout, lay_out
from linear_cifar.params import Params, init_params
from linear_cifar.schedules import Schedule
from linear_cifar.standardizer import Standardizer
from linear_cifar.training import Optimizer, Recipe, State, hyper_of, init_state, sgd, train_epoch

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


class Snapshot(NamedTuple):
    """All that S × C runs need to go on, with leading axes [S, C] in the order that was asked for.

    There is no random state in it: an epoch's keys follow from the seed and the epoch's number. `averaged`
    are the parameters that count: those of `state`, or their mean over the last epochs, where that was
    asked for.
    """

    number: int | Integer[np.ndarray, ""]  # of epochs done
    state: State
    averaged: Params


class Epoch(NamedTuple):
    """Where S × C runs stand after an epoch.

    `state` and `averaged`, see `Snapshot`, are at the layout's places.
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

    @property
    def snapshot(self) -> Snapshot:
        """What it takes to go on from here, as NumPy arrays."""
        return Snapshot(self.number, *self.layout.gather((self.state, self.averaged)))


def stream(seed: int, use: Stream) -> PRNGKeyArray:
    """The random key of one use of a seed."""
    return jax.random.fold_in(jax.random.key(seed), use)


def jax_params(seed: int, d: int, K: int, dtype: DTypeLike = jnp.float32) -> Params:
    """The parameters that a sweep starts from by itself, see `init_params`."""
    return init_params(stream(seed, Stream.INIT), d, K, dtype=dtype)


def begin(
    configs: Sequence[Config], seeds: Sequence[int], init: Initializer, optimizer: Optimizer = sgd
) -> Snapshot:
    """Where runs stand before their first epoch."""
    starts = [init(seed) for seed in seeds]
    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    state = init_state(start, hyper_of(configs, start.W.dtype), optimizer)
    return Snapshot(0, state, state.params)


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
    start: Snapshot | None = None,
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
      epochs: how many passes over the training examples, those before the snapshot included.
      seeds: the S seeds, each of weights, order and augmentation.
      init: parameters to start from, `jax_params` by default; their type is that of all arithmetic.
      devices: the runs are divided among; all local ones by default.
      schedule: of η over the epochs; constant by default.
      average: over how many of the last epochs' ends the parameters are averaged (Izmailov et al. 2018).
      start: an earlier sweep's snapshot to go on from, of the same configurations, seeds and settings: what
        follows is, on the same devices, to the bit what that sweep would have yielded. Instead of `init`.

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
    if start is None:
        init = init or partial(jax_params, d=d, K=train.targets.shape[1])
        start = begin(configs, seeds, init, recipe.optimizer)
    layout = _layout(configs, start.averaged, devices)
    hyper = layout.split(hyper_of([configs[i] for i in layout.order], start.averaged.W.dtype), OF_CONFIGS)
    state, averaged = layout.split(layout.arrange((start.state, start.averaged)), OF_RUNS)
    roots = jnp.stack([stream(seeds[i], Stream.EPOCH) for i in layout.seeds])
    train, watch, standardizer = layout.copy((train, dict(watch), standardizer))
    for number in range(int(start.number) + 1, epochs + 1):
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


def evaluate_runs(
    configs: Sequence[Config],
    params: Params,
    examples: Examples,
    standardizer: Standardizer,
    recipe: Recipe,
    devices: Sequence[jax.Device] | None = None,
) -> Metrics:
    """Metrics [S, C] of the runs of a sweep, measured where `sweep` trains them.

    Args:
      configs, standardizer, recipe, devices: as for `sweep`.
      params: W [S, C, K, d] and b [S, C, K].
      examples: what to measure on.
    """
    layout = _layout(configs, params, devices)
    params = layout.split(layout.arrange(params), OF_RUNS)
    examples, standardizer = layout.copy((examples, standardizer))
    return layout.gather(evaluate(params, examples, standardizer, recipe.loss, recipe.precision))


def _layout(configs: Sequence[Config], params: Params, devices: Sequence[jax.Device] | None) -> Layout:
    """Where runs of these parameters are trained."""
    S, _, K, d = params.W.shape
    nbytes = K * d * params.W.dtype.itemsize
    return lay_out([config.batch for config in configs], S, devices or jax.local_devices(), nbytes)


def _average(averaged: Params, params: Params, count: int) -> Params:
    """The mean of `count` parameters, from that of all but the last of them."""
    if count == 1:
        return params
    return jax.tree.map(lambda mean, new: mean + (new - mean) / count, averaged, params)


@jax.jit
def _norm(W: Float[Array, "S C K d"]) -> Float[Array, "S C"]:
    return jnp.sqrt(jnp.sum(W**2, axis=(-2, -1)))
