"""Measuring wall-clock time."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """Seconds of a call's first run, which compiles, and of its later runs."""

    first: float
    later: list[float]

    @property
    def median(self) -> float:
        """Median seconds of the later runs."""
        return median(self.later)


def time_call(call: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_in_turn(calls: Sequence[Callable[[], Any]], repeats: int) -> list[Timing]:
    """Run all calls in turn, once to compile and then `repeats` times, and time them.

    Taking turns spreads the machine's slow moments over all calls.
    """
    timings = [Timing(time_call(call), []) for call in calls]
    for _ in range(repeats):
        for call, timing in zip(calls, timings, strict=True):
            timing.later.append(time_call(call))
    return timings
