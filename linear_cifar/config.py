"""The hyperparameters of a run: its axes, configurations, grids of them, and points drawn from ranges.

A hyperparameter is declared once, in `AXES`; checks, flags, tables and figures follow from that. A sweep may
have further axes, which its loss or its optimizer reads: `Config(eta=0.1, batch=100, gamma=2.0)`. Its program
is compiled once for all their values.
"""

import hashlib
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from linear_cifar.arguments import as_seed, as_whole, check_choice, describe

V = TypeVar("V", bound="_Values")


class Axis(NamedTuple):
    """A hyperparameter: its name, what it means, its limits and its scale.

    Its values go from `low` to `high`, or stay `below` it, and are finite. An axis without a default must be
    given where it is used. `log` says that ranges and figures of it are logarithmic.
    """

    name: str
    symbol: str
    meaning: str
    default: float | None = None
    low: float = 0.0
    high: float = math.inf
    below: bool = False
    whole: bool = False
    log: bool = False
    note: str = ""  # on its values

    @property
    def label(self) -> str:
        """Its meaning and its symbol, such as "learning rate η"."""
        return f"{self.meaning} {self.symbol}"

    @property
    def limits(self) -> str:
        """The values that it takes, in words."""
        if self.whole:
            words = f"a whole number, at least {self.low:g}"
        elif self.high < math.inf:
            words = f"a number from {self.low:g} to {'below ' * self.below}{self.high:g}"
        else:
            words = "zero or a positive number" if self.low == 0 else "a finite number"
        return words + f" ({self.note})" * bool(self.note)

    def check(self, value: Any) -> Any:
        """Return a value of this axis as Python's number, so that it can be hashed and saved as JSON.

        Raises:
          ValueError: if it is no number, or out of the limits; the message names the axis.
        """
        number = value if type(value) in (float, int) else self._as_number(value)
        within = self.low <= number <= self.high and abs(number) < math.inf
        excluded = (self.below and number == self.high) or (self.whole and not isinstance(number, Integral))
        if excluded or not within:
            raise ValueError(f"{self.name} is {describe(number)}: give {self.limits}")
        if self.whole:
            return int(number)
        if abs(number) > sys.float_info.max:  # a whole number may be
            raise ValueError(f"{self.name} is {describe(number)}: give a number that float64 can hold")
        return float(number)

    def _as_number(self, value: Any) -> Any:
        """Return the number that a NumPy scalar or an array without axes holds, or raise ValueError."""
        number = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
        if not isinstance(number, Real) or isinstance(number, bool):
            raise ValueError(f"{self.name} is {describe(number)}: give a number")
        return number


# In the order of a configuration's values, of a table's columns and of the dimensions of a Sobol sequence: a
# further axis comes last.
AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("eta", "η", "learning rate", log=True),
        Axis("batch", "B", "batch size", low=1, whole=True),
        Axis("lam", "λ", "L2 strength", 0.0, log=True),
        Axis("q", "q", "power of the loss", 0.0, high=1.0, note="0: cross-entropy, 1: mean absolute error"),
        Axis("momentum", "μ", "momentum", 0.0, high=1.0, below=True),
        Axis("smoothing", "ε", "label smoothing", 0.0, high=1.0, below=True),
    )
}
# Names of other columns beside the axes, and of the options of `draw_configs`.
COLUMNS = ("sweep", "dataset", "seed", "fold", "epoch", "epochs", "diverged", "stopped", "count", "bracket")
DEFAULTS = {name: axis.default for name, axis in AXES.items() if axis.default is not None}
# Values are rounded to this many digits, so that another machine's logarithm gives the same configurations.
DIGITS = 6
# Bits of a point's place along an axis; the first dimension of axes that the library does not have.
BITS, FURTHER_AXES = 32, 16


class _Values(Mapping[str, Any]):
    """Values by the names of their axes, which are attributes too. They cannot be changed.

    All configurations of a sweep share one tuple of names.
    """

    __slots__ = ("_names", "_values")
    _names: tuple[str, ...]
    _values: tuple[Any, ...]

    def __new__(cls: type[V], **values: Any) -> V:
        """Put the values in order, with the library's defaults where an axis has none."""
        values = DEFAULTS | values
        names = _sort_names(tuple(values))
        return cls.make(names, tuple(map(values.__getitem__, names)))

    @classmethod
    def make(cls: type[V], names: tuple[str, ...], values: tuple[Any, ...]) -> V:
        """Make an instance from checked values, all of them and in order."""
        made = object.__new__(cls)
        object.__setattr__(made, "_names", names)
        object.__setattr__(made, "_values", values)
        return made

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._values[self._names.index(name)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(f"there is no {name}: the hyperparameters are {', '.join(self)}")
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def replace(self: V, **changes: Any) -> V:
        """Return the same values but for these."""
        return type(self)(**{**self, **changes})


class Config(_Values):
    """One configuration: a checked value for each axis, as `config.eta` and `config["eta"]`.

    `Config(0.1, 100)` has learning rate 0.1 and batch size 100: the order is that of `AXES`. Axes that are
    left out have their default. Further axes follow by name: `Config(eta=0.1, batch=100, gamma=2.0)`. As JSON
    it is `dict(config)`, and `Config(**content)` reads it back.
    """

    __slots__ = ()

    def __new__(cls, *values: Any, **further: Any) -> "Config":
        """Check the values.

        Raises:
          ValueError: if one is out of its limits; the message names it.
        """
        if len(values) > len(AXES):
            raise TypeError(f"Config has {len(values)} values without a name: give {', '.join(AXES)}")
        given = dict(zip(AXES, values, strict=False))
        if given.keys() & further:
            raise TypeError(f"Config has two values for {min(given.keys() & further)}: give one")
        given |= further
        for name, value in given.items():
            given[name] = get_axis(name).check(value)
        return super().__new__(cls, **given)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return self._values == other._values and self._names == other._names

    def __hash__(self) -> int:
        return hash(self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        return Config.make, (self._names, self._values)


@jax.tree_util.register_pytree_node_class
class Hyperparams(_Values):
    """The hyperparameters of a run as numbers or traced scalars, or those of C runs as arrays [C].

    All axes but the batch size, which is part of the compiled program. The names are static: an optimizer or
    a loss reads `hyperparams.eta`, or `hyperparams.gamma` where a sweep has such an axis.
    """

    __slots__ = ()

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        """Return the values and the names."""
        return self._values, self._names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Iterable[Any]) -> "Hyperparams":
        """Make them from values of any kind, as JAX does."""
        return cls.make(names, tuple(values))


def get_axis(name: str) -> Axis:
    """Return the axis of a name, or raise ValueError; one of the caller's own takes any finite number."""
    if name in AXES:
        return AXES[name]
    taken = name in COLUMNS or hasattr(Config, name) or hasattr(Hyperparams, name)
    if taken or not name.isidentifier() or name.startswith("_"):
        raise ValueError(f"an axis has the name {name!r:.60}: give another name, such as gamma")
    return Axis(name, name, name, low=-math.inf)


@lru_cache(maxsize=1024)
def _sort_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the library's axes in their order, and then the others in that of the alphabet."""
    return (*(name for name in AXES if name in names), *sorted(name for name in names if name not in AXES))


def hyperparam_names(config: Config) -> tuple[str, ...]:
    """Return the names of `Hyperparams` of a configuration."""
    return tuple(name for name in config if name != "batch")


def stack_hyperparams(configs: Sequence[Config], dtype: DTypeLike = jnp.float32) -> Hyperparams:
    """Return the hyperparameters of C configurations as arrays [C]."""
    configs = as_configs(configs)
    names = hyperparam_names(configs[0])
    columns = ([config[name] for config in configs] for name in names)
    return Hyperparams.make(names, tuple(jax.device_put(np.asarray(column, dtype)) for column in columns))


def as_configs(configs: Iterable[Config]) -> tuple[Config, ...]:
    """Return configurations as a tuple; raise ValueError if one is no `Config`, or has other axes."""
    if isinstance(configs, Config):
        raise ValueError("configs is one Config: give a list, such as [config]")
    try:
        members = tuple(configs)
    except TypeError:
        raise ValueError(f"configs is {describe(configs)}: give a list of Config") from None
    for member in members:
        if not isinstance(member, Config):
            raise ValueError(f"configs holds {describe(member)}: give a list of Config")
        if tuple(member) != tuple(members[0]):
            different = min({*member} ^ {*members[0]})
            raise ValueError(f"configs do not all have {different}: give all of them the same axes")
    return members


def check_configs(configs: Sequence[Config], n: int, dtype: DTypeLike) -> None:
    """Raise ValueError if gradient descent cannot use a configuration, and name the hyperparameter.

    Args:
      configs: configurations with the same axes.
      n: number of training examples.
      dtype: type of the weights, which must hold the values.
    """
    for name, axis in AXES.items():
        if configs and axis.default is None and name not in configs[0]:
            raise ValueError(
                f"{name} is missing among {', '.join(configs[0])}: give each Config one, such as "
                "Config(eta=0.1, batch=100)"
            )
    for config in configs:
        if config.batch > n:
            raise ValueError(f"batch is {config.batch}: the training set holds {n:,} examples")
    check_values(configs, dtype)


def check_values(configs: Sequence[Config], dtype: DTypeLike) -> None:
    """Raise ValueError if a floating-point type cannot hold a hyperparameter, and name it."""
    limits = jnp.finfo(dtype)
    smallest, largest = float(limits.smallest_subnormal), float(limits.max)
    for config in configs:
        for name, number in zip(config, config.values(), strict=True):
            if number and not smallest <= abs(number) <= largest:
                raise ValueError(f"{name} is {number}: give a number that {limits.dtype} can hold")


def grid(**axes: Iterable[Any]) -> tuple[Config, ...]:
    """Return every combination of values, such as `grid(eta=[0.01, 0.1], batch=[100], gamma=[0, 2])`.

    Their order is that of the axes in a `Config`, the last axis fastest. A value given twice counts once.

    Raises:
      ValueError: if an axis is empty or a value is out of its limits; the message names it.
    """
    lists = {name: _as_list(get_axis(name), values) for name, values in axes.items()}
    names = _sort_names(tuple(DEFAULTS | lists))
    combinations = itertools.product(*(lists.get(name) or (DEFAULTS[name],) for name in names))
    return tuple(Config.make(names, values) for values in combinations)


class Range(NamedTuple):
    """A range of one hyperparameter: `low` to `high`, uniform, or uniform in the logarithm.

    `log` is as the axis has it where it is None: η and λ are logarithmic. `zeros` is the share of the points
    that get 0 instead, as where "no penalty" is one of the choices.
    """

    low: float
    high: float
    log: bool | None = None
    zeros: float = 0.0

    def __str__(self) -> str:
        """Return the range as a flag gives it, such as "0.0001:1.0" or "1e-06:0.1:0.25"."""
        return f"{self.low}:{self.high}" + f":{self.zeros}" * bool(self.zeros)

    def at(self, places: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the values at places in [0, 1), of which the first share `zeros` is 0."""
        inside = np.maximum(places - self.zeros, 0) / (1 - self.zeros)
        if self.log:
            values = np.exp(np.log(self.low) + (np.log(self.high) - np.log(self.low)) * inside)
        else:
            values = self.low + (self.high - self.low) * inside
        rounded = np.array([float(f"{value:.{DIGITS}g}") for value in values])
        return np.where(places < self.zeros, 0.0, np.clip(rounded, self.low, self.high))


def space_evenly(name: str, values: Range, count: int) -> list[float]:
    """Return `count` ≥ 2 values of a range of an axis, evenly on its scale, with both ends.

    Raises:
      ValueError: if the range is empty or out of the hyperparameter's limits; the message names it.
    """
    checked = _check_values(get_axis(name), values)
    assert isinstance(checked, Range), "a range stays one"
    if checked.zeros:
        raise ValueError(f"{name} has a share at 0: give a range without one, or a list that has 0")
    return checked.at(np.linspace(0, 1, as_whole("count", count, 2))).tolist()


def draw_configs(
    count: int, *, seed: int = 0, bracket: int = 256, **axes: Range | Iterable[Any]
) -> tuple[Config, ...]:
    """Return the first points of a Sobol sequence, as configurations.

    For example, `draw_configs(64, eta=Range(0.001, 1), batch=[50, 100], lam=Range(1e-6, 0.1, zeros=0.25))`.
    The sequence covers the ranges more evenly than random numbers do, and each axis takes as many different
    values as there are points (Bergstra and Bengio 2012, "Random search for hyper-parameter optimization").
    A larger `count` extends the same sequence, and a further axis leaves the values along the others. The
    sequence is most even at powers of two.

    Args:
      count: number of points. If the axes leave fewer choices, points that are equal count once.
      seed: seed of the points, a whole number from 0 to 2³² − 1.
      bracket: a power of two. As many points after one another have each value of a list equally often, up
        to one.
      **axes: a range of each hyperparameter, or a list; those that are left out have their default.

    Raises:
      ValueError: if a range is empty or out of the hyperparameter's limits; the message names it.
    """
    # Imported here, as the import takes half a second.
    from scipy.stats import qmc

    as_whole("count", count, 1)
    as_seed(seed)
    if as_whole("bracket", bracket, 1) & (bracket - 1):
        raise ValueError(f"bracket is {bracket}: give a power of two")
    checked = {name: _check_values(get_axis(name), values) for name, values in axes.items()}
    dimensions = {name: i for i, name in enumerate(AXES)}
    dimensions |= {name: FURTHER_AXES + i for i, name in enumerate(name for name in axes if name not in AXES)}
    # Not scrambled by SciPy, whose scrambling depends on the number of dimensions. A power of two, because
    # SciPy warns of other numbers.
    sequence = qmc.Sobol(1 + max((dimensions[name] for name in axes), default=0), scramble=False, bits=BITS)
    points = sequence.random_base2(max(0, count - 1).bit_length())[:count]
    columns = {name: [default] * count for name, default in DEFAULTS.items()}
    for name, values in checked.items():
        places = _shift(points[:, dimensions[name]], f"{name} {seed}")
        columns[name] = _values_at(values, places, bracket)
    names = _sort_names(tuple(columns))
    rows = zip(*(columns[name] for name in names), strict=True)
    return tuple(dict.fromkeys(Config.make(names, values) for values in rows))


def _shift(places: Float[np.ndarray, " n"], seed: str) -> Float[np.ndarray, " n"]:
    """Shift places in [0, 1) of a Sobol sequence bit by bit, which leaves them as even as they are."""
    shift = int.from_bytes(hashlib.sha256(seed.encode()).digest()[: BITS // 8])
    return ((places * 2**BITS).astype(np.uint64) ^ np.uint64(shift)) / 2**BITS


def _values_at(values: Range | Sequence[Any], places: Float[np.ndarray, " n"], bracket: int) -> list[Any]:
    """Return the values of an axis at places in [0, 1), as Python's numbers."""
    if isinstance(values, Range):
        return values.at(places).tolist()
    # The points of a bracket have one place in each of as many equal intervals.
    return [values[int(len(values) * interval / bracket)] for interval in np.floor(places * bracket)]


def _as_list(axis: Axis, values: Any) -> tuple[Any, ...]:
    """Return the values of an axis as Python's numbers, without repetitions, or raise ValueError."""
    try:
        if isinstance(values, str | Mapping | Range):
            raise TypeError
        members = list(values)
    except TypeError:
        raise ValueError(
            f"{axis.name} is {describe(values)}: give a list of numbers, such as [0.1]"
        ) from None
    if not members:
        raise ValueError(f"{axis.name} is empty: give at least one value")
    return tuple(dict.fromkeys(map(axis.check, members)))


def _check_values(axis: Axis, values: Any) -> Range | tuple[Any, ...]:
    """Return a range with its scale, or a list of values; raise ValueError if one is wrong."""
    if not isinstance(values, Range):
        return _as_list(axis, values)
    name = axis.name
    if axis.whole:
        raise ValueError(f"{name} is a range: give a list of whole numbers")
    log = axis.log if values.log is None else values.log
    check_choice(f"{name}'s log", log, (True, False))
    low, high = map(axis.check, (values.low, values.high))
    zeros = Axis(f"the share of {name} at 0", "", "", high=1.0, below=True).check(values.zeros)
    if not low < high:
        raise ValueError(f"{name} goes from {low:g} to {high:g}: give a lower and a higher end")
    if log and low <= 0:
        raise ValueError(
            f"{name} goes from {low:g} on a logarithmic scale: give a lower end above 0, and a share of the "
            "points at 0 if you want some there; or log=False"
        )
    if zeros and name == "eta":
        raise ValueError("eta has a share at 0, where nothing is learned: give a range without")
    return Range(low, high, bool(log), zeros)
