"""Seconds, by the clock."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(calls: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each call, `repeats` times, after one warm-up each.

    They run in turn, so that a machine's ups and downs meet all of them.
    """
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, its in zip(calls, times, strict=True):
            its.append(seconds(call))
    return times


def medians(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """The median seconds of each call, see `alternate`."""
    return [median(its) for its in alternate(calls, repeats)]
