"""Which of the configurations of a sweep are the best, and which can't be told from it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Of the interval that decides whether two configurations are told apart.
CONFIDENCE = 0.95


class Comparison(NamedTuple):
    """C configurations against the best of them, paired by seed; in the units of what was compared.

    Where a configuration has no value for some seed, as after divergence, it is apart, and its difference and
    error are NaN. One seed gives no error and tells nothing else apart.
    """

    difference: Float[np.ndarray, " C"]  # mean over seeds of value − the best's
    error: Float[np.ndarray, " C"]  # standard error of that mean
    wins: Int[np.ndarray, " C"]  # number of seeds with a higher value than the best's
    apart: Bool[np.ndarray, " C"]  # whether the difference's confidence interval leaves out 0


def rank(loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]) -> list[int]:
    """Indices of C configurations, best first: by mean accuracy over seeds, then mean loss; diverged last."""
    mean_loss, mean_accuracy = (np.asarray(values, np.float64).mean(axis=0) for values in (loss, accuracy))
    return [int(c) for c in _order(mean_loss, mean_accuracy)]


def select(
    loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]
) -> Int[np.ndarray, " S"]:
    """Index of the configuration that each of S seeds alone would choose, by the rule of `rank`.

    Raises:
      ValueError: if there are no configurations.
    """
    if np.shape(loss)[1] == 0:
        raise ValueError("there are no configurations to select from")
    return _order(loss, accuracy)[:, 0]


def compare(values: Float[Array | np.ndarray, "S C"], best: int) -> Comparison:
    """Compares each configuration with the best, by itself: the more there are, the more differ by chance.

    All configurations of a seed share weights, order and flips, so their differences vary less than they do.

    Args:
      values: what is the higher the better, of S seeds and C configurations; NaN where one diverged.
      best: index of the configuration to compare with.

    Raises:
      ValueError: if there are no seeds, or no such configuration.
    """
    S, C = np.shape(values)
    if S == 0:
        raise ValueError("there are no seeds to compare by")
    if not 0 <= best < C:
        raise ValueError(f"best is {best}: there are {C} configurations")
    differences = np.asarray(values, np.float64)
    differences = differences - differences[:, [best]]
    difference = differences.mean(axis=0)
    apart = np.isnan(difference) | (np.abs(difference) > half_width(differences))
    apart[best] = False
    error = np.asarray(standard_error(differences))
    return Comparison(difference, error, (differences > 0).sum(axis=0), apart)


def standard_error(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Of the mean over S values: their sample standard deviation / √S; NaN of a single one."""
    S = len(values)
    if S == 1:
        return np.full_like(values[0], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(S)


def half_width(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Of the confidence interval of the mean over S values, by Student's t; NaN of a single one."""
    # Here, since its import takes a third of a second; JAX itself requires SciPy.
    from scipy.special import stdtrit

    return stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * standard_error(values)


def _order(
    loss: Float[Array | np.ndarray, "*S C"], accuracy: Float[Array | np.ndarray, "*S C"]
) -> Int[np.ndarray, "*S C"]:
    """Indices along the last axis: highest accuracy first, then lowest loss; NaN last."""
    lows, highs = (np.asarray(values, np.float64) for values in (loss, accuracy))
    return np.lexsort((np.nan_to_num(lows, nan=np.inf), -np.nan_to_num(highs, nan=-1)))
