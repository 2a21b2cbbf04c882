"""One sweep from its data to its measurements; every experiment trains through here."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Bool, Integer

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


class Kept(NamedTuple):
    """The final parameters of R of S × C runs, as NumPy arrays."""

    seeds: Integer[np.ndarray, " R"]  # indices
    configs: Integer[np.ndarray, " R"]
    params: Params  # W [R, K, d], b [R, K]


class Run(NamedTuple):
    """What was measured of S seeds × C configurations over E epochs, as NumPy arrays.

    Losses are without the penalty, accuracies in [0, 1]; both are NaN from the epoch on at which
    a run left the finite.
    """

    variant: Variant
    dataset: Dataset
    history: Record  # [E, S, C]
    final: dict[str, Metrics]  # of each split [S, C], of the final parameters, on images as they are
    kept: Kept  # all runs', or the best ones'
    standardizer: Standardizer

    @property
    def params(self) -> Params:
        """The final parameters, W [S, C, K, d] and b [S, C, K], where all are kept."""
        shape = self.final["val"].loss.shape
        assert len(self.kept.seeds) == math.prod(shape), "not all parameters are kept"
        order = np.lexsort((self.kept.configs, self.kept.seeds))
        return jax.tree.map(lambda leaf: leaf[order].reshape(*shape, *leaf.shape[1:]), self.kept.params)

    def params_of(self, seed: int, config: int) -> Params:
        """Those of one run that are kept, W [K, d] and b [K]; by indices."""
        (place,) = np.flatnonzero((self.kept.seeds == seed) & (self.kept.configs == config))
        return jax.tree.map(lambda leaf: leaf[place], self.kept.params)

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

    def best_seed(self, config: int) -> int:
        """The index of the seed with which a configuration, by index, is best by validation accuracy."""
        return int(np.nan_to_num(self.final["val"].accuracy[:, config], nan=-1).argmax())

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


class Outcome(NamedTuple):
    """What is left of a finished block whose state is not kept."""

    history: Record  # as a run has it
    final: dict[str, Metrics]
    kept: Kept


def standing_of(block: Variant, d: int, K: int) -> Callable[[int], Standing]:
    """Shapes and types of where a block stands after so many epochs, of d features and K classes."""
    settings, configs = block.settings, block.configs
    begun = partial(
        begin, configs, settings.seeds, settings.initializer(d, K), settings.recipe(configs).optimizer
    )
    snapshot = jax.eval_shape(begun)

    def after(epochs: int) -> Standing:
        number: Any = jax.ShapeDtypeStruct((), np.int64)
        finished: Any = jax.ShapeDtypeStruct((), np.bool_)
        return Standing(snapshot._replace(number=number), *_measured(block, epochs), finished)

    return after


def outcome_of(block: Variant, d: int, K: int, kept: int) -> Callable[[int], Outcome]:
    """Shapes and types of what is left of a block after so many epochs, with the parameters of some runs."""
    dtype = np.dtype(block.settings.dtype)

    def after(epochs: int) -> Outcome:
        index: Any = jax.ShapeDtypeStruct((kept,), np.int64)
        W: Any = jax.ShapeDtypeStruct((kept, K, d), dtype)
        b: Any = jax.ShapeDtypeStruct((kept, K), dtype)
        return Outcome(*_measured(block, epochs), Kept(index, index, Params(W, b)))

    return after


def _measured(block: Variant, epochs: int) -> tuple[Record, dict[str, Metrics]]:
    """Shapes and types of a history and of the final metrics."""
    runs = (len(block.settings.seeds), len(block.configs))

    def array(shape: tuple[int, ...], dtype: DTypeLike = block.settings.dtype) -> Any:
        return jax.ShapeDtypeStruct(shape, np.dtype(dtype))

    each, last = array((epochs, *runs)), array(runs)
    watched = {name: Metrics(each, each) for name in block.settings.watch}
    history = Record(Metrics(each, each), watched, each, array((epochs, *runs), np.bool_))
    return history, {name: Metrics(last, last) for name in SPLITS}


def run(
    block: Variant,
    dataset: Dataset,
    saved: Standing | None = None,
    save: Callable[[Standing], None] = lambda standing: None,
    due: Callable[[int], bool] = lambda epoch: False,
    stopped: Callable[[], bool] = lambda: False,
    advance: Callable[[str], None] = lambda remark: None,
) -> Run:
    """Trains the block's configurations and measures them on all three splits.

    Args:
      block: what to train.
      dataset: on what.
      saved: where the same block stood, to go on from.
      save: keeps where it stands: when that is due, when it is stopped, and at the end.
      due: whether to save after this epoch.
      stopped: asked after every epoch whether to end with that one.
      advance: told after every epoch how good the best is.
    """
    standardizer = fit_standardizer(dataset.train.images)
    if saved is None or not saved.finished or saved.snapshot.number < block.settings.epochs:
        saved = _train(block, dataset, standardizer, saved, save, due, stopped, advance)
    history = saved.history
    finite = history.finite
    if block.settings.max_loss is not None:
        finite = finite & (history.running.loss <= block.settings.max_loss)
    # A sum of losses may overflow in one epoch and not in the next: what has left does not come back.
    finite = np.logical_and.accumulate(finite, axis=0)
    running, watched, norm = _mask((history.running, history.watched, history.norm), finite)
    seeds, places = (index.reshape(-1) for index in np.indices(finite.shape[1:]))
    kept = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), saved.snapshot.averaged)
    return Run(
        block,
        dataset,
        Record(running, watched, norm, finite),
        _mask(saved.final, finite[-1]),
        Kept(seeds, places, kept),
        standardizer,
    )


def condense(run: Run, number: int) -> Run:
    """The run with no more parameters than those of the best seed of each of the best configurations."""
    configs = np.asarray(run.ranking[:number])
    seeds = np.asarray([run.best_seed(c) for c in configs])
    chosen = [run.params_of(s, c) for s, c in zip(seeds, configs, strict=True)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)
    return run._replace(kept=Kept(seeds, configs, params))


def recall(block: Variant, dataset: Dataset, outcome: Outcome) -> Run:
    """The run of a block that was finished before."""
    return Run(block, dataset, *outcome, fit_standardizer(dataset.train.images))


def _train(
    block: Variant,
    dataset: Dataset,
    standardizer: Standardizer,
    saved: Standing | None,
    save: Callable[[Standing], None],
    due: Callable[[int], bool],
    stopped: Callable[[], bool],
    advance: Callable[[str], None],
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
