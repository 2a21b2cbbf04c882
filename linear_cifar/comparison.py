"""Ranking of configurations, and intervals over replicates by Student's t."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from linear_cifar.arguments import as_values

# Confidence level of intervals.
CONFIDENCE = 0.95


def rank(loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]) -> list[int]:
    """Return the indices of C configurations, best first.

    The order is by mean accuracy over replicates, then by mean loss. Configurations with a NaN come last.

    Raises:
      ValueError: if loss and accuracy are no arrays of one shape [S, C].
    """
    mean_loss, mean_accuracy = (values.mean(axis=0) for values in _as_pair(loss, accuracy))
    return [int(c) for c in _order(mean_loss, mean_accuracy)]


def best_per_seed(
    loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]
) -> Int[np.ndarray, " S"]:
    """Return the index of the configuration that each of S seeds alone would choose, by the rule of `rank`.

    Raises:
      ValueError: if loss and accuracy are no arrays of one shape [S, C], or there are no configurations.
    """
    losses, accuracies = _as_pair(loss, accuracy)
    if losses.shape[1] == 0:
        raise ValueError("there are no configurations to select from")
    return _order(losses, accuracies)[:, 0]


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


def _as_pair(loss: Any, accuracy: Any) -> list[Float[np.ndarray, "S C"]]:
    """Return loss and accuracy in float64; raise ValueError if they are no arrays of one shape [S, C]."""
    pair = [
        as_values(name, values, "seeds, configurations").astype(np.float64)
        for name, values in (("loss", loss), ("accuracy", accuracy))
    ]
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"loss is {pair[0].shape} and accuracy is {pair[1].shape}: give one shape [S, C]")
    return pair


def _order(
    losses: Float[np.ndarray, "*S C"], accuracies: Float[np.ndarray, "*S C"]
) -> Int[np.ndarray, "*S C"]:
    """Sort indices along the last axis: highest accuracy first, then lowest loss; NaN last."""
    return np.lexsort((np.nan_to_num(losses, nan=np.inf), -np.nan_to_num(accuracies, nan=-np.inf)))
