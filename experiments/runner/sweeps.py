"""A sweep of an experiment, and what was measured of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from experiments.runner.data import PreparedData, ReplicateName
from experiments.runner.settings import Settings
from linear_cifar.comparison import rank
from linear_cifar.config import Config
from linear_cifar.data.dataset import Dataset
from linear_cifar.engine import EpochMetrics
from linear_cifar.evaluation import Metrics
from linear_cifar.fitting import SavedParams
from linear_cifar.params import Params
from linear_cifar.uncertainty import unpack_correct

# The splits that are not trained on; there is not always a test split.
HELD_OUT = ("val", "test")


class Sweep(NamedTuple):
    """A named sweep of an experiment, or a block of one: configurations trained with the same settings."""

    name: str
    settings: Settings
    replicates: tuple[ReplicateName, ...]
    configs: tuple[Config, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(dict.fromkeys(replicate.seed for replicate in self.replicates))

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of replicates and configurations."""
        return len(self.replicates), len(self.configs)

    @property
    def num_runs(self) -> int:
        """The number of runs: replicates times configurations."""
        return math.prod(self.size)

    def describe_size(self) -> str:
        """Return the size in words, such as "48 configurations x 3 seeds x 5 folds"."""
        replicates, configs = self.size
        seeds, folds = len(self.seeds), self.settings.folds
        words = f"{configs} configuration" + "s" * (configs > 1)
        if folds and replicates < seeds * folds:  # a block of some of the folds
            return f"{words} x {replicates} of the folds"
        return words + f" x {seeds} seeds" * (seeds > 1) + f" x {folds} folds" * (folds > 0)


def name_replicates(seeds: Sequence[int], folds: int) -> tuple[ReplicateName, ...]:
    """Return the replicates of these seeds: one per seed, or one per seed and fold."""
    if not folds:
        return tuple(map(ReplicateName, seeds))
    return tuple(ReplicateName(seed, fold) for seed in seeds for fold in range(folds))


class SweepResult(NamedTuple):
    """Measurements of R replicates × C configurations over E epochs, as NumPy arrays.

    Losses are without the penalty, accuracies in [0, 1]. Both are NaN from the epoch in which a run diverged,
    and after halving stopped it. `final` are the metrics after a run's last epoch. If a run was stopped, the
    splits that are not measured after every epoch are NaN there, and so are its class accuracies.
    """

    sweep: Sweep
    data: PreparedData
    history: EpochMetrics  # [E, R, C]
    final: dict[str, Metrics]  # of each split [R, C], of the final parameters, without augmentation
    class_accuracy: dict[str, Float[np.ndarray, "R C"]]  # mean accuracy per class of each split held out
    correct: dict[str, UInt8[np.ndarray, "R C bytes"]]  # packed: which examples held out are predicted right
    stopped: Int[np.ndarray, "R C"]  # epoch after which halving stopped a run; 0: it did not
    saved: SavedParams  # of all runs, or of the best ones

    @property
    def dataset(self) -> Dataset:
        """The data set, divided."""
        return self.data.dataset

    @property
    def configs(self) -> tuple[Config, ...]:
        """The C configurations."""
        return self.sweep.configs

    @property
    def settings(self) -> Settings:
        """The settings they share."""
        return self.sweep.settings

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits: train, and those of val and test that there are."""
        return tuple(self.data.splits)

    @property
    def params(self) -> Params:
        """The final parameters W [R, C, K, d] and b [R, C, K]; only where those of all runs are saved."""
        shape = self.sweep.size
        assert len(self.saved.replicates) == math.prod(shape), "not all parameters are saved"
        order = np.lexsort((self.saved.configs, self.saved.replicates))
        return jax.tree.map(lambda leaf: leaf[order].reshape(*shape, *leaf.shape[1:]), self.saved.params)

    def params_of(self, replicate: int, config: int) -> Params:
        """Return the saved W [K, d] and b [K] of a run, by the indices of its replicate and configuration."""
        found = self.saved.find(replicate, config)
        assert found is not None, "the parameters of this run are not saved"
        return found

    @property
    def stayed_finite(self) -> Bool[np.ndarray, " C"]:
        """For each configuration, True if it diverged in no replicate."""
        return self.history.finite[-1].all(axis=0)

    @property
    def epochs(self) -> int:
        """The number of epochs trained: all of them, unless training was stopped."""
        return len(self.history.finite)

    @property
    def complete(self) -> bool:
        """True if all epochs were trained."""
        return self.epochs == self.settings.epochs

    @property
    def ranking(self) -> list[int]:
        """The indices of the configurations by validation, best first, see `rank`.

        Without a validation split they are in the order in which an earlier sweep has ranked them. Those that
        diverged come last, and those that halving stopped are left out.
        """
        if "val" in self.final:
            return [c for c in rank(*self.final["val"]) if not self.stopped[:, c].any()]
        return sorted(range(len(self.configs)), key=lambda c: not self.stayed_finite[c])

    def best_replicate(self, config: int) -> int:
        """Return the index of the replicate in which a configuration has the best validation accuracy.

        Without a validation split it is the first one that did not diverge.
        """
        if "val" in self.final:
            return int(np.nan_to_num(self.final["val"].accuracy[:, config], nan=-1).argmax())
        return int(self.history.finite[-1][:, config].argmax())

    def take(self, configs: Sequence[int]) -> "SweepResult":
        """Return the results of some configurations, by their indices in ascending order."""
        kept = np.isin(self.saved.configs, configs)
        saved: SavedParams = jax.tree.map(lambda leaf: leaf[kept], self.saved)
        measured = (self.final, self.class_accuracy, self.correct, self.stopped)
        final, by_class, correct, stopped = jax.tree.map(lambda leaf: leaf[:, configs], measured)
        return SweepResult(
            self.sweep._replace(configs=tuple(self.configs[c] for c in configs)),
            self.data,
            jax.tree.map(lambda leaf: leaf[:, :, configs], self.history),
            final,
            by_class,
            correct,
            stopped,
            saved._replace(configs=np.searchsorted(configs, saved.configs)),
        )

    def take_finished(self) -> "SweepResult":
        """Return the results of the configurations that halving did not stop."""
        return self.take(sorted(self.ranking)) if self.stopped.any() else self

    def diverged(self, replicate: int, config: int) -> int | None:
        """Return the epoch (1-based) in which a run diverged, by its indices; None if it did not."""
        finite = self.history.finite[:, replicate, config]
        return None if finite.all() else 1 + int(np.argmin(finite))

    def marks(self, split: str, config: int) -> Bool[np.ndarray, "S n"]:
        """Return which examples of a split held out a configuration predicts right, for each seed.

        With folds, the n examples are those of all folds, each predicted by the run that was trained without
        its fold. All replicates must be there.
        """
        return unpack_correct(self.correct[split][:, config], self.data.size(split)).reshape(
            len(self.sweep.seeds), -1
        )
