"""Successive halving: at each rung only the best share of the runs trains on (Jamieson and Talwalkar 2016).

A rung is an epoch. Each batch size keeps its own best, for two reasons. After few epochs a large batch has
taken few steps, so accuracies of different batch sizes are hard to compare. And the numbers that are left of
each batch size are known beforehand, so that all brackets can share the same compiled programs. On CIFAR-10
the rule loses no more than the best share of all, see experiments/RESULTS.md.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Array, Float

from linear_cifar.arguments import as_values, as_whole
from linear_cifar.comparison import rank
from linear_cifar.config import Config

T = TypeVar("T")

# Default rungs, as shares of the epochs. Where η falls, early accuracies say less of the last ones, and the
# first rung is left out.
RUNG_SHARES = (1 / 20, 3 / 20, 9 / 20)


def split_brackets(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split the points of a search into brackets of `size`, in order; the last one may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def default_rungs(epochs: int, constant_eta: bool = True) -> tuple[int, ...]:
    """Return the epochs after which runs are stopped: 2, 6 and 18 of 40, or 6 and 18 where η falls."""
    as_whole("epochs", epochs, 1)
    shares = RUNG_SHARES if constant_eta else RUNG_SHARES[1:]
    rungs = {max(1, round(share * epochs)) for share in shares}
    return tuple(sorted(rung for rung in rungs if rung < epochs))


def choose_survivors(
    loss: Float[Array | np.ndarray, "S C"],
    accuracy: Float[Array | np.ndarray, "S C"],
    batches: Sequence[int],
    factor: int,
) -> list[int]:
    """Return the indices of the configurations that train on after a rung, in order.

    Each batch size keeps its best 1 / `factor`, rounded up, by the rule of `rank`: by mean accuracy over the
    replicates, then by mean loss. Diverged configurations are dropped. If all have diverged, the first stays.

    Args:
      loss, accuracy: validation metrics after the rung; NaN where a run diverged.
      batches: batch size of each configuration.
      factor: 3 keeps a third; at least 2.

    Raises:
      ValueError: if the factor is smaller or no whole number, or the shapes do not fit.
    """
    as_whole("factor", factor, 2)
    batches = list(batches)
    accuracy = as_values("accuracy", accuracy, "seeds, configurations")
    if accuracy.shape[1] != len(batches):
        raise ValueError(
            f"accuracy is {accuracy.shape}, and there are {len(batches)} batches: give [S, C] and C"
        )
    ranking = [c for c in rank(loss, accuracy) if np.isfinite(accuracy[:, c]).all()]
    kept: list[int] = []
    for size in set(batches):
        count = math.ceil(batches.count(size) / factor)
        kept += [c for c in ranking if batches[c] == size][:count]
    return sorted(kept) or [0]


def count_slots(batches: Sequence[int], factor: int, rungs: int, fixed: bool = False) -> list[dict[int, int]]:
    """Return how many configurations of each batch size train before each rung, and after the last one.

    These are the largest numbers that `choose_survivors` may leave.

    Args:
      batches: batch size of each configuration of a bracket.
      factor: as for `choose_survivors`.
      rungs: number of rungs.
      fixed: whether to return the same for all brackets of a Sobol sequence: their length is a power of two,
        at least twice the number of batch sizes, and the place of their first point a multiple of it.

    Returns:
      For each of the `rungs` + 1 legs, the number of slots by batch size.
    """
    sizes = sorted(set(batches))
    # Such a bracket of n points has one in each of n equal intervals. A batch size's interval begins and ends
    # within one of them, so it has at most two points more than its even share, rounded down.
    minimum = len(batches) // len(sizes) + 2 if fixed and len(sizes) > 1 else 0
    slots = [{size: max(minimum, batches.count(size)) for size in sizes}]
    for _ in range(rungs):
        slots.append({size: math.ceil(count / factor) for size, count in slots[-1].items()})
    return slots


def fill_slots(configs: Sequence[Config], slots: dict[int, int]) -> tuple[list[Config], list[int]]:
    """Fill up configurations to a fixed number of each batch size, so that they need no other program.

    Args:
      configs: configurations, at most as many of each batch size as it has slots.
      slots: number of slots by batch size.

    Returns:
      The configurations by batch size, with some of η = 0 that do not move; and the place of each of
      `configs` among them.
    """
    filled: list[Config] = []
    places: dict[int, int] = {}
    for size, count in sorted(slots.items()):
        members = [c for c, config in enumerate(configs) if config.batch == size]
        places |= {c: len(filled) + i for i, c in enumerate(members)}
        idle = [Config(0.0, size, 0.0)] * (count - len(members))
        filled += [*(configs[c] for c in members), *idle]
    return filled, [places[c] for c in range(len(configs))]
