"""The flags that the experiments share. Each is checked as it is parsed, before anything is loaded."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from linear_cifar.config import Config, check
from linear_cifar.losses import LOSSES
from linear_cifar.schedules import SCHEDULES

# What is defined below belongs to the experiment that calls for it, and stands in its --help.
flags.disclaim_key_flags()

# As the products' precision is called on the command line, and as `jax.numpy.matmul` calls it.
PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32"}


class _ValuesParser(flags.ArgumentParser):
    """One value or a comma-separated list, each checked as the field of a configuration that it sets."""

    syntactic_help = "one value or a comma-separated list"

    def __init__(self, field: str, number: type[int] | type[float]) -> None:
        self.field, self.number = field, number

    def parse(self, argument: str | Sequence[float]) -> tuple[Any, ...]:
        words = argument.split(",") if isinstance(argument, str) else argument
        try:
            values = tuple(self.number(word) for word in words)
        except ValueError:
            kind = "whole numbers" if self.number is int else "numbers"
            raise ValueError(f"expected {kind} separated by commas") from None
        for value in values:
            settings: dict[str, Any] = {"eta": 0, "batch": 1, "lam": 0, self.field: value}
            check(Config(**settings))
        return values

    def flag_type(self) -> str:
        return "values"


def define_values(field: str, number: type[int] | type[float], default: Sequence[float], help: str) -> None:
    """Defines a flag of that name for an axis of a sweep: one value or several."""
    parser, serializer = _ValuesParser(field, number), flags.CsvListSerializer(",")
    flags.DEFINE(parser, field, tuple(default), help, serializer=serializer)


def define_run(*, epochs: int, train: str, flip: bool) -> None:
    """Defines what every training experiment has; the arguments are this experiment's defaults."""
    flags.DEFINE_integer("epochs", epochs, "passes over the training images", lower_bound=1)
    flags.DEFINE_enum(
        "loss", "softmax", list(LOSSES), "softmax cross-entropy or multiple binary cross-entropy"
    )
    flags.DEFINE_bool("flip", flip, "mirror each training image with probability 0.5, anew every epoch")
    flags.DEFINE_integer(
        "shift",
        0,
        "move each training image by up to so many pixels, anew every epoch",
        lower_bound=0,
        upper_bound=31,
    )
    flags.DEFINE_enum(
        "schedule",
        "constant",
        list(SCHEDULES),
        "of η over the epochs: cosine falls to almost nothing, step to a tenth after half of them and a "
        "hundredth after three quarters",
    )
    flags.DEFINE_enum(
        "train",
        train,
        ["full", "batch1"],
        "images to train on: all 50,000 less a validation split at their end, or data_batch_1 with "
        "data_batch_2 for validation",
    )
    flags.DEFINE_integer(
        "val_size", 1_000, "validation images with --train=full", lower_bound=1, upper_bound=49_999
    )
    flags.DEFINE_integer("seed", 0, "of weights, order and flips", lower_bound=0, upper_bound=2**32 - 1)
    define_data()
    flags.DEFINE_enum(
        "precision",
        "float32",
        list(PRECISIONS),
        "of matrix products on accelerators; CPUs always use float32",
    )
    flags.DEFINE_string("out", None, "folder for the results (default: results/<experiment>/<time>)")


def define_data(dataset: str = "auto") -> None:
    """Defines where the images come from; `dataset` is the default."""
    flags.DEFINE_enum(
        "dataset",
        dataset,
        ["auto", "cifar10", "synthetic"],
        "cifar10: a local copy or a download, else an error; synthetic: made-up images of the same "
        "shapes; auto: cifar10 where it can be had, else synthetic with a banner that says so",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder with CIFAR-10 in any of its published layouts, or to download it to "
        "(default: $TFDS_DATA_DIR, else tensorflow-datasets' own)",
    )
