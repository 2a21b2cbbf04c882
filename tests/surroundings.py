"""Start commands in strange surroundings: they end well, or in one line that says what is wrong.

    python tests/surroundings.py

takes about a minute on 2 cores. The surroundings are environment variables, closed or full standard streams,
a missing home, names that are not UTF-8 and fonts that lack a script. With words as arguments, it starts only
the cases whose names contain one of them.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parent.parent
TIME_LIMIT = 120  # seconds for one case
# A folder that nobody can make, not even root.
NOWHERE = "/dev/null/x"
# A user without an entry in the list of users.
NOBODY = 12345
PYTHON = shlex.quote(sys.executable)
GRID = f"{PYTHON} -m experiments.grid"
TRAIN = (
    f"{GRID} --data=../small.npz --val_size=20 --lam=0.1 --eta=0.01 --batch=10 --epochs=2 --schedule=constant"
)
IN_TERMINAL = f"{PYTHON} -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)'"
AS_NOBODY = f"chmod 777 . && setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
# absl ends with this code after --help.
HELP = 1
# Texts that no user should see.
UNWANTED = re.compile(r"Traceback|Warning|Exception ignored|Error in|Matplotlib|findfont|[\ud800-\udfff]")
RESULTS = {"config.json", "tables.json", "results.csv", "history.csv", "confusion.png", "heatmap.svg"}
# Lines of stderr: what each of two commands trains, its notes, bar and time, and a line on what is reused.
MOST_LINES = 11


class Case(NamedTuple):
    """A command in its surroundings, and what is expected of it.

    `output` and `errors` are regular expressions for stdout and stderr. `folder` will hold a finished run; if
    it is None, the command leaves no files.
    """

    name: str
    variables: Mapping[str, str | None]
    command: str
    code: int = 0
    output: str = ""
    errors: str = ""
    folder: bytes | None = b"out"


def fails(name: str, variables: Mapping[str, str | None], command: str, errors: str) -> Case:
    """Return the case of a command that refuses its surroundings, before it has made any file."""
    return Case(name, variables, command, 2, r"\A\Z", rf"\Aerror: {errors}.*\n\Z", None)


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
OUT = f"{TRAIN} --out=out"
FULL = r"error: the output cannot be written: No space left on device\n\Z"
CASES = [
    Case("plain", {}, OUT, output="− best.*files: out\n"),
    # Matplotlib
    Case("MPLBACKEND that is not there", {"MPLBACKEND": "module://matplotlib_inline.nothing"}, OUT),
    Case("MPLBACKEND=foo: help", {"MPLBACKEND": "foo"}, f"{GRID} --help", HELP, "--lam", r"\A\Z", None),
    Case(
        "settings of Matplotlib",
        {"MPLBACKEND": "foo", "MATPLOTLIBRC": sys.executable, "MPLCONFIGDIR": NOWHERE},
        OUT,
    ),
    # Encodings
    Case("an ASCII terminal", {"PYTHONIOENCODING": "ascii"}, OUT, output=r"\? .*files: out\n"),
    Case(
        "an ASCII locale, and a run resumed in UTF-8",
        ASCII,
        rf"{TRAIN} --out=$'Gr\xc3\xb6\xff' && "
        rf"LC_ALL=C.UTF-8 PYTHONUTF8=1 {TRAIN} --out=$'Gr\xc3\xb6\xff' --epochs=3",
        errors="reused: grid, 1 configuration, the first 2 of 3 epochs",
        folder=b"Gr\xc3\xb6\xff",
    ),
    Case(
        "names that are not UTF-8, and a report of them",
        {},
        rf"cp ../small.npz $'\xff.npz' && {TRAIN} --data=$'\xff.npz' --out=$'\xff' && "
        f"PYTHONIOENCODING=ascii {PYTHON} -m experiments.report --results=.",
        output="report.html",
        folder=b"\xff",
    ),
    # Standard streams
    Case("closed stdin and stderr", {}, f"{OUT} <&- 2>&-", output="files: out"),
    Case("closed stdout", {}, f"{OUT} >&-", output=r"\A\Z"),
    Case("all streams closed", {}, f"{OUT} <&- >&- 2>&-", output=r"\A\Z", errors=r"\A\Z"),
    Case("a reader that leaves", {}, f"{OUT} | true", 141),
    Case("a reader of everything that leaves", {}, f"{OUT} 2>&1 | true", 141, errors=r"\A\Z"),
    Case("help for a reader that leaves", {}, f"{GRID} --help | true", HELP, errors=r"\A\Z", folder=None),
    Case("a full disk for the output", {}, f"{OUT} >/dev/full", 1, r"\A\Z", FULL),
    Case("a full disk for all", {}, f"{OUT} >/dev/full 2>&1", 1, r"\A\Z", r"\A\Z"),
    Case("a full pipe that nobody reads", {}, f"{OUT} 2>&$FULL_PIPE", output="files: out"),
    Case(
        "a failure into a full pipe",
        {"JAX_PLATFORMS": "foo"},
        f"{OUT} 2>&$FULL_PIPE",
        2,
        r"\A\Z",
        folder=None,
    ),
    Case(
        "a bug into a closed pipe",
        {},
        f"{PYTHON} -c 'import experiments.cli.launch as cli; cli.launch(bool, lambda: 1 / 0)' 2>&1 | true",
        1,
        r"\A\Z",
        r"\A\Z",
        None,
    ),
    # Folders
    Case("no home", {"HOME": NOWHERE, "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None, "TMPDIR": NOWHERE}, OUT),
    Case(
        "a user without a name or a home",
        {"HOME": None, "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None},
        f"{AS_NOBODY} {OUT}",
    ),
    fails(
        "a folder that cannot be made",
        {},
        f"{TRAIN} --out={NOWHERE}",
        f"--out={NOWHERE}: cannot be written to",
    ),
    fails(
        "no place for results", {}, f"D=$PWD && cd /proc && {TRAIN} --data=$D/../small.npz", "--out=results/"
    ),
    fails("no such home", {}, f"{TRAIN} --out='~nobody-at-all/x'", "~nobody-at-all/x: there is no home"),
    # JAX
    fails("JAX_PLATFORMS=cuda", {"JAX_PLATFORMS": "cuda"}, OUT, "JAX_PLATFORMS=cuda: no device"),
    fails("JAX_PLATFORMS=foo", {"JAX_PLATFORMS": "foo"}, OUT, "JAX_PLATFORMS=foo: no device"),
    fails("JAX_NUM_CPU_DEVICES=0", {"JAX_NUM_CPU_DEVICES": "0"}, OUT, ".*JAX_NUM_CPU_DEVICES=0: no device"),
    fails("JAX_NUM_CPU_DEVICES=foo", {"JAX_NUM_CPU_DEVICES": "foo"}, OUT, "jax refuses .*num_cpu_devices"),
    fails("JAX_ENABLE_X64=foo", {"JAX_ENABLE_X64": "foo"}, OUT, "jax refuses .*JAX_ENABLE_X64"),
    fails("TQDM_MININTERVAL=foo", {"TQDM_MININTERVAL": "foo"}, OUT, "tqdm refuses .*foo"),
    fails(
        "an unusable cache of JAX",
        {"JAX_COMPILATION_CACHE_DIR": NOWHERE},
        OUT,
        "JAX_COMPILATION_CACHE_DIR=/dev",
    ),
    fails("an unusable XDG_CACHE_HOME", {"XDG_CACHE_HOME": NOWHERE}, OUT, "XDG_CACHE_HOME=/dev"),
    fails(
        "an unusable cache: report",
        {"XDG_CACHE_HOME": NOWHERE},
        f"{PYTHON} -m experiments.report",
        "XDG_CACHE_HOME",
    ),
    # Others
    Case("no bar, and a run resumed", {"TQDM_DISABLE": "1"}, f"{OUT} && {OUT} --epochs=3"),
    Case("warnings are errors", {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}, OUT),
    Case(
        "an odd shell",
        {"PYTHONOPTIMIZE": "2", "PATH": NOWHERE, "TZ": "Nowhere/Else", "LANG": "tr_TR", "TERM": "dumb"},
        f"umask 777; {OUT}",
    ),
    Case("help without docstrings", {"PYTHONOPTIMIZE": "2"}, f"{GRID} --help", HELP, "--lam", r"\A\Z", None),
    Case(
        "help on a terminal without a width",
        {"COLUMNS": "0"},
        f"{IN_TERMINAL} {GRID} --help",
        HELP,
        "--lam",
        folder=None,
    ),
    Case("a terminal without a width", {"COLUMNS": "foo"}, f"{IN_TERMINAL} {OUT}", output="files: out"),
]


def main() -> None:
    """Start all cases, two at a time, and exit with 1 if one fails."""
    words, start = sys.argv[1:], time.monotonic()
    cases = [case for case in CASES if not words or any(word in case.name for word in words)]
    if not _can_become_nobody():
        print(f"left out: this user cannot start {sys.executable} as another one")
        cases = [case for case in cases if AS_NOBODY not in case.command]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        folder.chmod(0o755)
        _write_data(folder / "small.npz")
        full = _full_pipe()
        # The first one fills the caches that the others read.
        run = partial(run_case, folder, full)
        failures = [*filter(None, [run(case) for case in cases[:1]] + [*pool.map(run, cases[1:])])]
    if failures:
        sys.exit(
            "\n\n".join(
                [*failures, f"{len(failures)} of {len(cases)} commands in strange surroundings failed"]
            )
        )
    print(f"{len(cases)} commands in strange surroundings behaved, in {time.monotonic() - start:.0f} s")


def run_case(folder: Path, full: int, case: Case) -> str | None:
    """Start a case in a folder of its own; return what is wrong, or None."""
    place = Path(tempfile.mkdtemp(dir=folder))
    fixed = {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(folder / "caches"),
        "MPLCONFIGDIR": str(folder / "caches"),
        "FULL_PIPE": str(full),
    }
    environment = {
        name: value for name, value in (os.environ | fixed | case.variables).items() if value is not None
    }
    with (place / "stdout").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            ["/bin/bash", "-o", "pipefail", "-c", case.command],
            cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            pass_fds=[full], start_new_session=True,
        )  # fmt: skip
        try:
            code: int | str = process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            code = f"no end after {TIME_LIMIT} s"
    output, errors = (_read(place / name) for name in ("stdout", "stderr"))
    files = {os.fsdecode(path) for path in os.listdir(os.fsencode(place))} - {"stdout", "stderr"}
    wrong = []
    if code != case.code:
        wrong.append(f"the exit code is {code}, not {case.code}")
    if not re.search(case.output, output, re.DOTALL):
        wrong.append(f"stdout does not match {case.output!r}")
    if not re.search(case.errors, errors):
        wrong.append(f"stderr does not match {case.errors!r}")
    if UNWANTED.search(output + errors) or errors.count("\n") > MOST_LINES:
        wrong.append("a user should not see this")
    if case.folder is None and files:
        wrong.append(f"it leaves {sorted(files)}")
    if case.folder is not None:
        results = place / os.fsdecode(case.folder)
        found = {path.name for path in results.glob("*")}
        if not found >= RESULTS or any(".partial" in name for name in found):
            wrong.append(f"its folder has {sorted(found)}")
    if not wrong:
        return None
    lines = [
        f"{case.name}: {'; '.join(wrong)}",
        f"  {case.variables} {case.command}",
        output[-1000:],
        errors[-3000:],
    ]
    return "\n".join(lines)


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _write_data(path: Path) -> None:
    """Write a small data set, one of whose classes no usual font can draw."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (rng.normal(size=(60, 6)) + y[:, None]).astype(np.float32)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y, classes=np.array(["a" * 40, "a" * 41, "猫"]))


def _full_pipe() -> int:
    """Return the descriptor of a pipe that is full, and that nobody reads."""
    _reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for size in (65_536, 1):
        try:
            while os.write(writer, b"\0" * size):
                pass
        except BlockingIOError:
            pass
    os.set_blocking(writer, True)
    return writer


def _can_become_nobody() -> bool:
    command = f"{AS_NOBODY} {PYTHON} -c 'import numpy'"
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "HOME"}
        return (
            subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True).returncode
            == 0
        )


if __name__ == "__main__":
    main()
