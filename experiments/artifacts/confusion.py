"""The confusions of a run's best classifier: which classes it takes for which."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.artifacts import tables
from experiments.artifacts.tables import Cell, Table, configuration_symbols, replicate_name
from linear_cifar.data.prepare import Data
from linear_cifar.evaluation import confusion_matrix
from linear_cifar.replicates import all_rows
from linear_cifar.result import TEST, Result

# With more classes than this the cells of the figure have no numbers, and a table lists the largest of them.
MAX_NUMBERED, LISTED_PAIRS = 20, 20


def render_confusion(result: Result, data: Mapping[str, Data]) -> tuple[Any, list[Table]]:
    """Draw the confusion matrix of the best configuration's best run, and list its largest cells in a table.

    The matrix is of the test split, or else of a further test set or the validation split. With few classes
    the figure has all numbers, and there is no table. If the best diverged, there is neither.
    """
    # Imported here, as matplotlib takes a second, which a run that is finished already need not wait for.
    from experiments.artifacts import figures

    c = result.ranking()[0]
    if not result.stayed_finite[c]:
        return None, []
    best, split = result.best_replicate(c), TEST if TEST in result.sizes else [*result.sizes][-1]
    name, prepared, settings = (
        result.identity.replicates[best],
        data[result.about["sweep"]],
        result.identity.settings,
    )
    examples = prepared.sets[split]
    if name.fold is not None:
        examples = examples.take(all_rows(prepared.folds[name.fold])[split])
    with jax.enable_x64(settings["dtype"] == "float64"):
        counts = confusion_matrix(
            result.params_at(best, c), examples, result.standardizer_of(best), settings["precision"]
        )
    classes, numbered = result.about["classes"], len(result.about["classes"]) <= MAX_NUMBERED
    title = f"{result.about['label']}, {split}: predictions for each class\n" + ", ".join(
        [*configuration_symbols(result, c), replicate_name(result, best), f"{settings['loss']} loss"]
    )
    figure = figures.plot_confusion(counts, classes, title, numbered)
    return figure, [] if numbered else [_pairs_table(counts, classes, title.replace("\n", ", "))]


def _pairs_table(counts: Float[np.ndarray, "K K"], classes: Sequence[str], title: str) -> Table:
    """Return the pairs of classes that are confused most often, most first."""
    wrong = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED_PAIRS]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        count = wrong[true, predicted]
        if count > 0:
            numbers = tables.number_cell(int(count)), tables.percent(count / counts[true].sum())
            rows.append([Cell(classes[true]), Cell(classes[predicted]), *numbers])
    columns = ["true class", "predicted", "examples", "% of the class"]
    return Table("confusions", f"Most frequent confusions, {title}:", columns, *tables.split_cells(rows))
