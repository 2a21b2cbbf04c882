"""Measures of predicted probabilities: how far they can be believed, and labels taken by a threshold."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from linear_cifar.arguments import as_marks, as_pair, as_whole


class Reliability(NamedTuple):
    """Predictions in bins of equal width by their probability; empty bins are NaN."""

    edges: Float[np.ndarray, " bins+1"]
    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]  # mean probability
    accuracy: Float[np.ndarray, " bins"]  # share of correct predictions


def reliability(
    confidence: Float[Array | np.ndarray, " n"], correct: Bool[Array | np.ndarray, " n"], bins: int = 10
) -> Reliability:
    """Bin predictions by confidence, in [0, 1] (Niculescu-Mizil & Caruana 2005).

    Args:
      confidence: probability given to the predicted class.
      correct: whether the prediction was correct.
      bins: number of bins. A confidence on an edge belongs to the bin above it, 1 to the last bin.

    Raises:
      ValueError: if the shapes differ, or a confidence is not in [0, 1].
    """
    bins = as_whole("bins", bins, 1)
    confidence, correct = as_pair("n", confidence=confidence, correct=correct)
    correct = as_marks("correct", correct, "n")
    outside = ~((confidence >= 0) & (confidence <= 1))  # also NaN
    if outside.any():
        raise ValueError(
            f"confidence {np.argmax(outside)} is {confidence[outside][0]}: give numbers from 0 to 1"
        )
    edges = np.linspace(0, 1, bins + 1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    divisor = np.where(counts > 0, counts, np.nan)
    return Reliability(
        edges,
        counts,
        np.bincount(index, weights=confidence, minlength=bins) / divisor,
        np.bincount(index, weights=correct, minlength=bins) / divisor,
    )


def expected_calibration_error(binned: Reliability) -> float:
    r"""Compute $\sum_b \frac{n_b}{n} |\mathrm{accuracy}_b - \mathrm{confidence}_b|$ (Guo et al. 2017)."""
    gaps = np.abs(binned.accuracy - binned.confidence)
    return float(np.nansum(binned.counts * gaps) / binned.counts.sum())


class LabelMetrics(NamedTuple):
    """Quality of labels taken by a threshold; shares in [0, 1].

    Precision and recall are over all labels of all examples (micro-averaged). Precision is NaN where no label
    was predicted, and recall where none is true. `none` and `several` are the shares of examples with no
    label or more than one.
    """

    precision: float
    recall: float
    none: float
    several: float


def label_metrics(
    predicted: Bool[Array | np.ndarray, "n K"], y: Num[Array | np.ndarray, "n K"]
) -> LabelMetrics:
    """Compare predicted labels with one- or multi-hot targets; a label is true where its target is ≥ 1/2.

    Raises:
      ValueError: if the shapes differ.
    """
    predicted, y = as_pair("n, K", predicted=predicted, y=y)
    predicted = as_marks("predicted", predicted, "n, K")
    true = y >= 0.5
    correct, count = np.sum(predicted & true), predicted.sum()
    per_example = predicted.sum(axis=1)
    return LabelMetrics(
        precision=float(correct / count) if count else float("nan"),
        recall=float(correct / true.sum()) if true.any() else float("nan"),
        none=float((per_example == 0).mean()),
        several=float((per_example > 1).mean()),
    )
