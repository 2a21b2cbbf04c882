"""Measures of the confidence of the final classifiers on the test images, measures.csv and values.npz."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from experiments.artifacts.examples import ExampleValues, write_example_values
from experiments.artifacts.results import KEYS, run_keys, write_csv
from experiments.runner.files import MEASURES
from experiments.runner.sweeps import SweepResult
from linear_cifar.calibration import expected_calibration_error, label_metrics, reliability
from linear_cifar.model import compute_logits, predict_class, predict_labels
from linear_cifar.params import Params
from linear_cifar.standardizer import standardize
from linear_cifar.uncertainty import linearize_ratio

Value = Any  # a float, or an array [S, C] for all runs of a sweep
# A wrong prediction of at least this probability is overconfident, and a label of at least this is predicted.
THRESHOLD = 0.5


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


class Measures(NamedTuple):
    """Shares in [0, 1] and mean probabilities over the test images, of one run or of all runs [S, C].

    `accuracy` and `confidence` (mean probability) are of the predicted class, and so is the expected
    calibration error `ece`. `overconfident` is the share of wrong predictions with a probability of at least
    `THRESHOLD`. `true_right` and `true_wrong` are the mean probabilities of the true class on images that are
    classified right and wrong. `second` is the mean probability of the second most probable class.
    `precision`, `recall`, `none` and `several` are of labels by `THRESHOLD`, see `linear_cifar.calibration`.
    """

    accuracy: Value
    confidence: Value
    ece: Value
    overconfident: Value
    true_right: Value
    true_wrong: Value
    second: Value
    precision: Value
    recall: Value
    none: Value
    several: Value


def predict(result: SweepResult) -> Predictions:
    """Predict the test images with all runs of a sweep."""
    spec = result.settings.train_spec(result.configs, result.dataset.image_shape)
    x = standardize(result.data.standardizer, result.data.splits["test"].features, result.params.W.dtype)

    @jax.jit
    def predict_run(params: Params) -> tuple[Array, Array]:
        logits = compute_logits(params, x, spec.precision)
        return spec.loss.probabilities(logits), predict_class(logits)

    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), result.params)
    shape = result.params.W.shape[:2]
    probabilities, classes = (
        np.asarray(values).reshape(*shape, *values.shape[1:]) for values in jax.lax.map(predict_run, flat)
    )
    labels = np.broadcast_to(result.dataset.splits["test"].labels, classes.shape)

    def probability_of(chosen: np.ndarray) -> np.ndarray:
        return np.take_along_axis(probabilities, chosen[..., None].astype(int), axis=-1)[..., 0]

    return Predictions(probabilities, probability_of(labels), probability_of(classes), classes == labels)


def measure(predictions: Predictions, labels: Integer[np.ndarray, " n"]) -> Measures:
    """Measure one run, from its predictions; all measures are NaN if it diverged."""
    probabilities, of_true_class, of_predicted_class, correct = predictions
    if not np.isfinite(probabilities).all():
        return Measures(*[np.nan] * len(Measures._fields))
    y = np.eye(probabilities.shape[1])[labels]
    by_threshold = label_metrics(np.asarray(predict_labels(jnp.asarray(probabilities), THRESHOLD)), y)
    return Measures(
        accuracy=float(correct.mean()),
        confidence=float(of_predicted_class.mean()),
        ece=expected_calibration_error(reliability(of_predicted_class, correct)),
        overconfident=float((of_predicted_class[~correct] >= THRESHOLD).mean()),
        true_right=float(of_true_class[correct].mean()),
        true_wrong=float(of_true_class[~correct].mean()),
        second=float(np.sort(probabilities, axis=1)[:, -2].mean()),
        **by_threshold._asdict(),
    )


def measure_all(result: SweepResult, predictions: Predictions) -> Measures:
    """Measure all runs of a sweep; each measure is an array [S, C]."""
    S, C = predictions.correct.shape[:2]
    labels = result.dataset.splits["test"].labels
    rows = [[measure(predictions.of_run(s, c), labels) for c in range(C)] for s in range(S)]
    return Measures(*np.moveaxis(np.asarray(rows), -1, 0))


def measure_examples(predictions: Predictions) -> dict[str, Float[np.ndarray, "S n"]]:
    """Return values per example, of which some measures are the means, see `Measures`.

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


def write_example_measures(path: Path, predicted: Sequence[tuple[SweepResult, Predictions]]) -> None:
    """Write the values per example of each sweep's first configuration, which is the report's."""
    parts = []
    for result, predictions in predicted:
        values = measure_examples(predictions.of_config(0))
        arrays = {name: array[:, None].astype(np.float32) for name, array in values.items()}
        sizes = {name: array.shape[-1] for name, array in arrays.items()}
        parts.append(ExampleValues(result.sweep.name, result.configs[:1], arrays, sizes))
    write_example_values(path, parts)


def write_measures(folder: Path, measured: Sequence[tuple[SweepResult, Measures]]) -> None:
    """Write measures.csv, with a row per run of each sweep."""
    rows = (
        (*keys, *(values[s, c] for values in measures))
        for result, measures in measured
        for s, c, keys in run_keys(result)
    )
    write_csv(folder / MEASURES, (*KEYS, *Measures._fields), rows)
