"""Processes that start with JAX imported, which saves each of them two seconds.

One server process imports JAX without using it, and forks the others. In each of them a program runs as
`python` would run it, with its arguments, folder, environment and signals.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Modules to import. The programs of the tests must not replace any of them.
NEEDED = ("experiments.cli.experiment", "scipy.special", "experiments.artifacts.plotting")


class Process:
    """A process with the part of `subprocess.Popen` that the tests need; its output goes to files."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        """Start `python COMMAND`: the path of a program or -m and a module, and arguments."""
        self._folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        order = {"command": [*command], "cwd": str(cwd), "env": {**env}, "folder": str(self._folder)}
        server = _server()
        assert server.stdin
        print(json.dumps(order), file=server.stdin, flush=True)
        while not (pid := self._read("pid")):
            assert server.poll() is None
            time.sleep(0.001)
        self.pid = int(pid)

    @property
    def returncode(self) -> int | None:
        """The exit code, as `subprocess.Popen` has it; None while the process runs."""
        code = self._read("code")
        return int(code) if code else None

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 240) -> tuple[str, str]:
        """Wait for the end, and return what the process wrote to stdout and to stderr."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"{self._read('errors')} and no end after {timeout} s")
            time.sleep(0.01)
        return self._read("output"), self._read("errors")

    def _read(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""


@functools.cache
def _server() -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    # Python 3.12 warns of forking a process with threads. Those of NumPy are idle and hold no lock.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", __file__]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, text=True)
    assert server.stdin
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return server


def _serve() -> None:
    """Fork a process for each order, and run its command there."""
    for name in NEEDED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for the others
    for line in sys.stdin:
        if os.fork() == 0:
            order = json.loads(line)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (pid := os.fork()) == 0:
                break
            _write(order, "pid", pid)
            _, status = os.waitpid(pid, 0)
            _write(order, "code", os.waitstatus_to_exitcode(status))
            os._exit(0)
    else:
        return
    _run(order)


def _write(order: dict, name: str, number: int) -> None:
    path = Path(order["folder"], name)
    path.with_suffix(".partial").write_text(str(number), encoding="utf-8")
    path.with_suffix(".partial").rename(path)


def _run(order: dict) -> None:
    import jax

    for stream, name in ((0, os.devnull), (1, "output"), (2, "errors")):
        file = os.open(Path(order["folder"], name), os.O_RDWR | os.O_CREAT)
        os.dup2(file, stream)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    # JAX read this variable when it was imported.
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        jax.config.update("jax_num_cpu_devices", int(os.environ["JAX_NUM_CPU_DEVICES"]))
    sys.argv = order["command"]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
