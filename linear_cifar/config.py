"""The hyperparameters that differ between the runs of a sweep without compiling a program for each."""

import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from linear_cifar.arguments import describe


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


class Hyperparams(NamedTuple):
    """The hyperparameters that may differ between configurations without compiling again."""

    eta: Float[Array, "*configs"]
    lam: Float[Array, "*configs"]
    q: Float[Array, "*configs"]
    momentum: Float[Array, "*configs"]


def stack_hyperparams(configs: Sequence[Config], dtype: DTypeLike = jnp.float32) -> Hyperparams:
    """Return the hyperparameters of C configurations as arrays [C]."""
    configs = as_configs(configs)
    columns = ([getattr(config, name) for config in configs] for name in Hyperparams._fields)
    return Hyperparams(*(jnp.asarray(column, dtype) for column in columns))


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
    axes = []
    for name, axis in zip(Config._fields, (etas, batches, lams, qs, momenta), strict=True):
        values = as_axis(name, axis)
        if not values:
            raise ValueError(f"{name} is empty: give at least one value")
        axes.append(values)
    configs = tuple(itertools.starmap(Config, itertools.product(*axes)))
    for config in configs:
        check_config(config)
    return configs


def as_axis(name: str, axis: Any) -> tuple[Any, ...]:
    """Return the values of an axis as Python's numbers, without repetitions.

    Raises:
      ValueError: if the axis is no list of values.
    """
    try:
        if isinstance(axis, str | dict):
            raise TypeError
        return tuple(dict.fromkeys(map(_as_python, axis)))
    except TypeError:
        raise ValueError(f"{name} is {describe(axis)}: give a list of numbers, such as [0.1]") from None


def as_configs(configs: Iterable[Config]) -> tuple[Config, ...]:
    """Return configurations whose values are Python's numbers, so that they can be hashed and saved as JSON.

    Raises:
      ValueError: if one is no `Config`.
    """
    if isinstance(configs, Config):
        raise ValueError("configs is one Config: give a list, such as [config]")
    try:
        members = list(configs)
    except TypeError:
        raise ValueError(f"configs is {describe(configs)}: give a list of Config") from None
    for member in members:
        if type(member) not in (Config, tuple) or not 3 <= len(member) <= len(Config._fields):
            raise ValueError(f"configs holds {describe(member)}: give a list of Config")
    return tuple(Config(*map(_as_python, member)) for member in members)


def _as_python(value: Any) -> Any:
    """Return the number that a NumPy scalar or an array without axes holds, and other values as they are."""
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value


def check_config(config: Config, n: int | None = None, dtype: DTypeLike | None = None) -> None:
    """Raise ValueError if a hyperparameter is out of its range, and name it.

    Args:
      config: configuration.
      n: number of training examples; None: any.
      dtype: type of the weights, which must hold the values; None: any.
    """
    (config,) = as_configs([config])
    for name, value in config._asdict().items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ValueError(f"{name} is {describe(value)}: give a number")
    for name, value in (("eta", config.eta), ("lam", config.lam)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}: give zero or a positive number")
        if value > sys.float_info.max:  # a whole number may be
            raise ValueError(f"{name} is {describe(value)}: give a number that float64 can hold")
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
    # Last, because what is out of range is not a matter of the type.
    for name, number in config._asdict().items() if dtype is not None else ():
        limits = jnp.finfo(dtype)
        if number and not float(limits.smallest_subnormal) <= number <= float(limits.max):
            raise ValueError(f"{name} is {number}: give a number that {limits.dtype} can hold")
