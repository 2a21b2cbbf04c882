"""The flags that the training commands share.

Each value is checked as it is parsed, before any data is read.
"""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.cli.recipes import RECIPES, define_recipe
from experiments.runner.errors import UsageError
from experiments.runner.settings import Flag, Settings, declared_settings, default_settings
from experiments.runner.sweeps import Sweep, name_replicates
from linear_cifar.arguments import LARGEST_SEED
from linear_cifar.config import Config, check_config, grid
from linear_cifar.data.dataset import ImageShape
from linear_cifar.data.find import DATASETS

FLAGS = flags.FLAGS

# A flag that is defined below belongs to the command that calls for it, and appears in its --help.
flags.disclaim_key_flags()


# Text of the flag of each field of a configuration.
AXES = {
    "eta": "learning rate η",
    "batch": "mini-batch size",
    "lam": "L2 strength λ",
    "q": "power q of the loss: 0 is cross-entropy, 1 the mean absolute error",
    "momentum": "momentum of gradient descent, 0 to below 1",
}


class _ListParser(flags.ArgumentParser):
    """A parser of one item or a comma-separated list; each item holds fields of a configuration."""

    def __init__(self, parse_item: Callable[[str], Any], fields: tuple[str, ...], expected: str) -> None:
        self.parse_item, self.fields, self.expected = parse_item, fields, expected
        self.syntactic_help = expected

    def parse(self, argument: str | Sequence[Any]) -> tuple[Any, ...]:
        try:
            items = (
                tuple(map(self.parse_item, argument.split(","))) if isinstance(argument, str) else argument
            )
            values = [item if isinstance(item, tuple) else (item,) for item in items]
            configs = [dict(zip(self.fields, value, strict=True)) for value in values]
        except ValueError:
            raise ValueError(f"expected {self.expected}") from None
        for fields in configs:
            check_config(Config(**({"eta": 0, "batch": 1, "lam": 0} | fields)))
        return tuple(items)

    def flag_type(self) -> str:
        return "values"


class _ShapeParser(flags.ArgumentParser):
    """A parser of channels, height and width."""

    syntactic_help = "three whole numbers: channels,height,width"

    def parse(self, argument: str | ImageShape) -> ImageShape:
        try:
            sizes = argument.split(",") if isinstance(argument, str) else argument
            channels, height, width = map(int, sizes)
        except ValueError:
            raise ValueError(f"expected {self.syntactic_help}") from None
        if min(channels, height, width) < 1:
            raise ValueError("each of channels,height,width is at least 1")
        return channels, height, width

    def flag_type(self) -> str:
        return "shape"


class _NumbersParser(flags.ArgumentParser):
    """A parser of whole numbers separated by commas, each at least `lower`."""

    syntactic_help = "whole numbers separated by commas"

    def __init__(self, lower: float | None) -> None:
        self.lower = lower

    def parse(self, argument: str | Sequence[int]) -> tuple[int, ...]:
        words = argument.split(",") if isinstance(argument, str) else argument
        try:
            numbers = tuple(map(int, words))
        except ValueError:
            raise ValueError(f"expected {self.syntactic_help}") from None
        if self.lower is not None and any(number < self.lower for number in numbers):
            raise ValueError(f"each number is at least {self.lower:g}")
        return numbers

    def flag_type(self) -> str:
        return "numbers"


class _ListSerializer(flags.ArgumentSerializer):
    def serialize(self, value: Sequence[Any]) -> str:
        return ",".join(":".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)


def _define_list(name: str, default: Sequence[Any], help: str, **parser: Any) -> None:
    flags.DEFINE(_ListParser(**parser), name, tuple(default), help, serializer=_ListSerializer())


def expand_path(text: str) -> Path:
    """Return a path from the command line, in which ~ is the home folder.

    Raises:
      UsageError: if there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: there is no home folder of that name") from None


def define_axis(field: str, number: type[int] | type[float], default: Sequence[float], help: str) -> None:
    """Define a flag for one axis of a sweep, which takes one value or several.

    Args:
      field: field of the configurations, and name of the flag.
      number: type of the values.
      default: values of the axis unless the flag is given.
      help: text of the flag.
    """
    kind = "whole numbers" if number is int else "numbers"
    _define_list(
        field, default, help, parse_item=number, fields=(field,), expected=f"{kind} separated by commas"
    )


def define_pairs(name: str, default: Sequence[tuple[float, float]], help: str) -> None:
    """Define a flag that takes one pair η:λ or several."""

    def parse_pair(word: str) -> tuple[float, ...]:
        return tuple(float(number) for number in word.split(":"))

    expected = "pairs eta:lam separated by commas"
    _define_list(name, default, help, parse_item=parse_pair, fields=("eta", "lam"), expected=expected)


def define_grid(eta: Sequence[float], batch: Sequence[int], lam: Sequence[float]) -> None:
    """Define a flag for each field of a configuration; the arguments are this command's defaults."""
    define_axis("eta", float, eta, AXES["eta"])
    define_axis("batch", int, batch, AXES["batch"])
    define_axis("lam", float, lam, AXES["lam"])
    define_axis("q", float, (0.0,), AXES["q"])
    define_axis("momentum", float, (0.0,), AXES["momentum"])


def grid_from_flags() -> tuple[Config, ...]:
    """Return the configurations that the flags of `define_grid` span."""
    return grid(FLAGS.eta, FLAGS.batch, FLAGS.lam, FLAGS.q, FLAGS.momentum)


def define_settings(
    *,
    seeds: int = 1,
    recipes: Sequence[str] = tuple(RECIPES),
    omit: Collection[str] = (),
    selects: bool = False,
    halves: bool = False,
    **defaults: Any,
) -> None:
    """Define the flags of a training command: its settings, its data and its folder.

    Args:
      seeds: default number of seeds.
      recipes: names of the recipes that make sense for this command.
      omit: settings without a flag, because the command sets them itself.
      selects: whether the command looks for the best configuration. It then takes a user's own file, folds,
        and a number of configurations to refit.
      halves: whether the command may stop runs before their end.
      **defaults: defaults of this command, where they differ from those in `Settings`.
    """
    declared = declared_settings()
    assert declared.keys() >= {*omit, *defaults}, "every name belongs to a setting"
    if not selects:
        omit = {*omit, "image_shape", "folds"}
    if not halves:
        omit = {*omit, "halving", "rungs", "bracket"}
    for name, (kind, flag) in declared.items():
        if name not in omit:
            _define_setting(name, kind, flag._replace(default=defaults.get(name, flag.default)))
    flags.DEFINE_integer(
        "seed", 0, "first seed of weights, order, flips and shifts", lower_bound=0, upper_bound=LARGEST_SEED
    )
    flags.DEFINE_integer(
        "seeds", seeds, "number of seeds, counted up from --seed", lower_bound=1, upper_bound=1_000_000
    )
    define_recipe(recipes)
    define_data()
    if selects:
        _define_user_file()
        _define_refit()
    _define_run_folder()


def sweep_from_flags(name: str, configs: Sequence[Config], **fixed: Any) -> Sweep:
    """Return a sweep with the settings and seeds that the flags give, and those that the command sets itself.

    Args:
      name: name of the sweep.
      configs: its configurations.
      **fixed: settings that replace those of the flags.
    """
    values: dict[str, Any] = {
        name: FLAGS[name].value if name in FLAGS else default
        for name, default in default_settings()._asdict().items()
    } | fixed
    # The validation images are always measured. One order, so that equal sets are equal settings.
    evaluate = {"val", *values["evaluate"]}
    values["evaluate"] = tuple(name for name in ("train", "val", "test") if name in evaluate)
    seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
    if seeds[-1] > LARGEST_SEED:
        raise UsageError(f"--seed={FLAGS.seed} --seeds={FLAGS.seeds}: the largest seed is {LARGEST_SEED}")
    return Sweep(name, Settings(**values), name_replicates(seeds, values["folds"]), tuple(configs))


def refits_from_flags() -> int:
    """Return how many configurations to train again on all training examples: with folds, one by default.

    Raises:
      UsageError: if there are no more training examples than the configurations were trained on.
    """
    if FLAGS.refit and FLAGS.train == "batch1" and not FLAGS.folds:
        raise UsageError(
            f"--refit={FLAGS.refit}: --train=batch1 trains on all of data_batch_1 already: give --folds or "
            "--train=full"
        )
    return FLAGS.refit if FLAGS.refit is not None else 1 if FLAGS.folds else 0


def _define_setting(name: str, kind: Any, flag: Flag) -> None:
    limits: dict[str, Any] = {"lower_bound": flag.lower, "upper_bound": flag.upper}
    if kind is bool:
        flags.DEFINE_bool(name, flag.default, flag.help)
    elif kind is int:
        flags.DEFINE_integer(name, flag.default, flag.help, **limits)
    elif kind == float | None:
        flags.DEFINE_float(name, flag.default, flag.help, **limits)
        flags.register_validator(
            name, lambda value: value is None or math.isfinite(value), "give a finite number"
        )
    elif kind == ImageShape | None:
        flags.DEFINE(_ShapeParser(), name, flag.default, flag.help, serializer=_ListSerializer())
    elif kind == tuple[int, ...]:
        flags.DEFINE(_NumbersParser(flag.lower), name, flag.default, flag.help, serializer=_ListSerializer())
    elif kind == tuple[str, ...]:
        choices = [*(flag.choices or ())]
        flags.DEFINE_list(name, [*flag.default], flag.help)
        flags.register_validator(
            name, lambda names: {*names} <= {*choices}, f"expected some of {', '.join(choices)}"
        )
    else:
        flags.DEFINE_enum(name, flag.default, [*(flag.choices or ())], flag.help)


def define_data(dataset: str = "auto") -> None:
    """Define the flags that say where the images come from; `dataset` is the default."""
    flags.DEFINE_enum(
        "dataset",
        dataset,
        DATASETS,
        "data set: cifar10 is a local copy or a download, or else an error; synthetic is synthetic images "
        "of the same shapes; auto is cifar10 where it can be had, or else synthetic, and a banner says so",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder that holds CIFAR-10, up to three folders deep and whatever their names, or that it is "
        "downloaded to; or an archive of CIFAR-10 (default: $TFDS_DATA_DIR, or else ~/tensorflow_datasets)",
    )


def _define_user_file() -> None:
    flags.DEFINE_string(
        "data",
        None,
        "file of your own features instead of CIFAR-10: an .npz with x_train [n, ...] and y_train [n], and "
        "optionally x_val, y_val, x_test, y_test and classes; --flip is then off unless it is given",
    )


def _define_refit() -> None:
    flags.DEFINE_integer(
        "refit",
        None,
        "train the N best configurations by validation again, on all training examples and from every seed, "
        "and test them (default: 1 with --folds, else 0)",
        lower_bound=0,
    )


def _define_run_folder() -> None:
    flags.DEFINE_string(
        "out",
        None,
        "folder for the results (default: results/<experiment>/<time>); a run in it is resumed, or extended, "
        "see experiments/README.md",
    )
    flags.DEFINE_integer(
        "save_every",
        None,
        "epochs from one checkpoint to the next (default: as few as possible while saving takes at most 2 % "
        "of the time)",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "block_runs",
        None,
        "largest number of runs that train at a time (default: as many as fit in memory)",
        lower_bound=1,
    )
