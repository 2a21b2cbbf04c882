"""Successive halving: at each rung only the best share of the runs trains on (Jamieson and Talwalkar 2016).

A rung is an epoch. Each batch size keeps its own best, for two reasons. After few epochs a large batch has
taken few steps, so accuracies of different batch sizes are hard to compare. And the numbers that are left of
each batch size are then known beforehand, so that all brackets of `draw_configs` share the same compiled
programs. On CIFAR-10 the rule loses no more than the best share of all, see experiments/RESULTS.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array, Float

from linear_cifar.arguments import as_whole, describe
from linear_cifar.config import Config
from linear_cifar.snapshots import Snapshot
from linear_cifar.uncertainty import rank

T = TypeVar("T")

# Default rungs, as shares of the epochs. Where η falls, early accuracies say less of the last ones, and the
# first rung is left out.
RUNG_SHARES = (1 / 20, 3 / 20, 9 / 20)


class Halving(NamedTuple):
    """Rule by which `fit` stops runs: after each rung, `factor` times fewer of a bracket's runs train on.

    `rungs` are epochs; None: see `default_rungs`. `bracket` is the number of configurations among which the
    best are chosen. The configurations are divided into brackets in their order.
    """

    factor: int = 3
    rungs: tuple[int, ...] | None = None
    bracket: int = 256

    def check(self, epochs: int, constant_eta: bool = True) -> "Halving":
        """Return the rule with its rungs filled in.

        Raises:
          ValueError: if a number is out of its range, or a rung is not below the number of epochs.
        """
        as_whole("factor", self.factor, 2)
        as_whole("bracket", self.bracket, 2)
        if not isinstance(self.rungs, Sequence | None):
            raise ValueError(f"rungs is {describe(self.rungs)}: give epochs, such as (2, 6, 18), or None")
        rungs = self.rungs or default_rungs(epochs, constant_eta)
        if not rungs:
            raise ValueError(f"epochs is {epochs}: halving needs at least 2")
        rungs = tuple(as_whole("rung", rung, 1) for rung in rungs)
        if list(rungs) != sorted(set(rungs)) or rungs[-1] >= epochs:
            raise ValueError(
                f"rungs is {','.join(map(str, rungs))}: give epochs in rising order, below epochs, "
                f"which is {epochs}"
            )
        return self._replace(rungs=rungs)

    def choose(self, snapshot: Snapshot, name: str) -> list[int]:
        """Return the indices of the configurations of a bracket that are stopped after its snapshot's epoch.

        They are chosen by the evaluation set of this name.
        """
        alive = snapshot.alive
        loss, accuracy = (snapshot.history[f"{name}_{metric}"][-1][:, alive] for metric in ("loss", "acc"))
        batches = [snapshot.identity.configs[c].batch for c in alive]
        kept = {alive[i] for i in choose_survivors(loss, accuracy, batches, self.factor)}
        return [c for c in alive if c not in kept]

    def mean_epochs(self, configs: Sequence[Config], epochs: int) -> float:
        """Return the epochs that a bracket of these configurations trains, as a mean over them."""
        assert self.rungs is not None, "the rungs are filled in by `check`"
        counts = self.count_alive(configs)
        lengths = np.diff([0, *self.rungs, epochs])
        return float(np.dot(lengths, counts)) / len(configs)

    def count_alive(self, configs: Sequence[Config]) -> list[int]:
        """Return how many configurations of a bracket train before each rung, and after the last one."""
        batches = [config.batch for config in configs]
        by_size = [batches.count(size) for size in sorted(set(batches))]
        counts = [sum(by_size)]
        for _ in self.rungs or ():
            by_size = [math.ceil(count / self.factor) for count in by_size]
            counts.append(sum(by_size))
        return counts


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

    Each batch size keeps exactly its best 1 / `factor`, rounded up, by the rule of `rank`: by mean accuracy
    over the replicates, then by mean loss. Diverged configurations come last.

    Args:
      loss, accuracy: validation metrics after the rung; NaN where a run diverged.
      batches: batch size of each configuration.
      factor: 3 keeps a third; at least 2.

    Raises:
      ValueError: if the factor is smaller or no whole number, or the shapes do not fit.
    """
    as_whole("factor", factor, 2)
    batches, ranking = list(batches), rank(loss, accuracy)
    if len(ranking) != len(batches):
        raise ValueError(
            f"accuracy has {len(ranking)} columns, and there are {len(batches)} batches: give both C"
        )
    kept: list[int] = []
    for size in set(batches):
        count = math.ceil(batches.count(size) / factor)
        kept += [c for c in ranking if batches[c] == size][:count]
    return sorted(kept)
