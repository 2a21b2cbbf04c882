"""Points drawn from ranges of hyperparameters."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import kstest, qmc

from linear_cifar.config import Config, Range, draw_configs

AXES = {
    "eta": Range(1e-4, 1.0),
    "batch": (50, 100, 200),
    "lam": Range(1e-6, 0.1, zeros=0.25),
    "q": Range(0.0, 0.9),
}


def test_points_follow_their_axes():
    configs = draw_configs(256, seed=3, **AXES)
    eta, batch, lam, q, momentum = (
        np.asarray([config[name] for config in configs]) for name in ("eta", "batch", "lam", "q", "momentum")
    )
    # Each of 256 equal intervals of an axis holds one point, so each mean and count is nearly exact.
    assert kstest(np.log10(eta), "uniform", args=(-4, 4)).statistic < 0.01
    assert kstest(q, "uniform", args=(0, 0.9)).statistic < 0.01
    assert (lam == 0).sum() == 64
    assert kstest(np.log10(lam[lam > 0]), "uniform", args=(-6, 5)).statistic < 0.02
    assert Counter(batch.tolist()) == {50: 86, 100: 85, 200: 85}
    assert set(momentum) == {0}
    assert all(type(config.batch) is int and type(config.eta) is float for config in configs)


def test_points_are_a_sobol_sequence_with_shifted_bits():
    names = ("eta", "q", "momentum")
    configs = draw_configs(64, seed=7, **{name: Range(0.0, 0.5, log=False) for name in names})
    places = qmc.Sobol(5, scramble=False).random_base2(6)[:, [0, 3, 4]]
    drawn = np.array([[2 * config[name] for name in names] for config in configs])
    # Of 64 points, all have the same shift in the first six bits.
    bits = np.floor(64 * drawn).astype(int) ^ np.floor(64 * places).astype(int)
    assert len({*map(tuple, bits.tolist())}) == 1
    # In two dimensions they are as even as the sequence is.
    for pair in itertools.combinations(range(3), 2):
        assert qmc.discrepancy(drawn[:, pair]) < 2 * qmc.discrepancy(places[:, pair])


def test_points_are_those_recorded():
    # An experiment folder is extended with further points of the same sequence, by later versions too.
    points = [(c.eta, c.batch, c.lam, c.q) for c in draw_configs(4, seed=3, **AXES | {"batch": (50, 100)})]
    recorded = [
        (0.00572634, 50, 0.000634792, 0.720881),
        (0.572634, 100, 0.0, 0.270881),
        (0.0572634, 50, 0.0294645, 0.495881),
        (0.000572634, 100, 1.36762e-05, 0.0458806),
    ]
    assert points == recorded


@pytest.mark.parametrize("sizes", [3, 4, 5, 7])
@pytest.mark.parametrize("bracket", [8, 64])
def test_every_whole_bracket_has_the_same_counts(sizes, bracket):
    batches = tuple(range(10, 10 + sizes))
    for seed in range(5):
        points = draw_configs(8 * bracket, seed=seed, bracket=bracket, eta=AXES["eta"], batch=batches)
        counts = [
            Counter(config.batch for config in points[start : start + bracket])
            for start in range(0, len(points), bracket)
        ]
        assert all(count == counts[0] for count in counts)
        assert {*counts[0]} == {*batches}
        assert max(counts[0].values()) - min(counts[0].values()) <= 1
        # Within a batch size η still covers its range.
        for batch in batches:
            etas = np.log10([config.eta for config in points if config.batch == batch])
            assert kstest(etas, "uniform", args=(-4, 4)).statistic < 3 / math.sqrt(len(etas))


def test_more_points_extend_the_same_sequence():
    points = draw_configs(300, **AXES)
    for count in (1, 2, 37, 256):
        assert draw_configs(count, **AXES) == points[:count]
    assert draw_configs(300, seed=1, **AXES) != points


def test_another_axis_leaves_the_points_along_the_others():
    points = draw_configs(64, **AXES)
    for name, values in {"momentum": Range(0.0, 0.95), "gamma": Range(-1.0, 5.0)}.items():
        further = draw_configs(64, **{name: values}, **AXES)
        assert len({config[name] for config in further}) == 64
        assert [tuple(config[axis] for axis in AXES) for config in further] == [
            tuple(config[axis] for axis in AXES) for config in points
        ]
    both = draw_configs(64, gamma=Range(-1.0, 5.0), zeta=Range(0.0, 1.0), **AXES)
    assert [config.gamma for config in both] == [config.gamma for config in further]
    # The points of a search do not change.
    first = points[0]
    assert (first.eta, first.batch, first.lam, first.q) == (0.00158265, 50, 0.00188423, 0.549589)


def test_values_are_rounded_and_stay_within_their_range():
    narrow = Range(0.12345678, 0.1234568)
    values = {config.eta for config in draw_configs(64, **{**AXES, "eta": narrow})}
    assert all(narrow.low <= value <= narrow.high for value in values)
    assert all(float(f"{config.q:.6g}") == config.q for config in draw_configs(64, **AXES))


def test_equal_points_count_once():
    lists = {"eta": (0.1, 0.2), "batch": (50,), "lam": (0.0,)}
    assert {*draw_configs(64, **lists)} == {Config(0.1, 50), Config(0.2, 50)}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"eta": Range(1.0, 0.1)}, "eta goes from 1 to 0.1: give a lower and a higher end"),
        ({"eta": Range(0.1, 0.1)}, "eta goes from 0.1 to 0.1"),
        ({"eta": Range(0.1, math.inf)}, "eta is inf: give zero or a positive number"),
        ({"lam": Range(0.0, 0.1)}, "lam goes from 0 on a logarithmic scale: give a lower end"),
        ({"lam": Range(1e-6, 0.1, zeros=1.0)}, "the share of lam at 0 is 1.0: give a number from 0 to"),
        ({"lam": Range(1e-6, 0.1, zeros=math.nan)}, "the share of lam at 0 is nan"),
        ({"lam": Range(-0.1, 0.1)}, "lam is -0.1: give zero or a positive number"),
        ({"q": Range(0.0, 1.1)}, "q is 1.1: give a number from 0"),
        ({"momentum": Range(0.0, 1.0)}, "momentum is 1.0: give a number from 0 to below 1"),
        ({"batch": Range(50, 100)}, "batch is a range: give a list of whole numbers"),
        ({"batch": ()}, "batch is empty: give at least one value"),
        ({"batch": (0,)}, "batch is 0: give a whole number, at least 1"),
    ],
    ids=str,
)  # fmt: skip
def test_an_axis_without_values_is_refused(axes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_configs(8, **{**AXES, **axes})
