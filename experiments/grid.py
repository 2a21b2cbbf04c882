"""Grid search over learning rate, batch size and L2 strength; all configurations train side by side.

    python -m experiments.grid --lam=0.1

trains all learning rates and batch sizes at λ = 0.1: 16 configurations for 40 epochs, about 1 minute on 2
cores. Without --lam it trains the 48 configurations of the report, with three values of λ, in 2 minutes.

It writes to --out:

- config.json, best_params.npz, tables.json
- results.csv, a row per configuration and seed
- history.csv, a row per configuration, seed and epoch
- heatmap, curves and confusion, as .png and .svg; with images also weights, those of the best configuration

    python -m experiments.grid --data=features.npz

trains on your own features instead, see experiments/README.md.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.artifacts import figures, tables
from experiments.cli.experiment import run_experiment
from experiments.cli.flags import define_grid, define_settings, grid_from_flags, settings_from_flags
from experiments.cli.launch import launch
from experiments.runner.stages import fixed_stage
from experiments.runner.sweeps import Sweep, SweepResult
from linear_cifar.data.features import CHANNELS


def define_flags() -> None:
    """Define the flags of this command."""
    define_grid(eta=(0.001, 0.01, 0.1, 1.0), batch=(50, 100, 200, 400), lam=(0.0, 0.1, 1.0))
    define_settings(epochs=40, train="full", flip=True, takes_user_file=True)


def main() -> None:
    """Train the grid."""
    run_experiment("grid", [fixed_stage([sweep_from_flags()])], render)


def sweep_from_flags() -> Sweep:
    """Return the sweep that the flags describe."""
    return Sweep("grid", settings_from_flags(), grid_from_flags())


def render(folder: Path, results: Sequence[SweepResult]) -> list[tables.Table]:
    """Draw the grid's figures and return its ranking."""
    (result,) = results
    figures.plot_heatmap(folder / "heatmap", result)
    figures.plot_curves(folder / "curves", result)
    best, image_shape = result.ranking[0], result.dataset.image_shape
    if result.stayed_finite[best] and image_shape and image_shape[0] in CHANNELS:
        figures.plot_weights(folder / "weights", result, [best], result.best_seed(best))
    return [tables.ranking_table(result)]


if __name__ == "__main__":
    launch(define_flags, main)
