"""Tables of results: on the terminal, in tables.json, in tables.tex and in the report."""

import itertools
import math
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from experiments.artifacts.measures import mean_weights_intervals
from linear_cifar.comparison import Comparison
from linear_cifar.config import AXES
from linear_cifar.data.prepare import Data
from linear_cifar.moderation import MIN_CONFIGS
from linear_cifar.result import TEST, Result
from linear_cifar.uncertainty import CONFIDENCE, Estimate, Selection, best_per_seed

# Rows of a table that are printed.
PRINTED_ROWS = 100
# An accuracy's interval is written as ± where its halves differ by at most this share of it. Both ends of a
# difference are written, so that it is seen whether 0 is between them.
SYMMETRIC = 0.05
# With so many seeds a pair's own variance between seeds is known well enough.
ENOUGH = 10
# The column of the differences from the best, whose intervals allow for all comparisons, see `Selection`.
DIFFERENCE = "val − best, simultaneous"
# Marks a configuration, or a file, in the set of `confidence_set`.
MAY_BE_BEST = "may be the best"
# The choice of glmnet's rule on a path.
ONE_ERROR = "largest λ within one standard error of the best"
# What a training size counts.
EXAMPLES, SHOTS = "training examples", "training examples of each class"
# The numbers of a cell, in the unit of its text: one, or a mean with its interval's ends or with `sd`.
Value = float | Mapping[str, float] | None


class Cell(NamedTuple):
    """A cell of a table: its text, and the numbers in it at full precision."""

    text: str
    value: Value = None


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, rows of text, and the values of their cells; accuracies in percent.

    Names of columns are not empty, and each is there once. On a narrow terminal the columns of `optional` are
    left out, the first one first.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: Sequence[Sequence[Value]] = ()
    note: str = ""
    optional: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raise ValueError if something is not text, or names or numbers of columns are wrong."""
        texts = [self.name, self.title, self.note, *self.columns, *self.optional]
        if not all(isinstance(text, str) for text in itertools.chain(texts, *self.rows)):
            raise ValueError("a table that does not hold text")
        if "" in self.columns or len({*self.columns}) < len(self.columns):
            raise ValueError("a table with two columns of one name, or one without a name")
        if {len(row) for row in (*self.rows, *self.values)} - {len(self.columns)}:
            raise ValueError("a table with a row of another length than its columns")

    @property
    def printed(self) -> list[Sequence[str]]:
        """The names of the columns and the first `PRINTED_ROWS` rows, which are printed."""
        return [self.columns, *self.rows[:PRINTED_ROWS]]

    @property
    def notes(self) -> list[str]:
        """The lines below the printed rows."""
        hidden = len(self.rows) - PRINTED_ROWS
        return [f"and {hidden} more, see tables.json"] * (hidden > 0) + self.note.splitlines()

    def format(self, width: int | None = None) -> str:
        """Return the table as it is printed, with no line wider than `width`; None: unlimited.

        The columns of `optional` are left out in their order until the others fit, and a line names them. If
        all are left out and the others do not fit, each row becomes a paragraph. The title and notes wrap.
        """
        limit = width or sys.maxsize
        for count in range(len(self.optional) + 1):
            kept = [c for c, name in enumerate(self.columns) if name not in self.optional[:count]]
            rows = [[row[c] for c in kept] for row in self.printed]
            lines = align(rows).splitlines()
            if max(map(len, lines)) <= limit:
                break
        else:
            pairs = (zip(rows[0], row, strict=True) for row in rows[1:])
            texts = ("; ".join(f"{name}: {cell}" for name, cell in row if cell) for row in pairs)
            lines = [line for text in texts for line in _wrap(text, limit, indent="  ")]
        left_out = f"{width} columns: without {'; '.join(self.optional[:count])}. All are in tables.json."
        notes = [line for text in [left_out] * (count > 0) + self.notes for line in _wrap(text, limit)]
        return "\n".join([*_wrap(self.title, limit), *lines, *notes])


def ranking_table(result: Result, selection: Selection, stops: str = "") -> Table:
    """Return the configurations of a sweep, best first, and notes on the best and on what may be the best.

    Args:
      result: a sweep; with halving, of the configurations that reached the end.
      selection: see `Result.selection`.
      stops: says when halving stopped others, see `describe_stops`.
    """
    names, ranking = shown_axes(result), result.ranking()
    means = {"val by class": "val_class_acc"} | _find_top5(result)
    rows = []
    for rank, c in enumerate(ranking, start=1):
        mean_cells = [_mean_percent(result.final[name][:, c]) for name in means.values()]
        loss = number_cell(float(result.final["val_loss"][:, c].mean()))
        difference = interval_cell(selection.difference[c], format_difference) if rank > 1 else Cell("")
        in_set = selection.may_be_best[c] and len(ranking) > 1
        remark = _describe_end(result, c)
        remark = Cell(", ".join([MAY_BE_BEST] * bool(in_set) + [remark.text] * bool(remark.text)))
        measured = [*accuracies(result, c), *mean_cells, loss, difference]
        rows.append([number_cell(rank), *axis_cells(result, c), *measured, remark])
    accuracy_columns = [f"{split} acc" for split in result.sizes]
    columns = ["rank", *names, *accuracy_columns, *means, "val loss", DIFFERENCE, "remark"]
    optional = [*_further_columns(columns), *means, "val loss", "train acc", DIFFERENCE, "test acc"]
    lines = [_describe_best(result), *[stops] * bool(stops)]
    lines += _describe_selection(result, selection, result.interval("val", ranking[0]))
    note = "\n".join(lines)
    title = f"{interval_heading(result)}, by validation accuracy (%):"
    return Table("ranking", title, columns, *split_cells(rows), note, optional)


def find_one_standard_error(result: Result) -> int:
    """Return the index of the largest λ whose accuracy is within one standard error of the best.

    That is glmnet's rule (Hastie, Tibshirani and Friedman 2009, section 7.10), by the validation accuracy and
    its standard error over the examples.
    """
    lams = np.array([config.lam for config in result.configs])
    accuracy = result.final["val_acc"].mean(axis=0, dtype=np.float64)
    best = result.ranking()[0]
    within = accuracy >= accuracy[best] - np.nan_to_num(result.interval("val", best).stderr)
    return int(np.argmax(np.where(within, lams, -1)))


def take_path(result: Result) -> Result:
    """Return the configurations that differ from the best one in λ only."""
    best = result.configs[result.ranking()[0]]
    alike = [c for c, config in enumerate(result.configs) if config.replace(lam=best.lam) == best]
    return result.take(alike)


def describe_path(result: Result) -> str:
    """Say which λ the one-standard-error rule takes, and which runs have no minimum or are not at it."""
    lines, path = [], take_path(result)
    if len(path.configs) > 1:
        c = find_one_standard_error(path)
        accuracy = format_interval(path.interval("val", c))
        lines.append(f"The {ONE_ERROR}: {configuration_name(path, c)}, val {accuracy}.")
    counts = {name: int(result.final[name].sum()) for name in ("converged", "separable", "stalled")}
    left = result.final["converged"].size - sum(counts.values())
    for count, words in (
        (counts["separable"], "no minimum (λ is 0 and the classes are separable) and stopped there"),
        (counts["stalled"], "a gradient that rounding keeps above --tolerance, see results.csv"),
        (left, "not converged: give more --max_evaluations"),
    ):
        if count:
            lines.append(f"Of {result.final['converged'].size:,} runs, {count:,} with {words}.")
    evaluations = result.final["evaluations"]
    lines.append(f"Evaluations per run: {evaluations.min():.0f} to {evaluations.max():.0f}.")
    return " ".join(lines)


def describe_stops(result: Result) -> str:
    """Say how many configurations halving stopped after which epoch; nothing if there was no halving."""
    if not result.halved:
        return ""
    epochs, counts = np.unique(result.stopped.max(axis=0), return_counts=True)
    stopped = [
        f"{count:,} after epoch {epoch}" for epoch, count in zip(epochs, counts, strict=True) if epoch > 0
    ]
    diverged = int((~result.stayed_finite & result.stopped.any(axis=0)).sum())
    among = f" ({diverged:,} of them had diverged)" * (diverged > 0)
    return (
        f"Halving stopped {', '.join(stopped) or 'none'}{among}; {len(result.ranking()):,} of "
        f"{len(result.configs):,} configurations reached the end, and only they are ranked."
    )


def comparison_table(
    comparison: Comparison, results: Mapping[str, Result], factors: Mapping[str, Mapping[str, str]]
) -> Table:
    """Return the files that are compared, best first, and notes on what may be the best.

    Args:
      comparison: of those of which a configuration did not diverge.
      results: results by the name of the file.
      factors: what tells the files apart: the same names of factors for each.
    """
    on, selection = comparison.on, comparison.selection
    result, several = results[comparison.names[0]], len(comparison.names) > 1
    names, rows = shown_axes(result), []
    further = [split for split in result.sizes if split.startswith("test") and split != on]
    for rank, i in enumerate(order_files(comparison), start=1):
        file = results[comparison.names[i]]
        others = [interval_cell(file.interval(split, file.ranking()[0])) for split in further]
        known = [Cell(value) for value in factors[comparison.names[i]].values()]
        config = [number_cell(comparison.configs[i][name]) for name in names]
        difference = interval_cell(selection.difference[i], format_difference) if rank > 1 else Cell("")
        remark = Cell(MAY_BE_BEST * bool(selection.may_be_best[i] and several))
        measured = [interval_cell(comparison.accuracy[i]), *others, difference]
        rows.append([number_cell(rank), *known, *config, *measured, remark])
    for name in [name for name in results if name not in comparison.names]:
        known = [Cell(value) for value in factors[name].values()]
        blank = [Cell("-")] * (len(names) + len(further) + 2)
        rows.append([Cell("-"), *known, *blank, Cell("diverged")])
    chosen = f"Each file has its best configuration by validation, and the {on} examples compare the files."
    if on == result.chosen_by:
        chosen = (
            "Other examples choose the configuration whose accuracy is shown. The configuration in the table "
            "is chosen by all examples, and differences are between the best configurations on all."
        )
    best, difference_column = comparison.accuracy[comparison.best], f"{on} − best, simultaneous"
    note = "\n".join([chosen, *_describe_selection(result, selection, best, "files", on)])
    title = f"{interval_heading(result, False, count_files(results))}, by {on} accuracy (%):"
    columns = ["rank", *factors[comparison.names[0]], *names, f"{on} acc"]
    columns += [*(f"{split} acc" for split in further), difference_column, "remark"]
    optional = [*_further_columns(columns), difference_column]
    return Table("compare", title, columns, *split_cells(rows), note, optional)


def order_files(comparison: Comparison) -> list[int]:
    """Return the indices of the files that are compared, best first."""
    return sorted(
        range(len(comparison.names)),
        key=lambda i: (-comparison.selection.difference[i].mean, -comparison.accuracy[i].mean),
    )


def count_files(results: Mapping[str, Result]) -> str:
    """Return how many files are compared, such as "3 files"."""
    return f"{len(results)} file" + "s" * (len(results) > 1)


def refit_table(result: Result, data: Data) -> Table:
    """Return the accuracies of the configurations that were trained again on all training examples.

    Args:
      result: sweep without a validation split, its configurations in the order of the selection.
      data: the sweep's data.
    """
    names, of_mean_weights = shown_axes(result), mean_weights_intervals(result, data)
    means = {f"{split} by class": f"{split}_class_acc" for split in result.marks} | _find_top5(result)
    rows = []
    for c in result.ranking():
        mean_cells = [_mean_percent(result.final[name][:, c]) for name in means.values()]
        mean_weights = [interval_cell(of_mean_weights[c])] if of_mean_weights else []
        remark = _describe_end(result, c)
        measured = [*accuracies(result, c), *mean_cells, *mean_weights]
        rows.append([number_cell(c + 1), *axis_cells(result, c), *measured, remark])
    columns = ["rank", *names, *(f"{split} acc" for split in result.sizes), *means]
    columns += ["mean weights"] * bool(of_mean_weights) + ["remark"]
    note = (
        "mean weights: test accuracy of one classifier, whose weights are the means over the seeds; its "
        f"interval is over {_units(result)}."
    )
    title = (
        f"{interval_heading(result)}, the best by validation, trained again on all "
        f"{data.size('train'):,} training examples (%):"
    )
    optional = [*_further_columns(columns), *means, "train acc", "mean weights"]
    return Table("refit", title, columns, *split_cells(rows), note if of_mean_weights else "", optional)


def sizes_table(comparisons: Mapping[int, Comparison], title: str, unit: str = EXAMPLES) -> Table:
    """Return which file of features is the best with each training size, see `plot_sizes`.

    Notes say from which size on which files are significantly below a better one.
    """
    rows, sizes = [], sorted(comparisons)
    below: dict[int, int] = {}  # the size from which on a file is left out
    for size in sizes:
        names, on, _, accuracy, selection, best = comparisons[size]
        second = order_files(comparisons[size])[1:2]
        behind = [Cell(names[i]) for i in second] or [Cell("")]
        behind += [interval_cell(selection.difference[i], format_difference) for i in second] or [Cell("")]
        count = Cell(f"{selection.may_be_best.sum()} of {len(names)}")
        rows.append([number_cell(size), Cell(names[best]), interval_cell(accuracy[best]), *behind, count])
        below = {i: below.get(i, size) for i in np.flatnonzero(~selection.may_be_best).tolist()}
    note = [
        f"Significantly below the best file from {size:,} {unit} on: {', '.join(found)}."
        for size in sizes
        if (found := [names[i] for i, since in below.items() if since == size])
    ]
    others = ", ".join(name for i, name in enumerate(names) if i not in below)
    confidence = f"{100 * CONFIDENCE:.0f} % confidence"
    note.append(f"With {size:,} {unit} these may be the best ({confidence}, each size by itself): {others}.")
    columns = [unit, "best", f"{on} acc", "next", "next − best, simultaneous", MAY_BE_BEST]
    return Table("sizes", f"{title} (%):", columns, *split_cells(rows), "\n".join(note))


def heading(result: Result, statistic: str = "mean ± standard deviation") -> str:
    """Return the name of the data set and, with several seeds, what is shown over which seeds."""
    over = _describe_replicates(result)
    return str(result.about["label"]) + (f" ({statistic} over {over})" if over else "")


def interval_heading(result: Result, with_train: bool = True, label: str = "") -> str:
    """Return the name of the data set, or another label, and what the intervals of `accuracies` cover.

    Args:
      result: the sweep.
      with_train: whether there are training accuracies, whose intervals are over the seeds only.
      label: what the intervals are of, in place of the data set.
    """
    over = _describe_replicates(result)
    several = len(result.seeds) > 1
    of_train = "; train: seeds" * with_train
    covered = f"{over} and {_units(result)}{of_train}" if several else f"{_units(result)}, for these weights"
    return f"{label or result.about['label']} ({100 * CONFIDENCE:.0f} % intervals over {covered})"


def accuracies(result: Result, config: int) -> list[Cell]:
    """Return the accuracies of one configuration on each split, in percent with their intervals."""
    return [interval_cell(result.interval(split, config)) for split in result.sizes]


def split_cells(rows: Sequence[Sequence[Cell]]) -> tuple[list[list[str]], list[list[Value]]]:
    """Return the texts and the values of rows of cells."""
    return [[cell.text for cell in row] for row in rows], [[cell.value for cell in row] for row in rows]


def format_interval(interval: Estimate, symmetric: float = SYMMETRIC) -> str:
    """Return a share in percent, such as "95.33 ± 2.15" or "99.00 (94.55 to 99.97)"; "-" if it diverged."""
    mean, low, high = (100 * value for value in interval[:3])
    if np.isnan(mean):
        return "-"
    if np.isnan(high - low):
        return f"{mean:.2f}"
    if abs(low + high - 2 * mean) <= symmetric * (high - low):
        return f"{mean:.2f} ± {(high - low) / 2:.2f}"
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def shown_axes(result: Result) -> list[str]:
    """Return the names of the axes on which a configuration of the sweep differs from the defaults."""
    return [
        name
        for name, axis in AXES.items()
        if any(config.get(name, axis.default) != axis.default for config in result.configs)
    ]


def axis_cells(result: Result, config: int) -> list[Cell]:
    """Return a configuration's values on the axes of `shown_axes`."""
    return [number_cell(result.configs[config][name]) for name in shown_axes(result)]


def configuration_name(result: Result, config: int) -> str:
    """Return a configuration's values on the axes of `shown_axes`, such as "eta=0.1 batch=100"."""
    pairs = zip(shown_axes(result), axis_cells(result, config), strict=True)
    return " ".join(f"{name}={cell.text}" for name, cell in pairs)


def configuration_symbols(result: Result, config: int) -> list[str]:
    """Return the same for a figure, such as "η = 0.1" and "B = 100"."""
    pairs = zip(shown_axes(result), axis_cells(result, config), strict=True)
    return [f"{AXES[name].symbol} = {cell.text}" for name, cell in pairs]


def replicate_name(result: Result, replicate: int) -> str:
    """Return the seed and the fold of a replicate, by its index, if there are any."""
    name = result.identity.replicates[replicate]
    words = ["exact minima"] if result.identity.is_exact else [f"seed {name.seed}"]
    return ", ".join([*words, *[f"fold {name.fold}"] * (name.fold is not None)])


def percent(shares: ArrayLike) -> Cell:
    """Return a share in percent, or mean ± standard deviation of several; "-" if one is NaN."""
    values = 100 * np.atleast_1d(np.asarray(shares, np.float64))
    if np.isnan(values).any() or len(values) == 1:
        return _mean_percent(shares)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    return Cell(f"{mean:.2f} ± {sd:.2f}", {"mean": mean, "sd": sd})


def number_cell(value: float) -> Cell:
    """Return a whole number in full, or another one with four significant digits; "-" if it is NaN."""
    text = str(value) if isinstance(value, Integral) else "-" if math.isnan(value) else f"{value:.4g}"
    return Cell(text, value if math.isfinite(value) else None)


def interval_cell(interval: Estimate, write: Callable[[Estimate], str] = format_interval) -> Cell:
    """Return a share or a difference, in percent with its interval, as `write` writes it."""
    mean, low, high = (100 * float(value) for value in interval[:3])
    numbers: Value = mean if math.isnan(high - low) else {"mean": mean, "low": low, "high": high}
    return Cell(write(interval), None if math.isnan(mean) else numbers)


def format_difference(interval: Estimate) -> str:
    """Return a difference in points and the ends of its interval, with its sign."""
    text = format_interval(interval, symmetric=0)
    return text if text.startswith("-") else f"+{text}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equally many cells as lines, in which all columns but the last are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]] for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Return a text as lines of at most `width`; all but the first begin with `indent`."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _find_top5(result: Result) -> dict[str, str]:
    """Return the columns of the top-5 accuracies that were measured, and the names of the measurements."""
    names = {f"{split} top-5": f"{split}_top5" for split in result.marks}
    return {column: name for column, name in names.items() if name in result.final}


def _further_columns(columns: Sequence[str]) -> list[str]:
    """Return the columns of further test sets, the means first, which a narrow terminal leaves out first."""
    return [column for column in reversed(columns) if column.startswith(f"{TEST}_")]


def _mean_percent(shares: ArrayLike) -> Cell:
    return interval_cell(Estimate(float(np.mean(shares, dtype=np.float64)), np.nan, np.nan))


def _describe_end(result: Result, config: int) -> Cell:
    """Say that a configuration diverged, or that it is no minimum."""
    epochs = result.diverged[:, config]
    if epochs.any():
        return Cell(f"diverged in epoch {epochs[epochs > 0].min()}")
    if not result.identity.is_exact or result.final["converged"][:, config].all():
        return Cell("")
    ends = {"separable": "separable", "stalled": "at the limit of its digits"}
    return Cell(
        next((words for name, words in ends.items() if result.final[name][:, config].any()), "not converged")
    )


def _describe_replicates(result: Result) -> str:
    """Return over which seeds and folds the results scatter; nothing if there is one replicate."""
    seeds, folds = result.seeds, result.folds
    words = [f"seeds {seeds[0]}-{seeds[-1]}"] * (len(seeds) > 1) + [f"{folds} folds"] * (folds > 0)
    return ", ".join(words)


def _units(result: Result) -> str:
    """Return what other data would vary by: examples, or groups of them."""
    return "groups" if result.groups else "examples"


def _describe_selection(
    result: Result, selection: Selection, best: Estimate, what: str = "configurations", on: str = "validation"
) -> list[str]:
    """Return lines on the set of the best, and on what the choice of the best reaches.

    `best` is the accuracy of the best of `what`, which examples called `on` choose.
    """
    C = len(selection.difference)
    if np.isnan(best.mean):
        return []
    lines = []
    if C > 1:
        num_seeds, num_best = len(result.seeds), int(selection.may_be_best.sum())
        units = _units(result)
        covers = f"other seeds and {units}" if num_seeds > 1 else f"other {units}, for these weights,"
        scope = " of those that reached the end" if result.halved else ""
        lines.append(
            f"{num_best} of {C} {what} may be the best: with {100 * CONFIDENCE:.0f} % confidence the "
            f"best{scope} on {covers} is among them: those whose simultaneous interval reaches 0."
        )
        finite = sum(not np.isnan(difference.mean) for difference in selection.difference)
        if 1 < num_seeds < ENOUGH and finite < MIN_CONFIGS:
            fewer = f"fewer than {MIN_CONFIGS} {what} and {ENOUGH} seeds"
            lines[-1] += f" With {fewer} the set may be large."
    if np.isfinite(selection.expected):
        parts = "folds" if result.folds else f"parts of the {on} {_units(result)}"
        chosen, expected = (_mean_percent(mean).text for mean in (best.mean, selection.expected))
        lines.append(
            f"Choosing the best is expected to reach {expected} (cross-validated over {selection.parts} "
            f"{parts}). The chosen one's own {on} accuracy is {chosen}"
            + (", which includes the luck of being chosen." if chosen != expected else ", too.")
        )
    if result.folds:
        lines.append(
            "With folds no interval is exact, because their training sets overlap (Bengio & Grandvalet 2004)."
        )
    return lines


def _describe_best_per_seed(result: Result) -> str:
    """Return the test accuracy of the configurations that each seed alone would choose."""
    if len(result.seeds) == 1 or "test" not in result.sizes or result.halved:
        return ""  # halving has chosen by all seeds together
    chosen = best_per_seed(result.final["val_loss"], result.final["val_acc"])
    accuracy = result.final["test_acc"][np.arange(len(chosen)), chosen]
    return f"; each seed's own best: test {_mean_percent(accuracy).text}"


def _describe_best(result: Result) -> str:
    best = result.ranking()[0]
    if not result.stayed_finite[best]:
        return f"{result.about['label']}: every configuration diverged"
    name = configuration_name(result, best)
    measured = ", ".join(
        f"{split} {cell.text}" for split, cell in zip(result.sizes, accuracies(result, best), strict=True)
    )
    by_class = ", ".join(
        f"{name.removesuffix('_class_acc')} {_mean_percent(values[:, best]).text}"
        for name, values in result.final.items()
        if name.endswith("_class_acc")
    )
    own_best = _describe_best_per_seed(result)
    return f"{result.about['label']}, best: {name}: {measured}; mean per class: {by_class}{own_best}."
