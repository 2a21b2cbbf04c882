import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linear_cifar.planning import WIDE, join_blocks, plan_blocks

PLANS = {
    "num_replicates": st.integers(1, 12),
    "num_configs": st.integers(1, 400),
    "max_runs": st.integers(1, 2_000),
}
many = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def sizes(blocks):
    return [len(replicates) * len(configs) for replicates, configs in blocks]


@many
@given(**PLANS)
def test_blocks_cover_every_run_once_and_none_is_larger_than_allowed(num_replicates, num_configs, max_runs):
    blocks = plan_blocks(range(num_replicates), range(num_configs), max_runs)
    runs = [run for block in blocks for run in itertools.product(*block)]
    assert sorted(runs) == list(itertools.product(range(num_replicates), range(num_configs)))
    assert 1 <= min(sizes(blocks)) <= max(sizes(blocks)) <= max_runs


def test_a_block_has_all_replicates_where_the_memory_allows_it():
    assert sizes(plan_blocks(range(3), range(500), max_runs=10**6)) == [1_500]
    blocks = plan_blocks(range(3), range(500), max_runs=600)
    assert [len(replicates) for replicates, _ in blocks] == [3, 3, 3]
    assert [len(configs) for _, configs in blocks] == [166, 167, 167]


def test_a_block_stays_wide_where_memory_is_short():
    # Rather fewer replicates than fewer configurations, as those of a replicate share its examples.
    blocks = plan_blocks(range(10), range(2 * WIDE), max_runs=2 * WIDE)
    assert {(len(replicates), len(configs)) for replicates, configs in blocks} == {(2, WIDE)}


def test_items_keep_their_order_and_type():
    assert plan_blocks(("s0", "s1"), ("c0", "c1", "c2"), max_runs=2) == [
        (("s0",), ("c0",)),
        (("s0",), ("c1", "c2")),
        (("s1",), ("c0",)),
        (("s1",), ("c1", "c2")),
    ]


@many
@given(leading=st.integers(0, 2), seed=st.integers(0, 2**32 - 1), **PLANS)
def test_joining_undoes_dividing(num_replicates, num_configs, max_runs, leading, seed):
    num_configs = min(num_configs, 40)
    shape = (num_replicates, num_configs)
    rng = np.random.default_rng(seed)
    outer = (2, 3)[:leading]
    whole = {
        "wide": rng.normal(size=(*outer, *shape, 2)),
        "narrow": rng.integers(0, 9, size=(*outer, *shape)).astype(np.int8),
    }
    places = plan_blocks(range(num_replicates), range(num_configs), max_runs)
    order = rng.permutation(len(places))
    places = [places[i] for i in order]

    def take(leaf, replicates, configs):
        return leaf.take(list(replicates), axis=leading).take(list(configs), axis=leading + 1)

    trees = [{name: take(leaf, *place) for name, leaf in whole.items()} for place in places]
    joined = join_blocks(shape, places, trees, leading=leading)
    for name, leaf in whole.items():
        assert joined[name].dtype == leaf.dtype
        np.testing.assert_array_equal(joined[name], leaf)


def test_blocks_and_places_must_be_equally_many():
    places = plan_blocks(range(2), range(3), max_runs=3)
    with pytest.raises(ValueError, match="shorter"):
        join_blocks((2, 3), places, [np.zeros((1, 3))])
