"""Single-layer classifiers: pure functions for the model, its gradients and sweeps of training runs.

`linear_cifar.data` reads and fetches CIFAR-10: `from linear_cifar.data.find import load_dataset`.
"""

from linear_cifar.augment import Augmentation, chain, horizontal_flip, random_shift
from linear_cifar.calibration import (
    LabelMetrics,
    Reliability,
    expected_calibration_error,
    label_metrics,
    reliability,
)
from linear_cifar.checks import Initializer, SweepOptions
from linear_cifar.comparison import best_per_seed, rank
from linear_cifar.config import Config, Hyperparams, check_config, grid, stack_hyperparams
from linear_cifar.devices import use_all_cores
from linear_cifar.engine import (
    Epoch,
    EpochMetrics,
    evaluate_runs,
    jax_params,
    mark_correct_of_runs,
    sweep,
)
from linear_cifar.evaluation import (
    Metrics,
    confusion_matrix,
    evaluate,
    mark_correct,
    mean_class_accuracy,
)
from linear_cifar.examples import Examples, make_examples
from linear_cifar.fitting import Best, FitResult, SavedParams, fit
from linear_cifar.halving import choose_survivors, default_rungs
from linear_cifar.layout import Layout, Loops, make_layout
from linear_cifar.losses import LOSSES, Loss, get_loss
from linear_cifar.model import (
    compute_logits,
    predict_class,
    predict_labels,
    sigmoid_probabilities,
    softmax_probabilities,
)
from linear_cifar.objectives import gradients, objective
from linear_cifar.optimizers import OPTIMIZERS, Optimizer, adamw, get_optimizer, heavy_ball, sgd
from linear_cifar.params import Params, init_params, numpy_params
from linear_cifar.replicates import Replicate, ReplicateData, ReplicateId
from linear_cifar.sampling import Range, draw_configs
from linear_cifar.schedules import SCHEDULES, Schedule
from linear_cifar.snapshots import Snapshot, SweepIdentity, join_snapshots, load_snapshot, save_snapshot
from linear_cifar.standardizer import (
    Standardizer,
    fit_standardizer,
    fold_standardizer,
    prepare_features,
    scale_to_unit_length,
    standardize,
)
from linear_cifar.training import RunState, TrainSpec, init_state, train_epoch, train_step
from linear_cifar.uncertainty import (
    Estimate,
    confidence_set,
    cross_validate_selection,
    estimate_accuracy,
    estimate_difference,
    linearize_ratio,
    pack_correct,
    unpack_correct,
)

__version__ = "0.1.0"

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "Augmentation",
    "Best",
    "Config",
    "Epoch",
    "EpochMetrics",
    "Estimate",
    "Examples",
    "FitResult",
    "Hyperparams",
    "Initializer",
    "LabelMetrics",
    "Layout",
    "Loops",
    "Loss",
    "Metrics",
    "Optimizer",
    "Params",
    "Range",
    "Reliability",
    "Replicate",
    "ReplicateData",
    "ReplicateId",
    "RunState",
    "SavedParams",
    "Schedule",
    "Snapshot",
    "Standardizer",
    "SweepIdentity",
    "SweepOptions",
    "TrainSpec",
    "__version__",
    "adamw",
    "best_per_seed",
    "chain",
    "check_config",
    "choose_survivors",
    "compute_logits",
    "confidence_set",
    "confusion_matrix",
    "cross_validate_selection",
    "default_rungs",
    "draw_configs",
    "estimate_accuracy",
    "estimate_difference",
    "evaluate",
    "evaluate_runs",
    "expected_calibration_error",
    "fit",
    "fit_standardizer",
    "fold_standardizer",
    "get_loss",
    "get_optimizer",
    "gradients",
    "grid",
    "heavy_ball",
    "horizontal_flip",
    "init_params",
    "init_state",
    "jax_params",
    "join_snapshots",
    "label_metrics",
    "linearize_ratio",
    "load_snapshot",
    "make_examples",
    "make_layout",
    "mark_correct",
    "mark_correct_of_runs",
    "mean_class_accuracy",
    "numpy_params",
    "objective",
    "pack_correct",
    "predict_class",
    "predict_labels",
    "prepare_features",
    "random_shift",
    "rank",
    "reliability",
    "save_snapshot",
    "scale_to_unit_length",
    "sgd",
    "sigmoid_probabilities",
    "softmax_probabilities",
    "stack_hyperparams",
    "standardize",
    "sweep",
    "train_epoch",
    "train_step",
    "unpack_correct",
    "use_all_cores",
]
