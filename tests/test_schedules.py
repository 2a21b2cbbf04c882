from itertools import pairwise

import numpy as np
import pytest

from linear_cifar.schedules import SCHEDULES


def factors(name, epochs):
    schedule = SCHEDULES[name](epochs)
    return [float(schedule(done)) for done in range(epochs)]


def test_constant_is_one():
    assert factors("constant", 3) == [1, 1, 1]


def test_cosine_is_its_formula():
    expected = (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose(factors("cosine", 10), expected, rtol=1e-6)


def test_step_falls_after_half_and_three_quarters():
    np.testing.assert_allclose(factors("step", 8), [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_run_starts_with_its_eta_and_no_factor_rises(name):
    for epochs in range(1, 9):
        values = factors(name, epochs)
        assert values[0] == 1
        assert all(later <= earlier for earlier, later in pairwise(values))
