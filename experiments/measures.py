"""How confident the final classifiers are on the test images; measures.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from experiments import files
from experiments.results import KEYS, keys, write_csv
from experiments.run import Run
from linear_cifar.calibration import expected_calibration_error, labelling, reliability
from linear_cifar.model import logits, predict_class, predict_labels
from linear_cifar.params import Params
from linear_cifar.standardizer import standardize

Value = Any  # a float, or of all runs an array [S, C]
# A wrong prediction of at least this probability is an overconfident one, and a label is taken from it on.
THRESHOLD = 0.5


class Predictions(NamedTuple):
    """Of the test images: probabilities, those of the true and of the predicted class, and which are right.

    Those of a whole sweep have leading axes of seeds and configurations.
    """

    probabilities: Float[np.ndarray, "*runs n K"]
    true: Float[np.ndarray, "*runs n"]
    predicted: Float[np.ndarray, "*runs n"]
    right: Bool[np.ndarray, "*runs n"]

    def of(self, seed: int, config: int) -> "Predictions":
        """Those of one run, by indices."""
        return Predictions(*(values[seed, config] for values in self))


class Measures(NamedTuple):
    """Shares in [0, 1] and mean probabilities, over the test images of a run, or of all runs [S, C].

    `accuracy` is by argmax; precision, recall, none and several are of labels from `THRESHOLD` on, see
    `linear_cifar.calibration`; `overconfident` is the share of wrong predictions from it on; `true_right` and
    `true_wrong` are the true class's mean probability on rightly and on wrongly classified images; `second`
    is the mean probability of the second most probable class; ece is of the predicted class.
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


def predictions(run: Run) -> Predictions:
    """Of all runs of a sweep."""
    test, recipe = run.dataset.test, run.settings.recipe(run.configs)
    x = standardize(run.standardizer, jnp.asarray(test.images), run.params.W.dtype)

    @jax.jit
    def of_one(params: Params) -> tuple[Array, Array]:
        scores = logits(params, x, recipe.precision)
        return recipe.loss.probabilities(scores), predict_class(scores)

    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), run.params)
    probabilities, chosen = jax.lax.map(of_one, flat)
    shape = run.params.W.shape[:2]
    p, k = (np.asarray(values).reshape(*shape, *values.shape[1:]) for values in (probabilities, chosen))
    labels = np.broadcast_to(test.labels, k.shape)

    def of_class(classes: np.ndarray) -> np.ndarray:
        return np.take_along_axis(p, classes[..., None].astype(int), axis=-1)[..., 0]

    return Predictions(p, of_class(labels), of_class(k), k == labels)


def measure(of: Predictions, labels: UInt8[np.ndarray, " n"]) -> Measures:
    """Of one run, from its predictions; all NaN if it diverged."""
    if not np.isfinite(of.probabilities).all():
        return Measures(*[np.nan] * len(Measures._fields))
    y = np.eye(of.probabilities.shape[1])[labels]
    given = labelling(np.asarray(predict_labels(jnp.asarray(of.probabilities), THRESHOLD)), y)
    return Measures(
        accuracy=float(of.right.mean()),
        confidence=float(of.predicted.mean()),
        ece=expected_calibration_error(reliability(of.predicted, of.right)),
        overconfident=float((of.predicted[~of.right] >= THRESHOLD).mean()),
        true_right=float(of.true[of.right].mean()),
        true_wrong=float(of.true[~of.right].mean()),
        second=float(np.sort(of.probabilities, axis=1)[:, -2].mean()),
        **given._asdict(),
    )


def measure_all(run: Run, predicted: Predictions) -> Measures:
    """Each measure an array [S, C]."""
    S, C = predicted.right.shape[:2]
    each = [[measure(predicted.of(s, c), run.dataset.test.labels) for c in range(C)] for s in range(S)]
    return Measures(*np.moveaxis(np.asarray(each), -1, 0))


def write(folder: Path, measured: Sequence[tuple[Run, Measures]]) -> None:
    """A row per run, of all variants."""
    rows = ((*its, *(values[s, c] for values in of)) for run, of in measured for s, c, its in keys(run))
    write_csv(folder / files.MEASURES, (*KEYS, *Measures._fields), rows)
