"""Files of values per example: correct.npz of every command, and values.npz of some measures.

A file holds, for each sweep, a few configurations and an array per name: `0.test` is "test" of the first
sweep. Its description says what the axes are. `numpy.load` opens it too.
"""

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from experiments.runner.sweeps import SweepResult
from linear_cifar.config import Config
from linear_cifar.npz import read_npz, write_npz


class ExampleValues(NamedTuple):
    """Values per example of some configurations of a sweep.

    `arrays` are [R, C, n] by name, in the order of the sweep's replicates, or [R, C, bytes] where they are
    packed bits. `sizes` are the numbers n.
    """

    sweep: str
    configs: tuple[Config, ...]
    arrays: dict[str, Shaped[np.ndarray, "R C _"]]
    sizes: dict[str, int]


def write_correct(path: Path, results: Sequence[SweepResult]) -> None:
    """Write which examples held out each run predicts right, as packed bits; not of those stopped."""
    write_example_values(
        path,
        [
            ExampleValues(
                result.sweep.name,
                result.configs,
                result.correct,
                {split: result.data.size(split) for split in result.correct},
            )
            for result in (whole.take_finished() for whole in results)
        ],
    )


def write_example_values(path: Path, values: Sequence[ExampleValues]) -> None:
    """Write a file of values per example."""
    arrays = {f"{i}.{name}": array for i, part in enumerate(values) for name, array in part.arrays.items()}
    description = {
        "sweeps": [{"sweep": part.sweep, "configs": part.configs, "sizes": part.sizes} for part in values]
    }
    write_npz(path, arrays, description)


def read_example_values(path: Path, packed: bool) -> list[ExampleValues]:
    """Read back a file of values per example, which are packed bits or float32.

    Raises:
      ValueError: if the file is damaged or holds something else.
      OSError: if it cannot be opened.
    """
    arrays, description = read_npz(path)
    try:
        parts = [_parse(i, part, arrays, packed) for i, part in enumerate(description["sweeps"])]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} does not describe its arrays: {error}") from None
    return parts


def _parse(
    i: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], packed: bool
) -> ExampleValues:
    """Return the values of the sweep with index i.

    Raises:
      ValueError: if an array has another shape or type than described; other errors if it is missing.
    """
    configs = tuple(Config(*values) for values in description["configs"])
    sizes = {str(name): operator.index(size) for name, size in description["sizes"].items()}
    found = {name: arrays[f"{i}.{name}"] for name in sizes}
    for name, array in found.items():
        last = -(-sizes[name] // 8) if packed else sizes[name]
        shape = (*array.shape[:1], len(configs), last)
        dtype = np.uint8 if packed else np.float32
        if array.dtype != dtype or array.shape != shape or sizes[name] < 1:
            raise ValueError(f"{i}.{name} is {array.dtype}{list(array.shape)}")
    return ExampleValues(str(description["sweep"]), configs, found, sizes)
