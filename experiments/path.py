"""Find the minimum of the objective for a path of λ, exactly, in place of training towards it.

    python -m experiments.path --lam=1e-6:1 --points=32

solves 32 problems at once, see `linear_cifar.solver`: on the 49,000 images in half a minute on 2 cores. The
minimum has no learning rate, batch size, seed or flips. --lam=0.001,0.1 solves for these values.

It writes to --out:

- config.json, best_params.npz, tables.json
- results.csv, a row per run, with its objective, the norm of its gradient and whether it has converged
- blocks, with the results of all runs, such as which validation and test examples each predicts right
- path (loss and accuracy against λ), differences (from the best, with intervals) and confusion, as figures;
  with images also weights, along the path

    python -m experiments.path --data=features.npz --folds=5

solves for your own features, see experiments/FEATURES.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.artifacts import tables
from experiments.cli import flags
from experiments.cli.experiment import Rendered, run_experiment
from experiments.cli.launch import launch
from experiments.cli.recipes import PATH_LAMS
from experiments.runner.stages import REFIT
from linear_cifar.data.prepare import Data
from linear_cifar.result import Result

# Rows of the figure of weights.
SHOWN = 5


def define_flags() -> None:
    """Define the flags of this command."""
    flags.define_path_axes(omit=flags.DESCENT_AXES, lam=PATH_LAMS)
    flags.define_settings(train="full", selects=True, solves=True)


def main() -> None:
    """Solve the path, and then for the best λ again where the flags ask for it."""
    run_experiment("path", lambda: flags.stages_from_flags(flags.solver_sweep_from_flags("path")), render)


def render(folder: Path, results: Sequence[Result], data: Mapping[str, Data]) -> Rendered:
    """Draw the figures; return the ranking, and the accuracies of the best λ solved for again."""
    from experiments.artifacts import figures, search_figures

    result, refits = results[0], results[1:]
    selection, several, path = result.selection(), len(result.configs) > 1, tables.take_path(result)
    by_lam = np.argsort([config.lam for config in result.configs], kind="stable")
    shown = by_lam[np.linspace(0, len(by_lam) - 1, min(SHOWN, len(by_lam))).round().astype(int)]
    images = result.about["image_shape"] is not None
    drawn = {
        "path": search_figures.plot_path(path) if len(path.configs) > 1 else None,
        "differences": figures.plot_differences(result, selection) if several else None,
        "weights": figures.plot_weights(result, shown.tolist()) if images else None,
    }
    refit_tables = [tables.refit_table(refit, data[REFIT]) for refit in refits]
    note = tables.describe_path(result)
    return drawn, [tables.ranking_table(result, selection, note), *refit_tables]


if __name__ == "__main__":
    launch(define_flags, main)
