"""Search over ranges of the hyperparameters, in place of a grid; with --halving, stops what cannot win.

    python -m experiments.search --eta=1e-4:1 --lam=1e-6:0.1 --q=0:0.9 --batch=50,100,200 --halving=3

draws 256 points of a scrambled Sobol sequence. After epochs 2, 6 and 18 only the best third of each batch
size trains on. Without --halving all points train to the end. More --points extend the same search in the
same --out. The range `1e-6:0.1:0.25` gives a quarter of the points to 0.

It writes to --out:

- config.json, best_params.npz, tables.json
- results.csv, a row per run, and history.csv, a row per run and epoch
- correct.npz, which validation and test examples each run predicts right; not of runs that were stopped
- axes (validation accuracy along each axis), effort (the best accuracy so far against the work), differences
  and confusion, as .png and .svg; with images also weights, those of the best configuration

experiments/README.md helps to choose between this and the grid.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.artifacts import figures, search_figures, tables
from experiments.artifacts.intervals import describe_selection, mean_weights_intervals
from experiments.cli import flags, ranges
from experiments.cli.experiment import run_experiment
from experiments.cli.launch import launch
from experiments.runner.stages import fixed_stage, refit_stage
from experiments.runner.sweeps import Sweep, SweepResult


def define_flags() -> None:
    """Define the flags of this command."""
    ranges.define_ranges(eta="1e-4:1", batch="50,100,200,400", lam="1e-6:0.1", q="0", momentum="0")
    flags.define_settings(epochs=40, train="full", flip=True, selects=True, halves=True, bracket=256)


def main() -> None:
    """Train the points, and then the best again where the flags ask for it."""
    refits = flags.refits_from_flags()
    run_experiment("search", [fixed_stage([make_sweep()]), *[refit_stage(refits)] * (refits > 0)], render)


def make_sweep() -> Sweep:
    """Return the sweep that the flags describe."""
    configs = ranges.points_from_flags()
    return flags.sweep_from_flags("search", configs, **ranges.halving_from_flags(configs))


def render(folder: Path, results: Sequence[SweepResult]) -> list[tables.Table]:
    """Draw the figures; return the ranking of what reached the end, and the accuracies of the refits."""
    whole, refits = results[0], results[1:]
    search_figures.plot_axes(folder / "axes", whole)
    search_figures.plot_effort(folder / "effort", whole)
    result = whole.take_finished()
    selection = describe_selection(result)
    if len(result.configs) > 1:
        figures.plot_differences(folder / "differences", result, selection)
    figures.plot_best_weights(folder / "weights", result)
    refit_tables = [tables.refit_table(refit, mean_weights_intervals(refit)) for refit in refits]
    return [tables.ranking_table(result, selection, tables.describe_stops(whole)), *refit_tables]


if __name__ == "__main__":
    launch(define_flags, main)
