import subprocess
import sys
from pathlib import Path


def test_wrong_calls_are_refused_in_one_line_that_says_what_to_do():
    script = Path(__file__).parent / "wrong_calls.py"
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
