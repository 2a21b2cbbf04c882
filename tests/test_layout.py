import jax
import numpy as np
import pytest

from linear_cifar.layout import CPU_TILE_BYTES, lay_out

DEVICES = jax.local_devices()


def test_a_device_gets_few_batch_sizes_and_small_ones_go_with_large_ones():
    layout = lay_out([50, 100, 200, 400] * 3, DEVICES, config_bytes=1)
    assert layout.shares == [(50,) * 3 + (400,) * 3, (100,) * 3 + (200,) * 3]
    assert sorted(layout.order) == list(range(12))
    assert [[50, 100, 200, 400][config % 4] for config in layout.order] == list(layout.batches)


@pytest.mark.parametrize(("configs", "places"), [(1, 1), (2, 2), (3, 4), (8, 8)])
def test_devices_hold_equally_many_and_no_more_are_used_than_there_are_configurations(configs, places):
    layout = lay_out([10] * configs, DEVICES, config_bytes=1)
    assert len(layout.order) == places
    assert layout.mesh.size == min(2, configs)
    assert set(layout.order) == set(range(configs))


def test_gathering_undoes_the_division():
    batches = [7, 5, 7, 6, 5]
    layout = lay_out(batches, DEVICES, config_bytes=1)
    placed = layout.split(jax.numpy.array([10 * config for config in layout.order]))
    assert len(placed.sharding.device_set) == 2
    np.testing.assert_array_equal(layout.gather(placed), [0, 10, 20, 30, 40])


def test_copies_on_a_cpu_share_their_memory():
    layout = lay_out([1, 1], DEVICES, config_bytes=1)
    array = jax.numpy.zeros((1_000, 100))
    copies = layout.copy(array).addressable_shards
    assert {shard.data.unsafe_buffer_pointer() for shard in copies} == {array.unsafe_buffer_pointer()}


def test_a_tile_is_as_large_as_its_memory_allows_and_never_empty():
    assert lay_out([1], DEVICES, CPU_TILE_BYTES // 3).tile == 3
    assert lay_out([1], DEVICES, 2 * CPU_TILE_BYTES).tile == 1
