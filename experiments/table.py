"""Tables: on the terminal, in tables.json and for the report."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from experiments.run import Run
from linear_cifar.comparison import Comparison, compare, select

# Rows of a table on the terminal.
SHOWN = 100
# Marks a configuration that may be as good as the best.
UNTOLD = "not told apart"
_AGAINST = (
    "val − best: mean ± standard error, paired by seed; won: seeds above the best; "
    f"{UNTOLD}: the 95 % interval (Student's t) holds 0."
)


class Table(NamedTuple):
    """A title, the columns' names and rows of as many cells of text; accuracies are in percent."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        """As it stands on the terminal, of very many rows the first."""
        left_out = len(self.rows) - SHOWN
        further = [f"and {left_out} more, see tables.json"] * (left_out > 0)
        rows = align([self.columns, *self.rows[:SHOWN]])
        return "\n".join([self.title, rows, *further, *[self.note] * bool(self.note)])


def ranking(run: Run) -> Table:
    """The configurations of a sweep, best first, and a note on the best.

    Of several seeds each is compared with the best, and those that can't be told from it are marked.
    """
    shown, several = _varying(run), len(run.settings.seeds) > 1
    ranking = run.ranking
    compared = compare(run.final["val"].accuracy, ranking[0])
    body = []
    for rank, c in enumerate(ranking, start=1):
        settings = [f"{value:g}" for name, value in run.configs[c]._asdict().items() if name in shown]
        against = _against_best(compared, c, len(run.settings.seeds)) if rank > 1 else ["", ""]
        words = _divergence(run, c)
        if several and rank > 1 and not compared.apart[c]:
            words = UNTOLD
        body.append([str(rank), *settings, *accuracies(run, c), _loss(run, c), *against * several, words])
    against = ["val − best", "won"] if several else []
    columns = ["", *shown, "train acc", "val acc", "test acc", "val loss", *against, ""]
    note = _best(run)
    if several:
        note = f"{note}{_selected(run)}.\n{_AGAINST}"
    return Table("ranking", f"{heading(run)}, by validation accuracy (%):", columns, body, note)


def heading(run: Run, shown: str = "mean ± standard deviation") -> str:
    """The data set, and what is shown over which seeds."""
    seeds = run.settings.seeds
    over = f" ({shown} over seeds {seeds[0]}-{seeds[-1]})" if len(seeds) > 1 else ""
    return run.dataset.name + over


def accuracies(run: Run, config: int) -> list[str]:
    """Of the three splits, in percent."""
    return [percent(run.final[split].accuracy[:, config]) for split in ("train", "val", "test")]


def name_of(run: Run, config: int) -> str:
    """η, batch and λ of a configuration, and what else is not 0 everywhere in its sweep."""
    shown = _varying(run)
    return " ".join(
        f"{name}={value:g}" for name, value in run.configs[config]._asdict().items() if name in shown
    )


def percent(shares: ArrayLike) -> str:
    """A share, or mean ± standard deviation of several, in percent; - where one is undefined."""
    values = 100 * np.atleast_1d(np.asarray(shares, np.float64))
    if np.isnan(values).any():
        return "-"
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells, all but the last to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    )


def _varying(run: Run) -> list[str]:
    """η, batch and λ, and further settings that are not 0 in all configurations."""
    return [name for name in run.configs[0]._fields if name in ("eta", "batch", "lam") or _any(run, name)]


def _any(run: Run, name: str) -> bool:
    return any(getattr(config, name) for config in run.configs)


def _loss(run: Run, config: int) -> str:
    loss: Any = run.final["val"].loss[:, config].mean()
    return "-" if np.isnan(loss) else f"{loss:.4g}"


def _divergence(run: Run, config: int) -> str:
    epochs = [run.diverged(s, config) for s in range(len(run.settings.seeds))]
    first = min((epoch for epoch in epochs if epoch), default=None)
    return f"diverged in epoch {first}" if first else ""


def _against_best(compared: Comparison, config: int, seeds: int) -> list[str]:
    """The paired difference in points, and how many of the seeds were won."""
    difference, error = 100 * compared.difference[config], 100 * compared.error[config]
    wins = f"{compared.wins[config]}/{seeds}"
    return ["-" if np.isnan(difference) else f"{difference:.2f} ± {error:.2f}", wins]


def _selected(run: Run) -> str:
    """Test accuracy of what each seed would choose, beside that of what all of them do."""
    if not run.ended[run.ranking[0]]:
        return ""
    chosen = select(*run.final["val"])
    test = run.final["test"].accuracy[np.arange(len(chosen)), chosen]
    return f"; each seed's own best: test {percent(test)}"


def _best(run: Run) -> str:
    best = run.ranking[0]
    if not run.ended[best]:
        return f"{run.dataset.name}: every configuration diverged"
    train, val, test = accuracies(run, best)
    return f"{run.dataset.name}, best: {name_of(run, best)}: train {train}, val {val}, test {test}"
