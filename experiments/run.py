"""One sweep from its data to its measurements; every experiment trains through here."""

from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.progress import epochs_bar
from experiments.settings import Settings, Variant
from linear_cifar.config import Config
from linear_cifar.dataset import Dataset
from linear_cifar.evaluation import Metrics, evaluate, examples
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, fit_standardizer
from linear_cifar.sweep import Record, sweep

Tree = TypeVar("Tree")

SPLITS = ("train", "val", "test")


class Run(NamedTuple):
    """What was measured of S seeds × C configurations over E epochs, as NumPy arrays.

    Losses are without the penalty, accuracies in [0, 1]; both are NaN from the epoch on at which
    a run left the finite.
    """

    variant: Variant
    dataset: Dataset
    history: Record  # [E, S, C]
    final: dict[str, Metrics]  # of each split [S, C], of the final parameters, on images as they are
    params: Params  # W [S, C, K, d], b [S, C, K], final
    standardizer: Standardizer

    @property
    def configs(self) -> tuple[Config, ...]:
        """The C configurations."""
        return self.variant.configs

    @property
    def settings(self) -> Settings:
        """What they share."""
        return self.variant.settings

    @property
    def ended(self) -> Bool[np.ndarray, " C"]:
        """Which configurations stayed finite from every seed."""
        return self.history.finite[-1].all(axis=0)

    @property
    def ranking(self) -> list[int]:
        """Indices of the configurations, best first, see `rank`."""
        return rank(*self.final["val"])

    def diverged(self, seed: int, config: int) -> int | None:
        """The epoch (1-based) at which that run left the finite, if it did; by indices."""
        alive = self.history.finite[:, seed, config]
        return None if alive.all() else 1 + int(np.argmin(alive))


def run(variant: Variant, dataset: Dataset) -> Run:
    """Trains the variant's configurations under a progress bar and measures them on all three splits."""
    settings, configs = variant.settings, variant.configs
    standardizer = fit_standardizer(dataset.train.images)
    d, K = dataset.train.images.shape[1], len(dataset.classes)
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    splits = {name: examples(part.images, part.labels, K) for name, part in parts.items()}
    recipe = settings.recipe(configs)
    records = []
    best = 0.0
    runs = f"{len(configs)} configurations" + f" x {len(settings.seeds)} seeds" * (len(settings.seeds) > 1)
    with epochs_bar(settings.epochs, f"{dataset.name}, {variant.name}: {runs}") as advance:
        for epoch in sweep(
            configs,
            splits["train"],
            {name: splits[name] for name in settings.watch},
            standardizer,
            recipe,
            settings.epochs,
            settings.seeds,
            settings.initializer(d, K),
            schedule=settings.eta_factor(),
            average=settings.average,
        ):
            records.append(epoch.record)
            best = max(best, *np.where(epoch.record.finite, epoch.record.watched["val"].accuracy, 0).flat)
            advance(f"best val acc {best:.2%}")
    history = jax.tree.map(lambda *values: np.stack(values), *records)
    # A sum of losses may overflow in one epoch and not in the next: what has left does not come back.
    finite = np.logical_and.accumulate(history.finite, axis=0)
    running, watched, norm = _mask((history.running, history.watched, history.norm), finite)

    def measure(name: str) -> Metrics:
        if name in watched:
            return jax.tree.map(lambda values: values[-1], watched[name])
        split = epoch.layout.copy(splits[name])
        measured = evaluate(epoch.averaged, split, standardizer, recipe.loss, recipe.precision)
        return _mask(epoch.layout.gather(measured), finite[-1])

    return Run(
        variant,
        dataset,
        Record(running, watched, norm, finite),
        {name: measure(name) for name in SPLITS},
        epoch.params,
        standardizer,
    )


def rank(loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]) -> list[int]:
    """Indices of C configurations, best first: by mean accuracy over seeds, then mean loss; diverged last."""
    mean_loss, mean_accuracy = (np.asarray(values, np.float64).mean(axis=0) for values in (loss, accuracy))
    keys = np.nan_to_num(mean_loss, nan=np.inf), -np.nan_to_num(mean_accuracy, nan=-1)
    return [int(i) for i in np.lexsort(keys)]


def _mask(tree: Tree, finite: Bool[np.ndarray, "*shape"]) -> Tree:
    """NaN where not finite: the predictions of such parameters mean nothing."""
    return jax.tree.map(lambda values: np.where(finite, values, np.nan).astype(values.dtype), tree)
