"""The data of a sweep, prepared once for all blocks that share it."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.runner.settings import CENTER, STANDARD, UNIT
from linear_cifar.data.dataset import Dataset
from linear_cifar.examples import Examples, make_examples
from linear_cifar.standardizer import Standardizer, fit_standardizer, scale_to_unit_length


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
    """
    train = dataset.train.features
    standardizer = fit_standardizer(train, scale=mode == STANDARD) if mode in (STANDARD, CENTER) else None

    def convert(features: np.ndarray) -> np.ndarray:
        return scale_to_unit_length(features, dtype) if mode == UNIT else features

    # Features of float64 stay what they are only where JAX may use that type.
    with jax.enable_x64(dtype == "float64"):
        examples = {
            name: make_examples(convert(split.features), split.labels, len(dataset.classes))
            for name, split in dataset.splits.items()
        }
    return PreparedData(dataset, examples, standardizer)
