"""The hyperparameters that differ between the runs of a sweep without compiling a program for each."""

import itertools
import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np


class Config(NamedTuple):
    """One configuration: learning rate η ≥ 0, batch size ≥ 1, L2 strength λ ≥ 0, q and momentum.

    q in [0, 1] is the power of the loss, see `linear_cifar.losses`. momentum in [0, 1) is that of heavy-ball
    descent. The report has both at 0.
    """

    eta: float
    batch: int
    lam: float
    q: float = 0.0
    momentum: float = 0.0


def grid(
    etas: Iterable[float],
    batches: Iterable[int],
    lams: Iterable[float],
    qs: Iterable[float] = (0.0,),
    momenta: Iterable[float] = (0.0,),
) -> tuple[Config, ...]:
    """Return every combination, the last axis fastest; a value given twice counts once.

    Raises:
      ValueError: if an axis is empty or a value is out of its range; the message names it.
    """
    axes = [tuple(dict.fromkeys(axis)) for axis in (etas, batches, lams, qs, momenta)]
    for name, axis in zip(Config._fields, axes, strict=True):
        if not axis:
            raise ValueError(f"{name} is empty: give at least one value")
    configs = tuple(itertools.starmap(Config, itertools.product(*axes)))
    for config in configs:
        check_config(config)
    return configs


def as_configs(configs: Iterable[Config]) -> tuple[Config, ...]:
    """Turn NumPy's numbers in configurations into Python's, so that they can be hashed and saved as JSON."""
    return tuple(Config(*map(_as_python, config)) for config in configs)


def _as_python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def check_config(config: Config, n: int | None = None) -> None:
    """Raise ValueError if a hyperparameter is out of its range, and name it; n is the number of examples."""
    for name, value in (("eta", config.eta), ("lam", config.lam)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}: give zero or a positive number")
    if not 0 <= config.q <= 1:
        raise ValueError(f"q is {config.q}: give a number from 0 (cross-entropy) to 1 (mean absolute error)")
    if not 0 <= config.momentum < 1:
        raise ValueError(f"momentum is {config.momentum}: give a number from 0 to below 1")
    if not isinstance(config.batch, Integral):
        raise ValueError(f"batch is {config.batch}: give a whole number of examples")
    if config.batch < 1:
        raise ValueError(f"batch is {config.batch}: a batch holds at least one example")
    if n is not None and config.batch > n:
        raise ValueError(f"batch is {config.batch}: the training set holds {n:,} examples")
