"""The flags of a search: a range for each hyperparameter, the points to draw from them, and halving."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.cli.flags import AXES
from experiments.cli.progress import log
from experiments.runner.errors import UsageError
from linear_cifar.arguments import LARGEST_SEED
from linear_cifar.config import Config
from linear_cifar.halving import default_rungs
from linear_cifar.sampling import Axis, Range, draw_configs

FLAGS = flags.FLAGS

# The flags belong to the command that calls for them.
flags.disclaim_key_flags()

_BATCHES = "whole numbers separated by commas"
_FORMS = "low:high, low:high:share at 0, or numbers separated by commas"


class _AxisParser(flags.ArgumentParser):
    """A parser that checks the text of a range or list, and leaves it as it is, see `parse_axis`."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.syntactic_help = _FORMS if field != "batch" else _BATCHES

    def parse(self, argument: str | Sequence[float]) -> str:
        text = argument if isinstance(argument, str) else ",".join(map(str, argument))
        parse_axis(self.field, text)
        return text

    def flag_type(self) -> str:
        return "range"


def parse_axis(field: str, text: str) -> Axis:
    """Return the range or list that a text describes: `low:high`, `low:high:share at 0`, or numbers.

    Raises:
      ValueError: if it describes neither.
    """
    number = int if field == "batch" else float
    try:
        if ":" in text and number is float:
            low, high, *zeros = map(float, text.split(":"))
            return Range(low, high, False, *zeros)
        return tuple(map(number, text.split(",")))
    except (ValueError, TypeError):
        raise ValueError(f"expected {_BATCHES if number is int else _FORMS}") from None


def define_ranges(**defaults: str) -> None:
    """Define a flag for each field of a configuration, and the flags that draw points from them.

    Args:
      **defaults: default text of each field.
    """
    for field, default in defaults.items():
        text = f"{AXES[field]}: " + ("a list" if field == "batch" else "a range or a list")
        flags.DEFINE(_AxisParser(field), field, default, text, serializer=flags.ArgumentSerializer())
    flags.DEFINE_integer("points", 256, "number of points", lower_bound=1, upper_bound=2**20)
    flags.DEFINE_integer(
        "points_seed", 0, "seed of the sequence of points", lower_bound=0, upper_bound=LARGEST_SEED
    )
    flags.DEFINE_list(
        "log_axes",
        ["eta", "lam"],
        "axes whose ranges are uniform in the logarithm; the others are uniform in the value",
    )
    axes = [field for field in defaults if field != "batch"]
    flags.register_validator(
        "log_axes", lambda names: {*names} <= {*axes}, f"expected some of {', '.join(axes)}"
    )


def points_from_flags() -> tuple[Config, ...]:
    """Return the configurations that the flags of `define_ranges` draw.

    Raises:
      UsageError: if a range is empty or out of the hyperparameter's limits.
    """
    axes: dict[str, Axis] = {}
    for field in Config._fields:
        axis = parse_axis(field, str(FLAGS[field].value))
        axes[field] = axis._replace(log=field in FLAGS.log_axes) if isinstance(axis, Range) else axis
    try:
        configs = draw_configs(axes, FLAGS.points, FLAGS.points_seed)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if len(configs) < FLAGS.points:
        log(f"note: only {len(configs):,} of the {FLAGS.points:,} points differ, and equal ones count once")
    return configs


def halving_from_flags(configs: Sequence[Config]) -> dict[str, Any]:
    """Return the settings of halving that need more than their flag: the rungs and the bracket.

    Args:
      configs: the points.

    Raises:
      UsageError: if the flags of halving do not go together, or not with the points or epochs.
    """
    if not FLAGS.halving:
        for name in ("rungs", "bracket"):
            if FLAGS[name].present:
                raise UsageError(f"--{name}: it is for --halving")
        return {"bracket": 0}
    points, bracket = FLAGS.points, FLAGS.bracket
    if FLAGS.halving == 1:
        raise UsageError("--halving=1: give at least 2 to keep half of the runs, or 0 to keep all")
    if bracket & (bracket - 1):
        raise UsageError(f"--bracket={bracket}: give a power of two, for which the points are even")
    batches = {config.batch for config in configs}
    if points > bracket and bracket < 2 * len(batches):
        raise UsageError(
            f"--bracket={bracket}: give at least 2 points for each of the {len(batches)} batch sizes"
        )
    if points > bracket and points % bracket:
        more = points + -points % bracket
        raise UsageError(
            f"--points={points}: with --halving give whole brackets of {bracket}, such as {more}, or set "
            "--bracket"
        )
    if len(configs) < points:
        raise UsageError(
            f"--points={points}: only {len(configs)} of them differ, and --halving needs brackets of "
            "different points: give fewer, or ranges in place of lists"
        )
    rungs = FLAGS.rungs or default_rungs(FLAGS.epochs, FLAGS.schedule == "constant")
    if not rungs:
        raise UsageError(f"--epochs={FLAGS.epochs}: --halving needs at least 2")
    if list(rungs) != sorted(set(rungs)) or rungs[-1] >= FLAGS.epochs:
        raise UsageError(
            f"--rungs={','.join(map(str, rungs))}: give epochs in rising order, below the {FLAGS.epochs} of "
            "the run"
        )
    return {"rungs": tuple(rungs)}
