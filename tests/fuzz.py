"""Feed everything that reads files with hostile bytes, guided by coverage, through atheris.

    pip install atheris && python tests/fuzz.py --runs=100000

Each target of `tests/targets.py` has a process of its own; --target selects one. A target fails by a crash, a
hang of more than 20 seconds, an exception that is not a clear refusal, too much memory, or an attempt to run
a program.
"""

import argparse
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def fuzz(name: str, runs: int, seed: int) -> None:
    """Try one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["linear_cifar", "experiments"]):
        import targets
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        genuine, attempt = targets.TARGETS[name](Path(folder))
        assert all(map(attempt, genuine))
        for i, content in enumerate(genuine):
            (Path(corpus) / str(i)).write_bytes(content)
        longest = 2 * max(map(len, genuine))
        limits = [
            f"-runs={runs}",
            f"-seed={seed}",
            f"-max_len={longest}",
            "-timeout=20",
            "-keep_seed=1",
            "-rss_limit_mb=4096",
        ]
        atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", corpus], attempt)
        atheris.Fuzz()


def main() -> None:
    """Try all targets, or the selected one."""
    names = (
        "binary", "python", "gzipped", "tar", "tfds", "features", "npy", "safetensors", "parquet", "snapshot",
        "checkpoint", "manifest", "results", *(["pt"] if find_spec("torch") else []),
    )  # fmt: skip
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100_000, help="inputs per target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=names)
    arguments = parser.parse_args()
    if arguments.target:
        fuzz(arguments.target, arguments.runs, arguments.seed)
        return
    failed = False
    for name in names:
        command = [
            sys.executable,
            __file__,
            f"--runs={arguments.runs}",
            f"--seed={arguments.seed}",
            f"--target={name}",
        ]
        process = subprocess.run(command, capture_output=True, text=True)
        failed |= process.returncode != 0
        print(f"{name}: {'passed' if process.returncode == 0 else process.stderr[-3000:]}", flush=True)
        for line in process.stderr.splitlines():
            if line.startswith(("stat::number_of_executed_units", "stat::average", "stat::peak_rss")):
                print(f"  {line}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
