"""Train on a Dask cluster of two hosts that share nothing but a network.

    python tests/two_hosts.py

needs root, and Linux with `ip`, `unshare` and `nsenter`; it takes about three minutes. A host is a network
namespace with an address of its own and a mount namespace with a file system of its own, on one machine. The
scheduler and the command run on the first host, beside a worker that sees the folder of the results. The
worker on the second host sees no file of the first, neither results nor data. While the sweep trains, the
second host is cut off until its worker is taken for dead, and is then connected again; Dask ends such a
worker. The results equal those of one process, bit for bit.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kills
import xla_flags

ADDRESSES = ("10.77.0.1", "10.77.0.2")
SCHEDULER = f"tcp://{ADDRESSES[0]}:8786"
# Seconds after which the scheduler takes a silent worker for dead.
SILENCE = 8
GRID = (sys.executable, *kills.WHOLE, *kills.FLAGS, "--block_runs=1", "--save_every=1", "--epochs=12")
WORKER = (sys.executable, "-m", "dask", "worker", SCHEDULER, "--nthreads", "1", "--no-dashboard")


def run(*words: object) -> None:
    """Run a command to its end."""
    subprocess.run([*map(str, words)], check=True)


class Host:
    """A machine of its own as far as processes on it can see; to be opened by `with`, which ends them."""

    def __init__(self, name: str, address: str, folder: Path, logs: Path) -> None:
        """Make a host on which an empty file system lies at `folder`."""
        self.name, self.logs = name, logs
        self.processes: list[subprocess.Popen[bytes]] = []
        setup = f"hostname {name} && mount -t tmpfs {name} {folder} && echo ready && exec sleep infinity"
        self.init = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", setup], stdout=subprocess.PIPE
        )
        assert self.init.stdout
        assert self.init.stdout.readline() == b"ready\n"
        if name == "second":
            run("ip", "link", "add", "lc-first", "type", "veth", "peer", "name", "lc-second")
        self.address = address

    def connect(self) -> None:
        """Give the host its end of the cable and its address."""
        run("ip", "link", "set", f"lc-{self.name}", "netns", self.init.pid)
        for words in (
            f"addr add {self.address}/24 dev lc-{self.name}", f"link set lc-{self.name} up", "link set lo up",
        ):  # fmt: skip
            run(*self.inside("ip", *words.split()))

    def inside(self, *words: str) -> list[str]:
        """Return the command that runs another one on this host."""
        return ["nsenter", "--target", str(self.init.pid), "--net", "--mount", "--uts", *words]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command on this host; its output goes to a file outside."""
        environment = os.environ | {
            "PYTHONPATH": str(kills.ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "XLA_FLAGS": xla_flags.FLAGS,
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{SILENCE}s",
        }
        with (self.logs / f"{self.name}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(self.inside(*words), env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *error: object) -> None:
        for process in (*self.processes, self.init):
            process.kill()
            process.wait()


def wait(sign: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until `sign` is true."""
    until = time.monotonic() + seconds
    while not sign():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.1)


def train_on_two_hosts(folder: Path, logs: Path) -> str:
    """Train in one process and on the two hosts, compare, and say what came out."""
    with (
        Host("first", ADDRESSES[0], folder, logs) as first,
        Host("second", ADDRESSES[1], folder, logs) as second,
    ):
        first.connect()
        second.connect()
        # What another process sees of a host's files.
        files = Path(f"/proc/{first.init.pid}/root{folder}")
        assert first.start(*GRID, f"--out={folder}/one").wait() == 0
        first.start(sys.executable, "-m", "dask", "scheduler", "--host", ADDRESSES[0], "--no-dashboard")
        first.start(*WORKER)
        second.start(*WORKER)
        command = first.start(*GRID, f"--out={folder}/two", f"--scheduler={SCHEDULER}")
        log = logs / f"first-{len(first.processes) - 1}.log"
        wait(lambda: len([*files.glob("two/blocks/*/*/result-*.npz")]) > 1)
        run(*second.inside("ip", "link", "set", "lc-second", "down"))
        wait(lambda: "(second) has left" in log.read_text(encoding="utf-8") or command.poll() is not None)
        assert command.poll() is None, "the sweep has ended before the second host was missed"
        run(*second.inside("ip", "link", "set", "lc-second", "up"))
        assert command.wait() == 0, log.read_text(encoding="utf-8")
        assert not kills.differing(files / "two", files / "one")
        seen = Path(f"/proc/{second.init.pid}/root{folder}")
        assert not [*seen.iterdir()], "the second host has written files"
        workers = json.loads((files / "two" / "config.json").read_text(encoding="utf-8"))["workers"]
        blocks = {
            host: sum(w["blocks"] for w in workers if w["host"] == host) for host in ("first", "second")
        }
        assert all(blocks.values()), blocks
    return f"blocks by host: {blocks}; {', '.join(kills.FILES)} equal those of one process"


def main() -> None:
    """Check what it needs, and run."""
    if os.name != "posix" or os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        sys.exit("this needs root, and Linux with ip, unshare and nsenter")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as logs:
        print(train_on_two_hosts(Path(folder), Path(logs)))


if __name__ == "__main__":
    main()
