"""The flags of a search: a range for each hyperparameter, the points to draw from them, and halving."""

from typing import Any

from absl import flags

from experiments.cli.flags import AXES
from experiments.runner.errors import UsageError
from linear_cifar.config import Config
from linear_cifar.halving import default_rungs
from linear_cifar.sampling import Axis, Range, draw_configs

FLAGS = flags.FLAGS

# The flags belong to the command that calls for them.
flags.disclaim_key_flags()


class _AxisParser(flags.ArgumentParser):
    """A parser of the values of one hyperparameter: `low:high`, `low:high:zeros`, or a list of numbers."""

    def __init__(self, field: str, number: type[int] | type[float]) -> None:
        self.field, self.number = field, number
        kind = "whole numbers" if number is int else "numbers"
        self.syntactic_help = f"{kind} separated by commas"
        if number is float:
            self.syntactic_help = f"low:high, low:high:share at 0, or {self.syntactic_help}"

    def parse(self, argument: str | Axis) -> Axis:
        if not isinstance(argument, str):
            return argument
        try:
            if ":" in argument and self.number is float:
                low, high, *zeros = map(float, argument.split(":"))
                return Range(low, high, False, *zeros)
            return tuple(map(self.number, argument.split(",")))
        except (ValueError, TypeError):
            raise ValueError(f"expected {self.syntactic_help}") from None

    def flag_type(self) -> str:
        return "range"


class _AxisSerializer(flags.ArgumentSerializer):
    def serialize(self, value: Axis) -> str:
        if isinstance(value, Range):
            ends = f"{value.low:g}:{value.high:g}"
            return ends + f":{value.zeros:g}" * (value.zeros > 0)
        return ",".join(map(str, value))


def define_ranges(**defaults: Axis) -> None:
    """Define a flag for each field of a configuration, and the flags that draw points from them.

    Args:
      **defaults: default of each field: a range or a list.
    """
    for field, default in defaults.items():
        number = int if field == "batch" else float
        flags.DEFINE(
            _AxisParser(field, number),
            field,
            default,
            f"{AXES[field]}: " + ("a list" if number is int else "a range or a list"),
            serializer=_AxisSerializer(),
        )
    flags.DEFINE_integer("points", 256, "number of points", lower_bound=1, upper_bound=2**20)
    flags.DEFINE_integer("points_seed", 0, "seed of the sequence of points", lower_bound=0, upper_bound=2**31)
    flags.DEFINE_list(
        "log_axes",
        ["eta", "lam"],
        "axes whose ranges are uniform in the logarithm; the others are uniform in the value",
    )
    flags.register_validator(
        "log_axes",
        lambda names: {*names} <= {*defaults} - {"batch"},
        f"expected some of {', '.join(name for name in defaults if name != 'batch')}",
    )


def points_from_flags() -> tuple[Config, ...]:
    """Return the configurations that the flags of `define_ranges` draw.

    Raises:
      UsageError: if a range is empty or out of the hyperparameter's limits.
    """
    axes: dict[str, Axis] = {}
    for field in Config._fields:
        axis: Any = FLAGS[field].value
        axes[field] = axis._replace(log=field in FLAGS.log_axes) if isinstance(axis, Range) else axis
    try:
        return draw_configs(axes, FLAGS.points, FLAGS.points_seed)
    except ValueError as error:
        raise UsageError(str(error)) from None


def halving_from_flags(points: int) -> dict[str, Any]:
    """Return the settings of halving: with it, the rungs; without it, none.

    Args:
      points: number of configurations.

    Raises:
      UsageError: if the flags of halving do not go together, or not with the number of points or epochs.
    """
    if not FLAGS.halving:
        if FLAGS.rungs:
            raise UsageError("--rungs: they are for --halving")
        return {}
    if FLAGS.halving == 1:
        raise UsageError("--halving=1: give at least 2 to keep half of the runs, or 0 to keep all")
    bracket = FLAGS.bracket
    if bracket & (bracket - 1):
        raise UsageError(f"--bracket={bracket}: give a power of two, for which the points are even")
    if points > bracket and points % bracket:
        more = points + -points % bracket
        raise UsageError(
            f"--points={points}: with --halving give whole brackets of {bracket}, such as {more}, or set "
            "--bracket"
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
