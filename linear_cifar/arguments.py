"""Arguments as callers give them: converted where nothing is lost, or refused in one line.

One mistake has one message, whichever function it is made in.
"""

import operator
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num

T = TypeVar("T")

# A seed is the low word of a random key: a larger one would repeat a smaller one.
LARGEST_SEED = 2**32 - 1


def describe(value: Any) -> str:
    """Return a few words on a value for a message, such as "float32(40, 6)" or "a StandardScaler"."""
    if isinstance(value, np.generic) or getattr(value, "shape", None) == ():
        return f"{value}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{tuple(value.shape)}"
    if value is None or isinstance(value, str | bytes | Real):
        return f"{value!r:.60}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{'the class' if isinstance(value, type) else 'the function'} {value.__qualname__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def one_line(error: BaseException, length: int = 120) -> str:
    """Return the beginning of an error's message on one line, or the error's type if it has none."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def as_numbers(name: str, value: Any) -> Num[Array | np.ndarray, "..."]:
    """Return a value as an array of real numbers in the machine's order of bytes.

    A JAX array stays one, everything else becomes a NumPy array. Booleans become 0 and 1. Python numbers in
    an object array, and numbers of more than 64 bits, are converted where nothing is lost.

    Args:
      name: name of the argument.
      value: array, list, pandas object, or an array of another library.

    Raises:
      ValueError: if the value is something else; the message names the argument and says what to give.
    """
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise ValueError(f"{name} is sparse ({type(value).__name__}): give {name}.toarray()")
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked values: fill them or leave their rows out")
    array = value if isinstance(value, jax.Array) else _as_numpy(name, value)
    if array.dtype == bool:
        return array.astype(np.uint8)
    real = jnp.issubdtype(array.dtype, jnp.number) and not jnp.issubdtype(array.dtype, jnp.complexfloating)
    if not real or array.dtype.kind == "m":  # a time span counts as a whole number
        raise ValueError(f"{name} is {describe(array)}: give an array of real numbers")
    return array


def _as_numpy(name: str, value: Any) -> np.ndarray:
    """Return a value as a NumPy array, see `as_numbers`; raise ValueError if something would be lost."""
    try:
        array = np.asarray(value)
    # Arrays of other libraries raise errors of many types, for example on another device.
    except Exception as error:
        raise ValueError(f"{name} cannot be made an array ({one_line(error)}): give numbers") from None
    if array.dtype.kind == "O":
        plain = np.asarray(array.tolist()) if array.ndim else array
        if plain.dtype.kind not in "biuf" or not np.array_equal(plain, array):
            raise ValueError(
                f"{name} holds Python objects that are not all numbers: give an array of numbers"
            )
        return plain
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        plain = array.astype(np.float64)
        if not np.array_equal(plain, array, equal_nan=True):
            raise ValueError(f"{name} is {describe(array)}, whose digits float64 loses: round it to float64")
        return plain
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_values(name: str, value: Any, axes: str) -> np.ndarray:
    """Return a value as a NumPy array of real numbers, or of booleans, with these axes.

    Args:
      name: name of the argument.
      value: array or nested list.
      axes: names of the axes, such as "seeds, examples".

    Raises:
      ValueError: if the value is something else, or has another number of axes.
    """
    is_bool = getattr(value, "dtype", None) == np.dtype(bool)
    array = np.asarray(value if is_bool else as_numbers(name, value))
    if array.ndim != axes.count(",") + 1:
        raise ValueError(f"{name} is {describe(array)}: give an array [{axes}]")
    return array


def encode_groups(groups: Any, *shapes: tuple[int, ...]) -> Int[np.ndarray, "*S n"]:
    """Return groups as whole numbers from 0; raise ValueError if they have none of these shapes."""
    try:
        found, codes = np.unique(np.asarray(groups), return_inverse=True)
        if not np.array_equal(found, found):  # NaN
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError("groups cannot be sorted, or hold NaN: give words or whole numbers") from None
    if np.shape(groups) not in shapes:
        raise ValueError(f"groups is {np.shape(groups)}: give [{shapes[0][0]}], one for each example")
    return codes.reshape(np.shape(groups)).astype(np.int32)


def as_pair(axes: str, **values: Any) -> list[np.ndarray]:
    """Return two arrays, given by their names, see `as_values`; raise ValueError if their shapes differ."""
    pair = [as_values(name, value, axes) for name, value in values.items()]
    if pair[0].shape != pair[1].shape:
        words = " and ".join(f"{name} is {array.shape}" for name, array in zip(values, pair, strict=True))
        raise ValueError(f"{words}: give one shape [{axes}]")
    return pair


def as_marks(name: str, value: Any, axes: str) -> np.ndarray:
    """Return an array of booleans with these axes; convert 0 and 1, and raise ValueError for other values."""
    array = as_values(name, value, axes)
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        raise ValueError(f"{name} holds {array[wrong][0]}: give booleans [{axes}]")
    return array.astype(bool)


def as_whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return a whole number from `low` to `high` as a Python int; raise ValueError for other values."""
    limits = f"at least {low}" if high is None else f"{low} to {high}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {describe(value)}: give a whole number, {limits}") from None
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name} is {number}: give {limits}")
    return number


def as_seed(value: Any) -> int:
    """Return a seed as a Python int; raise ValueError if it is no whole number from 0 to 2³² − 1."""
    return as_whole("seed", value, 0, LARGEST_SEED)


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise ValueError if a value is none of the choices; the message lists them."""
    value = value.item() if isinstance(value, np.bool_) else value
    # Types must match too, because 1 == True. A NumPy string counts as a Python string.
    alike = [
        choice
        for choice in choices
        if isinstance(value, type(choice)) and type(value) in (type(choice), np.str_)
    ]
    if not any(value == choice for choice in alike):
        raise ValueError(f"{name} is {describe(value)}: choose one of {', '.join(map(str, choices))}")


def check_hashable(name: str, function: Any) -> None:
    """Raise ValueError if a function is not hashable: JAX keeps compiled programs by function."""
    try:
        hash(function)
    except TypeError:
        raise ValueError(f"{name} is {describe(function)}, which cannot be hashed: give a function") from None


def look_up(name: str, value: Any, table: Mapping[str, T]) -> T | Any:
    """Return the entry of that name, or the value if it is no name; raise ValueError for an unknown name."""
    if isinstance(value, str):
        if value not in table:
            raise ValueError(f"unknown {name} {value!r:.60}: choose one of {', '.join(table)}")
        return table[value]
    return value


def is_traced(*arrays: Any) -> bool:
    """Tell whether the values of an array are unknown yet, because JAX traces a function."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)
