"""The program of an epoch, compiled for an H100 that is not there, has few kernels and moves few bytes.

The compilers need an environment of their own, with `pip install '.[compile]'`. COMPILE_PYTHON names its
Python.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_an_epoch_on_an_h100_has_few_kernels_and_moves_few_bytes():
    if "COMPILE_PYTHON" not in os.environ:
        pytest.skip("COMPILE_PYTHON does not name a Python with the compilers of '.[compile]'")
    process = subprocess.run(
        [os.environ["COMPILE_PYTHON"], "-W", "ignore", HERE / "compiling.py", "h100"],
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr
    epoch = json.loads(process.stdout)
    steps = {int(batch): step for batch, step in epoch["steps"].items()}
    assert {batch: step["steps"] for batch, step in steps.items()} == {50: 980, 100: 490, 200: 245, 400: 123}

    # Less would mean that loops or kernels were overlooked.
    assert 15_000 < epoch["kernels_per_epoch"] <= 18_500
    assert 15e9 < epoch["bytes_per_epoch"] <= 24e9
    for batch, most in {50: 8, 100: 10, 200: 12, 400: 16}.items():
        assert 2 < steps[batch]["kernels"] <= most
    # Two products per step. XLA joins those of two steps on the same examples at the end of an epoch.
    products = sum(step["products"] * step["steps"] for step in steps.values())
    assert 2 * 1_838 - 2 <= products <= 2 * 1_838
    assert steps[50]["passes_over_W"] == 5
    assert epoch["gathers_in_steps"] == epoch["collectives"] == epoch["conditionals"] == 0

    # The images are bytes. What a device holds besides them and the weights is a few chunks of images.
    images, weights = 49_000 * (3_072 + 4), 48 * 4 * 10 * (3_072 + 1)
    assert images + weights <= epoch["argument_bytes"] < 1.01 * (images + weights)
    assert epoch["temporary_bytes"] < 20e6
