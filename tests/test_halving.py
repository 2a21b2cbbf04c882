"""Successive halving: which configurations train on after a rung, and in how many slots."""

import math
from collections import Counter

import numpy as np
import pytest

from linear_cifar.config import Config
from linear_cifar.halving import (
    choose_survivors,
    count_slots,
    default_rungs,
    fill_slots,
    split_brackets,
)
from linear_cifar.sampling import Range, draw_configs


def test_default_rungs():
    assert default_rungs(40) == (2, 6, 18)
    assert default_rungs(40, constant_eta=False) == (6, 18)
    assert default_rungs(200) == (10, 30, 90)
    assert default_rungs(3) == (1,)
    assert default_rungs(1) == ()
    for epochs in range(1, 100):
        rungs = default_rungs(epochs)
        assert list(rungs) == sorted({*rungs})
        assert all(1 <= rung < epochs for rung in rungs)


def survivors_by_loop(loss, accuracy, batches, factor):
    """Sort the configurations of each batch size by hand, and keep the first ones."""
    kept = []
    for size in sorted(set(batches)):
        members = [c for c, batch in enumerate(batches) if batch == size]
        finite = [c for c in members if not np.isnan(accuracy[:, c]).any()]
        finite.sort(key=lambda c: (-sum(accuracy[:, c].tolist()), sum(loss[:, c].tolist())))
        kept += finite[: math.ceil(len(members) / factor)]
    return sorted(kept)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_each_batch_size_keeps_its_best(factor):
    rng = np.random.default_rng(factor)
    for S, C in ((1, 1), (1, 20), (4, 33)):
        # Few different accuracies, so that the loss has to decide. Their sums are exact.
        accuracy, loss = rng.integers(20, 24, (S, C)) / 64, rng.uniform(1, 2, (S, C))
        accuracy[0, rng.random(C) < 0.2] = np.nan
        batches = rng.choice([50, 100, 200], C).tolist()
        expected = survivors_by_loop(loss, accuracy, batches, factor)
        assert choose_survivors(loss, accuracy, batches, factor) == (expected or [0])


def test_the_mean_over_replicates_decides():
    accuracy = np.array([[0.4, 0.5, 0.1], [0.4, 0.1, 0.6]])
    assert choose_survivors(np.ones((2, 3)), accuracy, [50, 50, 50], 3) == [0]


def test_one_stays_where_all_diverged():
    nothing = np.full((2, 4), np.nan)
    assert choose_survivors(nothing, nothing, [50, 50, 100, 100], 3) == [0]


@pytest.mark.parametrize("batches", [(50,), (50, 100), (50, 100, 200), (10, 20, 30, 40, 50, 60, 70)], ids=len)
@pytest.mark.parametrize("length", [16, 64])
def test_brackets_of_a_sequence_have_the_same_slots(batches, length):
    axes = {"eta": Range(1e-3, 1.0, log=True), "batch": batches, "lam": (0.0,)}
    expected = None
    for seed in range(20):
        points = draw_configs(axes, 8 * length, seed)
        for bracket in split_brackets(points, length):
            drawn = [config.batch for config in bracket]
            legs = count_slots(drawn, 3, 2, fixed=True)
            assert {*legs[0]} == {*batches}
            assert all(legs[0][size] >= count for size, count in Counter(drawn).items())
            expected = expected or legs
            assert legs == expected


def test_slots_hold_what_is_left_after_each_rung():
    rng = np.random.default_rng(0)
    batches = rng.choice([50, 100], 29).tolist()
    for legs in (count_slots(batches, 3, 3), count_slots(batches, 3, 3, fixed=True)):
        assert len(legs) == 4
        alive = batches
        for slots in legs:
            counts = Counter(alive)
            assert all(counts[size] <= slots[size] for size in counts)
            ranks = np.arange(len(alive), dtype=float)[None]
            alive = [alive[c] for c in choose_survivors(ranks, 1 / (1 + ranks), alive, 3)]
    assert count_slots(batches, 3, 0) == [dict(Counter(sorted(batches)))]


def test_slots_left_over_are_filled_with_what_does_not_move():
    configs = [Config(0.1, 50, 0.0), Config(0.2, 100, 0.1), Config(0.3, 50, 0.0)]
    filled, places = fill_slots(configs, {100: 2, 50: 3})
    assert [config.batch for config in filled] == [50, 50, 50, 100, 100]
    assert [filled[place] for place in places] == configs
    idle = [filled[place] for place in range(5) if place not in places]
    assert idle == [Config(0.0, 50, 0.0), Config(0.0, 100, 0.0)]
