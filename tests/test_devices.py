"""Sweeps on 1, 2, 3 and 8 devices; all other tests have two, and a process can't change their number."""

import os
import subprocess
import sys
from pathlib import Path

import compiling
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar.layout import EVERYWHERE, OF_SEEDS, SEEDS, lay_out

HERE = Path(__file__).parent
# How devices tell one another something, as HLO calls it; all-reduce-start and the like contain these words.
COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast",
)  # fmt: skip
# Configurations, seeds and devices: the mesh of seeds × configurations. Only of the last one the devices are
# more than the runs; of none they divide them.
MESHES = {
    "7-1-2": (1, 2), "7-1-3": (1, 3), "5-4-3": (3, 1), "5-2-8": (2, 4), "7-3-8": (3, 2), "2-1-8": (1, 2),
}  # fmt: skip
ALONE = "7-4-1"


def collectives(program):
    """Those in a program's HLO."""
    return [name for name in COLLECTIVES if name in program]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    fixed = {
        "PYTHONPATH": str(HERE.parent),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {compiling.FLAGS}",
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
    program = (folder / f"{sweep}.hlo").read_text()
    assert f"num_partitions={np.prod(MESHES[sweep])}" in program
    assert not collectives(program)


def test_communication_would_be_seen():
    mesh = lay_out([1], 2, jax.local_devices(), 1).mesh
    told = jax.shard_map(lambda x: jax.lax.psum(x, SEEDS), mesh=mesh, in_specs=OF_SEEDS, out_specs=EVERYWHERE)
    assert collectives(jax.jit(told).lower(jnp.zeros(2)).compile().as_text()) == ["all-reduce"]
