"""How far probabilities can be believed, and labels taken by a threshold: measures of predictions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num


class Reliability(NamedTuple):
    """Predictions in bins of equal width by their probability; empty bins are NaN."""

    edges: Float[np.ndarray, " bins+1"]
    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]  # mean probability
    accuracy: Float[np.ndarray, " bins"]  # share that is right


def reliability(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = 10
) -> Reliability:
    """Bins predictions by confidence, in [0, 1] (Niculescu-Mizil & Caruana 2005).

    Args:
      confidence: probability that was given to the predicted class.
      right: whether the prediction was.
      bins: their number; a confidence on an edge belongs to the bin above it, 1 to the last.
    """
    edges = np.linspace(0, 1, bins + 1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    per = np.where(counts > 0, counts, np.nan)
    return Reliability(
        edges,
        counts,
        np.bincount(index, weights=confidence, minlength=bins) / per,
        np.bincount(index, weights=right, minlength=bins) / per,
    )


def expected_calibration_error(binned: Reliability) -> float:
    r"""$\sum_b \frac{n_b}{n} |\mathrm{accuracy}_b - \mathrm{confidence}_b|$ (Guo et al. 2017)."""
    gaps = np.abs(binned.accuracy - binned.confidence)
    return float(np.nansum(binned.counts * gaps) / binned.counts.sum())


class Labelling(NamedTuple):
    """What labels taken by a threshold are worth; shares in [0, 1].

    Precision and recall are over all labels of all examples (micro-averaged); precision is NaN where no
    label was given. `none` and `several` are shares of examples with no label or more than one.
    """

    precision: float
    recall: float
    none: float
    several: float


def labelling(predicted: Bool[np.ndarray, "n K"], y: Num[np.ndarray, "n K"]) -> Labelling:
    """Compares predicted labels with one- or multi-hot targets."""
    right, given = np.sum(predicted & (y > 0)), predicted.sum()
    per_example = predicted.sum(axis=1)
    return Labelling(
        precision=float(right / given) if given else float("nan"),
        recall=float(right / (y > 0).sum()),
        none=float((per_example == 0).mean()),
        several=float((per_example > 1).mean()),
    )
