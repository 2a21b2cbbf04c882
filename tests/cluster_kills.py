"""Kill workers, the scheduler and the command of a sweep on a Dask cluster, over and over.

    python tests/cluster_kills.py --kills=20

takes about five minutes on 2 cores; `tests/test_cluster.py` kills a few workers. Every kill is a SIGKILL at a
random moment. A killed worker is replaced, a killed scheduler is started again with new workers, and a killed
command is started again. The results equal those of one process, bit for bit.
"""

import argparse
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import kills
import xla_flags
from dask_processes import DaskProcesses

VICTIMS = ("worker", "scheduler", "command")
# Blocks of two runs, so that there are more of them than workers.
MORE = ("--block_runs=2", "--save_every=1")
WORKERS = 2
# Longest wait for the moment of a kill, in seconds: a whole sweep takes about as long.
LONGEST = 12


class Cluster:
    """A scheduler and two workers, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.processes = DaskProcesses(folder)
        self.start()

    def start(self) -> None:
        """Start the scheduler and the workers."""
        self.processes.file.unlink(missing_ok=True)
        self.scheduler = self.processes.scheduler()
        self.workers = [self.processes.worker() for _ in range(WORKERS)]
        kills.wait_for(self.scheduler, self.processes.file.exists)

    def kill_worker(self, rng: random.Random) -> None:
        """Kill one of the workers, and start another."""
        self.workers.pop(rng.randrange(WORKERS)).kill()
        self.workers.append(self.processes.worker())

    def kill_scheduler(self) -> None:
        """Kill the scheduler, and start everything again; workers end without their scheduler."""
        self.scheduler.kill()
        for worker in self.workers:
            worker.wait(timeout=120)
        self.start()


def start(out: Path, folder: Path, cluster: Cluster | None) -> subprocess.Popen[str]:
    """Start the command, on a cluster or without."""
    scheduler = () if cluster is None else (f"--scheduler={cluster.processes.file}",)
    # Compiled as on the workers, for the same bits.
    options = {"program": kills.WHOLE, "XLA_FLAGS": xla_flags.FLAGS}
    process = kills.start(out, folder / "caches", *MORE, *scheduler, **options)
    assert isinstance(process, subprocess.Popen)
    return process


def kill_and_compare(folder: Path, count: int, rng: random.Random) -> Counter[str]:
    """Train on a cluster with as many kills; return how many hit each kind of process.

    Raises:
      AssertionError: if a result differs, or a command ends in another way than it should.
    """
    reference, out, hits = folder / "reference", folder / "killed", Counter[str]()
    kills.finish(start(reference, folder, None))
    cluster = Cluster(folder)
    with cluster.processes:
        process = start(out, folder, cluster)
        while hits.total() < count:
            until, victim = time.monotonic() + rng.uniform(0, LONGEST), rng.choice(VICTIMS)
            if not kills.wait_for(process, lambda until=until: time.monotonic() > until):
                kills.finish(process)
                assert not kills.differing(out, reference), (kills.differing(out, reference), hits)
                shutil.rmtree(out)
                process = start(out, folder, cluster)
                continue
            hits[victim] += 1
            if victim == "worker":
                cluster.kill_worker(rng)
            elif victim == "command":
                process.send_signal(signal.SIGKILL)
                process.communicate()
                process = start(out, folder, cluster)
            else:
                cluster.kill_scheduler()
                _, errors = process.communicate(timeout=120)
                assert process.returncode in (0, 1), errors  # 0: it had all that it needed
                last = errors.strip().splitlines()[-1]
                is_lost = "does not answer any more" in last or "no Dask scheduler answers" in last
                assert process.returncode == 0 or (is_lost and "; to resume:" in last), errors
                process = start(out, folder, cluster)
        kills.finish(process)
    assert not kills.differing(out, reference), (kills.differing(out, reference), hits)
    return hits


def main() -> None:
    """Kill as often as the flags say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hits = kill_and_compare(Path(folder), arguments.kills, random.Random(arguments.seed))
    print(f"{hits.total()} kills ({dict(hits)}): {', '.join(kills.FILES)} equal those of one process")


if __name__ == "__main__":
    main()
