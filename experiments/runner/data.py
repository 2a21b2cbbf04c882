"""The data of a sweep, prepared once for all blocks that share it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from experiments.runner.settings import CENTER, NONE, STANDARD, UNIT
from linear_cifar.data.dataset import DataError, Dataset
from linear_cifar.examples import Examples, make_examples
from linear_cifar.memory import COPIES_OF_EXAMPLES, example_bytes, process_memory
from linear_cifar.replicates import Replicate
from linear_cifar.rounding import check_resolution
from linear_cifar.standardizer import Standardizer, fit_standardizer, scale_to_unit_length


class ReplicateName(NamedTuple):
    """Name of a replicate: its seed and, with folds, the fold (from 0) that it is trained without."""

    seed: int
    fold: int | None = None


class Fold(NamedTuple):
    """Rows of the training examples that a fold trains on ("train") and leaves out ("val")."""

    rows: dict[str, Int[np.ndarray, " m"]]
    standardizer: Standardizer | None  # of the rows that it trains on


class PreparedData(NamedTuple):
    """A divided data set: its splits as examples, and the standardiser of its training examples.

    Without a standardiser the examples are used as they are. With folds, the splits train and val are the
    same examples, of which each fold has its rows.
    """

    dataset: Dataset
    splits: dict[str, Examples]  # train, and those of val and test that there are
    standardizer: Standardizer | None  # None also where each fold has one
    folds: tuple[Fold, ...] = ()

    @property
    def d(self) -> int:
        """Number of features."""
        return self.splits["train"].features.shape[1]

    @property
    def K(self) -> int:
        """Number of classes."""
        return len(self.dataset.classes)

    @property
    def num_examples(self) -> int:
        """Number of examples in the memory."""
        return sum(len(split.labels) for split in self.dataset.splits.values())

    def size(self, split: str) -> int:
        """Return how many examples of a split a run is trained or measured on."""
        return len(self.folds[0].rows[split] if self.folds else self.splits[split].targets)

    def rows(self, split: str, replicates: Sequence[ReplicateName]) -> Int[np.ndarray, "R m"] | None:
        """Return the rows of a split that each replicate is measured on; None: all."""
        if not self.folds:
            return None
        return np.stack([self._fold(replicate).rows[split] for replicate in replicates])

    def labels(self, split: str, replicates: Sequence[ReplicateName]) -> Integer[np.ndarray, "*R n"]:
        """Return the labels of the examples that replicates are measured on: [n], or of each fold [R, n]."""
        rows = self.rows(split, replicates)
        return self.dataset.splits[split].labels if rows is None else self.dataset.train.labels[rows]

    def replicates(self, names: Sequence[ReplicateName], evaluate: Sequence[str]) -> list[Replicate]:
        """Return the replicates of these names; `evaluate` names the splits to measure after every epoch."""
        if not self.folds:
            return [Replicate(name.seed) for name in names]
        folds = [self._fold(name) for name in names]
        return [
            Replicate(
                *name, fold.rows["train"], fold.standardizer, {split: fold.rows[split] for split in evaluate}
            )
            for name, fold in zip(names, folds, strict=True)
        ]

    def standardizer_of(self, replicate: ReplicateName) -> Standardizer | None:
        """Return the standardiser of a replicate's training examples."""
        return self._fold(replicate).standardizer if self.folds else self.standardizer

    def examples_of(self, replicate: ReplicateName, split: str) -> Examples:
        """Return the examples of a split that a replicate is measured on."""
        examples = self.splits[split]
        if not self.folds:
            return examples
        return examples.take(self._fold(replicate).rows[split])

    def _fold(self, replicate: ReplicateName) -> Fold:
        assert replicate.fold is not None, "with folds, each replicate is without one of them"
        return self.folds[replicate.fold]


def prepare_data(dataset: Dataset, mode: str = STANDARD, dtype: str = "float32") -> PreparedData:
    """Scale or standardise the features, and put the splits on the device.

    Args:
      dataset: the divided data set.
      mode: a value of the setting `standardize`.
      dtype: floating-point type of the sweep.

    Raises:
      DataError: if the data take more memory than there is, or the arithmetic cannot hold their values.
    """
    _check_memory(dataset, np.dtype(dtype).itemsize if mode == UNIT else dataset.train.features.itemsize)
    try:
        return _prepare(dataset, mode, dtype)
    except ValueError as error:
        raise DataError(f"{dataset.name}: {error}") from None


def _prepare(dataset: Dataset, mode: str, dtype: str) -> PreparedData:
    """Scale or standardise the features; raise ValueError if the arithmetic cannot hold their values."""
    train = dataset.train.features

    def fit(features: np.ndarray) -> Standardizer | None:
        if mode not in (STANDARD, CENTER):
            return None
        standardizer = fit_standardizer(features)
        if mode == CENTER:  # what is constant stays out
            standardizer = standardizer._replace(std=np.where(np.isinf(standardizer.std), np.inf, 1.0))
        return standardizer

    def convert(features: np.ndarray) -> np.ndarray:
        return scale_to_unit_length(features, dtype) if mode == UNIT else features

    if mode == NONE:
        for split in dataset.splits.values():
            check_resolution(split.features, dtype)
    examples = {
        name: make_examples(convert(split.features), split.labels, len(dataset.classes))
        for name, split in dataset.splits.items()
    }
    if dataset.folds is None:
        return PreparedData(dataset, examples, fit(train))
    examples["val"] = examples["train"]
    folds = []
    for fold, left_out in enumerate(dataset.folds):
        rows = np.sort(np.delete(dataset.folds, fold, axis=0), axis=None)
        # There may be very many replicates, and each has a copy of its rows.
        by_split = {"train": rows.astype(np.int32), "val": left_out.astype(np.int32)}
        folds.append(Fold(by_split, fit(train[rows])))
    return PreparedData(dataset, examples, None, tuple(folds))


def _check_memory(dataset: Dataset, feature_bytes: int) -> None:
    """Raise DataError if the examples do not fit into the memory."""
    n = sum(len(split.labels) for split in dataset.splits.values())
    d, K = dataset.train.features.shape[1], len(dataset.classes)
    needed = n * example_bytes(d, K, feature_bytes) * COPIES_OF_EXAMPLES
    if needed > process_memory():
        raise DataError(
            f"{dataset.name} has {n:,} examples of {d:,} features and {K:,} classes, which take "
            f"{needed / 1e9:,.3g} GB: this process may take {process_memory() / 1e9:,.3g} GB"
        )
