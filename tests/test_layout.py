from fractions import Fraction
from itertools import pairwise

import jax
import numpy as np
import pytest

from linear_cifar import layout
from linear_cifar.layout import (
    BY_RUN,
    CPU_CACHE_BYTES,
    Loops,
    choose_loops,
    deal_configs,
    deal_steps,
    make_layout,
    mesh_shape,
)

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
    assert make_layout([1], 1, DEVICES, CPU_CACHE_BYTES // 3).loops.vmap_width == 3
    assert make_layout([1], 1, DEVICES, 2 * CPU_CACHE_BYTES).loops.vmap_width == 1


def test_an_accelerator_trains_all_side_by_side_and_unrolls_its_loops():
    assert choose_loops("gpu", config_bytes=1) == Loops(vmap_width=0, chunk=400, unroll=8)
    assert choose_loops("cpu", config_bytes=1).unroll == 1


GRID = [50, 100, 200, 400] * 3


def steps_per_device(dealt, batches):
    return [sum(Fraction(1, size) for size in {batches[config] for config in share}) for share in dealt]


@pytest.mark.parametrize(
    ("num_devices", "sizes"),
    [
        (1, [{50, 100, 200, 400}]),
        (2, [{50}, {100, 200, 400}]),
        (3, [{50}, {100}, {200, 400}]),
        (4, [{50}, {100}, {200}, {400}]),
    ],
)
def test_accelerators_share_the_steps(num_devices, sizes):
    dealt = deal_steps(GRID, num_devices)
    assert [{GRID[config] for config in share} for share in dealt] == sizes
    assert max(steps_per_device(dealt, GRID)) <= max(steps_per_device(deal_configs(GRID, num_devices), GRID))


@pytest.mark.parametrize("deal", [deal_configs, deal_steps])
@pytest.mark.parametrize("batches", [GRID, [7], [7, 5, 7, 6, 5], [9] * 5], ids=str)
def test_every_configuration_is_dealt_and_neighbours_share_a_batch_size(deal, batches):
    for num_devices in range(1, len(batches) + 1):
        dealt = deal(batches, num_devices)
        assert len(dealt) == num_devices
        assert all(dealt)
        assert {config for share in dealt for config in share} == set(range(len(batches)))
        for share in dealt:
            sizes = [batches[config] for config in share]
            changes = sum(a != b for a, b in pairwise(sizes))
            assert changes == len(set(sizes)) - 1


def test_no_device_has_many_more_slots_than_its_share(monkeypatch):
    monkeypatch.setattr(layout, "on_cpu", lambda device: False)
    batches = [50] + [400] * 99
    made = make_layout(batches, 1, DEVICES, config_bytes=1)
    assert len(made.configs) == 100
    assert make_layout(GRID, 1, DEVICES, config_bytes=1).batches_per_column[0] == (50,) * 3


def test_devices_beyond_the_batch_sizes_halve_the_fullest_shares():
    dealt = deal_steps([10, 10, 10, 10, 20], 3)
    assert sorted(map(len, dealt)) == [1, 2, 2]
