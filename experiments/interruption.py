"""Ctrl+C and SIGTERM while work is done that wants to come to a good end."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds within which a second signal is taken for the first: some senders signal a process and its group.
ECHO = 0.5

# Those that came to this process, outside of what is interruptible.
_came: list[int] = []


def raise_on_signals() -> None:
    """Has both signals end the process by a KeyboardInterrupt of their number."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, frame: Any) -> None:
    _came.append(number)
    raise KeyboardInterrupt(number)


def check() -> None:
    """Raises the KeyboardInterrupt of a signal that came: one that is raised in a callback gets lost."""
    if _came:
        raise KeyboardInterrupt(_came[0])


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

    Raises:
      KeyboardInterrupt: if one came before; the work is not begun.
    """
    check()
    came: list[int] = []
    since = 0.0

    def note(number: int, frame: Any) -> None:
        nonlocal since
        if not came:
            since = time.monotonic()
            came.append(number)
            tell(number)
        elif time.monotonic() - since > ECHO:
            os._exit(128 + number)

    # Those that the caller has switched off stay so: nohup does that.
    caught = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in caught}
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work, lambda: bool(came)).result(), came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
