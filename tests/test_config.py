import math

import pytest

from linear_cifar.config import Config, check_config, grid


def test_grid_is_every_combination_once():
    assert grid([1.0, 2.0, 1.0], [3], [4.0, 5.0]) == (
        Config(1.0, 3, 4.0),
        Config(1.0, 3, 5.0),
        Config(2.0, 3, 4.0),
        Config(2.0, 3, 5.0),
    )
    assert grid([1.0], [2], [3.0], [0.5], [0.8, 0.9]) == (
        Config(1.0, 2, 3.0, 0.5, 0.8),
        Config(1.0, 2, 3.0, 0.5, 0.9),
    )


def test_an_empty_axis_is_named():
    with pytest.raises(ValueError, match="batch is empty"):
        grid([0.1], [], [0.0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(-0.1, 10, 0.0), "eta"),
        (Config(math.nan, 10, 0.0), "eta"),
        (Config(math.inf, 10, 0.0), "eta"),
        (Config(0.1, 10, -1.0), "lam"),
        (Config(0.1, 0, 0.0), "batch"),
        (Config(0.1, 1, 0.0, q=1.5), "q is 1.5"),
        (Config(0.1, 1, 0.0, q=math.nan), "q is nan"),
        (Config(0.1, 1, 0.0, momentum=1.0), "momentum is 1.0"),
        (Config(0.1, 1, 0.0, momentum=-0.1), "momentum is -0.1"),
        (Config(0.1, 101, 0.0), "batch is 101: the training set holds 100"),
    ],
)
def test_values_out_of_range_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        check_config(config, n=100)
    check_config(Config(0.1, 100, 0.0), n=100)
