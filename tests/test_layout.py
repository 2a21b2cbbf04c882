import jax
import numpy as np
import pytest

from linear_cifar.layout import CPU_TILE_BYTES, OF_RUNS, lay_out, shape

DEVICES = jax.local_devices()


def test_a_device_gets_few_batch_sizes_and_small_ones_go_with_large_ones():
    layout = lay_out([50, 100, 200, 400] * 3, 1, DEVICES, config_bytes=1)
    assert layout.shares == [(50,) * 3 + (400,) * 3, (100,) * 3 + (200,) * 3]
    assert sorted(layout.order) == list(range(12))
    assert [[50, 100, 200, 400][config % 4] for config in layout.order] == list(layout.batches)


@pytest.mark.parametrize(("configs", "places"), [(1, 1), (2, 2), (3, 4), (8, 8)])
def test_devices_hold_equally_many_and_no_more_are_used_than_there_are_configurations(configs, places):
    layout = lay_out([10] * configs, 1, DEVICES, config_bytes=1)
    assert len(layout.order) == places
    assert layout.mesh.size == min(2, configs)
    assert set(layout.order) == set(range(configs))


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_gathering_undoes_the_division(seeds):
    batches = [7, 5, 7, 6, 5]
    layout = lay_out(batches, seeds, DEVICES, config_bytes=1)
    at_places = [[10 * config + seed for config in layout.order] for seed in layout.seeds]
    placed = layout.split(jax.numpy.array(at_places), OF_RUNS)
    assert len(placed.sharding.device_set) == 2
    expected = [[10 * config + seed for config in range(5)] for seed in range(seeds)]
    np.testing.assert_array_equal(layout.gather(placed), expected)
    np.testing.assert_array_equal(layout.arrange(np.array(expected)), at_places)


@pytest.mark.parametrize(
    ("seeds", "configs", "rows", "columns"),
    [
        (1, 1, 1, 1),
        (1, 8, 1, 8),
        (8, 1, 8, 1),
        (4, 4, 4, 2),
        (8, 48, 8, 1),
        (3, 8, 3, 2),
        (5, 8, 5, 1),
        (20, 48, 4, 2),
    ],
)
def test_whole_seeds_go_to_a_device_where_none_waits_for_another(seeds, configs, rows, columns):
    assert shape(seeds, configs, devices=8) == (rows, columns)


def test_copies_on_a_cpu_share_their_memory():
    layout = lay_out([1, 1], 1, DEVICES, config_bytes=1)
    array = jax.numpy.zeros((1_000, 100))
    copies = layout.copy(array).addressable_shards
    assert {shard.data.unsafe_buffer_pointer() for shard in copies} == {array.unsafe_buffer_pointer()}


def test_a_tile_is_as_large_as_its_memory_allows_and_never_empty():
    assert lay_out([1], 1, DEVICES, CPU_TILE_BYTES // 3).tile == 3
    assert lay_out([1], 1, DEVICES, 2 * CPU_TILE_BYTES).tile == 1
