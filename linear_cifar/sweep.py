"""Many configurations trained side by side, epoch by epoch."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, PRNGKeyArray

from linear_cifar import config
from linear_cifar.config import Config
from linear_cifar.evaluation import Examples, Metrics, evaluate, mean
from linear_cifar.layout import Layout, lay_out
from linear_cifar.params import Params, init_params
from linear_cifar.schedules import Schedule
from linear_cifar.standardizer import Standardizer
from linear_cifar.training import Recipe, State, hyper_of, init_state, train_epoch


class Stream(IntEnum):
    """The independent uses of a seed."""

    INIT = 0
    EPOCH = 1


class Record(NamedTuple):
    """What is measured of C configurations in an epoch (stacked: in E epochs), as NumPy arrays.

    `train` is averaged over the epoch's batches, each before its update; `val` is of the parameters
    after the epoch; `finite` tells whether those and the training loss are.
    """

    train: Metrics
    val: Metrics
    finite: Bool[np.ndarray, "*epochs C"]


class Epoch(NamedTuple):
    """Where C configurations stand after an epoch."""

    number: int  # 1-based
    record: Record
    state: State  # of the configurations at the layout's places
    layout: Layout

    @property
    def params(self) -> Params:
        """W [C, K, d] and b [C, K] as NumPy arrays."""
        return self.layout.gather(self.state.params)


def stream(seed: int, use: Stream) -> PRNGKeyArray:
    """The random key of one use of a seed."""
    return jax.random.fold_in(jax.random.key(seed), use)


def sweep(
    configs: Sequence[Config],
    train: Examples,
    val: Examples,
    standardizer: Standardizer,
    recipe: Recipe,
    epochs: int,
    seed: int = 0,
    params: Params | None = None,
    devices: Sequence[jax.Device] | None = None,
    schedule: Schedule | None = None,
) -> Iterator[Epoch]:
    """Trains every configuration at once and yields after each epoch.

    Each run depends on its configuration and the seed alone, not on what runs beside it: all
    start from the same weights and see the same examples, augmented alike, in the same order.

    Args:
      configs: the C configurations, in any order; equal ones are allowed.
      train: n training examples.
      val: validation examples.
      standardizer: of the training features, see `fit_standardizer`.
      recipe: what the configurations share.
      epochs: how many passes over the training examples.
      seed: of weights, order and augmentation.
      params: W [K, d] and b [K] to start from instead; their type is that of all arithmetic
        (float32 by default).
      devices: the configurations are divided among; all local ones by default.
      schedule: of η over the epochs; constant by default.

    Raises:
      ValueError: when first iterated, if there are no configurations or one is out of range (a batch
        larger than n too).
    """
    n, d = train.features.shape
    if not configs:
        raise ValueError("a sweep needs at least one configuration")
    for one in configs:
        config.check(one, n)
    if params is None:
        params = init_params(stream(seed, Stream.INIT), d, train.targets.shape[1])
    layout = lay_out([one.batch for one in configs], devices or jax.local_devices(), params.W.nbytes)
    hyper = layout.split(hyper_of([configs[i] for i in layout.order], params.W.dtype))
    state = layout.split(init_state(params, hyper, recipe.optimizer))
    train, val, standardizer = layout.copy((train, val, standardizer))
    for number in range(1, epochs + 1):
        key = jax.random.fold_in(stream(seed, Stream.EPOCH), number)
        factor = schedule(number - 1) if schedule else 1.0
        now = hyper._replace(eta=hyper.eta * np.asarray(factor, hyper.eta.dtype))
        state, sums, finite = train_epoch(state, now, train, standardizer, key, layout, recipe)
        validation = evaluate(state.params, val, standardizer, recipe.loss, recipe.precision)
        record = layout.gather(Record(mean(sums, n), validation, finite))
        yield Epoch(number, record, state, layout)
