"""Table 1: softmax regression under four pairs of learning rate and L2 strength, and Figures 1-3.

    python -m experiments.table1

trains on data_batch_1 and validates on data_batch_2, for 40 epochs with batches of 100 and five seeds: 40 s
on 2 cores. With --recipe=reference it trains as the course's plain NumPy code does, in 23 s: initial weights
from NumPy's generator with seed 42, images in the order of the files, float64.

It writes to --out:

- config.json, results.csv, best_params.npz, tables.json
- history.csv, whose training losses are measured after each epoch on all training images
- samples (Figure 1), curves (Figure 2) and weights (Figure 3), as figures
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from experiments.artifacts import tables
from experiments.artifacts.tables import Table
from experiments.cli.experiment import Rendered, run_experiment
from experiments.cli.flags import (
    define_axes,
    define_pairs,
    define_settings,
    grid_from_flags,
    sweep_from_flags,
)
from experiments.cli.launch import launch
from experiments.runner.stages import fixed_stage
from linear_cifar.data.prepare import Data
from linear_cifar.result import ALL, Result

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this command."""
    define_pairs(
        "eta_lam", ((0.1, 0.0), (0.001, 0.0), (0.001, 0.1), (0.001, 1.0)), "rows of the table, as pairs η:λ"
    )
    define_axes(omit=("eta", "lam"), batch=(100,))
    define_settings(
        epochs=40, train="batch1", flip=False, seeds=5, evaluate=("train",), recipes=("report", "reference")
    )


def main() -> None:
    """Train the rows of the table."""
    configs = (rest.replace(eta=eta, lam=lam) for eta, lam in FLAGS.eta_lam for rest in grid_from_flags())
    sweep = sweep_from_flags("table1", tuple(dict.fromkeys(configs)))
    run_experiment("table1", lambda: [fixed_stage([sweep])], render, ALL)


def render(folder: Path, results: Sequence[Result], data: Mapping[str, Data]) -> Rendered:
    """Draw Figures 1-3 and return the table, and a ranking of its rows."""
    from experiments.artifacts import figures

    (result,) = results
    drawn = {
        "samples": figures.plot_samples(data["table1"].dataset),
        "curves": figures.plot_costs(result),
        "weights": figures.plot_weights(result, range(len(result.configs))),
    }
    rows = [
        [*tables.axis_cells(result, c), *tables.accuracies(result, c)] for c in range(len(result.configs))
    ]
    title = f"Table 1: {tables.interval_heading(result)}, accuracy in %:"
    columns = [*tables.shown_axes(result), "train", "val", "test"]
    table = Table("table1", title, columns, *tables.split_cells(rows), optional=["train"])
    return drawn, [table, tables.ranking_table(result, result.selection())]


if __name__ == "__main__":
    launch(define_flags, main)
