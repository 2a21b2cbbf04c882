"""The division of a sweep's runs into blocks that the memory holds."""

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np

S = TypeVar("S")
C = TypeVar("C")
T = TypeVar("T")

# With this many configurations it hardly counts that the examples of each replicate are shuffled too.
WIDE = 96


def plan_blocks(
    replicates: Sequence[S], configs: Sequence[C], max_runs: int
) -> list[tuple[Sequence[S], Sequence[C]]]:
    """Divide replicates × configurations into blocks that train one after another.

    A block has all replicates where possible, as a finished block then knows its best configuration. It has
    no fewer than `WIDE` configurations where there are as many, since those of a replicate share its
    examples.

    Args:
      replicates: seeds, replicates or their indices.
      configs: configurations or their indices.
      max_runs: largest number of runs in a block, at least 1.

    Returns:
      Replicates and configurations of each block.
    """
    width = min(max_runs, max(WIDE, max_runs // len(replicates)))
    groups = _split_evenly(configs, -(-len(configs) // width))
    height = max(1, max_runs // max(map(len, groups)))
    return list(itertools.product(_split_evenly(replicates, -(-len(replicates) // height)), groups))


def _split_evenly(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Split the items into parts of about equal length, in order."""
    ends = [len(items) * i // parts for i in range(parts + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def join_blocks(
    shape: tuple[int, int],
    places: Sequence[tuple[Sequence[int], Sequence[int]]],
    trees: Sequence[Any],
    leading: int = 0,
) -> Any:
    """Join the arrays of blocks to arrays of all runs.

    Args:
      shape: number of replicates S and of configurations C of the whole.
      places: indices of each block's replicates and configurations in the whole.
      trees: of each block, arrays [..., s, c, ...].
      leading: number of axes before those of replicates and configurations.

    Returns:
      A tree of arrays [..., S, C, ...].
    """

    def join(*leaves: np.ndarray) -> np.ndarray:
        outer, inner = leaves[0].shape[:leading], leaves[0].shape[leading + 2 :]
        whole = np.empty((*outer, *shape, *inner), leaves[0].dtype)
        for (rows, columns), leaf in zip(places, leaves, strict=True):
            whole[(slice(None),) * leading + np.ix_(list(rows), list(columns))] = leaf
        return whole

    return jax.tree.map(join, *trees)
