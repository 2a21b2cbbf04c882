"""Ranking of configurations, and intervals over replicates by Student's t."""

import numpy as np
from jaxtyping import Array, Float, Int

# Confidence level of intervals.
CONFIDENCE = 0.95


def rank(loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]) -> list[int]:
    """Return the indices of C configurations, best first.

    The order is by mean accuracy over replicates, then by mean loss. Configurations with a NaN come last.
    """
    mean_loss, mean_accuracy = (np.asarray(values, np.float64).mean(axis=0) for values in (loss, accuracy))
    return [int(c) for c in _order(mean_loss, mean_accuracy)]


def best_per_seed(
    loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]
) -> Int[np.ndarray, " S"]:
    """Return the index of the configuration that each of S seeds alone would choose, by the rule of `rank`.

    Raises:
      ValueError: if there are no configurations.
    """
    if np.shape(loss)[1] == 0:
        raise ValueError("there are no configurations to select from")
    return _order(loss, accuracy)[:, 0]


def standard_error(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Return the standard error of the mean over S values: sample standard deviation / √S; NaN if S = 1."""
    S = len(values)
    if S == 1:
        return np.full_like(values[0], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(S)


def half_width(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Return half the width of the mean's confidence interval, by Student's t; NaN if S = 1."""
    # Imported here, as the import takes a third of a second.
    from scipy.special import stdtrit

    return stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * standard_error(values)


def _order(
    loss: Float[Array | np.ndarray, "*S C"], accuracy: Float[Array | np.ndarray, "*S C"]
) -> Int[np.ndarray, "*S C"]:
    """Sort indices along the last axis: highest accuracy first, then lowest loss; NaN last."""
    losses, accuracies = (np.asarray(values, np.float64) for values in (loss, accuracy))
    return np.lexsort((np.nan_to_num(losses, nan=np.inf), -np.nan_to_num(accuracies, nan=-1)))
