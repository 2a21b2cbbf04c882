"""Successive halving: which configurations train on after a rung, and the results of a halved sweep."""

import math

import numpy as np
import pytest
import small_sweep
from small_sweep import TRAIN, VAL

import linear_cifar as lc
from linear_cifar.config import Range, draw_configs
from linear_cifar.halving import Halving, choose_survivors, default_rungs, split_brackets
from linear_cifar.training import train_epoch


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
        diverged = [c for c in members if c not in finite]
        kept += [*finite, *diverged][: math.ceil(len(members) / factor)]
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
        assert choose_survivors(loss, accuracy, batches, factor) == expected


def test_the_mean_over_replicates_decides():
    accuracy = np.array([[0.4, 0.5, 0.1], [0.4, 0.1, 0.6]])
    assert choose_survivors(np.ones((2, 3)), accuracy, [50, 50, 50], 3) == [0]


def test_diverged_ones_rank_last_and_as_many_stay_as_ever():
    nothing = np.full((2, 7), np.nan)
    batches = [50, 50, 100, 100, 50, 50, 100]
    assert choose_survivors(nothing, nothing, batches, 3) == [0, 1, 2]
    accuracy = nothing.copy()
    accuracy[:, [4, 6]] = 0.1
    accuracy[0, 5] = 0.9  # diverged from the other seed
    assert choose_survivors(accuracy, accuracy, batches, 3) == [0, 4, 6]


@pytest.mark.parametrize("batches", [(50,), (50, 100), (50, 100, 200), (10, 20, 30, 40, 50, 60, 70)], ids=len)
@pytest.mark.parametrize("length", [16, 64])
def test_counts_are_those_of_what_is_left_after_each_rung(batches, length):
    axes = {"eta": Range(1e-3, 1.0), "batch": batches, "lam": (0.0,)}
    halving = Halving(3, (1, 2, 4), length)
    for bracket in split_brackets(draw_configs(4 * length, bracket=length, **axes), length):
        counts, alive = [len(bracket)], [config.batch for config in bracket]
        for _ in halving.rungs:
            ranks = np.arange(len(alive), dtype=float)[None]
            alive = [alive[c] for c in choose_survivors(ranks, 1 / (1 + ranks), alive, 3)]
            counts.append(len(alive))
        assert halving.count_alive(bracket) == counts
        epochs = (counts[0] + counts[1] + 2 * counts[2] + 6 * counts[3]) / length
        assert halving.mean_epochs(bracket, 10) == pytest.approx(epochs)


@pytest.mark.parametrize(
    ("halving", "message"),
    [
        (Halving(1), "factor is 1"),
        (Halving(bracket=1), "bracket is 1"),
        (Halving(rungs=(0, 2)), "rung is 0"),
        (Halving(rungs=(2, 1)), "rungs is 2,1: give epochs in rising order, below epochs, which is 9"),
        (Halving(rungs=(3, 3)), "rungs is 3,3: give epochs in rising order"),
        (Halving(rungs=(3, 9)), "rungs is 3,9: give epochs in rising order, below epochs, which is 9"),
    ],
)
def test_a_wrong_rule_is_named(halving, message):
    with pytest.raises(ValueError, match=message):
        halving.check(9)


AXES = {
    "eta": Range(1e-2, 1.0, log=True),
    "batch": (5, 10),
    "lam": Range(1e-4, 0.1, log=True),
    "momentum": Range(0.0, 0.9, zeros=0.5),
}
POINTS = draw_configs(16, bracket=8, **AXES)
RULE = Halving(2, (1, 2), 8)


def fit(configs, halving=None, **options):
    """Train a sweep with velocities, averages that begin before the last rung, and a schedule."""
    defaults = {
        "epochs": 3, "seeds": (3, 4), "init": small_sweep.init, "optimizer": "heavy_ball",
        "schedule": "cosine", "average": 2, "per_epoch": ["val"],
    }  # fmt: skip
    return lc.fit(configs, TRAIN, {"val": VAL, "test": VAL}, halving=halving, **defaults | options)


@pytest.fixture(scope="module")
def plain():
    """All runs of two brackets, trained to the end."""
    return fit(POINTS)


@pytest.fixture(scope="module")
def programs():
    """The numbers of programs that the first bracket needs, and the second one after it."""
    train_epoch.clear_cache()  # another test of this process may have compiled the same legs
    counts = [train_epoch._cache_size()]
    for bracket in (POINTS[:8], POINTS[8:]):
        fit(bracket, RULE)
        counts.append(train_epoch._cache_size())
    return np.diff(counts).tolist()


@pytest.fixture(scope="module")
def halved(programs):
    return fit(POINTS, RULE)


def expected_stops(result):
    """Decide at each rung by hand, from runs that were all trained to the end."""
    accuracy, loss = (result.history[name].mean(axis=1) for name in ("val_acc", "val_loss"))
    stops = {}
    for bracket in (range(8), range(8, 16)):
        alive = [*bracket]
        for rung in RULE.rungs:
            kept = []
            for size in (5, 10):
                members = [c for c in alive if result.configs[c].batch == size]
                members.sort(key=lambda c, rung=rung: (-accuracy[rung - 1, c], loss[rung - 1, c]))
                kept += members[: (len(members) + 1) // 2]
            stops |= dict.fromkeys({*alive} - {*kept}, rung)
            alive = kept
    return [stops.get(c, 0) for c in range(len(result.configs))]


def test_three_legs_are_three_programs_and_another_bracket_needs_no_other(programs):
    assert programs == [3, 0]


def test_each_rung_keeps_the_best_half_of_each_batch_size(plain, halved):
    expected = expected_stops(plain)
    assert {1, 2, 0} == {*expected}
    np.testing.assert_array_equal(halved.stopped, [expected, expected])
    finished = [c for c, stop in enumerate(expected) if stop == 0]
    assert sorted(halved.ranking()) == finished
    assert halved.halved
    assert halved.complete
    assert halved.epochs.tolist() == [[stop or 3 for stop in expected]] * 2


@pytest.mark.parametrize("block_runs", [None, 6])
def test_a_run_that_reaches_the_end_equals_that_of_a_plain_sweep(plain, halved, block_runs):
    result = halved if block_runs is None else fit(POINTS, RULE, block_runs=block_runs)
    finished = sorted(halved.ranking())
    ours, theirs = result.take_finished(), plain.take(finished)
    assert ours.configs == theirs.configs
    for group in ("history", "final", "marks"):
        found, expected = getattr(ours, group), getattr(theirs, group)
        assert found.keys() == expected.keys()
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(ours.params().W, theirs.params().W, rtol=1e-9, atol=1e-12)


def test_a_run_that_is_stopped_has_what_was_measured_before(plain, halved):
    for c, stop in enumerate(expected_stops(plain)):
        if stop == 0:
            continue
        for name, values in halved.history.items():
            np.testing.assert_allclose(values[:stop, :, c], plain.history[name][:stop, :, c], rtol=1e-9)
            assert np.isnan(values[stop:, :, c]).all()
        assert not halved.diverged[:, c].any()
        np.testing.assert_allclose(halved.final["val_acc"][:, c], plain.history["val_acc"][stop - 1, :, c])
        assert np.isnan(halved.final["test_acc"][:, c]).all()
        assert c not in halved.weights.configs


def test_diverged_runs_are_stopped_first_and_as_many_stay_as_ever():
    count = len(fit(POINTS[:8], RULE).ranking())
    high = [config.replace(eta=1e200, lam=1.0) for config in POINTS[:8]]
    high = [config.replace(momentum=0.1 * c / 8) for c, config in enumerate(high)]
    mixed = fit([*POINTS[:6], *high[6:]], RULE)
    assert mixed.diverged[:, 6:].all()
    assert mixed.stopped[:, 6:].all()
    assert mixed.stayed_finite[mixed.ranking()].all()
    all_high = fit(high, RULE)
    assert len(all_high.ranking()) == count
    assert not all_high.stayed_finite.any()


def test_the_order_of_batch_sizes_in_a_bracket_compiles_nothing_again():
    etas = [0.01 * i for i in range(1, 9)]
    first = [lc.Config(eta, batch) for eta, batch in zip(etas, [5, 5, 10, 10] * 2, strict=True)]
    second = [lc.Config(eta, batch) for eta, batch in zip(etas, [10, 5, 5, 10] * 2, strict=True)]
    fit(first, RULE)
    compiled = lc.train_epoch._cache_size()
    fit(second, RULE)
    assert lc.train_epoch._cache_size() == compiled
