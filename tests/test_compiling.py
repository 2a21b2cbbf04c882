"""The program of an epoch, compiled for an absent GPU.

The compilers need an environment of their own, with `pip install '.[compile]'`. COMPILE_PYTHON names its
Python.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def compile_for(accelerator, python, out):
    return subprocess.run(
        [python, "-W", "ignore", "-m", "experiments.bench", f"--compile={accelerator}", f"--out={out}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_an_epoch_on_an_h100_has_few_kernels_and_moves_few_bytes(tmp_path):
    if "COMPILE_PYTHON" not in os.environ:
        pytest.skip("COMPILE_PYTHON does not name a Python with the compilers of '.[compile]'")
    process = compile_for("h100", os.environ["COMPILE_PYTHON"], tmp_path)
    assert process.returncode == 0, process.stderr
    assert "compiled, not run" in process.stdout
    content = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    epoch, steps = content["epoch"], {row["batch"]: row for row in content["steps"]}
    # Walking the program has found the number of iterations of every loop.
    assert 15_000 < epoch["kernels_per_epoch"] <= 18_500
    assert 15e9 < epoch["bytes_per_epoch"] <= 24e9
    assert epoch["collectives"] == epoch["conditionals"] == epoch["gathers_in_steps"] == 0
    assert {batch: row["steps"] for batch, row in steps.items()} == {
        50: 980, 100: 490, 200: 245, 400: 123, "shared": 1,
    }  # fmt: skip
    # Two products per step. XLA joins those of two steps on the same examples at the end of an epoch.
    products = sum(row["products"] * row["steps"] for row in steps.values())
    assert 2 * 1_838 - 2 <= products <= 2 * 1_838
    assert steps[50]["passes_over_W"] == 5
    assert steps[50]["cycles"] is None


@pytest.mark.skipif(find_spec("libtpu") is not None, reason="this Python has libtpu")
def test_a_missing_compiler_is_one_line(tmp_path):
    process = compile_for("v5e", sys.executable, tmp_path)
    assert process.returncode == 2
    assert process.stderr == (
        "error: --compile=v5e needs libtpu: pip install '.[compile]' in an environment of its own\n"
    )
    assert not (tmp_path / "bench.json").exists()
