"""Limits of floating-point types: which features are constant, and which would lose their digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from linear_cifar.arguments import as_numbers, is_traced

# A feature is constant if its values differ by at most this many units in the last place.
CONSTANT_ULPS = 4
# A type tells the values of a feature apart if they span more than this many of its units in the last place.
RESOLVED_ULPS = 16


def is_wide(array: Num[Array | np.ndarray, "*shape"], dtype: DTypeLike) -> bool:
    """Tell whether some number of the array's type does not fit into a floating-point type."""
    return not np.can_cast(array.dtype, dtype)


def find_constant(features: Num[np.ndarray, "n d"]) -> Bool[np.ndarray, " d"]:
    """Tell for each feature whether it has one value, up to rounding."""
    low, high = features.min(axis=0), features.max(axis=0)
    if features.dtype.kind != "f" or features.itemsize < 4:
        # Whole numbers are exact. Narrower types have too few digits to spend any on rounding.
        return low == high
    tolerance = CONSTANT_ULPS * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    return high / 2 - low / 2 <= tolerance / 2  # halves, because the difference may overflow


def check_resolution(features: Num[Array | np.ndarray, "n d"], dtype: DTypeLike) -> None:
    """Raise ValueError if `dtype` cannot hold the values of a feature, or cannot tell them apart."""
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if is_traced(features) or not is_wide(features, dtype) or len(features) == 0:
        return
    rows = np.asarray(features)
    low, high = (limit.astype(np.float64) for limit in (rows.min(axis=0), rows.max(axis=0)))
    largest = np.maximum(np.abs(low), np.abs(high))
    beyond = largest > float(jnp.finfo(dtype).max)
    with np.errstate(over="ignore"):
        resolution = np.spacing(largest.astype(dtype)).astype(np.float64)
    lost = beyond | ((high / 2 - low / 2 < RESOLVED_ULPS * resolution / 2) & ~find_constant(rows))
    if lost.any():
        column = int(np.argmax(lost))
        raise ValueError(
            f"feature {column} goes from {low[column]:.17g} to {high[column]:.17g}, which {dtype} cannot "
            "tell apart: give a standardizer and no augmentation, or subtract its mean and scale it"
        )


def as_floats(name: str, value: Any, dtype: DTypeLike) -> Float[Array, "..."]:
    """Return numbers as a floating-point JAX array: of `dtype`, unless they are one already.

    Raise ValueError if the value is no array of real numbers, or `dtype` cannot tell its numbers apart.
    """
    array = as_numbers(name, value)
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if array.ndim == 2:
        check_resolution(array, dtype)
    # NumPy rounds a large whole number; JAX would cut it to 32 bits.
    rounded = array.astype(jax.dtypes.canonicalize_dtype(dtype))
    return rounded if isinstance(rounded, jax.Array) else jnp.asarray(rounded)
