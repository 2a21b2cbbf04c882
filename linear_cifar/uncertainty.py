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

as $V_a = \max(\mathrm{MS}_a - \mathrm{MS}_e, 0) / (S n)$, $V_b = \max(\mathrm{MS}_b - \mathrm{MS}_e, 0) /
(S n)$ and $V_e = \mathrm{MS}_e / (S n)$. As $\mathrm{MS}_a$ holds $\mathrm{MS}_e$, the half width h of an
interval is given by $h^2 = t_{S-1}^2 \, \mathrm{MS}_a / (S n) + t_{n-1}^2 V_b$ (after Howe 1974, "Approximate
Confidence Limits on the Mean of X + Y Where X and Y Are Two Tabled Independent Random Variables").

**Near 0 and 100 %** an interval ± h would be too short, and reach beyond them. Examples and seeds then have
limits of their own, whose squared distances from the mean are added as those of h.

- Examples: the limits of Clopper & Pearson (1934) for the number of independent examples that the variance
  implies, n for one seed (Korn & Graubard 1998, "Confidence Intervals for Proportions with Small Expected
  Number of Positive Counts Estimated from Survey Data"). With p the accuracy and h of the examples alone,

$$n^* = \frac{p (1 - p) + g / n}{h^2 (n-1) / (n \, t_{n-1}^2) + g^2 / n^2}, \quad
g = \min\left(1, \frac{1 / n + \mathrm{MS}_b / S}{1 / n + p (1 - p)}\right)$$

  Here g allows for rare errors, as if one more example were wrong with a share g of the seeds: with all of
  them if the seeds agree on the others.

- Seeds: $\Phi^{-1}((n y_{s\cdot} + 1/2) / (n + 1))$ is taken to be normal, with mean m and variance s². So
  the mean accuracy is $\Phi(\theta)$ with $\theta = m / \sqrt{1 + s^2}$, and has the limits $\Phi(\theta
  \pm t_{S-1} \sigma)$, $\sigma^2 = s^2 / (S (1 + s^2)) + m^2 s^4 / (2 (S-1) (1 + s^2)^3)$, as Cox's for the
  mean of lognormal values (Zhou & Gao 1997, "Confidence Intervals for the Log-Normal Mean"). So a few seeds
  whose accuracies scatter leave room for one that is far worse.

A difference is u − v, where u and v are the shares on which only the first or only the second is right. It
has the variance u + v − (u − v)² in place of p (1 − p), and h from seeds and examples together. The limits of
u and v are joined as by Newcombe (1998, "Improved Confidence Intervals for the Difference between Binomial
Proportions Based on Paired Data"). `tests/simulations.py` measures how often the intervals cover the truth.

With one seed there is only the variance over examples: the interval is about these weights on other examples.

**Groups.** Examples of one patient or speaker are right or wrong together, and other data would have other
groups. So G groups take the place of the n examples in all mean squares. Let p be the accuracy on all N
examples. A group with c right ones among its k examples has the value $p + (c - p k) G / N$. The mean of
these values is p, and their scatter gives its standard error (Cochran's, see `linearize_ratio`).

Groups of unequal size count as fewer: as $G^* = N^2 / \sum k^2$ (Carter, Schnepel & Steigerwald 2017,
"Asymptotic Behavior of a t-Test Robust to Cluster Heterogeneity"). So $G^* - 1$ are the degrees of freedom in
h, and g / G* takes the place of g / n. Examples still count in $t_{N-1}$ within n*, in 1 / N within g, and in
the probits.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from linear_cifar.arguments import as_marks, as_pair, as_values, encode_groups
from linear_cifar.moderation import MAX_CONFIGS, MIN_CONFIGS, fit_trend

# Confidence level of intervals.
CONFIDENCE = 0.95
# A value for each of some means.
Means = Float[np.ndarray | np.float64, "*means"]
# A value of each seed on each example, such as whether its prediction was right.
Values = Bool[Array | np.ndarray, "S n"] | Float[Array | np.ndarray, "S n"]
# The group of each example, or of each seed's examples, of any type that can be sorted; None: there are none.
Groups = Shaped[Array | np.ndarray, "*_ _"] | Sequence[Any] | None
# Most configurations that are compared with as many others at a time, and most of their predictions. Both
# pairs and predictions take memory.
CONFIGS_AT_ONCE, PREDICTIONS_AT_ONCE = 500, 10**8


class Estimate(NamedTuple):
    """A mean over S seeds and n examples, its 95 % interval, and its standard error in three parts.

    `stderr`² is the sum of the squares of the parts. With one seed, `from_seeds` and `from_interaction` are
    NaN, and the interval is about these weights on other examples. One example gives a mean only.
    """

    mean: float
    low: float
    high: float
    stderr: float = np.nan
    from_seeds: float = np.nan
    from_examples: float = np.nan
    from_interaction: float = np.nan


class _Squares(NamedTuple):
    """Means of values and of their squares, and the mean squares of their analysis of variance."""

    mean: Means
    square: Means
    seeds: Means
    examples: Means
    rest: Means
    S: int
    n: int  # groups, or else examples
    rows: int  # examples
    effective: float  # groups of equal size that would do as well, see above
    degrees: Means | float  # degrees of freedom of `seeds`: S − 1, or more where a trend moderates it

    def half_width(self, level: float) -> Means:
        """Return h, see above, for a one-sided level."""
        # Imported here, as the import takes a third of a second. JAX itself requires SciPy.
        from scipy.special import stdtrit

        of_trend = self.rest * (1 - max(self.S - 1, 1) / self.degrees)
        of_seeds = np.maximum(self.seeds - of_trend, 0)
        of_examples = np.maximum(self.examples - self.rest, 0) + of_trend
        t_seeds, t_examples = stdtrit(self.degrees, level), stdtrit(self.effective - 1, level)
        return np.sqrt((t_seeds**2 * of_seeds + t_examples**2 * of_examples) / (self.S * self.n))


def estimate_accuracy(correct: Values, groups: Groups = None) -> Estimate:
    """Estimate the accuracy of a configuration on other seeds and other examples.

    Args:
      correct: whether each seed's prediction of each example was right. Of other values, such as the
        probability of a class, the mean is estimated; it is NaN if one of them is. Where they are not between
        0 and 1, the interval is mean ± h, see above.
      groups: the group of each example, such as its patient; None: each example is a group by itself.

    Raises:
      ValueError: if there is no seed or no example, or not one group for each example.
    """
    values = as_values("correct", correct, "seeds, examples")
    return _estimate(np.asarray(values, np.float64), groups, paired=False)


def estimate_difference(
    first: Values,
    second: Bool[Array | np.ndarray, "_ _"] | Float[Array | np.ndarray, "_ _"],
    groups: Groups = None,
) -> Estimate:
    """Estimate by how much the accuracy of one configuration is above that of another.

    The two are paired by seed and by example: what both get right or wrong together cancels.

    Args:
      first, second: whether the predictions of the two were right, from the same seeds on the same examples;
        or other values, see `estimate_accuracy`.
      groups: see `estimate_accuracy`.

    Raises:
      ValueError: if the shapes differ, or there is no seed or no example.
    """
    pair = as_pair("seeds, examples", first=first, second=second)
    return _estimate(np.subtract(*pair, dtype=np.float64), groups, paired=True)


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
    groups: Groups = None,
) -> Bool[np.ndarray, " C"]:
    """Return a set of configurations that contains the truly best one with the given confidence.

    A configuration is left out if its accuracy is significantly below that of a rival. There are C − 1
    rivals, so each one-sided test has the level (1 − confidence) / (C − 1), by Bonferroni's correction. The
    aim is that of multiple comparisons with the best (Hsu 1984, "Constrained Simultaneous Confidence
    Intervals for Multiple Comparisons with the Best").

    The variance between seeds is moderated by a trend over the configurations, see `linear_cifar.moderation`.
    With fewer than ten of them each pair has only its own: then the set of three seeds is large, and held the
    best of five in 90 % of simulations at the worst. With one seed, it is about these weights.

    Args:
      correct: whether the predictions were right, or how far, from 0 to 1.
      diverged: runs that diverged; None: no run did. A configuration with such a run is not in the set, and
        is no rival.
      confidence: probability that the set contains the best configuration, 0.5 to below 1.
      groups: see `estimate_accuracy`.

    Returns:
      For each configuration, True if it may be the best. At least the most accurate one is True.

    Raises:
      ValueError: if there is no seed, there are fewer than two examples or groups, every configuration
        diverged, or `confidence` is out of range.
    """
    correct = as_values("correct", correct, "seeds, configurations, examples")
    values, effective = _group_values(correct, groups)
    S, C, n = values.shape
    if S == 0 or n < 2:
        units = "examples" if groups is None else "groups"
        raise ValueError(f"there are {S} seeds and {n} {units}: give at least one seed and two {units}")
    if not np.isfinite(correct).all():
        raise ValueError("correct holds NaN or infinity: say by diverged which runs to leave out")
    if not 0 <= correct.min() <= correct.max() <= 1:
        raise ValueError("correct holds values below 0 or above 1: give whether the predictions were right")
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
    order = np.argsort(-correct.mean(axis=(0, 2)), kind="stable")
    _, high = _compare_with_rivals(correct, values, effective, order[finite[order]], confidence)
    return high >= 0


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
    chosen = choose_by_others(accuracy)
    return accuracy.mean(axis=0, dtype=np.float64)[np.arange(len(chosen)), chosen]


def choose_by_others(accuracy: Float[np.ndarray, "S F C"]) -> Int[np.ndarray, " F"]:
    """Return the configuration that the other folds choose, for each fold; see `cross_validate_selection`."""
    S, F, C = accuracy.shape
    if S == 0 or F < 2 or C == 0:
        raise ValueError(f"the accuracies are {accuracy.shape}: give [seeds, folds ≥ 2, configurations]")
    by_fold = accuracy.mean(axis=0, dtype=np.float64)  # [F, C]
    if np.isnan(by_fold).any(axis=0).all():
        raise ValueError("every configuration diverged in some fold")
    others = (by_fold.sum(axis=0) - by_fold) / (F - 1)
    return np.nan_to_num(others, nan=-np.inf).argmax(axis=1)


def assign_parts(n: int, folds: int = 0, groups: Groups = None) -> Int[np.ndarray, " n"]:
    """Return the part of each example by which a choice is cross-validated: its fold, or one of `PARTS`.

    Without folds the parts are dealt like cards, because a file may hold its classes one after another. No
    part divides a group.
    """
    if folds:
        return np.repeat(np.arange(folds), n // folds)
    codes = np.arange(n) if groups is None else encode_groups(groups, np.shape(groups))
    return (codes if codes.ndim == 1 else codes[0]) % PARTS


def choose_without_part(
    correct: Shaped[np.ndarray, "S C n"], part_of: Int[np.ndarray, " n"], finite: Bool[np.ndarray, " C"]
) -> Shaped[np.ndarray, "S n"]:
    """Return the values of "train all and take the best": each part's are of the others' choice.

    Their mean is what the choice is expected to reach, see `cross_validate_selection`.

    Args:
      correct: values of C configurations.
      part_of: part of each example, see `assign_parts`.
      finite: configurations that may be chosen.
    """
    parts = [part_of == part for part in range(part_of.max() + 1)]
    accuracy = np.stack([correct[:, :, part].mean(axis=2) for part in parts], axis=1)  # [S, parts, C]
    accuracy[:, :, ~finite] = np.nan
    values = np.empty_like(correct[:, 0])
    for part, chosen in zip(parts, choose_by_others(accuracy), strict=True):
        values[:, part] = correct[:, chosen, part]
    return values


class Selection(NamedTuple):
    """The choice of the best of C configurations, and how sure it is.

    The upper end of a difference decides: the configuration may be the best if it is at least 0. It is the
    lowest upper limit of the differences from all rivals, or from as many as it took to leave it out. The
    lower end is that of the difference from the best. Each end is a one-sided limit of the level of
    `confidence_set`, which allows for all rivals.
    """

    difference: Sequence[Estimate]  # accuracy − that of the best, of each configuration
    may_be_best: Bool[np.ndarray, " C"]  # see `confidence_set`
    expected: float  # accuracy that choosing is expected to reach, see `cross_validate_selection`; or NaN
    parts: int  # folds, or parts of the examples, by which it was estimated


DIVERGED = Estimate(np.nan, np.nan, np.nan)
# Without folds, the examples are divided into so many parts to cross-validate the selection.
PARTS = 5


def interval_over_seeds(values: Float[np.ndarray, "S folds"]) -> Estimate:
    """Return the mean accuracy of seeds and folds, with its interval by Student's t over the seeds."""
    by_seed = values.mean(axis=1)
    mean, half = float(by_seed.mean()), float(half_width(by_seed))
    return Estimate(mean, *np.clip([mean - half, mean + half], 0, 1).tolist())


def select_best(
    correct: Bool[np.ndarray, "S C n"] | Float[np.ndarray, "S C n"],
    best: int,
    finite: Bool[np.ndarray, " C"],
    *,
    groups: Groups = None,
    folds: int = 0,
    estimate: bool = True,
) -> Selection:
    """Compare all configurations with the best, and estimate what choosing the best reaches.

    Args:
      correct: whether the predictions were right, or how far, from 0 to 1.
      best: index of the best configuration.
      finite: configurations that did not diverge; if the best diverged, all did.
      groups: see `estimate_accuracy`.
      folds: number of folds, one after another among the examples; 0: there are none.
      estimate: whether to estimate what choosing reaches. Where halving has chosen by the same examples
        before, leaving out a part of them now would not show its luck.
    """
    values, effective = _group_values(correct, groups)
    C, n = values.shape[1:]
    accuracy = correct.mean(axis=(0, 2), dtype=np.float64)
    ends, may_be_best = np.full((2, C), np.nan), finite
    if n > 1 and finite.any():
        order = np.argsort(-accuracy, kind="stable")
        order = np.concatenate([[best], order[finite[order] & (order != best)]])
        ends = _compare_with_rivals(correct, values, effective, order, CONFIDENCE)
        may_be_best = ends[1] >= 0
        ends[:, best] = 0
    differences = np.where(finite, accuracy - accuracy[best], np.nan)
    difference = [Estimate(*row) for row in np.stack([differences, *ends], axis=1).tolist()]
    if C == 1 or n == 1 or not estimate or not finite.any():
        return Selection(difference, may_be_best, np.nan, 0)
    part_of = assign_parts(correct.shape[2], folds, groups)
    chosen = choose_without_part(correct, part_of, finite)
    return Selection(difference, may_be_best, float(chosen.mean()), int(part_of.max()) + 1)


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


def _group_values(
    values: Shaped[np.ndarray, "S *C rows"], groups: Groups
) -> tuple[Shaped[np.ndarray, "S *C n"], float]:
    """Return the values of groups and their effective number, see above; without groups, of the examples."""
    S, rows = values.shape[0], values.shape[-1]
    if groups is None:
        return values, float(rows)
    codes = np.broadcast_to(encode_groups(groups, (rows,), (S, rows)), (S, rows))
    G, runs = codes.max() + 1, values.reshape(S, -1, rows)
    sizes = np.array([[np.bincount(row, minlength=G)] for row in codes])
    sums = np.array([[np.bincount(codes[s], run, G) for run in runs[s]] for s in range(S)])
    mean = sums.sum(axis=2, keepdims=True) / rows
    grouped = mean + (sums - mean * sizes) * (G / rows)
    return grouped.reshape(*values.shape[:-1], G), float(np.mean(rows**2 / np.sum(sizes**2.0, axis=2)))


def _estimate(values: Float[np.ndarray, "S n"], groups: Groups, paired: bool) -> Estimate:
    """Return the estimate of the mean of values [S, n], which are differences of two if they are paired."""
    S, rows = values.shape
    if S == 0 or rows == 0:
        raise ValueError(f"there are {S} seeds and {rows} examples: give at least one of each")
    least, most, square = values.min(), values.max(), np.mean(values**2)
    values, effective = _group_values(values, groups)
    n = values.shape[1]
    if n == 1:
        return Estimate(float(values.mean()), np.nan, np.nan)
    mean, by_seed, by_example = values.mean(), values.mean(axis=1), values.mean(axis=0)
    degrees = max(S - 1, 1)
    seeds = n * np.sum((by_seed - mean) ** 2) / degrees
    examples = S * np.sum((by_example - mean) ** 2) / (n - 1)
    rest = np.sum((values - by_seed[:, None] - by_example + mean) ** 2) / (degrees * (n - 1))
    squares = _Squares(mean, square, seeds, examples, rest, S, n, rows, effective, degrees)
    level = (1 + CONFIDENCE) / 2
    half = squares.half_width(level)
    low, high = mean - half, mean + half
    if not paired and 0 <= least <= most <= 1:
        low, high = _accuracy_limits(squares, by_seed, level)
    elif paired and -1 <= least <= most <= 1:
        low = -_difference_limit(squares._replace(mean=-mean), half, level)
        high = _difference_limit(squares, half, level)
    parts = np.sqrt(np.maximum([seeds - rest, examples - rest, rest], 0) / (S * n)).tolist()
    stderr = float(np.linalg.norm(parts))
    if S == 1:
        parts[0] = parts[2] = np.nan
    return Estimate(float(mean), float(low), float(high), stderr, *parts)


def _compare_with_rivals(
    correct: Shaped[np.ndarray, "S C rows"],
    values: Shaped[np.ndarray, "S C n"],
    effective: float,
    order: Int[np.ndarray, " c"],
    confidence: float,
) -> Float[np.ndarray, "2 C"]:
    """Return the ends of each configuration's difference from the best, see `Selection`.

    Only the configurations in `order` are compared, the best first; the ends of others are NaN.
    """
    (S, C, rows), n = correct.shape, values.shape[2]
    level = 1 - min((1 - confidence) / max(1, len(order) - 1), 0.4999)  # at 1/2 all widths are 0
    at_once = max(MIN_CONFIGS, min(CONFIGS_AT_ONCE, PREDICTIONS_AT_ONCE // (S * rows)))
    trend = None

    def limit(first: Int[np.ndarray, " A"], second: Int[np.ndarray, " B"]) -> Float[np.ndarray, "A B"]:
        """Return upper limits of the differences of all pairs; infinity for one and the same."""
        squares, columns = _compare_pairs(values[:, first], values[:, second], rows, effective)
        if values is not correct:
            of_rows, _ = _compare_pairs(correct[:, first], correct[:, second], rows, effective)
            squares = squares._replace(square=of_rows.square)
        if trend:
            moderated, degrees = trend.moderate(np.asarray(squares.seeds), columns)
            squares = squares._replace(seeds=moderated, degrees=degrees)
        limits = _difference_limit(squares, squares.half_width(level), level)
        return np.where(first[:, None] == second, np.inf, limits)

    if S > 1 and len(order) >= MIN_CONFIGS:
        count = min(len(order), MAX_CONFIGS, at_once)
        some = order[np.linspace(0, len(order) - 1, count).astype(int)]
        pairs = np.triu_indices(count, 1)
        squares, columns = _compare_pairs(values[:, some], values[:, some], rows, effective)
        trend = fit_trend(np.asarray(squares.seeds)[pairs] + n / (12 * rows**2), columns[pairs], S - 1, count)
    ends = np.full((2, C), np.nan)
    low, high = ends
    high[order] = np.inf
    # The best rivals leave most configurations out, and only the others are compared with all.
    for rivals in (order[:10], *_split(order[10:], at_once)):
        for candidates in _split(np.flatnonzero(high >= 0), at_once):
            limits = limit(candidates, rivals).min(axis=1, initial=np.inf)
            high[candidates] = np.minimum(high[candidates], limits)
    for others in _split(order, at_once):
        low[others] = -limit(order[:1], others)[0]
    return ends


def _compare_pairs(
    first: Shaped[np.ndarray, "S A n"], second: Shaped[np.ndarray, "S B n"], rows: int, effective: float
) -> tuple[_Squares, Float[np.ndarray, "A B 3"]]:
    """Return the squares of the differences of all pairs, first − second [A, B], and what the trend follows.

    The sums of squares of a difference follow from inner products of the two, and so all pairs together take
    three matrix products.
    """
    S, _, n = first.shape

    def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        norms = [np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (left, right)]
        # Rounding may leave a little less than 0.
        return np.maximum(norms[0][:, None] + norms[1][None, :] - 2 * (left @ right.T), 0)

    # Of marks there are whole numbers up to n per seed, which float32 holds exactly up to 2^24.
    total = sum(
        squared_distances(*(side.astype(np.float32 if side.dtype == bool else np.float64) for side in sides))
        for sides in zip(first, second, strict=True)
    )
    by_seed = [side.mean(axis=2).T for side in (first, second)]
    by_example = [side.mean(axis=0) for side in (first, second)]
    accuracies = [side.mean(axis=1) for side in by_seed]
    difference = np.subtract.outer(*accuracies)
    between_seeds = n * squared_distances(*by_seed)
    between_examples = S * squared_distances(*by_example)
    of_mean = S * n * difference**2
    rest = np.maximum(total - between_seeds - between_examples + of_mean, 0)
    seeds, examples = (np.maximum(part - of_mean, 0) for part in (between_seeds, between_examples))
    degrees = max(S - 1, 1)
    mean_squares = seeds / degrees, examples / (n - 1), rest / (degrees * (n - 1))
    # The floor of `fit_trend` keeps the logarithm finite.
    columns = [
        np.ones_like(rest),
        np.log(mean_squares[2] + n / (12 * rows**2)),
        np.minimum.outer(*accuracies),
    ]
    squares = _Squares(difference, total / (S * n), *mean_squares, S, n, rows, effective, degrees)
    return squares, np.stack(columns, axis=-1)


def _accuracy_limits(
    squares: _Squares, by_seed: Float[np.ndarray, " S"], level: float
) -> tuple[float, float]:
    """Return the limits of an accuracy, see above, each of a one-sided level."""
    from scipy.special import ndtr, ndtri, stdtrit

    mean, S, n = squares.mean, squares.S, squares.rows
    of_examples = squares._replace(seeds=np.float64(0)).half_width(level)
    limits = np.array(_clopper_pearson(squares, mean, mean - mean**2, of_examples, level))
    if np.ptp(by_seed) > 0:
        probits = ndtri((n * by_seed + 0.5) / (n + 1))
        m, variance = probits.mean(), probits.var(ddof=1)
        total = 1 + variance
        stderr = np.sqrt(variance / (S * total) + (m * variance) ** 2 / (2 * (S - 1) * total**3))
        of_seeds = ndtr(m / np.sqrt(total) + stdtrit(S - 1, level) * stderr * np.array([-1, 1]))
        below, above = np.hypot(limits - mean, np.maximum([mean, -mean] + of_seeds * [-1, 1], 0))
        limits = np.clip([mean - below, mean + above], 0, 1)
    return limits[0], limits[1]


def _clopper_pearson(
    squares: _Squares, share: Means, variance: Means, half: Means, level: float
) -> tuple[Means, Means]:
    """Return the limits of a share of n* examples, see above, each of a one-sided level."""
    from scipy.special import betaincinv, stdtrit

    n, rows, more = squares.n, squares.rows, 1 / squares.effective
    part = np.minimum((1 / rows + squares.examples / squares.S) / (1 / rows + variance), 1)  # g
    square = (half / stdtrit(rows - 1, level)) ** 2 * (n - 1) / n
    count = (variance + part * more) / (square + (part * more) ** 2)
    right, wrong = (np.maximum(side * count, 1e-9) for side in (share, 1 - share))
    return betaincinv(right, wrong + 1, 1 - level), betaincinv(right + 1, wrong, level)


def _difference_limit(squares: _Squares, half: Means, level: float) -> Means:
    """Return the upper limit of differences between −1 and 1, see above, of a one-sided level."""
    mean = squares.mean
    either = np.maximum(squares.square, np.abs(mean))
    first, second = (either + mean) / 2, (either - mean) / 2
    variance = either - mean**2
    above = _clopper_pearson(squares, first, variance, half, level)[1] - first
    below = second - _clopper_pearson(squares, second, variance, half, level)[0]
    # Two shares of one sample are correlated: this is −r.
    correlation = np.sqrt(first * second / np.maximum((1 - first) * (1 - second), 1e-9))
    return mean + np.sqrt(above**2 + below**2 + 2 * correlation * above * below)
