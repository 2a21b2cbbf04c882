"""Configurations drawn from ranges of hyperparameters, in place of a grid.

A Sobol sequence covers the ranges more evenly than random numbers do, and each axis takes as many different
values as there are points (Bergstra and Bengio 2012, "Random search for hyper-parameter optimization").
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from linear_cifar.arguments import as_seed, as_whole, check_choice, describe
from linear_cifar.config import Config, as_axis, check_config

# Values are rounded to this many digits, so that another machine's logarithm gives the same configurations.
DIGITS = 6


class Range(NamedTuple):
    """A range of one hyperparameter: `low` to `high`, uniform, or uniform in the logarithm.

    `zeros` is the share of the points that get 0 instead, as where "no penalty" is one of the choices.
    """

    low: float
    high: float
    log: bool = False
    zeros: float = 0.0

    def at(self, places: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the values at places in [0, 1), of which the first share `zeros` is 0."""
        inside = np.maximum(places - self.zeros, 0) / (1 - self.zeros)
        if self.log:
            values = np.exp(np.log(self.low) + (np.log(self.high) - np.log(self.low)) * inside)
        else:
            values = self.low + (self.high - self.low) * inside
        rounded = np.array([float(f"{value:.{DIGITS}g}") for value in values])
        return np.where(places < self.zeros, 0.0, np.clip(rounded, self.low, self.high))


# The values of one hyperparameter: a range, or a list of which each has the same share of the points.
Axis = Range | Sequence[int] | Sequence[float]


def draw_configs(axes: Mapping[str, Axis], count: int, seed: int = 0) -> tuple[Config, ...]:
    """Return the first points of a scrambled Sobol sequence, as configurations.

    A larger `count` extends the same sequence. The sequence is most even at powers of two.

    Args:
      axes: axis of each field of `Config`; q and momentum are 0 where they are left out.
      count: number of points. If the axes leave fewer choices, points that are equal count once.
      seed: seed of the scrambling, a whole number from 0 to 2³² − 1.

    Raises:
      ValueError: if an axis is missing or unknown, or a range is empty or out of the hyperparameter's limits;
        the message names it.
    """
    # Imported here, as the import takes half a second.
    from scipy.stats import qmc

    if not isinstance(axes, Mapping):
        raise ValueError(f'axes is {describe(axes)}: give ranges by name, such as {{"eta": Range(0.01, 1)}}')
    axes = {"q": (0.0,), "momentum": (0.0,)} | dict(axes)
    different = set(axes) ^ set(Config._fields)
    if different:
        unknown = sorted(map(str, different))[0]
        what = "missing" if unknown in Config._fields else "unknown"
        raise ValueError(f"the axis {unknown!r} is {what}: give {', '.join(Config._fields)}")
    axes = {name: axis if isinstance(axis, Range) else as_axis(name, axis) for name, axis in axes.items()}
    for name, axis in axes.items():
        _check_axis(name, axis)
    as_whole("count", count, 1)
    # All fields, so that another axis does not move the points along the others. A power of two, because
    # SciPy warns of other numbers.
    sequence = qmc.Sobol(len(Config._fields), scramble=True, rng=as_seed(seed))
    points = sequence.random_base2(max(0, count - 1).bit_length())[:count]
    columns = [_at(axes[name], points[:, i]) for i, name in enumerate(Config._fields)]
    return tuple(dict.fromkeys(Config(*values) for values in zip(*columns, strict=True)))


def _at(axis: Axis, places: Float[np.ndarray, " n"]) -> list[Any]:
    """Return an axis's values at places in [0, 1), as Python's numbers."""
    if isinstance(axis, Range):
        return axis.at(places).tolist()
    return [axis[int(len(axis) * place)] for place in places]


def _check_axis(name: str, axis: Axis) -> None:
    """Raise ValueError if an axis has no values, or one out of the hyperparameter's limits."""
    if not isinstance(axis, Range):
        ends = list(axis)
        if not ends:
            raise ValueError(f"{name} is empty: give at least one value")
    else:
        ends = [axis.low, axis.high]
        for value in (*ends, axis.zeros):
            if not isinstance(value, Real):
                raise ValueError(f"{name} has a range with {describe(value)}: give numbers")
        check_choice(f"{name}'s log", axis.log, (True, False))
        if name == "batch":
            raise ValueError("batch is a range: give a list of batch sizes")
        if not (all(map(math.isfinite, ends)) and axis.low < axis.high):
            raise ValueError(f"{name} goes from {axis.low:g} to {axis.high:g}: give a lower and a higher end")
        if axis.log and axis.low <= 0:
            raise ValueError(
                f"{name} goes from {axis.low:g} on a logarithmic scale: give a lower end above 0, and a "
                "share of the points at 0 if you want some there"
            )
        if axis.zeros and name == "eta":
            raise ValueError("eta has a share at 0, where nothing is learned: give a range without")
        if not 0 <= axis.zeros < 1:
            raise ValueError(f"{name} has a share of {axis.zeros:g} at 0: give a share from 0 to below 1")
    for value in ends:
        fields: dict[str, Any] = {"eta": 0.0, "batch": 1, "lam": 0.0, name: value}
        check_config(Config(**fields))
