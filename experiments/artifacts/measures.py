"""Measures of the confidence of the final classifiers on the test images, measures.csv and values.npz."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from experiments.artifacts.exports import KEYS, run_keys, write_csv
from experiments.runner.folder import MEASURES, VALUES
from linear_cifar.calibration import expected_calibration_error, label_metrics, reliability
from linear_cifar.data.prepare import Data
from linear_cifar.evaluation import mark_correct
from linear_cifar.losses import get_loss
from linear_cifar.model import compute_logits, predict_class, predict_labels
from linear_cifar.npz import write_npz
from linear_cifar.params import Params
from linear_cifar.result import Result
from linear_cifar.standardizer import standardize
from linear_cifar.uncertainty import DIVERGED, Estimate, estimate_accuracy, linearize_ratio

# A wrong prediction of at least this probability is overconfident, and a label of at least this is predicted.
THRESHOLD = 0.5
# Shares in [0, 1] and mean probabilities over the test images:
# - accuracy, and confidence (mean probability), of the predicted class; ece, its expected calibration error;
# - overconfident, the share of wrong predictions with a probability of at least `THRESHOLD`;
# - true_right and true_wrong, the mean probabilities of the true class on images classified right and wrong;
# - second, the mean probability of the second most probable class;
# - precision, recall, none and several, of labels by `THRESHOLD`, see `linear_cifar.calibration`.
NAMES = (
    "accuracy", "confidence", "ece", "overconfident", "true_right", "true_wrong", "second",
    "precision", "recall", "none", "several",
)  # fmt: skip


class Predictions(NamedTuple):
    """Predictions for the n test images: of one run, or of all runs [S, C] of a sweep."""

    probabilities: Float[np.ndarray, "*runs n K"]
    of_true_class: Float[np.ndarray, "*runs n"]  # probability of the true class
    of_predicted_class: Float[np.ndarray, "*runs n"]  # probability of the predicted class
    correct: Bool[np.ndarray, "*runs n"]

    def of_run(self, seed: int, config: int) -> "Predictions":
        """Return the predictions of one run, by the indices of its seed and configuration."""
        return Predictions(*(values[seed, config] for values in self))

    def of_config(self, config: int) -> "Predictions":
        """Return the predictions of one configuration from every seed."""
        return Predictions(*(values[:, config] for values in self))


def predict(result: Result, data: Data) -> Predictions:
    """Predict the test images with all runs of a sweep."""
    settings, params = result.identity.settings, result.params()
    loss, precision = get_loss(settings["loss"]), settings["precision"]
    x = standardize(data.standardizer, data.sets["test"].features, params.W.dtype)

    # An argument, because XLA would compute with the features of a closure as it compiles.
    @jax.jit
    def predict_runs(params: Params, x: Float[Array, "n d"]) -> tuple[Array, Array]:
        def predict_run(params: Params) -> tuple[Array, Array]:
            logits = compute_logits(params, x, precision)
            return loss.probabilities(logits), predict_class(logits)

        return jax.lax.map(predict_run, params)

    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), params)
    probabilities, classes = (
        np.asarray(values).reshape(*result.identity.size, *values.shape[1:])
        for values in predict_runs(flat, x)
    )
    labels = np.broadcast_to(data.labels("test"), classes.shape)

    def probability_of(chosen: np.ndarray) -> np.ndarray:
        return np.take_along_axis(probabilities, chosen[..., None].astype(int), axis=-1)[..., 0]

    return Predictions(probabilities, probability_of(labels), probability_of(classes), classes == labels)


def measure(predictions: Predictions, labels: Integer[np.ndarray, " n"]) -> dict[str, float]:
    """Measure one run, from its predictions; all measures are NaN if it diverged."""
    probabilities, of_true_class, of_predicted_class, correct = predictions
    if not np.isfinite(probabilities).all():
        return dict.fromkeys(NAMES, np.nan)
    y = np.eye(probabilities.shape[1])[labels]
    by_threshold = label_metrics(np.asarray(predict_labels(jnp.asarray(probabilities), THRESHOLD)), y)
    return {
        "accuracy": float(correct.mean()),
        "confidence": float(of_predicted_class.mean()),
        "ece": expected_calibration_error(reliability(of_predicted_class, correct)),
        "overconfident": float((of_predicted_class[~correct] >= THRESHOLD).mean()),
        "true_right": float(of_true_class[correct].mean()),
        "true_wrong": float(of_true_class[~correct].mean()),
        "second": float(np.sort(probabilities, axis=1)[:, -2].mean()),
        **by_threshold._asdict(),
    }


def measure_all(
    predictions: Predictions, labels: Integer[np.ndarray, " n"]
) -> dict[str, Float[np.ndarray, "S C"]]:
    """Measure all runs of a sweep, from their predictions; see `NAMES`."""
    S, C = predictions.correct.shape[:2]
    runs = [[measure(predictions.of_run(s, c), labels) for c in range(C)] for s in range(S)]
    return {name: np.array([[run[name] for run in row] for row in runs]) for name in NAMES}


def measure_examples(predictions: Predictions) -> dict[str, Float[np.ndarray, "S n"]]:
    """Return values per example, of which some measures are the means, see `NAMES`.

    Args:
      predictions: predictions of one configuration from every seed.
    """
    probabilities, of_true_class, confidence, correct = predictions
    wrong = (~correct).astype(np.float64)
    # A diverged run's probabilities are NaN, and so are its values.
    overconfident = np.where(np.isnan(confidence), np.nan, wrong * (confidence >= THRESHOLD))
    return {
        "confidence": confidence.astype(np.float64),
        "second": np.sort(probabilities, axis=-1)[..., -2].astype(np.float64),
        "overconfident": linearize_ratio(overconfident, wrong),
        "true_wrong": linearize_ratio(wrong * of_true_class, wrong),
    }


def write_measures(
    folder: Path,
    results: Sequence[Result],
    predicted: Sequence[Predictions],
    measured: Sequence[Mapping[str, Float[np.ndarray, "S C"]]],
) -> None:
    """Write measures.csv, with a row per run of each sweep, and values.npz.

    values.npz has the values per example of each sweep's first configuration, which is the report's, in
    arrays such as `bce.confidence` [S, n] of float32.
    """
    rows = (
        (*keys, *(values[name][s, c] for name in NAMES))
        for result, values in zip(results, measured, strict=True)
        for s, c, keys in run_keys(result)
    )
    write_csv(folder / MEASURES, (*KEYS, *NAMES), rows)
    arrays = {
        f"{result.about['sweep']}.{name}": array.astype(np.float32)
        for result, predictions in zip(results, predicted, strict=True)
        for name, array in measure_examples(predictions.of_config(0)).items()
    }
    configs = {result.about["sweep"]: dict(result.configs[0]) for result in results}
    write_npz(folder / VALUES, arrays, {"configs": configs})


def mean_weights_intervals(result: Result, data: Data) -> list[Estimate]:
    """Return the test accuracy of each configuration's mean weights over the seeds, which are one classifier.

    The intervals are over examples, or groups of them. The list is empty if there is one seed, no test split,
    or not all weights were kept.
    """
    S, C = result.identity.size
    if S == 1 or "test" not in result.sizes or len(result.weights.replicates) < S * C:
        return []
    settings = result.identity.settings
    with jax.enable_x64(settings["dtype"] == "float64"):
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), result.params())
        marks = mark_correct(mean, data.sets["test"], data.standardizer, settings["precision"])
    groups, finite = data.sets["test"].groups, result.stayed_finite
    return [estimate_accuracy(marks[None, c], groups) if finite[c] else DIVERGED for c in range(C)]
