"""A run of an experiment: what is to be trained on which data, and where its files go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import provenance
from experiments.settings import Variant
from linear_cifar.dataset import Dataset

# The final states of a run are kept where together they take no more: so many bytes.
KEEP_BYTES = 1024**3


class Work(NamedTuple):
    """A run of an experiment: what is to be trained on which data, and where its files go."""

    experiment: str
    flags: dict[str, Any]
    variants: list[tuple[Variant, Dataset]]
    environment: dict[str, Any]
    folder: Path
    keep_states: bool = True

    def description(self, complete: bool) -> dict[str, Any]:
        """The content of config.json."""
        return provenance.describe(self.experiment, self.flags, self.variants, self.environment, complete)

    def decisive(self, size: tuple[int, int]) -> dict[str, Any]:
        """Of the environment, what may change the last digits of so many (seeds, configurations)."""
        versions = {name: self.environment["versions"][name] for name in ("jax", "jaxlib", "optax", "numpy")}
        return {"versions": versions, "devices": provenance.describe_devices(*size)}


def states_are_few(variants: Sequence[tuple[Variant, Dataset]]) -> bool:
    """Whether the final states of all runs, weights and averaged ones, take little enough to be kept."""
    taken = 0
    for variant, dataset in variants:
        weights = (dataset.train.images.shape[1] + 1) * len(dataset.classes)
        taken += 2 * variant.runs * weights * np.dtype(variant.settings.dtype).itemsize
    return taken <= KEEP_BYTES
