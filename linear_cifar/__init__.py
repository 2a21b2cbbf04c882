"""Single-layer classifiers: pure functions for the model, its gradients and sweeps of training runs.

`linear_cifar.data` reads a user's own file (`formats.read_features`) and reads or fetches CIFAR-10
(`find.find_dataset`). Then `prepare.prepare_data` divides and scales the data set.
"""

from linear_cifar.augment import Augmentation, chain, horizontal_flip, random_shift
from linear_cifar.blocks import load_result
from linear_cifar.calibration import (
    LabelMetrics,
    Reliability,
    expected_calibration_error,
    label_metrics,
    reliability,
)
from linear_cifar.cluster import Cluster, ClusterError
from linear_cifar.comparison import Comparison, compare
from linear_cifar.config import (
    AXES,
    Axis,
    Config,
    Hyperparams,
    Range,
    draw_configs,
    grid,
    stack_hyperparams,
)  # fmt: skip
from linear_cifar.descent import Epoch, evaluate_runs, mark_correct_of_runs, sweep
from linear_cifar.devices import use_all_cores
from linear_cifar.evaluation import Metrics, confusion_matrix, evaluate, mark_correct, mean_class_accuracy
from linear_cifar.examples import Examples, make_examples
from linear_cifar.fitting import NothingTrained, fit, solve
from linear_cifar.folders import FolderError, SaveError
from linear_cifar.halving import Halving, choose_survivors, default_rungs
from linear_cifar.identity import Identity
from linear_cifar.layout import Layout, Loops, make_layout
from linear_cifar.legs import Progress
from linear_cifar.losses import LOSSES, Loss, get_loss
from linear_cifar.methods import RunState
from linear_cifar.model import (
    compute_logits,
    predict_class,
    predict_labels,
    sigmoid_probabilities,
    softmax_probabilities,
)
from linear_cifar.objectives import gradients, objective
from linear_cifar.optimizers import OPTIMIZERS, Optimizer, adamw, heavy_ball, sgd
from linear_cifar.params import Params, init_params, jax_params, numpy_params
from linear_cifar.replicates import Replicate, ReplicateData, ReplicateId
from linear_cifar.result import Best, Result, Weights
from linear_cifar.schedules import SCHEDULES, Schedule
from linear_cifar.snapshots import Snapshot, join_snapshots, load_snapshot
from linear_cifar.standardizer import (
    Standardizer,
    fit_standardizer,
    fold_standardizer,
    prepare_features,
    scale_to_unit_length,
    standardize,
)
from linear_cifar.training import (
    Initializer,
    TrainSpec,
    init_state,
    train_epoch,
    train_step,
)  # fmt: skip
from linear_cifar.uncertainty import (
    Estimate,
    Selection,
    best_per_seed,
    confidence_set,
    cross_validate_selection,
    estimate_accuracy,
    estimate_difference,
    linearize_ratio,
    rank,
)

__version__ = "0.1.0"

__all__ = [
    "AXES", "LOSSES", "OPTIMIZERS", "SCHEDULES", "Augmentation", "Axis", "Best", "Cluster", "ClusterError",
    "Comparison", "Config", "Epoch", "Estimate", "Examples", "FolderError", "Halving", "Hyperparams",
    "Identity", "Initializer", "LabelMetrics", "Layout", "Loops", "Loss", "Metrics", "NothingTrained",
    "Optimizer", "Params", "Progress", "Range", "Reliability", "Replicate", "ReplicateData", "ReplicateId",
    "Result", "RunState", "SaveError", "Schedule", "Selection", "Snapshot", "Standardizer", "TrainSpec",
    "Weights", "__version__", "adamw", "best_per_seed", "chain", "choose_survivors", "compare",
    "compute_logits", "confidence_set", "confusion_matrix", "cross_validate_selection", "default_rungs",
    "draw_configs", "estimate_accuracy", "estimate_difference", "evaluate", "evaluate_runs",
    "expected_calibration_error", "fit", "fit_standardizer", "fold_standardizer", "get_loss", "gradients",
    "grid", "heavy_ball", "horizontal_flip", "init_params", "init_state", "jax_params", "join_snapshots",
    "label_metrics", "linearize_ratio", "load_result", "load_snapshot", "make_examples", "make_layout",
    "mark_correct", "mark_correct_of_runs", "mean_class_accuracy", "numpy_params", "objective",
    "predict_class", "predict_labels", "prepare_features", "random_shift", "rank", "reliability",
    "scale_to_unit_length", "sgd", "sigmoid_probabilities", "softmax_probabilities", "solve",
    "stack_hyperparams", "standardize", "sweep", "train_epoch", "train_step", "use_all_cores",
]  # fmt: skip
