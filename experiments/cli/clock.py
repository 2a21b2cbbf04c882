"""Where the time of a command goes."""

import time
from collections.abc import Iterable
from functools import cache

import jax

import experiments

PHASES = ("imports", "data", "compiling", "training", "evaluation", "figures", "writing")
# JAX reports how long it traced, lowered and compiled a program by names that begin like this.
COMPILING = "/jax/core/compile/"


class Clock:
    """The seconds of each phase of a command, from the start of Python."""

    def __init__(self) -> None:
        """Start the clock; the time since Python started counts as imports."""
        self._compiled = _listen_to_jax()
        self._last = experiments.STARTED
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.count("imports")

    def count(self, phase: str) -> float:
        """Count the time since the last call to a phase, but to `compiling` while JAX compiled; return it."""
        start, self._last = self._last, time.perf_counter()
        compiling = measure_union((max(first, start), last) for first, last in self._compiled)
        self._compiled.clear()
        taken = max(0.0, self._last - start - compiling)
        self.seconds[phase] += taken
        self.seconds["compiling"] += compiling
        return taken

    def __str__(self) -> str:
        """Return the total and its parts, such as "9.1 s: imports 1.0, data 0.8, training 7.3"."""
        parts = ", ".join(f"{name} {taken:.1f}" for name, taken in self.seconds.items() if taken >= 0.05)
        return f"{sum(self.seconds.values()):.1f} s: {parts}"


@cache
def _listen_to_jax() -> list[tuple[float, float]]:
    """Return a list that collects the start and the end of each compilation."""
    compiled: list[tuple[float, float]] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith(COMPILING):
            now = time.perf_counter()
            compiled.append((now - duration_secs, now))

    jax.monitoring.register_event_duration_secs_listener(note)
    return compiled


def measure_union(spans: Iterable[tuple[float, float]]) -> float:
    """Return the seconds that spans cover together; programs compile side by side."""
    covered, reached = 0.0, -float("inf")
    for first, last in sorted(spans):
        covered += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return covered
