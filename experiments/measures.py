"""How confident the final classifiers are on the test images; measures.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from experiments import files
from experiments.results import KEYS, keys, write_csv
from experiments.run import Run
from linear_cifar.calibration import expected_calibration_error, labelling, reliability
from linear_cifar.losses import get_loss
from linear_cifar.model import predict_labels

# A wrong prediction of at least this probability is an overconfident one, and a label is taken from it on.
THRESHOLD = 0.5


class Predictions(NamedTuple):
    """Probabilities of the test images, those of the true and of the predicted class, and which are right."""

    probabilities: Float[np.ndarray, "n K"]
    true: Float[np.ndarray, " n"]
    predicted: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]


class Measures(NamedTuple):
    """Shares in [0, 1] and mean probabilities, over the test images.

    `accuracy` is by argmax; precision, recall, none and several are of labels from `THRESHOLD` on, see
    `linear_cifar.calibration`; `overconfident` is the share of wrong predictions from it on; `true_right` and
    `true_wrong` are the true class's mean probability on rightly and on wrongly classified images; `second`
    is the mean probability of the second most probable class; ece is of the predicted class.
    """

    accuracy: float
    confidence: float
    ece: float
    overconfident: float
    true_right: float
    true_wrong: float
    second: float
    precision: float
    recall: float
    none: float
    several: float


def predictions(run: Run, seed: int, config: int) -> Predictions:
    """Of one run, by indices."""
    scores = run.scores("test", seed, config)
    probabilities = np.asarray(get_loss(run.settings.loss).probabilities(jnp.asarray(scores)))
    labels = run.dataset.test.labels
    rows, chosen = np.arange(len(labels)), scores.argmax(axis=1)
    return Predictions(
        probabilities, probabilities[rows, labels], probabilities[rows, chosen], chosen == labels
    )


def measure(run: Run, seed: int, config: int) -> Measures:
    """Of one run, by indices; all NaN if it diverged."""
    if run.diverged(seed, config):
        return Measures(*[np.nan] * len(Measures._fields))
    probabilities, true, predicted, right = predictions(run, seed, config)
    y = np.asarray(jax.nn.one_hot(run.dataset.test.labels, probabilities.shape[1]))
    labels = labelling(np.asarray(predict_labels(jnp.asarray(probabilities), THRESHOLD)), y)
    return Measures(
        accuracy=float(right.mean()),
        confidence=float(predicted.mean()),
        ece=expected_calibration_error(reliability(predicted, right)),
        overconfident=float((predicted[~right] >= THRESHOLD).mean()),
        true_right=float(true[right].mean()),
        true_wrong=float(true[~right].mean()),
        second=float(np.sort(probabilities, axis=1)[:, -2].mean()),
        **labels._asdict(),
    )


def of_config(run: Run, config: int) -> Measures:
    """Of one configuration, each measure an array [S] over the seeds."""
    each = [measure(run, seed, config) for seed in range(len(run.settings.seeds))]
    return Measures(*(np.asarray(values) for values in zip(*each, strict=True)))  # type: ignore[arg-type]


def write(folder: Path, runs: Sequence[Run]) -> None:
    """A row per run, of all variants."""
    rows = ((*its, *measure(run, s, c)) for run in runs for s, c, its in keys(run))
    write_csv(folder / files.MEASURES, (*KEYS, *Measures._fields), rows)
