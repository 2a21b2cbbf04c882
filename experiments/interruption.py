"""Ctrl+C and SIGTERM while work is done that wants to come to a good end."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def interruptible(
    work: Callable[[Callable[[], bool]], Result], tell: Callable[[int], None]
) -> tuple[Result, int | None]:
    """Does the work, which is given a function to ask whether it should stop.

    It is done in a thread of its own, as Python acts on signals in the main thread only, and there not before
    a call into the compiled program returns. A second signal ends the process at once.

    Args:
      work: what to do.
      tell: is called with the first signal's number.

    Returns:
      What the work gave, and the number of the signal if one came.
    """
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        if came:
            os._exit(128 + number)
        came.append(number)
        tell(number)

    # Those that the caller has switched off stay so: nohup does that.
    caught = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in caught}
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work, lambda: bool(came)).result(), came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
