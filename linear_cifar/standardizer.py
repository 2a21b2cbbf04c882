"""Features brought to mean 0 and standard deviation 1, or rows to unit length."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from linear_cifar.params import Params

# Rows converted to float64 at a time, which bounds the memory that these functions take.
ROWS_AT_ONCE = 1_000


class Standardizer(NamedTuple):
    """Mean and standard deviation of each feature, in the units of the raw features.

    Where replicates have standardisers of their own, the arrays have a leading axis of replicates.
    """

    mean: Float[Array | np.ndarray, "*replicates d"]
    std: Float[Array | np.ndarray, "*replicates d"]


def fit_standardizer(features: Num[np.ndarray, "n d"]) -> Standardizer:
    """Compute means and (population) standard deviations over the rows, in float64.

    A constant feature gets a standard deviation of 1, and so standardising turns it into 0.

    Args:
      features: raw features of the training examples alone, at least one row.

    Returns:
      Mean [d] and std [d].
    """
    n, d = features.shape
    mean, variance = np.zeros(d), np.zeros(d)
    # Two passes: the sum of squared deviations loses no digits where the mean is large.
    for start in range(0, n, ROWS_AT_ONCE):
        mean += features[start : start + ROWS_AT_ONCE].sum(axis=0, dtype=np.float64) / n
    for start in range(0, n, ROWS_AT_ONCE):
        deviations = features[start : start + ROWS_AT_ONCE] - mean
        variance += np.einsum("nd,nd->d", deviations, deviations) / n
    constant = features.min(axis=0) == features.max(axis=0)
    return Standardizer(mean, np.where(constant, 1.0, np.sqrt(variance)))


def scale_to_unit_length(features: Num[np.ndarray, "n d"], dtype: DTypeLike = np.float32) -> np.ndarray:
    """Divide each row by its Euclidean length, computed in float64; a row of zeros stays as it is.

    Args:
      features: raw features.
      dtype: floating-point type of the result.

    Returns:
      Rows [n, d] of length 1.
    """
    scaled = np.empty(features.shape, dtype)
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = features[start : start + ROWS_AT_ONCE].astype(np.float64)
        # By the largest value first: the square of 1e200 would be infinite.
        rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        scaled[start : start + ROWS_AT_ONCE] = rows / np.where(length == 0, 1, length)
    return scaled


def standardize(
    standardizer: Standardizer | None, features: Num[Array, "n d"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "n d"]:
    """Compute (x − mean) / std per feature.

    Args:
      standardizer: mean [d] and std [d]; None: the features are only converted to `dtype`.
      features: raw features.
      dtype: floating-point type of the result, in which it is computed.
    """
    if standardizer is None:
        return features.astype(dtype)
    mean = jnp.asarray(standardizer.mean, dtype)
    inverse = jnp.asarray(1 / standardizer.std, dtype)
    return (features.astype(dtype) - mean[None, :]) * inverse[None, :]


def fold_standardizer(params: Params, standardizer: Standardizer) -> Params:
    r"""Return parameters that give the same logits on raw features as `params` on standardised ones.

    $W' = W / \mathrm{std}$ and $b' = b - W' \mathrm{mean}$, in float64. scikit-learn's `coef_` and PyTorch's
    `weight` are W', `intercept_` and `bias` are b'.

    Args:
      params: W [*runs, K, d] and b [*runs, K].
      standardizer: mean [d] and std [d].

    Raises:
      ValueError: if the standardiser is not of d features, or has an axis of replicates.
    """
    shapes, expected = (np.shape(standardizer.mean), np.shape(standardizer.std)), params.W.shape[-1:]
    if shapes != (expected, expected):
        raise ValueError(f"the standardiser is {shapes[0]}, not {expected}")
    W = np.asarray(params.W, np.float64) / np.asarray(standardizer.std, np.float64)
    return Params(W, np.asarray(params.b, np.float64) - W @ np.asarray(standardizer.mean, np.float64))
