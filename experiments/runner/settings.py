"""The settings that all runs of a sweep share.

Each field of `Settings` is declared once, with the text, default and limits of the flag that sets it;
`experiments.cli.flags` makes the flags from them.
"""

from collections.abc import Collection
from functools import cache, partial
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from linear_cifar.augment import Augmentation, chain, horizontal_flip, random_shift
from linear_cifar.data.dataset import ImageShape
from linear_cifar.data.division import TrainSplit
from linear_cifar.data.prepare import CLASS_WEIGHTS, NONE, STANDARD, STANDARDIZE
from linear_cifar.halving import Halving
from linear_cifar.losses import LOSSES
from linear_cifar.params import INITS
from linear_cifar.schedules import SCHEDULES

# Precision of matrix products: its name on the command line, and its name for `linear_cifar.model.multiply`.
PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


# Gradient descent, and exact minima.
SGD, PATH = "sgd", "path"
# The settings that only one of the two has.
DESCENT_SETTINGS = (
    "flip", "shift", "epochs", "schedule", "average", "shuffle", "init", "max_loss", "evaluate", "halving",
    "rungs", "bracket",
)  # fmt: skip
PATH_SETTINGS = ("tolerance", "max_evaluations")


class Flag(NamedTuple):
    """The flag of a setting: its help text, its default, and the values it accepts."""

    help: str
    default: Any
    choices: Collection[str] | None = None
    lower: float | None = None
    upper: float | None = None


class Settings(NamedTuple):
    """Settings of a sweep, each with the flag of the same name."""

    train: Annotated[
        TrainSplit,
        Flag(
            "training images: full is all 50,000 except a validation split at their end; batch1 is "
            "data_batch_1, with data_batch_2 for validation",
            default="full",
            choices=get_args(TrainSplit),
        ),
    ]
    val_size: Annotated[
        int,
        Flag(
            "number of training examples that validate instead: the last ones with --train=full, or a random "
            "choice stratified by class where --data has no x_val",
            default=1_000,
            lower=1,
        ),
    ]
    folds: Annotated[
        int,
        Flag(
            "train each configuration N times from each seed, each time without one of N folds of the "
            "training examples, which validates (0: no folds)",
            default=0,
            lower=0,
            upper=1_000,
        ),
    ]
    # The flags of these two take several values, see `define_sizes`.
    train_size: Annotated[int, Flag("number of examples to train on, stratified by class", 0, lower=1)]
    shots: Annotated[int, Flag("number of examples of each class to train on", 0, lower=1)]
    image_shape: Annotated[
        ImageShape | None,
        Flag(
            "channels,height,width of the images in --data, needed if the shape of x_train does not show it",
            default=None,
        ),
    ]
    standardize: Annotated[
        str,
        Flag(
            "scale of the features: standard is mean 0 and standard deviation 1 over the training examples; "
            "center is mean 0 only; unit scales each example to length 1; none uses them as they are",
            default=STANDARD,
            choices=STANDARDIZE,
        ),
    ]
    class_weight: Annotated[
        str,
        Flag(
            "weight of the classes in training: balanced weighs all alike, none weighs all examples alike",
            default=NONE,
            choices=CLASS_WEIGHTS,
        ),
    ]
    loss: Annotated[
        str,
        Flag(
            "loss: softmax is softmax cross-entropy; bce is binary cross-entropy, averaged over the classes",
            default="softmax",
            choices=LOSSES,
        ),
    ]
    flip: Annotated[
        bool, Flag("mirror each training image with probability 0.5, drawn anew every epoch", default=True)
    ]
    shift: Annotated[
        int,
        Flag(
            "move each training image by up to N pixels along each axis, drawn anew every epoch",
            default=0,
            lower=0,
            upper=31,
        ),
    ]
    solver: Annotated[
        str,
        Flag(
            "sgd is mini-batch gradient descent; path is the exact minimum for each λ, see experiments.path",
            default=SGD,
            choices=(SGD, PATH),
        ),
    ]
    tolerance: Annotated[
        float | None,
        Flag(
            "size of the gradient at which the minimum is reached, relative to that at W = 0 (default: 1e-6, "
            "in float64 1e-10)",
            default=None,
            lower=0,
            upper=1,
        ),
    ]
    max_evaluations: Annotated[
        int,
        Flag("largest number of evaluations of a run's objective on the way to its minimum", 1_000, lower=1),
    ]
    epochs: Annotated[int, Flag("number of passes over the training images", default=40, lower=1)]
    schedule: Annotated[
        str,
        Flag(
            "schedule of η over the epochs: cosine falls to almost zero; step falls to a tenth after half of "
            "them and to a hundredth after three quarters",
            default="constant",
            choices=SCHEDULES,
        ),
    ]
    average: Annotated[
        int, Flag("average the weights over the last N epochs (1: no averaging)", default=1, lower=1)
    ]
    shuffle: Annotated[bool, Flag("take the training images in a new order every epoch", default=True)]
    init: Annotated[str, Flag("random number generator of the initial weights", default="jax", choices=INITS)]
    dtype: Annotated[
        str,
        Flag("floating-point type of all arithmetic", default="float32", choices=("float32", "float64")),
    ]
    precision: Annotated[
        str,
        Flag(
            "precision of matrix products: tf32 rounds on accelerators only; bfloat16 rounds the operands to "
            "bfloat16 everywhere",
            default="float32",
            choices=PRECISIONS,
        ),
    ]
    evaluate: Annotated[
        tuple[str, ...],
        Flag("train, test, test_NAME: measure these too after every epoch", default=()),
    ]
    max_loss: Annotated[
        float | None,
        Flag(
            "count a run as diverged once its mean training loss over an epoch is higher than this "
            "(default: only once it is no longer finite)",
            default=None,
            lower=0,
        ),
    ]
    halving: Annotated[
        int,
        Flag(
            "train on only the best 1/N of the configurations of each batch size after each of --rungs, by "
            "mean validation accuracy (0: train all to the end)",
            default=0,
            lower=0,
        ),
    ]
    rungs: Annotated[
        tuple[int, ...],
        Flag(
            "epochs after which --halving stops runs (default: 2,6,18 of 40 epochs, in proportion of others, "
            "and 6,18 with a falling η)",
            default=(),
            lower=1,
        ),
    ]
    bracket: Annotated[
        int,
        Flag(
            "number of points among which --halving chooses, a power of two",
            default=0,
            lower=2,
        ),
    ]

    def describe(self) -> dict[str, Any]:
        """Return the settings without those that do not apply to what trains."""
        unused = DESCENT_SETTINGS if self.solver == PATH else PATH_SETTINGS
        return {name: value for name, value in self._asdict().items() if name not in unused}

    def fit_options(self, image_shape: ImageShape | None) -> dict[str, Any]:
        """Return the options of `fit`, or of `solve`, for a sweep with these settings.

        `image_shape` is the shape of the images, if there are any.
        """
        if self.solver == PATH:
            return {
                "loss": self.loss,
                "precision": PRECISIONS[self.precision],
                "dtype": self.dtype,
                "tolerance": self.tolerance,
                "max_evaluations": self.max_evaluations,
            }
        return {
            "epochs": self.epochs,
            "loss": self.loss,
            "optimizer": "heavy_ball",
            "augment": _augmentation(self.flip, self.shift, image_shape),
            "shuffle": self.shuffle,
            "precision": PRECISIONS[self.precision],
            "schedule": self.schedule,
            "average": self.average,
            "init": self.init,
            "dtype": self.dtype,
            "max_loss": self.max_loss,
            "per_epoch": self.evaluate,
            "halving": Halving(self.halving, self.rungs, self.bracket) if self.halving else None,
        }


def declared_settings() -> dict[str, tuple[Any, Flag]]:
    """Return the type and the flag of each setting."""
    hints = get_type_hints(Settings, include_extras=True)
    return {name: get_args(hint) for name, hint in hints.items()}


def default_settings(**changes: Any) -> Settings:
    """Return the settings that the flags have by default, with some of them changed."""
    defaults = {name: flag.default for name, (_, flag) in declared_settings().items()}
    return Settings(**defaults | changes)


@cache
def _augmentation(flip: bool, shift: int, image_shape: ImageShape | None) -> Augmentation | None:
    """Return the same function each time, because JAX compiles a program for each function it meets."""
    if not (flip or shift):
        return None
    assert image_shape is not None, "only images are flipped or moved"
    augmentations: list[Augmentation] = []
    if flip:
        augmentations.append(partial(horizontal_flip, shape=image_shape))
    if shift:
        augmentations.append(partial(random_shift, pixels=shift, shape=image_shape))
    return chain(augmentations)
