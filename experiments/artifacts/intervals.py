"""Intervals of a sweep's accuracies, and how sure the choice of its best configuration is."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from experiments.runner.sweeps import SweepResult
from linear_cifar.comparison import half_width
from linear_cifar.evaluation import mark_correct
from linear_cifar.uncertainty import (
    confidence_set,
    cross_validate_selection,
    estimate_accuracy,
)

# With fewer seeds the set of the best is not reliable, see `confidence_set`.
ENOUGH_SEEDS = 10
# Without folds, the validation examples are divided into so many parts to cross-validate the selection.
PARTS = 5
# A sweep, and the index of one of its configurations.
Choice = tuple[SweepResult, int]


class Interval(NamedTuple):
    """A mean, and half of its 95 % interval; both are NaN where a run diverged."""

    mean: float
    half_width: float  # NaN also where one seed or one example gives no interval


class Selection(NamedTuple):
    """The choice of the best of a sweep's C configurations by validation, and how sure it is."""

    difference: Sequence[Interval]  # validation accuracy − that of the best, of each configuration
    may_be_best: Bool[np.ndarray, " C"]  # see `confidence_set`
    expected: float  # accuracy that choosing is expected to reach, see `cross_validate_selection`; or NaN
    parts: int  # folds, or parts of the validation examples, by which it was estimated


DIVERGED = Interval(np.nan, np.nan)


def accuracy_interval(result: SweepResult, split: str, config: int) -> Interval:
    """Return the accuracy of one configuration on a split, with its interval.

    On a split held out the interval is over seeds and examples, see `estimate_accuracy`. The training
    examples are taken as given: there it is over the seeds, by Student's t.
    """
    if not result.stayed_finite[config]:
        return DIVERGED
    if split == "train":
        accuracy = np.asarray(result.final["train"].accuracy[:, config], np.float64)
        return interval_over_seeds(accuracy.reshape(len(result.sweep.seeds), -1))
    return interval_over_examples(result.marks(split, config))


def interval_over_seeds(values: Float[np.ndarray, "S folds"]) -> Interval:
    """Return the mean of values of seeds and their folds, with its interval by Student's t over the seeds."""
    by_seed = values.mean(axis=1)
    return Interval(float(by_seed.mean()), float(half_width(by_seed)))


def interval_over_examples(values: Bool[np.ndarray, "S n"] | Float[np.ndarray, "S n"]) -> Interval:
    """Return the mean of values per example, with its interval over seeds and examples.

    One example gives no interval.
    """
    if values.shape[1] == 1:
        return Interval(float(values.mean()), np.nan)
    estimate = estimate_accuracy(values)
    return Interval(estimate.mean, estimate.half_width)


def difference_interval(first: Choice, second: Choice, split: str) -> Interval:
    """Return the accuracy of one configuration minus that of another, paired by seed and example.

    Args:
      first, second: sweeps from the same seeds, measured on the same examples of the split.
      split: a split held out.
    """
    if not all(result.stayed_finite[config] for result, config in (first, second)):
        return DIVERGED
    return _paired_interval(*(result.marks(split, config) for result, config in (first, second)))


def describe_selection(result: SweepResult) -> Selection:
    """Compare all configurations of a sweep with the best, and estimate what choosing the best reaches.

    With halving, `result` holds the configurations that reached the end, and there is no estimate.
    """
    best, C, finite = result.ranking[0], len(result.configs), result.stayed_finite
    correct = np.stack([result.marks("val", c) for c in range(C)], axis=1)
    # If the best diverged, all did.
    difference = [
        _paired_interval(correct[:, c], correct[:, best]) if finite[c] else DIVERGED for c in range(C)
    ]
    n = correct.shape[2]
    if n == 1 or not finite.any():
        return Selection(difference, finite, np.nan, 0)
    may_be_best = confidence_set(correct, np.broadcast_to(~finite, (len(correct), C)))
    # Halving has chosen by the same examples before, so leaving out a part now would not show its luck.
    if C == 1 or result.settings.halving:
        return Selection(difference, may_be_best, np.nan, 0)
    if result.settings.folds:
        parts = np.split(correct, result.settings.folds, axis=2)
    else:
        # Not one part after another, because a file may hold its classes one after another.
        count = min(PARTS, n)
        parts = [correct[:, :, start::count] for start in range(count)]
    accuracy = np.stack([part.mean(axis=2) for part in parts], axis=1)  # [S, parts, C]
    accuracy[:, :, ~finite] = np.nan
    expected = cross_validate_selection(accuracy)
    return Selection(difference, may_be_best, float(expected.mean()), len(parts))


def _paired_interval(first: Bool[np.ndarray, "S n"], second: Bool[np.ndarray, "S n"]) -> Interval:
    """Return the difference of two accuracies, paired by seed and example."""
    return interval_over_examples(first.astype(np.float64) - second)


def mean_weights_intervals(result: SweepResult) -> list[Interval]:
    """Return the test accuracy of each configuration's mean weights over the seeds, which are one classifier.

    The intervals are over examples. The list is empty if there is one seed, no test split, or not all weights
    are saved.
    """
    S, C = result.sweep.size
    if S == 1 or "test" not in result.splits or len(result.saved.replicates) < S * C:
        return []
    spec = result.settings.train_spec(result.configs, result.dataset.image_shape)
    with jax.enable_x64(result.settings.dtype == "float64"):
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), result.params)
        marks = mark_correct(mean, result.data.splits["test"], result.data.standardizer, spec.precision)
    return [interval_over_examples(marks[None, c]) if result.stayed_finite[c] else DIVERGED for c in range(C)]
