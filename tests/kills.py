"""Kill a sweep at random moments, over and over: its results equal an undisturbed run's, bit for bit.

    python tests/kills.py --kills=50
    python tests/kills.py --kills=50 --command=search

takes about ten minutes on 2 cores; `tests/test_resume.py` kills a sweep a few times. Every kill is a SIGKILL
in a phase drawn at random: start, compiling, training, saving the state, writing the results. The search has
halving, so that its phases come once per rung.
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
# Every kind of state: velocities, averages, a schedule. At the larger η any difference would grow.
FLAGS = (
    "--dataset=synthetic", f"--epochs={EPOCHS}", "--eta=0.001,0.1", "--lam=0.1", "--momentum=0.9",
    "--average=3", "--schedule=cosine", "--flip", "--seeds=2",
)  # fmt: skip
# The commands, and a smaller form of the first for the tests.
WHOLE = ("-m", "experiments.grid", "--train=batch1", "--batch=100,400")
SEARCH = ("-m", "experiments.search", "--train=batch1", "--batch=100,400")
# They come after `FLAGS` and override them.
SEARCH_FLAGS = (
    "--points=32", "--bracket=16", "--halving=3", "--rungs=1,3,5", "--eta=0.001:0.1", "--lam=0.001:0.1",
)  # fmt: skip
SMALL = (str(ROOT / "tests" / "small_grid.py"), "--val_size=200", "--batch=100")
Process = forks.Process | subprocess.Popen[str]
PHASES = ("start", "compiling", "training", "saving", "writing")


def start(out: Path, caches: Path, *more: str, program: Sequence[str] = SMALL, **environment: str) -> Process:
    """Start the sweep in a new process that writes to `out`; WHOLE starts as a user's command does."""
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
    """Wait until `sign` is true; return False if the process ends before."""
    while process.poll() is None:
        if sign():
            return True
        time.sleep(0.001)
    return False


def training_starts(out: Path) -> list[int]:
    """Return a list that changes when a process starts to train."""
    return [(out / "config.json").stat().st_mtime_ns for _ in out.glob("blocks/*/*/block.json")]


def saved_states(out: Path) -> dict[Path, int]:
    """Return the states on disk, and their epochs."""
    return {path: int(path.stem.split("-")[1]) for path in out.glob("blocks/**/state-*.npz")}


def reach(process: Process, out: Path, phase: str, rng: random.Random | None = None) -> bool:
    """Wait for a random moment of a phase, without `rng` for its start; return False if the process ends."""
    states, times = {*saved_states(out)}, training_starts(out)
    signs: dict[str, tuple[Callable[[], object], float]] = {
        "start": (lambda: True, 3),
        "compiling": (lambda: training_starts(out) != times, 3),
        "training": (lambda: {*saved_states(out)} - states, 0.5),
        "saving": (lambda: any(out.glob("blocks/**/.state-*.npz")), 0.05),
        "writing": (lambda: any(out.glob("blocks/*/*/result-*.npz")), 2),
    }
    sign, longest = signs[phase]
    if not wait_for(process, sign):
        return False
    time.sleep(rng.uniform(0, longest) if rng else 0)
    return process.poll() is None


def finish(process: Process) -> None:
    """Wait for the end, which must be a success."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def differing(out: Path, reference: Path) -> list[str]:
    """Return the names of the files that differ from the undisturbed run's."""
    return [name for name in FILES if (out / name).read_bytes() != (reference / name).read_bytes()]


def kill_and_compare(
    folder: Path, phases: Sequence[str], rng: random.Random, program: Sequence[str], more: Sequence[str]
) -> Counter[str]:
    """Run the sweep undisturbed, then with a kill in each of the phases; return how many kills hit each.

    A run that ends before it is killed is compared with the undisturbed one, and the next one starts afresh.

    Raises:
      AssertionError: if a result differs, or a run fails.
    """
    caches, reference, out = folder / "caches", folder / "reference", folder / "killed"
    finish(start(reference, caches, *more, program=program))
    hits: Counter[str] = Counter()
    remaining = list(phases)
    while remaining:
        # One run in five starts without compiled programs.
        process = start(
            out,
            caches if rng.random() < 0.8 else Path(tempfile.mkdtemp(dir=folder)),
            "--save_every=1",
            *more,
            program=program,
        )
        if reach(process, out, remaining[0], rng):
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hits[remaining.pop(0)] += 1
        else:
            finish(process)
            assert not differing(out, reference), (differing(out, reference), hits)
            shutil.rmtree(out)
    finish(start(out, caches, *more, program=program))
    assert not differing(out, reference), (differing(out, reference), hits)
    return hits


def main() -> None:
    """Kill as often as the flags say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", choices=("grid", "search"), default="grid")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    phases = [rng.choice(PHASES) for _ in range(arguments.kills)]
    with tempfile.TemporaryDirectory() as folder:
        program, more = (SEARCH, SEARCH_FLAGS) if arguments.command == "search" else (WHOLE, ())
        hits = kill_and_compare(Path(folder), phases, rng, program, more)
    print(f"{hits.total()} kills ({dict(hits)}): {', '.join(FILES)} equal an undisturbed run's")


if __name__ == "__main__":
    main()
