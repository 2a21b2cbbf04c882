"""Table 1: softmax regression under four pairs of learning rate and L2 strength, and Figures 1-3.

    python -m experiments.table1

trains on data_batch_1, validates on data_batch_2, 40 epochs, batch 100, five seeds: 40 s on 2 cores.
--recipe=reference is the plain recipe of NumPy code instead: its initial weights of seed 42, the order of the
files, float64; 23 s.

Writes to --out: config.json, results.csv, history.csv (losses of every epoch are full passes),
best_params.npz, tables.json; samples (Figure 1), curves (Figure 2) and weights (Figure 3), each as .png and
.svg.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import plots, table
from experiments.conduct import conduct
from experiments.flags import define_axis, define_pairs, define_run
from experiments.run import Run
from experiments.settings import Variant, from_flags
from experiments.shell import launch
from experiments.table import Table
from linear_cifar.config import Config

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command."""
    define_pairs(
        "eta_lam", ((0.1, 0.0), (0.001, 0.0), (0.001, 0.1), (0.001, 1.0)), "the rows, pairs of η and λ"
    )
    define_axis("batch", int, (100,), "mini-batch size")
    define_run(
        epochs=40, train="batch1", flip=False, seeds=5, watch=("train",), recipes=("report", "reference")
    )


def main() -> None:
    """Trains the rows."""
    configs = dict.fromkeys(Config(eta, batch, lam) for eta, lam in FLAGS.eta_lam for batch in FLAGS.batch)
    conduct("table1", [Variant("table1", from_flags(), tuple(configs))], present, needs_all=True)


def present(folder: Path, runs: Sequence[Run]) -> list[Table]:
    """Figures 1-3 and the table; of several seeds, the rows compared seed by seed too."""
    (run,) = runs
    plots.samples(folder / "samples", run.dataset)
    plots.costs(folder / "curves", run)
    plots.weights(folder / "weights", run)
    rows = [
        [f"{config.eta:g}", str(config.batch), f"{config.lam:g}", *table.accuracies(run, c)]
        for c, config in enumerate(run.configs)
    ]
    title = f"Table 1: {table.heading(run)}, accuracy in %:"
    tables = [Table("table1", title, ["eta", "batch", "lam", "train", "val", "test"], rows)]
    return tables + [table.ranking(run)] * (len(run.settings.seeds) > 1)


if __name__ == "__main__":
    launch(define_flags, main)
