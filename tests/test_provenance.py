import jax
import pytest
from test_results import SETTINGS

from experiments import blocks, provenance
from experiments.settings import Variant
from experiments.work import Work
from linear_cifar.config import grid
from linear_cifar.dataset import divide
from linear_cifar.layout import lay_out
from linear_cifar.synthetic import synthetic


@pytest.fixture
def eight(monkeypatch):
    """As if there were eight devices."""
    devices = jax.local_devices()[:1] * 8
    monkeypatch.setattr(jax, "local_devices", lambda: devices)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 5)])
def test_the_devices_are_those_of_the_layout(size):
    seeds, configs = size
    used = lay_out([10] * configs, seeds, jax.local_devices(), config_bytes=1).mesh.size
    assert provenance.describe_devices(*size) == ["cpu: cpu"] * used


@pytest.mark.parametrize(("sizes", "count"), [([(1, 3)], 3), ([(5, 8)], 5), ([(1, 1), (3, 8), (1, 2)], 6)])
def test_devices_without_a_run_are_not_named(eight, sizes, count):
    assert len(provenance.describe_use(sizes)["devices"]) == count


def test_a_block_says_which_devices_it_has_itself(eight, tmp_path):
    whole = Variant("one", SETTINGS._replace(seeds=tuple(range(5))), grid([0.1], range(1, 9), [0.0]))
    part = whole._replace(settings=whole.settings._replace(seeds=(0,)))
    dataset = divide(synthetic(n_train=100, n_test=10), val_size=50)
    environment = provenance.describe_environment() | provenance.describe_use([whole.size])
    work = Work("grid", {}, [(whole, dataset)], environment, tmp_path)
    blocks.write(tmp_path, blocks.Block(part), dataset, work.decisive(part.size))
    (held,) = blocks.read(tmp_path)
    # One seed is divided over more of them than five are.
    assert (len(environment["devices"]), len(held.environment["devices"])) == (5, 8)
    assert held.environment == work.decisive(held.size)
