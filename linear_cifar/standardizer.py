"""Features brought to mean 0 and standard deviation 1, or rows to unit length."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from linear_cifar.arguments import as_numbers, describe, is_traced
from linear_cifar.devices import count_cores, empty_aligned
from linear_cifar.examples import as_features, as_weights
from linear_cifar.params import Params, as_params
from linear_cifar.rounding import check_resolution, find_constant, is_wide

# Rows converted to float64 at a time, which bounds the memory that these functions take, and columns that a
# core measures at a time.
ROWS_AT_ONCE, COLUMNS_AT_ONCE = 1_000, 768
# Standard deviations beyond this, or below its inverse, come near the limits of float32.
EXTREME = 1e30
# A mean of more standard deviations than this is not subtracted in float32, which has 7 digits.
FAR = 1e4


class Standardizer(NamedTuple):
    """Mean and standard deviation of each feature, in the units of the raw features.

    The standard deviation of a constant feature is infinite, and so standardising turns every value of it
    into 0. Where replicates have standardisers of their own, the arrays have a leading axis of replicates.
    """

    mean: Float[Array | np.ndarray, "*replicates d"]
    std: Float[Array | np.ndarray, "*replicates d"]


def fit_standardizer(features: Any, weights: Any = None) -> Standardizer:
    """Compute means and (population) standard deviations over the rows, in float64.

    A constant feature says nothing of the classes, and its weight would keep its random start. It gets an
    infinite standard deviation, so that it is 0 everywhere, also in examples where it is not constant.
    Floating-point values that differ only by rounding, such as 0.3 and 0.1 + 0.2, are constant.

    Args:
      features: raw features [n, d] of the training examples alone: an array, a nested list or a DataFrame.
      weights: weights [n] of the examples: one of weight 2 counts as two. None: all are 1.

    Returns:
      Mean [d] and std [d].

    Raises:
      ValueError: if the features are not numbers [n, d], or one is NaN, infinite or too large to square;
        or a weight is wrong, see `Examples`.
    """
    rows = np.asarray(as_features("features", features))
    weights = None if weights is None else np.asarray(as_weights(weights, len(rows)), np.float64)
    shares = None if weights is None else weights / weights.sum()
    blocks = [rows[:, start : start + COLUMNS_AT_ONCE] for start in range(0, rows.shape[1], COLUMNS_AT_ONCE)]
    with ThreadPoolExecutor(count_cores()) as pool:
        parts = pool.map(lambda block: _compute_moments(block, shares), blocks)
        mean, variance = (np.concatenate(moments) for moments in zip(*parts, strict=True))
    constant = find_constant(rows if weights is None else rows[weights > 0])
    beyond = ~constant & ~((variance > 0) & np.isfinite(variance))
    if beyond.any():
        column = int(np.argmax(beyond))
        raise ValueError(
            f"feature {column} goes from {rows[:, column].min():.3g} to {rows[:, column].max():.3g}, whose "
            "squares float64 cannot hold: scale it"
        )
    return Standardizer(mean, np.where(constant, np.inf, np.sqrt(variance)))


def _compute_moments(features: Num[np.ndarray, "n d"], shares: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean [d] and the (population) variance [d] in float64."""
    n, d = features.shape
    mean, variance = np.zeros(d), np.zeros(d)
    # Two passes: the sum of squared deviations loses no digits where the mean is large.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # `fit_standardizer` refuses them
        parts = [slice(start, start + ROWS_AT_ONCE) for start in range(0, n, ROWS_AT_ONCE)]
        for part in parts:
            rows = features[part]
            mean += rows.sum(axis=0, dtype=np.float64) / n if shares is None else shares[part] @ rows
        for part in parts:
            deviations = features[part] - mean
            if shares is None:
                variance += np.einsum("nd,nd->d", deviations, deviations) / n
            else:
                variance += shares[part] @ deviations**2
    return mean, variance


def as_standardizer(
    standardizer: Standardizer | None, d: int | None = None, stacked: bool = False
) -> Standardizer | None:
    """Return a standardiser of d features whose leaves are arrays [d], or also [R, d] if it may be stacked.

    With `d=None` any number of features is allowed.

    Raises:
      ValueError: if it is no standardiser of d features, or has a value that no feature can have.
    """
    if standardizer is None:
        return None
    if not isinstance(standardizer, Standardizer):
        raise ValueError(
            f"standardizer is {describe(standardizer)}: give lc.Standardizer(mean, std); of scikit-learn's "
            "StandardScaler these are mean_ and scale_"
        )
    mean, std = (as_numbers(name, leaf) for name, leaf in standardizer._asdict().items())
    expected = mean.shape[-1:] if d is None else (d,)
    if not mean.ndim or mean.shape != std.shape or mean.shape[-1:] != expected or mean.ndim > 1 + stacked:
        raise ValueError(
            f"a standardiser has mean and std {mean.shape}, {std.shape}: give both as {expected}"
        )
    if not is_traced(mean, std):
        if not np.isfinite(np.asarray(mean)).all():
            raise ValueError("a standardiser's mean is NaN or infinite: give finite numbers")
        if not (np.asarray(std) > 0).all():
            raise ValueError(
                "a standardiser's std is not positive: give positive numbers, and infinity for a constant "
                "feature"
            )
    return Standardizer(mean, std)


def prepare_features(
    features: Sequence[Num[Array | np.ndarray, "_ d"]],
    standardizer: Standardizer | None,
    dtype: DTypeLike,
    keep_units: bool = False,
) -> tuple[list[Num[Array | np.ndarray, "_ d"]], Standardizer | None]:
    """Return features that `dtype` can hold, and the standardiser that completes their scaling.

    float32 has 24 bits. A time in milliseconds, or a value around 1e9 that varies by 1, would lose the digits
    that tell its examples apart. Features of a wider type, of extreme size or far from 0 are therefore
    shifted and scaled in float64, and then rounded. The returned standardiser completes the scaling. Other
    features stay unchanged.

    Args:
      features: raw features of some data sets, NumPy's or JAX's.
      standardizer: mean and std [d], or [R, d] of R replicates; None: features are rounded as they are.
      dtype: floating-point type of the arithmetic.
      keep_units: whether to round the features as they are, because an augmentation changes them before they
        are standardised.

    Raises:
      ValueError: if features are rounded as they are, and `dtype` cannot tell the values of one apart.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if is_traced(*features, *(standardizer or ())):
        return list(features), _round(standardizer, dtype)
    wide = [is_wide(array, dtype) for array in features]
    if standardizer is None or keep_units:
        for array in features:
            check_resolution(array, dtype)
        pairs = zip(features, wide, strict=True)
        rounded = [np.asarray(array).astype(dtype) if is_wider else array for array, is_wider in pairs]
        return rounded, _round(standardizer, dtype)
    if not any(wide) and not _is_extreme(standardizer):
        return list(features), _round(standardizer, dtype)
    d = features[0].shape[-1]
    mean, std = (np.asarray(leaf, np.float64) for leaf in standardizer)
    # Replicates share the features: they are brought to the scale of the finest standardiser. A feature that
    # is constant for all of them has an infinite scale, and becomes 0 here.
    shift, scale = mean.reshape(-1, d).mean(axis=0), std.reshape(-1, d).min(axis=0)
    constant = np.isinf(std)
    relative = np.where(constant, np.inf, np.where(constant, 1, std) / scale)
    rescaled: list[Array | np.ndarray] = [
        _rescale(np.asarray(array), shift, scale, dtype) for array in features
    ]
    return rescaled, _round(Standardizer((mean - shift) / scale, relative), dtype)


def _is_extreme(standardizer: Standardizer) -> bool:
    """Tell whether the arithmetic of (x − mean) / std may leave the range or the precision of float32."""
    mean, std = (np.asarray(leaf, np.float64) for leaf in standardizer)
    extreme = (std < 1 / EXTREME) | ((std > EXTREME) & np.isfinite(std)) | (np.abs(mean) > FAR * std)
    return bool(extreme.any())


def _round(standardizer: Standardizer | None, dtype: DTypeLike) -> Standardizer | None:
    """Round a standardiser to `dtype`; JAX itself rounds only while its 64-bit types are off."""
    if standardizer is None:
        return None
    return Standardizer(*(leaf.astype(dtype) for leaf in standardizer))


def _rescale(
    features: Num[np.ndarray, "n d"],
    shift: Float[np.ndarray, " d"],
    scale: Float[np.ndarray, " d"],
    dtype: DTypeLike,
) -> Float[np.ndarray, "n d"]:
    """Compute (x − shift) / scale in float64, rounded to `dtype`."""
    rescaled = empty_aligned(features.shape, dtype)
    limit = np.finfo(dtype).max
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = (features[start : start + ROWS_AT_ONCE].astype(np.float64) - shift) / scale
        large = (np.abs(rows) > limit).any(axis=1)
        if large.any():
            raise ValueError(
                f"row {start + np.argmax(large)} of features is more than {limit:.2g} standard deviations "
                "from the mean: leave it out"
            )
        rescaled[start : start + ROWS_AT_ONCE] = rows
    return rescaled


def scale_to_unit_length(features: Any, dtype: DTypeLike = np.float32) -> Float[np.ndarray, "n d"]:
    """Divide each row by its Euclidean length, computed in float64; a row of zeros stays as it is.

    Args:
      features: raw features [n, d]: an array, a nested list or a DataFrame.
      dtype: floating-point type of the result.

    Returns:
      Rows [n, d] of length 1.

    Raises:
      ValueError: if the features are no numbers [n, d], or one is NaN or infinite.
    """
    features = np.asarray(as_features("features", features))
    scaled = empty_aligned(features.shape, dtype)
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = features[start : start + ROWS_AT_ONCE].astype(np.float64)
        # By the largest value first: the square of 1e200 would be infinite.
        rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        scaled[start : start + ROWS_AT_ONCE] = rows / np.where(length == 0, 1, length)
    return scaled


def standardize(
    standardizer: Standardizer | None,
    features: Num[Array | np.ndarray, "n d"],
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "n d"]:
    """Compute (x − mean) / std per feature; a constant feature becomes 0.

    Args:
      standardizer: mean [d] and std [d]; None: the features are only converted to `dtype`.
      features: raw features.
      dtype: floating-point type of the result, in which it is computed.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    features = as_numbers("features", features)
    standardizer = as_standardizer(standardizer, features.shape[-1])
    (features,), standardizer = prepare_features([features], standardizer, dtype)
    x = jnp.asarray(features).astype(dtype)
    if standardizer is None:
        return x
    mean, std = map(jnp.asarray, standardizer)
    return (x - mean[None, :]) * (1 / std)[None, :]


def fold_standardizer(params: Params, standardizer: Standardizer) -> Params:
    r"""Return parameters that give the same logits on raw features as `params` on standardised ones.

    $W' = W / \mathrm{std}$ and $b' = b - W' \mathrm{mean}$, in float64. scikit-learn's `coef_` and PyTorch's
    `weight` are W', `intercept_` and `bias` are b'. The weights of constant features are 0.

    Args:
      params: W [*runs, K, d] and b [*runs, K].
      standardizer: mean [d] and std [d].

    Raises:
      ValueError: if the standardiser is not of d features, or has an axis of replicates.
    """
    params = as_params(params)
    checked = as_standardizer(standardizer, params.W.shape[-1])
    if checked is None:
        raise ValueError("standardizer is None: the parameters are of raw features already")
    W = np.asarray(params.W, np.float64) / np.asarray(checked.std, np.float64)
    return Params(W, np.asarray(params.b, np.float64) - W @ np.asarray(checked.mean, np.float64))
