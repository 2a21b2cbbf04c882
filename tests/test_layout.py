import jax
import numpy as np
import pytest

from linear_cifar.layout import BY_RUN, CPU_CACHE_BYTES, make_layout, mesh_shape

DEVICES = jax.local_devices()


def test_a_device_gets_few_batch_sizes_and_small_ones_with_large_ones():
    layout = make_layout([50, 100, 200, 400] * 3, 1, DEVICES, config_bytes=1)
    assert layout.batches_per_column == [(50,) * 3 + (400,) * 3, (100,) * 3 + (200,) * 3]
    assert sorted(layout.configs) == list(range(12))
    assert [[50, 100, 200, 400][config % 4] for config in layout.configs] == list(layout.batches)


@pytest.mark.parametrize(("configs", "slots"), [(1, 1), (2, 2), (3, 4), (8, 8)])
def test_devices_hold_equally_many_configurations_and_none_is_without(configs, slots):
    layout = make_layout([10] * configs, 1, DEVICES, config_bytes=1)
    assert len(layout.configs) == slots
    assert layout.mesh.size == min(2, configs)
    assert set(layout.configs) == set(range(configs))


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_from_slots_undoes_to_slots(seeds):
    batches = [7, 5, 7, 6, 5]
    layout = make_layout(batches, seeds, DEVICES, config_bytes=1)
    in_slots = [[10 * config + seed for config in layout.configs] for seed in layout.replicates]
    sharded = layout.shard(jax.numpy.array(in_slots), BY_RUN)
    assert len(sharded.sharding.device_set) == 2
    expected = [[10 * config + seed for config in range(5)] for seed in range(seeds)]
    np.testing.assert_array_equal(layout.from_slots(sharded), expected)
    np.testing.assert_array_equal(layout.to_slots(np.array(expected)), in_slots)


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
def test_devices_take_whole_replicates_where_none_is_left_idle(seeds, configs, rows, columns):
    assert mesh_shape(seeds, configs, 8) == (rows, columns)


def test_copies_on_cpu_devices_share_their_memory():
    layout = make_layout([1, 1], 1, DEVICES, config_bytes=1)
    array = jax.numpy.zeros((1_000, 100))
    copies = layout.broadcast(array).addressable_shards
    assert {shard.data.unsafe_buffer_pointer() for shard in copies} == {array.unsafe_buffer_pointer()}


def test_the_vmap_width_is_as_large_as_the_cache_allows_and_never_zero():
    assert make_layout([1], 1, DEVICES, CPU_CACHE_BYTES // 3).vmap_width == 3
    assert make_layout([1], 1, DEVICES, 2 * CPU_CACHE_BYTES).vmap_width == 1
