"""A sweep of an experiment, and what was measured of it."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from experiments.runner.data import PreparedData
from experiments.runner.settings import Settings
from linear_cifar.comparison import rank
from linear_cifar.config import Config
from linear_cifar.data.dataset import Dataset
from linear_cifar.engine import EpochMetrics
from linear_cifar.evaluation import Metrics
from linear_cifar.fitting import SavedParams
from linear_cifar.params import Params

# The splits that are not trained on; there is not always a test split.
HELD_OUT = ("val", "test")


class Sweep(NamedTuple):
    """A named sweep of an experiment, or a block of one: configurations trained with the same settings."""

    name: str
    settings: Settings
    configs: tuple[Config, ...]

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of seeds and configurations."""
        return len(self.settings.seeds), len(self.configs)

    @property
    def num_runs(self) -> int:
        """The number of runs: seeds times configurations."""
        return math.prod(self.size)

    def describe_size(self) -> str:
        """Return the size in words, such as "48 configurations x 3 seeds"."""
        seeds, configs = self.size
        return f"{configs} configuration" + "s" * (configs > 1) + f" x {seeds} seeds" * (seeds > 1)


class SweepResult(NamedTuple):
    """Measurements of S seeds × C configurations over E epochs, as NumPy arrays.

    Losses are without the penalty, accuracies in [0, 1]. Both are NaN from the epoch in which a run diverged.
    """

    sweep: Sweep
    data: PreparedData
    history: EpochMetrics  # [E, S, C]
    final: dict[str, Metrics]  # of each split [S, C], of the final parameters, without augmentation
    class_accuracy: dict[str, Float[np.ndarray, "S C"]]  # mean accuracy per class of each split held out
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
        """The names of the splits: train, val and, where there is one, test."""
        return tuple(self.data.splits)

    @property
    def params(self) -> Params:
        """The final parameters W [S, C, K, d] and b [S, C, K]; only where those of all runs are saved."""
        shape = self.final["val"].loss.shape
        assert len(self.saved.replicates) == math.prod(shape), "not all parameters are saved"
        order = np.lexsort((self.saved.configs, self.saved.replicates))
        return jax.tree.map(lambda leaf: leaf[order].reshape(*shape, *leaf.shape[1:]), self.saved.params)

    def params_of(self, seed: int, config: int) -> Params:
        """Return the saved W [K, d] and b [K] of one run, by the indices of its seed and configuration."""
        found = self.saved.find(seed, config)
        assert found is not None, "the parameters of this run are not saved"
        return found

    @property
    def stayed_finite(self) -> Bool[np.ndarray, " C"]:
        """For each configuration, True if it diverged with no seed."""
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
        """The indices of the configurations by validation, best first, see `rank`."""
        return rank(*self.final["val"])

    def best_seed(self, config: int) -> int:
        """Return the index of the seed with which a configuration has the best validation accuracy."""
        return int(np.nan_to_num(self.final["val"].accuracy[:, config], nan=-1).argmax())

    def diverged(self, seed: int, config: int) -> int | None:
        """Return the epoch (1-based) in which a run diverged, by its indices; None if it did not."""
        finite = self.history.finite[:, seed, config]
        return None if finite.all() else 1 + int(np.argmin(finite))
