import jax
import pytest
from small_runs import make_sweep, small_dataset

from experiments.artifacts import provenance
from experiments.runner.blocks import Block, read_manifests, write_manifest
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
    assert provenance.describe_devices(*size) == ["cpu: cpu"] * used


@pytest.mark.usefixtures("eight_devices")
@pytest.mark.parametrize(("sizes", "count"), [([(1, 3)], 3), ([(5, 8)], 5), ([(1, 1), (3, 8), (1, 2)], 6)])
def test_devices_without_a_run_are_not_named(sizes, count):
    assert len(provenance.describe_use(sizes)["devices"]) == count


@pytest.mark.usefixtures("eight_devices")
def test_a_manifest_names_the_devices_of_its_block(tmp_path):
    whole = make_sweep(grid([0.1], range(1, 9), [0.0]), seeds=tuple(range(5)))
    part = whole._replace(replicates=whole.replicates[:1])
    environment = provenance.describe_environment() | provenance.describe_use([whole.size])
    numerics = provenance.numerics_environment(environment, part.size)
    write_manifest(tmp_path, Block(part), small_dataset(), numerics)
    (manifest,) = read_manifests(tmp_path)
    # One seed is divided over more devices than five seeds are.
    assert (len(environment["devices"]), len(manifest.environment["devices"])) == (5, 8)
    assert manifest.environment == provenance.numerics_environment(environment, manifest.size)


def test_the_command_that_resumes_a_run_names_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["grid", "--lam=0.1"])
    command = "python -m experiments.grid --lam=0.1"
    assert provenance.resume_command("grid", tmp_path / "a b") == f"{command} --out='{tmp_path / 'a b'}'"
    monkeypatch.setattr("sys.argv", ["grid", "--lam=0.1", "--out=there"])
    assert provenance.resume_command("grid", tmp_path) == f"{command} --out=there"


def test_the_revision_is_that_of_the_code_wherever_git_is_told_to_look(monkeypatch, tmp_path):
    expected = provenance.describe_environment()["git"]
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert provenance.describe_environment()["git"] == expected
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.describe_environment()["git"] is None
