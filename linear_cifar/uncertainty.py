r"""Uncertainty of accuracies over seeds and examples together.

All runs predict the same examples, so seeds and examples are crossed. The value $y_{si}$ of seed s on example
i, such as whether its prediction was right, is modelled with random effects:

$$y_{si} = \mu + a_s + b_i + e_{si}$$

The mean over S seeds and n examples then has the variance
$\sigma_a^2 / S + \sigma_b^2 / n + \sigma_e^2 / (S n)$. The three parts are estimated from the mean squares of
the two-way analysis of variance (Searle, Casella & McCulloch 1992, "Variance Components", chapter 4):

$$\mathrm{MS}_a = \frac{n}{S-1} \sum_s (y_{s\cdot} - y_{\cdot\cdot})^2, \quad
\mathrm{MS}_b = \frac{S}{n-1} \sum_i (y_{\cdot i} - y_{\cdot\cdot})^2, \quad
\mathrm{MS}_e = \frac{\sum_{si} (y_{si} - y_{s\cdot} - y_{\cdot i} + y_{\cdot\cdot})^2}{(S-1)(n-1)}$$

as $\max(\mathrm{MS}_a - \mathrm{MS}_e, 0) / (S n)$, $\max(\mathrm{MS}_b - \mathrm{MS}_e, 0) / (S n)$ and
$\mathrm{MS}_e / (S n)$. The intervals are Student's t. Their degrees of freedom are those of Satterthwaite
(1946, "An Approximate Distribution of Estimates of Variance Components"), and at least min(S, n) − 1.
`tests/simulations.py` measures how often they cover the truth.

With one seed there is only the variance over examples: the interval is about these weights on other examples.
"""

from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from linear_cifar.arguments import as_marks, as_pair, as_values

# Confidence level of intervals.
CONFIDENCE = 0.95
# A value for each of some means.
Means = Float[np.ndarray | np.float64, "*means"]
# A value of each seed on each example, such as whether its prediction was right.
Values = Bool[Array | np.ndarray, "S n"] | Float[Array | np.ndarray, "S n"]
# Most configurations that are compared with as many others at a time, and most of their predictions. Both
# pairs and predictions take memory.
CONFIGS_AT_ONCE, PREDICTIONS_AT_ONCE = 500, 10**8


class Estimate(NamedTuple):
    """A mean over S seeds and n examples, and its standard error in three parts.

    `stderr`² is the sum of the squares of the parts. With one seed, `from_seeds` and `from_interaction` are
    NaN, and the interval is about these weights on other examples.
    """

    mean: float
    stderr: float
    half_width: float  # of the 95 % confidence interval around the mean
    from_seeds: float
    from_examples: float
    from_interaction: float


class _Spread(NamedTuple):
    """Variances of means, and degrees of freedom of their sum; floats, or arrays for many means at once."""

    seeds: Means
    examples: Means
    interaction: Means
    degrees: Means

    @property
    def stderr(self) -> Means:
        """The standard errors."""
        return np.sqrt(self.seeds + self.examples + self.interaction)


def estimate_accuracy(correct: Values) -> Estimate:
    """Estimate the accuracy of a configuration on other seeds and other examples.

    Args:
      correct: whether each seed's prediction of each example was right. Of other values, such as the
        probability of a class, the mean is estimated; it is NaN if one of them is.

    Raises:
      ValueError: if there is no seed, or fewer than two examples.
    """
    # Imported here, as the import takes a third of a second. JAX itself requires SciPy.
    from scipy.special import stdtrit

    values = as_values("correct", correct, "seeds, examples").astype(np.float64)
    S, n = values.shape
    _check_shape(S, n)
    mean, by_seed, by_example = values.mean(), values.mean(axis=1), values.mean(axis=0)
    spread = _spread(
        n * np.sum((by_seed - mean) ** 2),
        S * np.sum((by_example - mean) ** 2),
        np.sum((values - by_seed[:, None] - by_example + mean) ** 2),
        S,
        n,
    )
    half = stdtrit(spread.degrees, (1 + CONFIDENCE) / 2) * spread.stderr
    parts = [float(np.sqrt(variance)) for variance in spread[:3]]
    if S == 1:
        parts[0] = parts[2] = np.nan
    return Estimate(float(mean), float(spread.stderr), float(half), *parts)


def estimate_difference(
    first: Values, second: Bool[Array | np.ndarray, "_ _"] | Float[Array | np.ndarray, "_ _"]
) -> Estimate:
    """Estimate by how much the accuracy of one configuration is above that of another.

    The two are paired by seed and by example: what both get right or wrong together cancels.

    Args:
      first, second: whether the predictions of the two were right, from the same seeds on the same examples;
        or other values, see `estimate_accuracy`.

    Raises:
      ValueError: if the shapes differ, there is no seed, or there are fewer than two examples.
    """
    first, second = as_pair("seeds, examples", first=first, second=second)
    return estimate_accuracy(first.astype(np.float64) - second)


def linearize_ratio(
    numerators: Float[Array | np.ndarray, "S n"], denominators: Float[Array | np.ndarray, "S n"]
) -> Float[np.ndarray, "S n"]:
    r"""Return values whose means over the examples are ratios of two means, for `estimate_accuracy`.

    The share of a subset, such as the share of the wrong predictions that are overconfident, is a ratio
    $r_s = \sum_i u_{si} / \sum_i v_{si}$. The values are $r_s + (u_{si} - r_s v_{si}) / v_{s\cdot}$, whose
    scatter gives the standard error of the ratio in large samples (Cochran 1977, "Sampling Techniques",
    chapter 6).

    Args:
      numerators: u.
      denominators: v; each seed's mean is not 0.

    Raises:
      ValueError: if the shapes differ.
    """
    numerators, denominators = as_pair("seeds, examples", numerators=numerators, denominators=denominators)
    mean = denominators.mean(axis=1, keepdims=True)
    ratio = numerators.mean(axis=1, keepdims=True) / mean
    return ratio + (numerators - ratio * denominators) / mean


def confidence_set(
    correct: Bool[Array | np.ndarray, "S C n"] | Float[Array | np.ndarray, "S C n"],
    diverged: Bool[Array | np.ndarray, "S C"] | None = None,
    confidence: float = CONFIDENCE,
) -> Bool[np.ndarray, " C"]:
    """Return a set of configurations that contains the truly best one with the given confidence.

    A configuration is left out if its accuracy is significantly below that of a rival. There are C − 1
    rivals, so each one-sided test has the level (1 − confidence) / (C − 1), by Bonferroni's correction. The
    aim is that of multiple comparisons with the best (Hsu 1984, "Constrained Simultaneous Confidence
    Intervals for Multiple Comparisons with the Best").

    The confidence holds from ten seeds on. With fewer, the set may miss the best, or be very large: where
    seeds matter much, it held the best of 48 configurations in 89 % of simulations with three seeds. With one
    seed it is about these weights on other examples.

    Args:
      correct: whether the predictions were right, or how far, from 0 to 1.
      diverged: runs that diverged; None: no run did. A configuration with such a run is not in the set, and
        is no rival.
      confidence: probability that the set contains the best configuration, 0.5 to below 1.

    Returns:
      For each configuration, True if it may be the best. At least the most accurate one is True.

    Raises:
      ValueError: if there is no seed, there are fewer than two examples, every configuration diverged, or
        `confidence` is out of range.
    """
    correct = as_values("correct", correct, "seeds, configurations, examples")
    S, C, n = correct.shape
    _check_shape(S, n)
    if not np.isfinite(correct).all():
        raise ValueError("correct holds NaN or infinity: say by diverged which runs to leave out")
    finite: Bool[np.ndarray, " C"] = np.ones(C, bool)
    if diverged is not None:
        marks = as_marks("diverged", diverged, "seeds, configurations")
        if marks.shape != (S, C):
            raise ValueError(f"diverged is {marks.shape}: give {(S, C)}, as the runs of correct")
        finite = np.logical_not(marks.any(axis=0))
    if not finite.any():
        raise ValueError("there is no configuration that did not diverge")
    if not isinstance(confidence, Real) or not 0.5 <= confidence < 1:
        raise ValueError(f"confidence is {confidence}: give 0.5 to below 1")
    level = 1 - (1 - confidence) / max(1, finite.sum() - 1)
    chosen = finite.copy()
    # The best rivals leave most configurations out, and only the others are compared with all.
    order = np.argsort(-correct.mean(axis=(0, 2)), kind="stable")
    order = order[finite[order]]
    at_once = max(1, min(CONFIGS_AT_ONCE, PREDICTIONS_AT_ONCE // (S * n)))
    for rivals in (order[:10], *_split(order[10:], at_once)):
        for candidates in _split(np.flatnonzero(chosen), at_once):
            worse = _are_worse(correct[:, candidates], correct[:, rivals], level)
            chosen[candidates] = ~worse.any(axis=1)
    return chosen


def cross_validate_selection(accuracy: Float[Array | np.ndarray, "S F C"]) -> Float[np.ndarray, " F"]:
    """Estimate the accuracy of "train all configurations and take the best" on each of F folds.

    The best one's own accuracy is too high, because it was chosen by the same examples. Here it is chosen by
    the mean accuracy over the seeds and the other folds, and measured on the fold left out. The mean over the
    folds is the estimate, and needs no test set. It assumes that F − 1 folds choose as F folds do: if fewer
    examples choose worse, it is a little too low. Tsamardinos, Greasidou & Borboudakis draw examples instead
    of folds (2018, "Bootstrapping the Out-of-Sample Predictions for Efficient and Accurate
    Cross-Validation").

    Args:
      accuracy: accuracy of every seed, fold and configuration; NaN where a run diverged. A configuration
        with a NaN is never chosen.

    Returns:
      Mean accuracy over the seeds of the chosen configuration, on each fold.

    Raises:
      ValueError: if there are fewer than two folds, no seeds or no configurations, or every configuration
        diverged.
    """
    accuracy = as_values("accuracy", accuracy, "seeds, folds, configurations")
    S, F, C = accuracy.shape
    if S == 0 or F < 2 or C == 0:
        raise ValueError(f"the accuracies are {accuracy.shape}: give [seeds, folds ≥ 2, configurations]")
    by_fold = accuracy.mean(axis=0, dtype=np.float64)  # [F, C]
    if np.isnan(by_fold).any(axis=0).all():
        raise ValueError("every configuration diverged in some fold")
    others = (by_fold.sum(axis=0) - by_fold) / (F - 1)
    chosen = np.nan_to_num(others, nan=-np.inf).argmax(axis=1)
    return by_fold[np.arange(F), chosen]


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval; all NaN where a run diverged."""

    mean: float
    low: float  # NaN also where one seed or one example gives no interval
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2


class Selection(NamedTuple):
    """The choice of the best of C configurations, and how sure it is."""

    difference: Sequence[Interval]  # accuracy − that of the best, of each configuration
    may_be_best: Bool[np.ndarray, " C"]  # see `confidence_set`
    expected: float  # accuracy that choosing is expected to reach, see `cross_validate_selection`; or NaN
    parts: int  # folds, or parts of the examples, by which it was estimated


DIVERGED = Interval(np.nan, np.nan, np.nan)
# Without folds, the examples are divided into so many parts to cross-validate the selection.
PARTS = 5


def interval_over_seeds(values: Float[np.ndarray, "S folds"]) -> Interval:
    """Return the mean of values of seeds and their folds, with its interval by Student's t over the seeds."""
    by_seed = values.mean(axis=1)
    mean, half = float(by_seed.mean()), float(half_width(by_seed))
    return Interval(mean, mean - half, mean + half)


def interval_over_examples(values: Values) -> Interval:
    """Return the mean of values per example, with its interval over seeds and examples.

    One example gives no interval.
    """
    if values.shape[1] == 1:
        return Interval(float(values.mean()), np.nan, np.nan)
    estimate = estimate_accuracy(values)
    return Interval(estimate.mean, estimate.mean - estimate.half_width, estimate.mean + estimate.half_width)


def paired_interval(first: Values, second: Bool[np.ndarray, "_ _"] | Float[np.ndarray, "_ _"]) -> Interval:
    """Return the accuracy of one configuration minus that of another, paired by seed and example."""
    return interval_over_examples(first.astype(np.float64) - second)


def select_best(
    correct: Bool[np.ndarray, "S C n"] | Float[np.ndarray, "S C n"],
    best: int,
    finite: Bool[np.ndarray, " C"],
    *,
    folds: int = 0,
    estimate: bool = True,
) -> Selection:
    """Compare all configurations with the best, and estimate what choosing the best reaches.

    Args:
      correct: whether the predictions were right, or how far, from 0 to 1.
      best: index of the best configuration.
      finite: configurations that did not diverge; if the best diverged, all did.
      folds: number of folds, one after another among the examples; 0: there are none.
      estimate: whether to estimate what choosing reaches. Where halving has chosen by the same examples
        before, leaving out a part of them now would not show its luck.
    """
    C, n = correct.shape[1:]
    difference = [
        paired_interval(correct[:, c], correct[:, best]) if finite[c] else DIVERGED for c in range(C)
    ]
    if n == 1 or not finite.any():
        return Selection(difference, finite, np.nan, 0)
    may_be_best = confidence_set(correct, np.broadcast_to(~finite, (len(correct), C)))
    if C == 1 or not estimate:
        return Selection(difference, may_be_best, np.nan, 0)
    # Without folds, not one part after another, because a file may hold its classes one after another.
    count = min(PARTS, n)
    parts = (
        np.split(correct, folds, axis=2) if folds else [correct[:, :, start::count] for start in range(count)]
    )
    accuracy = np.stack([part.mean(axis=2) for part in parts], axis=1)  # [S, parts, C]
    accuracy[:, :, ~finite] = np.nan
    expected = cross_validate_selection(accuracy)
    return Selection(difference, may_be_best, float(expected.mean()), len(parts))


def rank(loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]) -> list[int]:
    """Return the indices of C configurations, best first.

    The order is by mean accuracy over replicates, then by mean loss. Configurations with a NaN come last.

    Raises:
      ValueError: if loss and accuracy are no arrays of one shape [S, C].
    """
    pair = as_pair("seeds, configurations", loss=loss, accuracy=accuracy)
    return _order(*(values.astype(np.float64).mean(axis=0) for values in pair)).tolist()


def best_per_seed(
    loss: Float[Array | np.ndarray, "S C"], accuracy: Float[Array | np.ndarray, "S C"]
) -> Int[np.ndarray, " S"]:
    """Return the index of the configuration that each of S seeds alone would choose, by the rule of `rank`.

    Raises:
      ValueError: if loss and accuracy are no arrays of one shape [S, C], or there are no configurations.
    """
    pair = as_pair("seeds, configurations", loss=loss, accuracy=accuracy)
    if pair[0].shape[1] == 0:
        raise ValueError("there are no configurations to select from")
    return _order(*(values.astype(np.float64) for values in pair))[:, 0]


def standard_error(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Return the standard error of the mean over S values: sample standard deviation / √S; NaN if S = 1."""
    S = len(values)
    if S == 1:
        return np.full_like(values[0], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(S)


def half_width(values: Float[np.ndarray, "S *shape"]) -> Float[np.ndarray | np.float64, "*shape"]:
    """Return half the width of the mean's confidence interval, by Student's t; NaN if S = 1."""
    from scipy.special import stdtrit

    return stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * standard_error(values)


def _order(
    losses: Float[np.ndarray, "*S C"], accuracies: Float[np.ndarray, "*S C"]
) -> Int[np.ndarray, "*S C"]:
    """Sort indices along the last axis: highest accuracy first, then lowest loss; NaN last."""
    return np.lexsort((np.nan_to_num(losses, nan=np.inf), -np.nan_to_num(accuracies, nan=-np.inf)))


def _split(indices: Int[np.ndarray, " C"], length: int) -> list[Int[np.ndarray, " c"]]:
    """Split indices into parts of at most this length."""
    return np.split(indices, range(length, len(indices), length))


def _are_worse(
    candidates: Shaped[np.ndarray, "S A n"], rivals: Shaped[np.ndarray, "S B n"], level: float
) -> Bool[np.ndarray, "A B"]:
    """Test for each candidate whether it is significantly worse than each rival."""
    from scipy.special import ndtri, stdtrit

    difference, spread = _compare_pairs(candidates, rivals)
    stderr, degrees = np.asarray(spread.stderr), np.asarray(spread.degrees)
    # Student's quantiles are slow for many pairs. As the level is at least 1/2, they are larger than the
    # normal one, and are only needed where that calls a candidate worse.
    worse = difference + ndtri(level) * stderr < 0
    worse[worse] = difference[worse] + stdtrit(degrees[worse], level) * stderr[worse] < 0
    return worse


def _compare_pairs(
    first: Shaped[np.ndarray, "S A n"], second: Shaped[np.ndarray, "S B n"]
) -> tuple[Float[np.ndarray, "A B"], _Spread]:
    """Return the differences in accuracy, first − second, of all pairs of configurations, and their spread.

    The sums of squares of a difference follow from inner products of the two, and so all pairs together take
    three matrix products.
    """
    S, _, n = first.shape

    def squared_distances(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        norms = [np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (rows, columns)]
        # Rounding may leave a little less than 0.
        return np.maximum(norms[0][:, None] + norms[1][None, :] - 2 * (rows @ columns.T), 0)

    # Per seed there are whole numbers up to n, which float32 holds exactly up to 2^24.
    total = sum(
        squared_distances(*(side.astype(np.float32) for side in sides))
        for sides in zip(first, second, strict=True)
    )
    by_seed = [side.mean(axis=2).T for side in (first, second)]
    by_example = [side.mean(axis=0) for side in (first, second)]
    difference = by_seed[0].mean(axis=1)[:, None] - by_seed[1].mean(axis=1)[None, :]
    between_seeds = n * squared_distances(*by_seed)
    between_examples = S * squared_distances(*by_example)
    mean_square = S * n * difference**2
    rest = np.maximum(total - between_seeds - between_examples + mean_square, 0)
    seeds, examples = (np.maximum(part - mean_square, 0) for part in (between_seeds, between_examples))
    return difference, _spread(seeds, examples, rest, S, n)


def _spread(between_seeds: Means, between_examples: Means, rest: Means, S: int, n: int) -> _Spread:
    """Return the spread of means from the three sums of squares of the analysis of variance."""
    ms_examples = np.asarray(between_examples / (n - 1))
    if S == 1:
        zero = np.zeros_like(ms_examples)
        return _Spread(zero, ms_examples / n, zero, zero + (n - 1))
    ms_seeds, ms_rest = np.asarray(between_seeds / (S - 1)), np.asarray(rest / ((S - 1) * (n - 1)))
    seeds, examples = (np.maximum(ms - ms_rest, 0) for ms in (ms_seeds, ms_examples))
    total = seeds + examples + ms_rest
    denominator = ms_seeds**2 / (S - 1) + ms_examples**2 / (n - 1) + ms_rest**2 / ((S - 1) * (n - 1))
    # Where all values are equal there is no spread, and any number of degrees will do.
    degrees = np.maximum(total**2 / np.where(denominator > 0, denominator, 1), min(S, n) - 1)
    return _Spread(seeds / (S * n), examples / (S * n), ms_rest / (S * n), degrees)


def _check_shape(S: int, n: int) -> None:
    if S == 0 or n < 2:
        raise ValueError(f"there are {S} seeds and {n} examples: give at least one seed and two examples")
