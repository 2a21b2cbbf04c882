"""Grid search over learning rate, batch size and L2 strength; all configurations train side by side.

    python -m experiments.grid --lam=0.1

sweeps learning rates and batch sizes at λ = 0.1: 16 configurations, 40 epochs.
Without --lam, λ is swept too: the 48 configurations of the report.

Writes to --out: config.json, results.csv (a row per configuration), history.csv (a row per
configuration and epoch), best_params.npz, heatmap.png and curves.png.
"""

from pathlib import Path

from absl import flags

from experiments import plots
from experiments.conduct import conduct
from experiments.flags import define_run, define_values
from experiments.run import Run
from experiments.shell import launch
from linear_cifar.config import grid
from linear_cifar.dataset import Dataset

FLAGS = flags.FLAGS

define_values("eta", float, (0.001, 0.01, 0.1, 1.0), "learning rate η")
define_values("batch", int, (50, 100, 200, 400), "mini-batch size")
define_values("lam", float, (0.0, 0.1, 1.0), "L2 strength λ")
define_run(epochs=40, train="full", flip=True)


def main() -> None:
    """Runs the sweep."""
    conduct("grid", grid(FLAGS.eta, FLAGS.batch, FLAGS.lam), draw)


def draw(folder: Path, run: Run, dataset: Dataset) -> None:
    """The grid's two figures."""
    plots.heatmap(folder / "heatmap.png", run, dataset.name)
    plots.curves(folder / "curves.png", run, dataset.name)


if __name__ == "__main__":
    launch(main)
