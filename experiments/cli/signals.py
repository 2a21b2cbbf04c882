"""Ctrl+C and SIGTERM, which end a command at once or after the work in hand."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds within which a second signal counts as the first: some senders signal a process and its group.
ECHO = 0.5
# Seconds after which the main thread looks for a signal that did not wake it.
LOOK = 0.1

# The signals that came to this process outside of interruptible work.
_received: list[int] = []


def raise_on_signals() -> None:
    """Let both signals end the process by a KeyboardInterrupt that holds their number."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, frame: Any) -> None:
    _received.append(number)
    raise KeyboardInterrupt(number)


def check_signals() -> None:
    """Raise the KeyboardInterrupt of a signal that came earlier, because one raised in a callback is lost."""
    if _received:
        raise KeyboardInterrupt(_received[0])


def run_interruptible(
    work: Callable[[Callable[[], bool]], Result], on_signal: Callable[[int], None]
) -> tuple[Result, int | None]:
    """Run work that a signal asks to stop, and that ends in its own time.

    The work runs in a thread of its own. Python acts on signals in the main thread only, and there not before
    a call into a compiled program returns. A second signal ends the process at once.

    Args:
      work: is called with a function that tells whether to stop.
      on_signal: is called with the number of the first signal.

    Returns:
      The result of the work, and the number of the signal; None if no signal came.

    Raises:
      KeyboardInterrupt: if a signal came earlier; the work is not started.
    """
    check_signals()
    received: list[int] = []
    received_at = 0.0

    def handle(number: int, frame: Any) -> None:
        nonlocal received_at
        if not received:
            received_at = time.monotonic()
            received.append(number)
            on_signal(number)
        elif time.monotonic() - received_at > ECHO:
            os._exit(128 + number)

    # A signal that the caller ignores stays ignored, as under nohup.
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work, lambda: bool(received))
            # The system may hand a signal to another thread, such as one that is starting a thread. Python
            # only notes it there, and a main thread that waits without end would not act on it.
            while not wait([future], LOOK).done:
                pass
            return future.result(), received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
