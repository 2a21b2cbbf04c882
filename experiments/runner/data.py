"""The data of a sweep, prepared once for all blocks that share it."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.runner.settings import CENTER, STANDARD, UNIT
from linear_cifar.data.dataset import DataError, Dataset
from linear_cifar.examples import Examples, make_examples
from linear_cifar.memory import COPIES_OF_EXAMPLES, example_bytes, process_memory
from linear_cifar.standardizer import Standardizer, fit_standardizer, scale_to_unit_length

# float32 has 7 digits. If a standard deviation is a smaller share of the mean, fewer than two of them count.
MIN_RELATIVE_STD = 1e-5
# Smaller features would come near the smallest numbers of float32.
MIN_FEATURE = 1e-30


class PreparedData(NamedTuple):
    """A divided data set: its splits as examples, and the standardiser of its training examples.

    Without a standardiser the examples are used as they are.
    """

    dataset: Dataset
    splits: dict[str, Examples]  # train, val and, where there is one, test
    standardizer: Standardizer | None

    @property
    def d(self) -> int:
        """Number of features."""
        return self.splits["train"].features.shape[1]

    @property
    def K(self) -> int:
        """Number of classes."""
        return len(self.dataset.classes)


def prepare_data(dataset: Dataset, mode: str = STANDARD, dtype: str = "float32") -> PreparedData:
    """Scale or standardise the features, and put the splits on the device.

    Args:
      dataset: the divided data set.
      mode: a value of the setting `standardize`.
      dtype: floating-point type of the sweep.

    Raises:
      DataError: if the data take more memory than there is, or float32 cannot hold the float64 features.
    """
    train = dataset.train.features
    _check_memory(dataset, np.dtype(dtype).itemsize if mode == UNIT else train.itemsize)
    standardizer = None
    if mode in (STANDARD, CENTER):
        standardizer = fit_standardizer(train)
        if train.dtype == np.float64 and dtype == "float32":
            _check_float32(dataset, standardizer)
        if mode == CENTER:
            standardizer = standardizer._replace(std=np.ones_like(standardizer.std))

    def convert(features: np.ndarray) -> np.ndarray:
        return scale_to_unit_length(features, dtype) if mode == UNIT else features

    # Features of float64 stay what they are only where JAX may use that type.
    with jax.enable_x64(dtype == "float64"):
        examples = {
            name: make_examples(convert(split.features), split.labels, len(dataset.classes))
            for name, split in dataset.splits.items()
        }
    return PreparedData(dataset, examples, standardizer)


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


def _check_float32(dataset: Dataset, standardizer: Standardizer) -> None:
    """Raise DataError if a feature varies by less than float32 can tell apart around its mean."""
    features, (mean, std) = dataset.train.features, standardizer
    lowest, highest = features.min(axis=0), features.max(axis=0)
    tiny = np.maximum(-lowest, highest) < MIN_FEATURE
    # A constant feature becomes 0 however it is rounded.
    lost = (lowest < highest) & (tiny | (std < MIN_RELATIVE_STD * np.abs(mean)))
    if lost.any():
        column = int(np.argmax(lost))
        raise DataError(
            f"{dataset.name}: feature {column} has mean {mean[column]:.3g} and standard deviation "
            f"{std[column]:.3g}, which float32 cannot hold: subtract its mean and scale it, or give "
            "--dtype=float64"
        )
