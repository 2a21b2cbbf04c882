"""`experiments.grid` on few synthetic images and without figures; its files and signals are the same."""

import os
import resource
import runpy
import sys
from types import SimpleNamespace

import xla_flags

os.environ.setdefault("XLA_FLAGS", xla_flags.FLAGS)

# Without figures, matplotlib need not be imported.
sys.modules["experiments.artifacts.drawing"] = SimpleNamespace(save_figures=lambda *_: None)
sys.modules["experiments.artifacts.figures"] = SimpleNamespace(
    plot_heatmap=lambda *_: None,
    plot_curves=lambda *_: None,
    plot_differences=lambda *_: None,
    plot_best_weights=lambda *_: None,
    plot_confusion=lambda *_: None,
)

from experiments.cli import source  # noqa: E402
from linear_cifar import fitting  # noqa: E402
from linear_cifar.data.synthetic import make_synthetic  # noqa: E402

if __name__ == "__main__":
    if "LARGEST_FILE" in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LARGEST_FILE"]),) * 2)
    fitting.KEPT_BYTES = int(os.environ.get("KEPT_BYTES", fitting.KEPT_BYTES))
    source.find_dataset = lambda *_: make_synthetic(n_train=1_200, n_test=200)
    runpy.run_module("experiments.grid", run_name="__main__", alter_sys=True)
