"""The confusions of a run's best classifier: which classes it takes for which."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from experiments.artifacts.tables import Table, configuration_name
from experiments.runner.sweeps import SweepResult
from linear_cifar.evaluation import confusion_matrix

# With more classes than this the cells of the figure have no numbers, and a table lists the largest.
MAX_NUMBERED = 20
LISTED_PAIRS = 20


def render_confusion(folder: Path, result: SweepResult) -> list[Table]:
    """Draw the confusion matrix of the best configuration's best seed, and list its largest cells in a table.

    The matrix is of the test split, or of the validation split where there is no test split. With few classes
    the figure has all numbers, and there is no table.
    """
    # Imported here, as matplotlib takes a second, which a run that is finished already need not wait for.
    from experiments.artifacts import figures

    path, c = folder / "confusion", result.ranking[0]
    if not result.stayed_finite[c]:
        for suffix in figures.SUFFIXES:
            path.with_suffix(suffix).unlink(missing_ok=True)
        return []
    s, split = result.best_seed(c), result.splits[-1]
    spec = result.settings.train_spec(result.configs, result.dataset.image_shape)
    with jax.enable_x64(result.settings.dtype == "float64"):
        counts = confusion_matrix(
            result.params_of(s, c), result.data.splits[split], result.data.standardizer, spec.precision
        )
    classes, numbered = result.dataset.classes, len(result.dataset.classes) <= MAX_NUMBERED
    title = (
        f"{result.dataset.name}, {split}: predictions for each class, %\n"
        f"{configuration_name(result, c)}, seed {result.settings.seeds[s]}"
    )
    figures.plot_confusion(path, counts, classes, title, numbered)
    if numbered:
        return []
    return [_pairs_table(counts, classes, title.replace("\n", ", "))]


def _pairs_table(counts: Float[np.ndarray, "K K"], classes: Sequence[str], title: str) -> Table:
    """Return the pairs of classes that are confused most often, most first."""
    wrong = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED_PAIRS]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    rows = [
        [
            classes[true],
            classes[predicted],
            f"{wrong[true, predicted]:.0f}",
            _share(wrong, counts, true, predicted),
        ]
        for true, predicted in pairs
        if wrong[true, predicted] > 0
    ]
    columns = ["true class", "predicted", "examples", "% of the class"]
    return Table("confusions", f"Most frequent confusions, {title}:", columns, rows)


def _share(wrong: np.ndarray, counts: np.ndarray, true: np.intp, predicted: np.intp) -> str:
    return f"{100 * wrong[true, predicted] / counts[true].sum():.1f}"
