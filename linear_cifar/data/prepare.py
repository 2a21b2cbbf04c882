"""A data set divided and scaled, ready to train on."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from linear_cifar.arguments import check_choice
from linear_cifar.data.dataset import DataError, Dataset, Split
from linear_cifar.data.division import divide, draw_subset, find_folds
from linear_cifar.examples import BALANCED, Examples, make_examples
from linear_cifar.memory import check_memory, example_bytes
from linear_cifar.replicates import Replicate
from linear_cifar.rounding import check_resolution
from linear_cifar.standardizer import Standardizer, fit_standardizer, scale_to_unit_length

# The scale of the features in training.
STANDARD, CENTER, UNIT, NONE = STANDARDIZE = ("standard", "center", "unit", "none")
CLASS_WEIGHTS = (NONE, BALANCED)


class Data(NamedTuple):
    """A data set divided and scaled: `fit(configs, data.sets["train"], data.sets, ...)` trains on it.

    The call also takes `seeds=data.replicates(seeds)` and `standardizer=data.standardizer`. With folds, the
    sets train and val are the same examples, of which each replicate has its rows.
    """

    dataset: Dataset
    division: str  # in words, with the data set's fingerprint
    sets: dict[str, Examples]  # train, and those of val and test sets that there are
    standardizer: Standardizer | None  # of the training examples; None also where each replicate has one
    folds: tuple[Replicate, ...] = ()  # of seed 0
    standardize: str = NONE
    draw: Callable[[int], tuple[Replicate, ...]] | None = None  # of subsets for a seed, see `limit`

    @property
    def d(self) -> int:
        """Number of features."""
        return self.sets["train"].features.shape[1]

    @property
    def K(self) -> int:
        """Number of classes."""
        return len(self.dataset.classes)

    def size(self, name: str) -> int:
        """Return how many examples of a set a replicate is trained or measured on."""
        rows = self.replicates([0])[0].evaluation_rows or {}
        return len(rows.get(name, self.sets[name]))

    def labels(self, name: str) -> Integer[np.ndarray, " n"]:
        """Return the classes of all examples of a set."""
        return np.asarray(self.sets[name].classes)

    def replicates(self, seeds: Sequence[int]) -> tuple[Replicate, ...]:
        """Return a replicate for each seed, or for each seed and fold, with its rows of all sets."""
        folds = self.folds or (Replicate(0),)
        draw = self.draw or (lambda seed: tuple(fold._replace(seed=seed) for fold in folds))
        return tuple(replicate for seed in seeds for replicate in draw(seed))

    def limit(self, train_size: int = 0, shots: int = 0) -> "Data":
        """Return data of which each replicate trains on a subset of its rows, see `draw_subset`.

        m rows of n come up ⌈n / m⌉ times in an epoch, so that small subsets have as many updates: an epoch is
        no shorter than one of all n rows, and less than twice as long. A replicate is standardised by its
        own rows. The examples are those of this data, and not copied.

        Raises:
          DataError: if there are too few rows, or class weights, which `shots` would undo.
        """
        train, labels = self.sets["train"], self.labels("train")

        @cache  # because a standardiser takes a pass over the rows
        def draw(seed: int) -> tuple[Replicate, ...]:
            drawn = []
            for whole in self.replicates([seed]):
                kept = np.arange(len(labels), dtype=np.int32) if whole.rows is None else whole.rows
                rows = kept[draw_subset(labels[kept], train_size, shots, seed, whole.fold or 0)]
                repeated = np.tile(rows, -(-len(kept) // len(rows)))
                standardizer = _fit(np.asarray(train.features[rows]), self.standardize)
                by_set = {**(whole.evaluation_rows or {}), "train": rows}
                drawn.append(Replicate(seed, whole.fold, repeated, standardizer, by_set))
            return tuple(drawn)

        try:
            draw(0)
        except ValueError as error:
            raise DataError(f"{self.dataset.name}: {error}") from None
        if shots and train.weights is not None:
            raise DataError(f"shots is {shots}: all classes weigh alike already, so leave out class_weight")
        division = f"{self.division}, train_size {train_size}, shots {shots}"
        return self._replace(division=division, standardizer=None, draw=draw)


def prepare_data(
    dataset: Dataset,
    *,
    train: str = "full",
    val_size: int = 1_000,
    folds: int = 0,
    standardize: str = STANDARD,
    class_weight: str = NONE,
    dtype: str = "float32",
) -> Data:
    """Divide a data set, scale or standardise its features, and put the examples on the device.

    Args:
      dataset: the data set as it was read.
      train, val_size, folds: division of the training examples, see `divide`.
      standardize: `standard` brings each feature to mean 0 and standard deviation 1 over the training
        examples, `center` to mean 0 only; `unit` scales each example to length 1; `none` changes nothing.
      class_weight: `balanced` weighs all classes of the training examples (of all folds) alike in training,
        see `make_examples`; or `none`.
      dtype: floating-point type of the arithmetic.

    Raises:
      DataError: if the data cannot be divided in this way, take more memory than there is, or have values
        that the arithmetic cannot hold.
      ValueError: if there is no such division or scale.
    """
    check_choice("standardize", standardize, STANDARDIZE)
    check_choice("class_weight", class_weight, CLASS_WEIGHTS)
    features = dataset.splits["train"].features
    n, d = sum(len(split.labels) for split in dataset.splits.values()), features.shape[1]
    # The examples are copied where they are scaled, drawn for validation or for folds, or joined.
    copied = features.itemsize * bool(folds or ("val" in dataset.splits) != (val_size > 0))
    nbytes = features.itemsize + (np.dtype(dtype).itemsize if standardize == UNIT else copied)
    what = f"{dataset.name} ({n:,} examples of {d:,} features)"
    check_memory(what, n * example_bytes(d, nbytes), error=DataError)
    splits = divide(dataset, train, val_size, folds)
    features, labels, groups = splits["train"]
    left_out = list(find_folds(dataset, labels, folds, groups)) if folds else []
    # The name of the data set is left out, because a user's file may be renamed.
    taken = f"folds {folds}" if folds else f"val_size {val_size}"
    division = f"data {dataset.fingerprint}, train {train}, {taken}"
    weights = {"train": BALANCED} if class_weight == BALANCED else {}
    replicates = []
    try:
        sets = {
            name: _make_examples(split, len(dataset.classes), standardize, dtype, weights.get(name))
            for name, split in splits.items()
        }
        standardizer = None if folds else _fit(features, standardize)
        for fold, rows in enumerate(left_out):
            kept = np.sort(np.concatenate(left_out[:fold] + left_out[fold + 1 :]))
            # There may be very many replicates, and each has a copy of its rows.
            by_set = {"train": kept.astype(np.int32), "val": rows.astype(np.int32)}
            replicates.append(Replicate(0, fold, by_set["train"], _fit(features[kept], standardize), by_set))
    except ValueError as error:
        raise DataError(f"{dataset.name}: {error}") from None
    for name, examples in sets.items():
        examples.digest = f"{name} of {division}" + f", unit length in {dtype}" * (standardize == UNIT)
        examples.digest += f", class_weight {class_weight}" * (examples.weights is not None)
    if folds:
        sets["val"] = sets["train"]
    return Data(dataset, division, sets, standardizer, tuple(replicates), standardize)


def _make_examples(split: Split, K: int, standardize: str, dtype: str, weights: str | None) -> Examples:
    """Return a split as examples; raise ValueError if `dtype` cannot hold features that stay as they are."""
    features = split.features
    if standardize == UNIT:
        features = scale_to_unit_length(features, dtype)
        features.flags.writeable = False
    if standardize == NONE:
        check_resolution(features, dtype)
    return make_examples(features, split.labels, K, weights, split.groups)


def _fit(features: np.ndarray, standardize: str) -> Standardizer | None:
    """Return the standardiser of training features, or None if they are not standardised."""
    if standardize not in (STANDARD, CENTER):
        return None
    standardizer = fit_standardizer(features)
    if standardize == CENTER:  # what is constant stays out
        return standardizer._replace(std=np.where(np.isinf(standardizer.std), np.inf, 1.0))
    return standardizer
