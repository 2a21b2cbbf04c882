"""Grid search over learning rate, batch size and L2 strength; all configurations train side by side.

    python -m experiments.grid --lam=0.1

trains all learning rates and batch sizes at λ = 0.1: 16 configurations for 40 epochs, about 1 minute on 2
cores. Without --lam it trains the 48 configurations of the report, with three values of λ, in 2 minutes.

It writes to --out:

- config.json, best_params.npz, tables.json
- results.csv, a row per run, and history.csv, a row per run and epoch
- blocks, with the results of all runs, such as which validation and test examples each predicts right
- heatmap, differences (from the best, with intervals), curves and confusion as figures; with images
  also weights, those of the best configuration

    python -m experiments.grid --folds=5 --seeds=2

validates by five folds of the training images, the published batch files, in place of the last 1,000 images.
It then trains the best configuration again on all of them and tests it, in 13 minutes.

    python -m experiments.grid --data=features.npz

trains on your own features instead, see experiments/FEATURES.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.artifacts import tables
from experiments.cli import flags
from experiments.cli.experiment import Rendered, run_experiment
from experiments.cli.launch import launch
from experiments.runner.stages import REFIT, Sweep
from linear_cifar.data.prepare import Data
from linear_cifar.result import Result


def define_flags() -> None:
    """Define the flags of this command."""
    flags.define_axes(eta=(0.001, 0.01, 0.1, 1.0), batch=(50, 100, 200, 400), lam=(0.0, 0.1, 1.0))
    flags.define_settings(epochs=40, train="full", flip=True, selects=True)


def main() -> None:
    """Train the grid, and then its best configurations again where the flags ask for it."""
    run_experiment("grid", lambda: flags.stages_from_flags(make_sweep()), render)


def make_sweep() -> Sweep:
    """Return the sweep that the flags describe."""
    return flags.sweep_from_flags("grid", flags.grid_from_flags())


def render(folder: Path, results: Sequence[Result], data: Mapping[str, Data]) -> Rendered:
    """Draw the figures; return the grid's ranking, and the accuracies of the configurations trained again."""
    from experiments.artifacts import figures

    result, refits = results[0], results[1:]
    selection = result.selection()
    several = len(result.configs) > 1
    drawn = {
        "heatmap": figures.plot_heatmap(result, selection),
        "differences": figures.plot_differences(result, selection) if several else None,
        "curves": figures.plot_curves(result),
        "weights": figures.plot_best_weights(result),
    }
    refit_tables = [tables.refit_table(refit, data[REFIT]) for refit in refits]
    return drawn, [tables.ranking_table(result, selection), *refit_tables]


if __name__ == "__main__":
    launch(define_flags, main)
