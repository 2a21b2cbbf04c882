"""Points drawn from ranges of hyperparameters."""

import math
import re

import numpy as np
import pytest
from scipy.stats import kstest, qmc

from linear_cifar.config import Config
from linear_cifar.sampling import Range, draw_configs

AXES = {
    "eta": Range(1e-4, 1.0, log=True),
    "batch": (50, 100, 200),
    "lam": Range(1e-6, 0.1, log=True, zeros=0.25),
    "q": Range(0.0, 0.9),
}


def test_points_follow_their_axes():
    configs = draw_configs(AXES, 256, seed=3)
    eta, batch, lam, q, momentum = map(np.asarray, zip(*configs, strict=True))
    # Each of 256 equal intervals of an axis holds one point, so each mean and count is nearly exact.
    assert kstest(np.log10(eta), "uniform", args=(-4, 4)).statistic < 0.01
    assert kstest(q, "uniform", args=(0, 0.9)).statistic < 0.01
    assert (lam == 0).sum() == 64
    assert kstest(np.log10(lam[lam > 0]), "uniform", args=(-6, 5)).statistic < 0.02
    assert {int(value): (batch == value).sum() for value in set(batch)} == {
        50: pytest.approx(85, abs=2), 100: pytest.approx(85, abs=2), 200: pytest.approx(85, abs=2),
    }  # fmt: skip
    assert set(momentum) == {0}
    assert all(type(config.batch) is int and type(config.eta) is float for config in configs)


def test_a_point_is_the_place_of_scipys_sequence():
    places = qmc.Sobol(5, scramble=True, rng=7).random_base2(3)
    for config, (eta, batch, lam, q, _) in zip(draw_configs(AXES, 8, seed=7), places, strict=True):
        assert config.eta == pytest.approx(1e-4 * 1e4**eta, rel=1e-5)
        assert config.batch == (50, 100, 200)[math.floor(3 * batch)]
        expected = 0 if lam < 0.25 else 1e-6 * 1e5 ** ((lam - 0.25) / 0.75)
        assert config.lam == pytest.approx(expected, rel=1e-5)
        assert config.q == pytest.approx(0.9 * q, rel=1e-5)


def test_more_points_extend_the_same_sequence():
    points = draw_configs(AXES, 300)
    for count in (1, 2, 37, 256):
        assert draw_configs(AXES, count) == points[:count]
    assert draw_configs(AXES, 300, seed=1) != points


def test_another_axis_leaves_the_points_along_the_others():
    with_momentum = draw_configs(AXES | {"momentum": Range(0.0, 0.95)}, 64)
    assert [config._replace(momentum=0.0) for config in with_momentum] == list(draw_configs(AXES, 64))
    assert len({config.momentum for config in with_momentum}) == 64


def test_values_are_rounded_and_stay_within_their_range():
    narrow = Range(0.12345678, 0.1234568)
    values = {config.eta for config in draw_configs({**AXES, "eta": narrow}, 64)}
    assert all(narrow.low <= value <= narrow.high for value in values)
    assert all(float(f"{config.q:.6g}") == config.q for config in draw_configs(AXES, 64))


def test_equal_points_count_once():
    lists = {"eta": (0.1, 0.2), "batch": (50,), "lam": (0.0,)}
    assert sorted(draw_configs(lists, 64)) == [Config(0.1, 50, 0.0), Config(0.2, 50, 0.0)]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"eta": Range(1.0, 0.1, log=True)}, "eta goes from 1 to 0.1: give a lower and a higher end"),
        ({"eta": Range(0.1, 0.1)}, "eta goes from 0.1 to 0.1"),
        ({"eta": Range(0.1, math.inf)}, "eta goes from 0.1 to inf"),
        ({"lam": Range(0.0, 0.1, log=True)}, "lam goes from 0 on a logarithmic scale: give a lower end"),
        ({"lam": Range(1e-6, 0.1, zeros=1.0)}, "lam has a share of 1 at 0: give a share from 0 to below 1"),
        ({"lam": Range(1e-6, 0.1, zeros=math.nan)}, "lam has a share of nan at 0"),
        ({"lam": Range(-0.1, 0.1)}, "lam is -0.1: give zero or a positive number"),
        ({"q": Range(0.0, 1.1)}, "q is 1.1: give a number from 0"),
        ({"momentum": Range(0.0, 1.0)}, "momentum is 1.0: give a number from 0 to below 1"),
        ({"batch": Range(50, 100)}, "batch is a range: give a list of batch sizes"),
        ({"batch": ()}, "batch is empty: give at least one value"),
        ({"batch": (0,)}, "batch is 0: a batch holds at least one example"),
    ],
    ids=str,
)  # fmt: skip
def test_an_axis_without_values_is_refused(axes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_configs(AXES | axes, 8)
