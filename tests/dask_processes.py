"""A Dask scheduler and its workers as processes of their own on the loopback interface, for the tests."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xla_flags

from linear_cifar import worker

TESTS = Path(__file__).parent


class DaskProcesses:
    """A scheduler and workers; to be opened by `with`, which ends them."""

    def __init__(self, folder: Path, allowed_failures: int = 3) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS))),
            "XLA_FLAGS": xla_flags.FLAGS,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures),
            "ON_A_WORKER": "yes",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "DaskProcesses":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()

    def scheduler(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the scheduler, which writes its file once it listens."""
        options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file))
        return self.start(["scheduler", *options, *more])

    def worker(self, *more: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker without a nanny, so that a killed one does not come back."""
        options = ("--scheduler-file", str(self.file), "--nthreads", "1", "--no-nanny", "--no-dashboard")
        # A worker whose scheduler dies while it starts would wait for ever.
        limits = ("--memory-limit", "0", "--death-timeout", "30")
        return self.start(["worker", *options, *limits, *more], **environment)

    def start(self, words: Sequence[str], **environment: str) -> subprocess.Popen[Any]:
        """Start a command of Dask; its output goes to a file in the folder."""
        with (self.folder / f"{words[0]}-{len(self.running)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                cwd=self.folder,
                env=self.environment | environment,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process


def count_held() -> int:
    """Return how many commands' data a worker holds, when Dask calls this on it."""
    return len(worker._held)
