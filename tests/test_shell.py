import errno
import os
import subprocess
import sys
from pathlib import Path

import forks
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("statement", "code", "line"),
    [
        ("raise experiments.shell.UsageError('no such thing')", 2, "error: no such thing"),
        ("raise linear_cifar.dataset.DataError('broken file')", 2, "error: broken file"),
        ("raise KeyboardInterrupt", 130, "stopped"),
        ("raise KeyboardInterrupt(15)", 143, "stopped"),
        ("raise experiments.shell.Stopped('stopped; to go on: ...', 15)", 143, "stopped; to go on: ..."),
        ("os.kill(os.getpid(), 15)", 143, "stopped"),
        (
            f"raise OSError({errno.ENOSPC}, 'No space left on device', 'results.csv')",
            1,
            "error: [Errno 28] No space left on device: 'results.csv'",
        ),
    ],
)
def test_an_experiment_that_fails_ends_in_one_line(tmp_path, statement, code, line):
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, linear_cifar.dataset, experiments.shell
def experiment(): {statement}
experiments.shell.launch(lambda: None, experiment)
""")
    process = forks.Process([str(program)], cwd=tmp_path, env=os.environ)
    assert process.communicate(timeout=120) == ("", line + "\n")
    assert process.returncode == code


def test_a_bug_is_not_hidden():
    program = (
        "from experiments.shell import launch\ndef experiment(): 1 / 0\nlaunch(lambda: None, experiment)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "ZeroDivisionError" in process.stderr
    assert process.returncode == 1
