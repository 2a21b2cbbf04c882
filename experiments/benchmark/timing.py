"""Measuring wall-clock time."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any, NamedTuple, TypeVar

from experiments.benchmark.baselines import Baseline

Name = TypeVar("Name", bound=Hashable)


class Timing(NamedTuple):
    """Seconds that training `num_configs` configurations for an epoch takes.

    `first_s` is the first epoch, which compiles; `epoch_s` is the median of the later ones.
    """

    num_configs: int
    first_s: float
    epoch_s: float

    @property
    def s_per_config(self) -> float:
        """Seconds per configuration and epoch."""
        return self.epoch_s / self.num_configs


def time_call(call: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_cases(cases: Mapping[Name, Sequence[Baseline]], repeats: int) -> dict[Name, Timing]:
    """Run all baselines in turn, once to compile and then `repeats` times, and add up those of each case.

    Taking turns spreads the machine's slow moments over all baselines. The later times of a baseline that
    trains on a share of an epoch are scaled up to the epoch.
    """
    baselines = [baseline for members in cases.values() for baseline in members]
    rounds = [[time_call(baseline.train_epoch) for baseline in baselines] for _ in range(1 + repeats)]
    timings = iter(
        Timing(baseline.num_configs, first_s, median(later) / baseline.share)
        for baseline, (first_s, *later) in zip(baselines, zip(*rounds, strict=True), strict=True)
    )
    timed = {}
    for name, members in cases.items():
        num_configs, first_s, epoch_s = zip(*islice(timings, len(members)), strict=True)
        timed[name] = Timing(sum(num_configs), sum(first_s), sum(epoch_s))
    return timed
