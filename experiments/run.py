"""One sweep from its data to its measurements; every experiment trains through here."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Bool

from experiments.progress import epochs_bar
from experiments.settings import Settings, Variant
from linear_cifar.comparison import rank
from linear_cifar.config import Config
from linear_cifar.dataset import Dataset
from linear_cifar.evaluation import Metrics, examples
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, fit_standardizer
from linear_cifar.sweep import Record, Snapshot, begin, evaluate_runs, sweep

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
    def epochs(self) -> int:
        """How many there were: all of them, unless the training was stopped."""
        return len(self.history.finite)

    @property
    def complete(self) -> bool:
        """Whether there were all epochs."""
        return self.epochs == self.settings.epochs

    @property
    def ranking(self) -> list[int]:
        """Indices of the configurations, best first, see `rank`."""
        return rank(*self.final["val"])

    def diverged(self, seed: int, config: int) -> int | None:
        """The epoch (1-based) at which that run left the finite, if it did; by indices."""
        alive = self.history.finite[:, seed, config]
        return None if alive.all() else 1 + int(np.argmin(alive))


class Standing(NamedTuple):
    """How far the runs of a block have come: what is saved of it."""

    snapshot: Snapshot
    history: Record  # [E, S, C] of the epochs so far, as measured
    final: dict[str, Metrics]  # of each split [S, C]; NaN before the end
    finished: Bool[np.ndarray, ""]


def standing_of(block: Variant, d: int, K: int) -> Callable[[int], Standing]:
    """Shapes and types of where a block stands after so many epochs, of d features and K classes."""
    settings, configs = block.settings, block.configs
    begun = partial(
        begin, configs, settings.seeds, settings.initializer(d, K), settings.recipe(configs).optimizer
    )
    snapshot = jax.eval_shape(begun)
    runs = (len(settings.seeds), len(configs))

    def after(epochs: int) -> Standing:
        def array(shape: tuple[int, ...], dtype: DTypeLike = snapshot.averaged.W.dtype) -> Any:
            return jax.ShapeDtypeStruct(shape, dtype)

        each, last = array((epochs, *runs)), array(runs)
        watched = {name: Metrics(each, each) for name in settings.watch}
        return Standing(
            snapshot._replace(number=array((), np.int64)),
            Record(Metrics(each, each), watched, each, array((epochs, *runs), np.bool_)),
            {name: Metrics(last, last) for name in SPLITS},
            array((), np.bool_),
        )

    return after


def run(
    block: Variant,
    dataset: Dataset,
    saved: Standing | None = None,
    save: Callable[[Standing], None] = lambda standing: None,
    due: Callable[[int], bool] = lambda epoch: False,
    stopped: Callable[[], bool] = lambda: False,
) -> Run:
    """Trains the block's configurations under a progress bar and measures them on all three splits.

    Args:
      block: what to train.
      dataset: on what.
      saved: where the same block stood, to go on from.
      save: keeps where it stands: when that is due, when it is stopped, and at the end.
      due: whether to save after this epoch.
      stopped: asked after every epoch whether to end with that one.
    """
    standardizer = fit_standardizer(dataset.train.images)
    if saved is None or not saved.finished or saved.snapshot.number < block.settings.epochs:
        saved = _train(block, dataset, standardizer, saved, save, due, stopped)
    history = saved.history
    finite = history.finite
    if block.settings.max_loss is not None:
        finite = finite & (history.running.loss <= block.settings.max_loss)
    # A sum of losses may overflow in one epoch and not in the next: what has left does not come back.
    finite = np.logical_and.accumulate(finite, axis=0)
    running, watched, norm = _mask((history.running, history.watched, history.norm), finite)
    return Run(
        block,
        dataset,
        Record(running, watched, norm, finite),
        _mask(saved.final, finite[-1]),
        saved.snapshot.averaged,
        standardizer,
    )


def _train(
    block: Variant,
    dataset: Dataset,
    standardizer: Standardizer,
    saved: Standing | None,
    save: Callable[[Standing], None],
    due: Callable[[int], bool],
    stopped: Callable[[], bool],
) -> Standing:
    """Where the runs stand after their last epoch, or after the one in which they were stopped."""
    settings, configs = block.settings, block.configs
    d, K = dataset.train.images.shape[1], len(dataset.classes)
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    splits = {name: examples(part.images, part.labels, K) for name, part in parts.items()}
    recipe = settings.recipe(configs)
    records = []
    start = begin(configs, settings.seeds, settings.initializer(d, K), recipe.optimizer)
    if saved is not None:
        records, start = [saved.history], saved.snapshot
    unknown = np.full((len(settings.seeds), len(configs)), np.nan, settings.dtype)

    def standing(snapshot: Snapshot, final: dict[str, Metrics], finished: bool) -> Standing:
        history = jax.tree.map(lambda *values: np.concatenate(values), *records)
        number = np.asarray(snapshot.number, np.int64)
        return Standing(snapshot._replace(number=number), history, final, np.asarray(finished))

    def measure(snapshot: Snapshot, name: str) -> Metrics:
        if name in settings.watch:
            return jax.tree.map(lambda values: values[-1], records[-1].watched[name])
        return evaluate_runs(configs, snapshot.averaged, splits[name], standardizer, recipe)

    epoch = None
    epochs = sweep(
        configs,
        splits["train"],
        {name: splits[name] for name in settings.watch},
        standardizer,
        recipe,
        settings.epochs,
        settings.seeds,
        schedule=settings.eta_factor(),
        average=settings.average,
        start=start,
    )
    if saved is not None and stopped():  # already: the runs stay where they stood
        epochs = iter(())
    with epochs_bar(
        settings.epochs, f"{dataset.name}, {block.name}: {size_of(block)}", int(start.number)
    ) as advance:
        for epoch in epochs:
            records.append(jax.tree.map(lambda values: values[None], epoch.record))
            advance(f"best val acc {max(map(_best_accuracy, records)):.2%}")
            stop, last = stopped(), epoch.number == settings.epochs
            if not last and (stop or due(epoch.number)):
                save(standing(epoch.snapshot, {name: Metrics(unknown, unknown) for name in SPLITS}, False))
            if stop:
                break
    snapshot = start if epoch is None else epoch.snapshot
    final = {name: measure(snapshot, name) for name in SPLITS}
    ended = standing(snapshot, final, snapshot.number == settings.epochs)
    if ended.finished:
        save(ended)
    return ended


def size_of(block: Variant) -> str:
    """How many runs it has, in words."""
    configs, seeds = len(block.configs), len(block.settings.seeds)
    return f"{configs} configuration" + "s" * (configs > 1) + f" x {seeds} seeds" * (seeds > 1)


def _best_accuracy(record: Record) -> float:
    return float(np.max(record.watched["val"].accuracy, where=record.finite, initial=0))


def _mask(tree: Tree, finite: Bool[np.ndarray, "*shape"]) -> Tree:
    """NaN where not finite: the predictions of such parameters mean nothing."""
    return jax.tree.map(lambda values: np.where(finite, values, np.nan).astype(values.dtype), tree)
