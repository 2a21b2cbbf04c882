"""Single-layer classifiers: pure functions for the model, its gradients and sweeps of training runs.

What reads and fetches CIFAR-10 is apart from them: `from linear_cifar.load import load`.
"""

from linear_cifar.augment import horizontal_flip, in_turn, random_shift
from linear_cifar.comparison import Comparison, compare, rank, select
from linear_cifar.config import Config, grid
from linear_cifar.evaluation import Examples, Metrics, evaluate, examples
from linear_cifar.losses import LOSSES, Loss, get_loss
from linear_cifar.model import (
    logits,
    predict_class,
    predict_labels,
    sigmoid_probabilities,
    softmax_probabilities,
)
from linear_cifar.objective import gradients, objective
from linear_cifar.params import Params, init_params, numpy_params
from linear_cifar.schedules import SCHEDULES
from linear_cifar.standardizer import Standardizer, fit_standardizer, standardize
from linear_cifar.sweep import Epoch, Record, Snapshot, begin, evaluate_runs, sweep
from linear_cifar.training import Hyper, Recipe, State, heavy_ball, sgd, train_epoch, train_step

__all__ = [
    "LOSSES",
    "SCHEDULES",
    "Comparison",
    "Config",
    "Epoch",
    "Examples",
    "Hyper",
    "Loss",
    "Metrics",
    "Params",
    "Recipe",
    "Record",
    "Snapshot",
    "Standardizer",
    "State",
    "begin",
    "compare",
    "evaluate",
    "evaluate_runs",
    "examples",
    "fit_standardizer",
    "get_loss",
    "gradients",
    "grid",
    "heavy_ball",
    "horizontal_flip",
    "in_turn",
    "init_params",
    "logits",
    "numpy_params",
    "objective",
    "predict_class",
    "predict_labels",
    "random_shift",
    "rank",
    "select",
    "sgd",
    "sigmoid_probabilities",
    "softmax_probabilities",
    "standardize",
    "sweep",
    "train_epoch",
    "train_step",
]
