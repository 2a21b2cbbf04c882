"""A run's configurations as a table for the terminal."""

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike

from experiments.run import Run


def render(run: Run, dataset: str) -> str:
    """The configurations best first, accuracies in percent, and a line on the best."""
    header = ["", "eta", "batch", "lam", "train acc", "val acc", "test acc", "val loss", ""]
    body = []
    for rank, i in enumerate(run.ranking, start=1):
        eta, batch, lam = run.configs[i]
        epoch = run.diverged[i]
        accuracies = [_percent(split.accuracy[i]) for split in (run.train, run.val, run.test)]
        loss = "-" if np.isnan(run.val.loss[i]) else f"{run.val.loss[i]:.4g}"
        note = f"diverged in epoch {epoch}" if epoch else ""
        body.append([str(rank), f"{eta:g}", str(batch), f"{lam:g}", *accuracies, loss, note])
    return "\n".join([f"{dataset}, by validation accuracy (%):", align([header, *body]), _best(run, dataset)])


def _best(run: Run, dataset: str) -> str:
    best = run.ranking[0]
    if run.diverged[best]:
        return f"{dataset}: every configuration diverged"
    eta, batch, lam = run.configs[best]
    train, val, test = (_percent(split.accuracy[best]) for split in (run.train, run.val, run.test))
    return f"{dataset}, best: eta={eta:g} batch={batch} lam={lam:g}: train {train}, val {val}, test {test}"


def _percent(share: ArrayLike) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.2f}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells, all but the last to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)) + f"  {row[-1]}"
        for row in rows
    )
