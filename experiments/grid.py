"""Grid search over learning rate, batch size and L2 strength; all configurations train side by side.

    python -m experiments.grid --lam=0.1

sweeps learning rates and batch sizes at λ = 0.1: 16 configurations, 40 epochs, about 1 minute on 2 cores.
Without --lam, λ is swept too: the 48 configurations of the report, 2 minutes.

Writes to --out: config.json, results.csv (a row per configuration and seed), history.csv (a row per
configuration, seed and epoch), best_params.npz, tables.json, heatmap and curves (.png, .svg).
"""

from collections.abc import Sequence
from pathlib import Path

from experiments import plots, table
from experiments.conduct import conduct
from experiments.flags import define_grid, define_run, grid_of_flags
from experiments.run import Run
from experiments.settings import Variant, from_flags
from experiments.shell import launch
from experiments.table import Table


def define_flags() -> None:
    """Defines the flags of this command."""
    define_grid(eta=(0.001, 0.01, 0.1, 1.0), batch=(50, 100, 200, 400), lam=(0.0, 0.1, 1.0))
    define_run(epochs=40, train="full", flip=True)


def main() -> None:
    """Runs the sweep."""
    conduct("grid", [variant()], present)


def variant() -> Variant:
    """The sweep that the flags say."""
    return Variant("grid", from_flags(), grid_of_flags())


def present(folder: Path, runs: Sequence[Run]) -> list[Table]:
    """The grid's two figures and its ranking."""
    (run,) = runs
    plots.heatmap(folder / "heatmap", run)
    plots.curves(folder / "curves", run)
    return [table.ranking(run)]


if __name__ == "__main__":
    launch(define_flags, main)
