"""The settings that differ between the runs of a sweep without compiling a program for each."""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple


class Config(NamedTuple):
    """Learning rate η ≥ 0, mini-batch size ≥ 1, L2 strength λ ≥ 0, and two that the report leaves at 0.

    q in [0, 1] is the loss's power, see `linear_cifar.losses`; momentum in [0, 1) that of heavy-ball descent.
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
    """Every combination, the last axis fastest; a value given twice counts once.

    Raises:
      ValueError: if an axis is empty or a value is out of its range, naming it.
    """
    axes = [tuple(dict.fromkeys(axis)) for axis in (etas, batches, lams, qs, momenta)]
    for name, axis in zip(Config._fields, axes, strict=True):
        if not axis:
            raise ValueError(f"{name} is empty: give at least one value")
    configs = tuple(itertools.starmap(Config, itertools.product(*axes)))
    for config in configs:
        check(config)
    return configs


def check(config: Config, n: int | None = None) -> None:
    """Raises ValueError if a setting is out of its range, naming it; n is the number of examples."""
    for name, value in (("eta", config.eta), ("lam", config.lam)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}: give zero or a positive number")
    if not 0 <= config.q <= 1:
        raise ValueError(f"q is {config.q}: give a number from 0 (cross-entropy) to 1 (mean absolute error)")
    if not 0 <= config.momentum < 1:
        raise ValueError(f"momentum is {config.momentum}: give a number from 0 to below 1")
    if config.batch < 1:
        raise ValueError(f"batch is {config.batch}: a batch holds at least one example")
    if n is not None and config.batch > n:
        raise ValueError(f"batch is {config.batch}: the training set holds {n:,} examples")
