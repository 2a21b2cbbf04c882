"""Features brought to mean 0 and standard deviation 1."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

# Rows converted to float64 at a time: bounds the memory that `fit_standardizer` takes.
CHUNK = 1_000


class Standardizer(NamedTuple):
    """Each feature's mean and standard deviation, in the units of the raw features."""

    mean: Float[Array | np.ndarray, " d"]
    std: Float[Array | np.ndarray, " d"]


def fit_standardizer(features: Num[np.ndarray, "n d"]) -> Standardizer:
    """Means and (population) standard deviations over the rows, in float64.

    A constant feature gets a standard deviation of 1, so that standardising makes it 0.
    """
    n, d = features.shape
    mean, variance = np.zeros(d), np.zeros(d)
    # Two passes: the sum of squared deviations loses no digits where the mean is large.
    for start in range(0, n, CHUNK):
        mean += features[start : start + CHUNK].sum(axis=0, dtype=np.float64) / n
    for start in range(0, n, CHUNK):
        deviations = features[start : start + CHUNK] - mean
        variance += np.einsum("nd,nd->d", deviations, deviations) / n
    constant = features.min(axis=0) == features.max(axis=0)
    return Standardizer(mean, np.where(constant, 1.0, np.sqrt(variance)))


def standardize(
    standardizer: Standardizer, features: Num[Array, "n d"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "n d"]:
    """(x − mean) / std per feature, computed in `dtype`."""
    mean = jnp.asarray(standardizer.mean, dtype)
    inverse = jnp.asarray(1 / standardizer.std, dtype)
    return (features.astype(dtype) - mean[None, :]) * inverse[None, :]
