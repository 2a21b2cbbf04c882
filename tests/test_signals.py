import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.cli.signals import ECHO, run_interruptible

ROOT = Path(__file__).parent.parent
# Work that calls into C and does not return for a while, as a compiled program does.
PROGRAM = """
import sys, time
from experiments.cli.signals import run_interruptible
def work(stopped):
    print("started", flush=True)
    for _ in range(100):
        time.sleep(float(sys.argv[1]))
        if stopped():
            return "finished"
print(*run_interruptible(work, lambda number: print("first", number, flush=True)), flush=True)
"""


def start(seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_work_finish(number):
    process = start(0.3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert output == f"first {int(number)}\nfinished {int(number)}\n"
    assert process.returncode == 0


def test_the_second_signal_ends_the_process_at_once():
    process = start(30)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "first 15\n"
    process.send_signal(signal.SIGTERM)  # an echo of the first one, as `timeout` sends
    time.sleep(1.5 * ECHO)
    assert process.poll() is None
    sent_at = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - sent_at < 10  # and not after thirty seconds of work


def test_a_signal_that_another_thread_receives_stops_the_work():
    def work(stopped):
        time.sleep(0.3)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        end = time.monotonic() + 10
        while not stopped() and time.monotonic() < end:
            time.sleep(0.01)
        return stopped()

    assert run_interruptible(work, lambda number: None) == (True, signal.SIGTERM)


def test_errors_of_the_work_are_raised_and_the_handlers_are_restored():
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        run_interruptible(lambda stopped: 1 / 0, pytest.fail)
    assert run_interruptible(lambda stopped: stopped(), pytest.fail) == (False, None)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
