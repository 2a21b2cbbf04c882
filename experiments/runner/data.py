"""The data of a sweep, prepared once for all blocks that share it."""

from typing import NamedTuple

from experiments.runner.sweeps import SPLITS
from linear_cifar.data.dataset import Dataset
from linear_cifar.examples import Examples, make_examples
from linear_cifar.standardizer import Standardizer, fit_standardizer


class PreparedData(NamedTuple):
    """A divided data set: its splits as examples, and the standardiser of its training images."""

    dataset: Dataset
    splits: dict[str, Examples]
    standardizer: Standardizer

    @property
    def d(self) -> int:
        """Number of features."""
        return self.splits["train"].features.shape[1]

    @property
    def K(self) -> int:
        """Number of classes."""
        return len(self.dataset.classes)


def prepare_data(dataset: Dataset) -> PreparedData:
    """Fit the standardiser and put the splits on the device."""
    K = len(dataset.classes)
    splits = {name: getattr(dataset, name) for name in SPLITS}
    examples = {name: make_examples(split.images, split.labels, K) for name, split in splits.items()}
    return PreparedData(dataset, examples, fit_standardizer(dataset.train.images))
