"""One sweep from its data to its measurements; every experiment trains through here."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from experiments.progress import epochs_bar
from linear_cifar.config import Config
from linear_cifar.dataset import Dataset
from linear_cifar.evaluation import Examples, Metrics, evaluate, examples
from linear_cifar.params import Params
from linear_cifar.schedules import Schedule
from linear_cifar.standardizer import Standardizer, fit_standardizer
from linear_cifar.sweep import Record, sweep
from linear_cifar.training import Recipe


class Run(NamedTuple):
    """What was measured of C configurations over E epochs, as NumPy arrays.

    Losses are without the penalty, accuracies in [0, 1]; both are NaN from the epoch on at which
    a configuration left the finite.
    """

    configs: tuple[Config, ...]
    seed: int
    history: Record  # [E, C]
    train: Metrics  # [C], of the final parameters, on images that are not augmented
    val: Metrics  # [C]
    test: Metrics  # [C]
    params: Params  # W [C, K, d], b [C, K], final
    standardizer: Standardizer

    @property
    def diverged(self) -> list[int | None]:
        """The epoch (1-based) at which each configuration left the finite, if it did."""
        return [None if all(alive) else 1 + int(np.argmin(alive)) for alive in self.history.finite.T]

    @property
    def ranking(self) -> list[int]:
        """Indices of the configurations, best first: by validation accuracy, then loss; diverged last."""
        accuracy, loss = np.nan_to_num(self.val.accuracy, nan=-1), np.nan_to_num(self.val.loss, nan=np.inf)
        return [int(i) for i in np.lexsort((loss, -accuracy))]


def run(
    configs: Sequence[Config],
    dataset: Dataset,
    recipe: Recipe,
    epochs: int,
    seed: int,
    schedule: Schedule | None = None,
) -> Run:
    """Trains the configurations under a progress bar and measures them on all three splits."""
    standardizer = fit_standardizer(dataset.train.images)
    splits = (dataset.train, dataset.val, dataset.test)
    train, val, test = (examples(split.images, split.labels, len(dataset.classes)) for split in splits)
    records = []
    best = 0.0
    title = f"{dataset.name}: {len(configs)} configurations"
    with epochs_bar(epochs, title) as advance:
        for epoch in sweep(configs, train, val, standardizer, recipe, epochs, seed, schedule=schedule):
            records.append(epoch.record)
            best = max(best, *np.where(epoch.record.finite, epoch.record.val.accuracy, 0))
            advance(f"best val acc {best:.2%}")
    history = jax.tree.map(lambda *values: np.stack(values), *records)
    # A sum of losses may overflow in one epoch and not in the next: what has left does not come back.
    history = history._replace(finite=np.logical_and.accumulate(history.finite, axis=0))

    def measure(split: Examples) -> Metrics:
        split = epoch.layout.copy(split)
        measured = evaluate(epoch.state.params, split, standardizer, recipe.loss, recipe.precision)
        return _mask(epoch.layout.gather(measured), history.finite[-1])

    return Run(
        tuple(configs),
        seed,
        history._replace(train=_mask(history.train, history.finite), val=_mask(history.val, history.finite)),
        train=measure(train),
        val=measure(val),
        test=measure(test),
        params=epoch.params,
        standardizer=standardizer,
    )


def _mask(metrics: Metrics, finite: Bool[np.ndarray, "*shape"]) -> Metrics:
    """NaN where not finite: the predictions of such parameters mean nothing."""
    return jax.tree.map(lambda values: np.where(finite, values, np.nan).astype(values.dtype), metrics)
