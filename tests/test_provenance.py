import jax
import pytest
from small_runs import identify_sweep, make_sweep, small_data, train_sweep

from experiments.artifacts import provenance
from linear_cifar.blocks import (
    Block,
    block_folder,
    describe_devices,
    describe_numerics,
    read_blocks,
    write_block,
)
from linear_cifar.config import grid
from linear_cifar.layout import make_layout


@pytest.fixture
def eight_devices(monkeypatch):
    """Eight devices in place of the real ones."""
    devices = jax.local_devices()[:1] * 8
    monkeypatch.setattr(jax, "local_devices", lambda: devices)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 5)])
def test_the_devices_are_those_of_the_layout(size):
    seeds, configs = size
    used = make_layout([10] * configs, seeds, jax.local_devices(), config_bytes=1).mesh.size
    assert provenance.describe_use([size]) == {"devices": ["cpu: cpu"] * used}


@pytest.mark.usefixtures("eight_devices")
@pytest.mark.parametrize(("sizes", "count"), [([(1, 3)], 3), ([(5, 8)], 5), ([(1, 1), (3, 8), (1, 2)], 6)])
def test_devices_without_a_run_are_not_named(sizes, count):
    assert len(provenance.describe_use(sizes)["devices"]) == count


@pytest.mark.usefixtures("eight_devices")
def test_a_block_names_its_own_devices(tmp_path):
    sweep = make_sweep(grid(eta=[0.1], batch=range(1, 9), lam=[0.0]), seeds=tuple(range(5)))
    whole = identify_sweep(sweep, small_data())
    part = whole.take([0], range(8))
    environment = provenance.describe_environment() | provenance.describe_use([whole.size])
    devices = describe_devices(jax.local_devices())
    numerics = describe_numerics(part, devices)
    write_block(tmp_path, Block(part, ()), devices)
    (block_folder(tmp_path, part) / "state.npz").touch()
    (block,) = read_blocks(tmp_path)
    # One seed is divided over more devices than five seeds are.
    assert (len(environment["devices"]), len(block.environment["devices"])) == (5, 8)
    assert block.environment == numerics
    assert numerics["versions"].items() <= environment["versions"].items()


def test_a_sweep_is_described_with_its_sizes_and_once_trained_with_its_identity():
    sweep, data = make_sweep(grid(eta=[0.1, 0.2], batch=[50], lam=[0.0])), small_data()
    planned = provenance.describe_sweep(sweep, data, None)
    assert (planned["configurations"], planned["seeds"], planned["epochs"]) == (2, (3,), 2)
    assert [planned[f"{name}_examples"] for name in ("train", "val", "test")] == [250, 50, 100]
    result = train_sweep(sweep, data)
    assert provenance.describe_sweep(sweep, data, result) == planned | {"identity": result.identity.hash()}
    assert result.identity.hash() == identify_sweep(sweep, data).hash()


def test_the_command_that_resumes_a_run_names_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["grid", "--lam=0.1"])
    command = "python -m experiments.grid --lam=0.1"
    assert provenance.resume_command("grid", tmp_path / "a b") == f"{command} --out='{tmp_path / 'a b'}'"
    monkeypatch.setattr("sys.argv", ["grid", "--lam=0.1", "--out=there"])
    assert provenance.resume_command("grid", tmp_path) == f"{command} --out=there"


def test_the_revision_is_that_of_the_code_wherever_git_is_told_to_look(monkeypatch, tmp_path):
    describe = provenance.describe_environment.__wrapped__  # its result is kept for the whole process
    expected = describe()["git"]
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert describe()["git"] == expected
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe()["git"] is None
