"""Sweeps on 1, 2, 3 and 8 devices. Other tests have two, since a process cannot change their number."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla_flags
from compiling import COLLECTIVES

from linear_cifar.layout import BY_REPLICATE, REPLICATED, REPLICATES, make_layout

HERE = Path(__file__).parent
# Mesh of seeds × configurations, by the numbers of configurations, seeds and devices. In the last case there
# are more devices than runs; in none the devices divide the runs evenly.
MESHES = {
    "7-1-2": (1, 2), "7-1-3": (1, 3), "5-4-3": (3, 1), "5-2-8": (2, 4), "7-3-8": (3, 2), "2-1-8": (1, 2),
}  # fmt: skip
ALONE = "7-4-1"


def collectives(program):
    """Return the communicating operations in a program's HLO."""
    return [name for name in COLLECTIVES if name in program]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    fixed = {
        "PYTHONPATH": str(HERE.parent),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.FLAGS}",
    }
    process = subprocess.run(
        [sys.executable, HERE / "on_devices.py", folder, ALONE, *MESHES],
        env=os.environ | fixed,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr
    return folder


@pytest.mark.parametrize("sweep", MESHES)
def test_runs_divided_over_devices_equal_those_on_one(folder, sweep):
    configs, seeds, _ = map(int, sweep.split("-"))
    alone, divided = (np.load(folder / f"{name}.npz") for name in (ALONE, sweep))
    assert tuple(alone["mesh"]) == (1, 1)
    assert tuple(divided["mesh"]) == MESHES[sweep]
    for name in ("W", "b"):
        expected = alone[name][:seeds, :configs]
        assert divided[name].dtype == np.float32
        np.testing.assert_allclose(divided[name], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(divided["loss"], alone["loss"][:seeds, :configs], rtol=1e-5)


@pytest.mark.parametrize("sweep", MESHES)
def test_devices_do_not_communicate(folder, sweep):
    program = (folder / f"{sweep}.hlo").read_text(encoding="utf-8")
    assert f"num_partitions={np.prod(MESHES[sweep])}" in program
    assert not collectives(program)


def test_communication_would_be_seen():
    mesh = make_layout([1], 2, jax.local_devices(), 1).mesh
    summed = jax.shard_map(
        lambda x: jax.lax.psum(x, REPLICATES), mesh=mesh, in_specs=BY_REPLICATE, out_specs=REPLICATED
    )
    assert collectives(jax.jit(summed).lower(jnp.zeros(2)).compile().as_text()) == ["all-reduce"]
