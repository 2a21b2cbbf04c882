"""Tables of results: on the terminal, in tables.json and in the report."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from experiments.runner.sweeps import SweepResult
from linear_cifar.comparison import Comparison, best_per_seed, compare

# Rows of a table that are printed.
PRINTED_ROWS = 100
# Marks a configuration that may be as good as the best.
NOT_SIGNIFICANT = "not significantly different"
_COMPARISON_NOTE = (
    "val − best: mean ± standard error, paired by seed; won: seeds above the best; "
    f"{NOT_SIGNIFICANT}: the 95 % interval (Student's t) includes 0."
)


class Table(NamedTuple):
    """A title, the names of the columns, and rows of as many cells of text; accuracies are in percent."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        """Return the table as it is printed: its first `PRINTED_ROWS` rows."""
        hidden = len(self.rows) - PRINTED_ROWS
        more = [f"and {hidden} more, see tables.json"] if hidden > 0 else []
        rows = align([self.columns, *self.rows[:PRINTED_ROWS]])
        return "\n".join([self.title, rows, *more, *[self.note] * bool(self.note)])


def ranking_table(result: SweepResult) -> Table:
    """Return the configurations of a sweep, best first, and a note on the best.

    With several seeds each configuration is compared with the best, and those that do not differ
    significantly from it are marked.
    """
    num_seeds, varying, ranking = len(result.settings.seeds), _varying_fields(result), result.ranking
    comparison = compare(result.final["val"].accuracy, ranking[0])
    rows = []
    for place, c in enumerate(ranking, start=1):
        values = [f"{value:g}" for name, value in result.configs[c]._asdict().items() if name in varying]
        difference, remark = [], _describe_divergence(result, c)
        if num_seeds > 1:
            difference = _describe_difference(comparison, c, num_seeds) if place > 1 else ["", ""]
            if place > 1 and not comparison.significant[c]:
                remark = NOT_SIGNIFICANT
        by_class = percent(result.class_accuracy["val"][:, c])
        measured = [*accuracies(result, c), by_class, _mean_loss(result, c)]
        rows.append([str(place), *values, *measured, *difference, remark])
    difference_columns = ["val − best", "won"] if num_seeds > 1 else []
    accuracy_columns = [f"{split} acc" for split in result.splits]
    columns = ["", *varying, *accuracy_columns, "val by class", "val loss", *difference_columns, ""]
    note = _describe_best(result)
    if num_seeds > 1:
        note = f"{note}{_describe_best_per_seed(result)}.\n{_COMPARISON_NOTE}"
    return Table("ranking", f"{heading(result)}, by validation accuracy (%):", columns, rows, note)


def heading(result: SweepResult, statistic: str = "mean ± standard deviation") -> str:
    """Return the name of the data set and, with several seeds, what is shown over which seeds."""
    seeds = result.settings.seeds
    over_seeds = f" ({statistic} over seeds {seeds[0]}-{seeds[-1]})" if len(seeds) > 1 else ""
    return result.dataset.label + over_seeds


def accuracies(result: SweepResult, config: int) -> list[str]:
    """Return the accuracies of one configuration on each split, in percent."""
    return [percent(result.final[split].accuracy[:, config]) for split in result.splits]


def configuration_name(result: SweepResult, config: int) -> str:
    """Return η, batch and λ of a configuration, and q and momentum if they are not 0 in all of its sweep."""
    varying = _varying_fields(result)
    fields = result.configs[config]._asdict()
    return " ".join(f"{name}={value:g}" for name, value in fields.items() if name in varying)


def percent(shares: ArrayLike) -> str:
    """Return a share in percent, or mean ± standard deviation of several; "-" if one is NaN."""
    values = 100 * np.atleast_1d(np.asarray(shares, np.float64))
    if np.isnan(values).any():
        return "-"
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equally many cells as lines, in which all columns but the last are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]] for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _varying_fields(result: SweepResult) -> list[str]:
    """Return the names of η, batch and λ, and of other hyperparameters that are not 0 everywhere."""
    fields = result.configs[0]._fields
    used = {name for name in fields if any(getattr(config, name) for config in result.configs)}
    return [name for name in fields if name in used | {"eta", "batch", "lam"}]


def _mean_loss(result: SweepResult, config: int) -> str:
    loss = float(result.final["val"].loss[:, config].mean())
    return "-" if np.isnan(loss) else f"{loss:.4g}"


def _describe_divergence(result: SweepResult, config: int) -> str:
    epochs = [result.diverged(s, config) for s in range(len(result.settings.seeds))]
    first = min((epoch for epoch in epochs if epoch), default=None)
    return f"diverged in epoch {first}" if first else ""


def _describe_difference(comparison: Comparison, config: int, num_seeds: int) -> list[str]:
    """Return the paired difference from the best in points, and the number of seeds won."""
    difference, stderr = 100 * comparison.difference[config], 100 * comparison.stderr[config]
    wins = f"{comparison.wins[config]}/{num_seeds}"
    return ["-" if np.isnan(difference) else f"{difference:.2f} ± {stderr:.2f}", wins]


def _describe_best_per_seed(result: SweepResult) -> str:
    """Return the accuracy on the last split of the configurations that each seed alone would choose."""
    if not result.stayed_finite[result.ranking[0]]:
        return ""
    chosen = best_per_seed(*result.final["val"])
    split = result.splits[-1]
    accuracy = result.final[split].accuracy[np.arange(len(chosen)), chosen]
    return f"; each seed's own best: {split} {percent(accuracy)}"


def _describe_best(result: SweepResult) -> str:
    best = result.ranking[0]
    if not result.stayed_finite[best]:
        return f"{result.dataset.label}: every configuration diverged"
    name = configuration_name(result, best)
    measured = ", ".join(
        f"{split} {accuracy}" for split, accuracy in zip(result.splits, accuracies(result, best), strict=True)
    )
    by_class = ", ".join(
        f"{split} {percent(result.class_accuracy[split][:, best])}" for split in result.splits[1:]
    )
    return f"{result.dataset.label}, best: {name}: {measured}; mean per class: {by_class}"
