"""Ranking of configurations, and comparison of each with the best one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Confidence level of intervals.
CONFIDENCE = 0.95


class Comparison(NamedTuple):
    """C configurations compared with the best one, paired by replicate, in the units of the compared values.

    A configuration that diverged in some replicate is significant, and its difference and standard error are
    NaN. One replicate gives no standard error and makes nothing else significant.
    """

    difference: Float[np.ndarray, " C"]  # mean over replicates of (value − the best's value)
    stderr: Float[np.ndarray, " C"]  # standard error of that mean
    wins: Int[np.ndarray, " C"]  # number of replicates with a higher value than the best's
    significant: Bool[np.ndarray, " C"]  # whether the difference's confidence interval excludes 0


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


def compare(values: Float[Array | np.ndarray, "S C"], best: int) -> Comparison:
    """Compare each configuration with the best one, paired by seed.

    All configurations of a seed share initial weights, order and flips, so their differences vary less than
    their values do. Each comparison stands by itself: with many configurations some differ by chance.

    Args:
      values: value of every seed and configuration, the higher the better; NaN where a run diverged.
      best: index of the configuration to compare with.

    Raises:
      ValueError: if there are no seeds, or `best` is not an index.
    """
    S, C = np.shape(values)
    if S == 0:
        raise ValueError("there are no seeds to compare by")
    if not 0 <= best < C:
        raise ValueError(f"best is {best}: there are {C} configurations")
    differences = np.asarray(values, np.float64)
    differences = differences - differences[:, [best]]
    difference = differences.mean(axis=0)
    significant = np.isnan(difference) | (np.abs(difference) > half_width(differences))
    significant[best] = False
    stderr = np.asarray(standard_error(differences))
    return Comparison(difference, stderr, (differences > 0).sum(axis=0), significant)


def standard_error(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Return the standard error of the mean over S values: sample standard deviation / √S; NaN if S = 1."""
    S = len(values)
    if S == 1:
        return np.full_like(values[0], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(S)


def half_width(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Return half the width of the mean's confidence interval, by Student's t; NaN if S = 1."""
    # Imported here, as the import takes a third of a second. JAX itself requires SciPy.
    from scipy.special import stdtrit

    return stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * standard_error(values)


def _order(
    loss: Float[Array | np.ndarray, "*S C"], accuracy: Float[Array | np.ndarray, "*S C"]
) -> Int[np.ndarray, "*S C"]:
    """Sort indices along the last axis: highest accuracy first, then lowest loss; NaN last."""
    losses, accuracies = (np.asarray(values, np.float64) for values in (loss, accuracy))
    return np.lexsort((np.nan_to_num(losses, nan=np.inf), -np.nan_to_num(accuracies, nan=-1)))
