"""Kills a sweep at random moments, over and over: its results are an undisturbed run's, bit for bit.

    python tests/kills.py --kills=50

takes about a quarter of an hour on 2 cores; `tests/test_resume.py` kills it a few times. Every kill is a
SIGKILL in a phase drawn by chance: start, compiling, training, saving the state, writing the results.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import forks

ROOT = Path(__file__).parent.parent
FILES = ("results.csv", "history.csv", "best_params.npz")
EPOCHS = 8
# All the state that there is: velocities, averages, a schedule; and η at which any difference grows large.
FLAGS = (
    "--dataset=synthetic", f"--epochs={EPOCHS}", "--eta=0.001,0.1", "--lam=0.1", "--momentum=0.9",
    "--average=3", "--schedule=cosine", "--flip", "--seeds=2",
)  # fmt: skip
# The command, and the same with less to do, for the tests.
WHOLE = ("-m", "experiments.grid", "--train=batch1", "--batch=100,400")
SMALL = (str(ROOT / "tests" / "small_grid.py"), "--val_size=200", "--batch=100")
Process = forks.Process | subprocess.Popen[str]
PHASES = ("start", "compiling", "training", "saving", "writing")


def start(out: Path, caches: Path, *more: str, program: Sequence[str] = SMALL, **environment: str) -> Process:
    """The sweep in a process of its own, which writes to `out`; the whole one begins as a user's does."""
    fixed = {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "XDG_CACHE_HOME": str(caches),
    }
    command, environment = [*program, *FLAGS, f"--out={out}", *more], os.environ | fixed | environment
    if program == SMALL:
        return forks.Process(command, cwd=out.parent, env=environment)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=out.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: Process, sign: Callable[[], object]) -> bool:
    """Waits until there is a sign of something; False if the process ends before."""
    while process.poll() is None:
        if sign():
            return True
        time.sleep(0.001)
    return False


def begun(out: Path) -> list[int]:
    """When it began to train, or to go on."""
    return [(out / "config.json").stat().st_mtime_ns for _ in out.glob("blocks/*/block.json")]


def saved(out: Path) -> list[Path]:
    """The states on disk."""
    return [path for path in out.glob("blocks/*/*") if path.name.isdecimal()]


def reach(process: Process, out: Path, phase: str, rng: random.Random | None = None) -> bool:
    """Waits for a moment by chance in that phase, or for its beginning; False if the process ends before."""
    states, times = {*saved(out)}, begun(out)
    signs: dict[str, tuple[Callable[[], object], float]] = {
        "start": (lambda: True, 3),
        "compiling": (lambda: begun(out) != times, 3),
        "training": (lambda: {*saved(out)} - states, 0.5),
        "saving": (lambda: any(out.glob("blocks/*/*.orbax-checkpoint-tmp")), 0.15),
        "writing": (lambda: any(path.name == str(EPOCHS) for path in saved(out)), 2),
    }
    sign, longest = signs[phase]
    if not wait_for(process, sign):
        return False
    time.sleep(rng.uniform(0, longest) if rng else 0)
    return process.poll() is None


def finish(process: Process) -> None:
    """Waits for the end, which must be a good one."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def differing(out: Path, reference: Path) -> list[str]:
    """The files that are not those of the undisturbed run."""
    return [name for name in FILES if (out / name).read_bytes() != (reference / name).read_bytes()]


def kill_and_compare(folder: Path, phases: Sequence[str], rng: random.Random) -> Counter[str]:
    """Runs the sweep undisturbed, then again with a kill in each of the phases; how many kills hit.

    A run that ends before it is hit is compared with the undisturbed one, and the next one begins anew.

    Raises:
      AssertionError: if a result differs, or a run fails.
    """
    caches, reference, out = folder / "caches", folder / "reference", folder / "killed"
    finish(start(reference, caches, program=WHOLE))
    hits: Counter[str] = Counter()
    todo = list(phases)
    while todo:
        # Now and then nothing is compiled yet.
        process = start(
            out,
            caches if rng.random() < 0.8 else Path(tempfile.mkdtemp(dir=folder)),
            "--save_every=1",
            program=WHOLE,
        )
        if reach(process, out, todo[0], rng):
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hits[todo.pop(0)] += 1
        else:
            finish(process)
            assert not differing(out, reference), (differing(out, reference), hits)
            shutil.rmtree(out)
    finish(start(out, caches, program=WHOLE))
    assert not differing(out, reference), (differing(out, reference), hits)
    return hits


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    phases = [rng.choice(PHASES) for _ in range(given.kills)]
    with tempfile.TemporaryDirectory() as folder:
        hits = kill_and_compare(Path(folder), phases, rng)
    print(f"{hits.total()} kills ({dict(hits)}): {', '.join(FILES)} are those of an undisturbed run")


if __name__ == "__main__":
    main()
