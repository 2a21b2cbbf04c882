"""Search over ranges of the hyperparameters, in place of a grid; with --halving, stops the least promising.

    python -m experiments.search --eta=1e-4:1 --lam=1e-6:0.1 --q=0:0.9 --batch=50,100,200 --halving=3

draws 256 points of a Sobol sequence. After epochs 2, 6 and 18 only the best third of each batch
size trains on. Without --halving all points train to the end. More --points extend the same search in the
same --out. The range `1e-6:0.1:0.25` gives a quarter of the points to 0.

It writes to --out:

- config.json, best_params.npz, tables.json
- results.csv, a row per run, and history.csv, a row per run and epoch
- blocks, with the results of all runs, such as which validation and test examples each predicts right
- axes (validation accuracy along each axis), effort (the best accuracy so far against the work), differences
  and confusion, as figures; with images also weights, those of the best configuration

experiments/README.md helps to choose between this and the grid.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.artifacts import tables
from experiments.cli import flags
from experiments.cli.experiment import Rendered, run_experiment
from experiments.cli.launch import launch
from experiments.runner.stages import REFIT, Sweep
from linear_cifar.config import Range
from linear_cifar.data.prepare import Data
from linear_cifar.result import Result


def define_flags() -> None:
    """Define the flags of this command."""
    flags.define_points(eta=Range(1e-4, 1.0), batch=(50, 100, 200, 400), lam=Range(1e-6, 0.1))
    flags.define_settings(epochs=40, train="full", flip=True, selects=True, halves=True, bracket=256)


def main() -> None:
    """Train the points, and then the best again where the flags ask for it."""
    run_experiment("search", lambda: flags.stages_from_flags(make_sweep()), render)


def make_sweep() -> Sweep:
    """Return the sweep that the flags describe."""
    configs = flags.points_from_flags()
    return flags.sweep_from_flags("search", configs, **flags.halving_from_flags(configs))


def render(folder: Path, results: Sequence[Result], data: Mapping[str, Data]) -> Rendered:
    """Draw the figures; return the ranking of what reached the end, and the accuracies of the refits."""
    from experiments.artifacts import figures, search_figures

    whole, refits = results[0], results[1:]
    result = whole.take_finished()
    selection, several = result.selection(), len(result.configs) > 1
    drawn = {
        "axes": search_figures.plot_axes(whole),
        "effort": search_figures.plot_effort(whole),
        "differences": figures.plot_differences(result, selection) if several else None,
        "weights": figures.plot_best_weights(result),
    }
    refit_tables = [tables.refit_table(refit, data[REFIT]) for refit in refits]
    return drawn, [tables.ranking_table(result, selection, tables.describe_stops(whole)), *refit_tables]


if __name__ == "__main__":
    launch(define_flags, main)
