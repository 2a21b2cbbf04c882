import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.interruption import ECHO, interruptible

ROOT = Path(__file__).parent.parent
# Work that calls into C and does not come back for a while, as a compiled program does.
PROGRAM = """
import sys, time
from experiments.interruption import interruptible
def work(stopped):
    print("begun", flush=True)
    for _ in range(100):
        time.sleep(float(sys.argv[1]))
        if stopped():
            return "in good order"
print(*interruptible(work, lambda number: print("first", number, flush=True)), flush=True)
"""


def start(seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_work_come_to_its_end(number):
    process = start(0.3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert output == f"first {int(number)}\nin good order {int(number)}\n"
    assert process.returncode == 0


def test_the_second_ends_it_at_once():
    process = start(30)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "first 15\n"
    process.send_signal(signal.SIGTERM)  # at once, as `timeout` does: the same one
    time.sleep(1.5 * ECHO)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 10  # and not after thirty seconds of work


def test_what_the_work_raises_is_raised_and_the_handlers_are_as_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda stopped: 1 / 0, pytest.fail)
    assert interruptible(lambda stopped: stopped(), pytest.fail) == (False, None)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
