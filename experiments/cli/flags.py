"""The flags that the training commands share.

Each value is checked as it is parsed, before any data is read.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.cli.progress import log
from experiments.cli.recipes import RECIPES, define_recipe
from experiments.runner.errors import UsageError
from experiments.runner.folder import FORMATS
from experiments.runner.settings import (
    DESCENT_SETTINGS,
    PATH,
    PATH_SETTINGS,
    SGD,
    Flag,
    Settings,
    declared_settings,
    default_settings,
)
from experiments.runner.stages import Stage, Sweep, fixed_stage, refit_stage
from linear_cifar.arguments import LARGEST_SEED
from linear_cifar.config import AXES, Axis, Config, Range, draw_configs, grid, space_evenly
from linear_cifar.data.dataset import SPLIT_NAMES, ImageShape, is_split, order_splits
from linear_cifar.data.find import DATASETS
from linear_cifar.data.formats import WHOLE, is_array
from linear_cifar.halving import Halving

FLAGS = flags.FLAGS

# The flags of training sizes, and the setting that gets one of their values.
SIZE_FLAGS = {"train_sizes": "train_size", "shots": "shots"}
# The axes that the minimum of the objective does not have.
DESCENT_AXES = ("eta", "batch", "q", "momentum")

# A flag that is defined below belongs to the command that calls for it, and appears in its --help.
flags.disclaim_key_flags()


class _AxisParser(flags.ArgumentParser):
    """A parser of the values of an axis: numbers separated by commas and, where it takes them, a range."""

    def __init__(self, axis: Axis, ranges: bool = False) -> None:
        self.axis, self.ranges = axis, ranges and not axis.whole
        numbers = f"{'whole ' * axis.whole}numbers separated by commas"
        self.syntactic_help = f"low:high, low:high:share at 0, or {numbers}" if self.ranges else numbers

    def parse(self, argument: str | Range | Sequence[float]) -> Range | tuple[float, ...]:
        try:
            if isinstance(argument, str):
                if self.ranges and ":" in argument:
                    low, high, *zeros = map(float, argument.split(":"))
                    return Range(low, high, None, *zeros)
                argument = [*map(int if self.axis.whole else float, argument.split(","))]
        except (ValueError, TypeError):
            raise ValueError(f"expected {self.syntactic_help}") from None
        return argument if isinstance(argument, Range) else tuple(map(self.axis.check, argument))

    def flag_type(self) -> str:
        return "values"


class _PairsParser(flags.ArgumentParser):
    """A parser of pairs η:λ separated by commas."""

    syntactic_help = "pairs eta:lam separated by commas"

    def parse(self, argument: str | Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        try:
            words = argument.split(",") if isinstance(argument, str) else argument
            numbers = (map(float, word.split(":") if isinstance(word, str) else word) for word in words)
            pairs = [(eta, lam) for eta, lam in numbers]
        except ValueError:
            raise ValueError(f"expected {self.syntactic_help}") from None
        return tuple((AXES["eta"].check(eta), AXES["lam"].check(lam)) for eta, lam in pairs)

    def flag_type(self) -> str:
        return "pairs"


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


class _ListSerializer(flags.ArgumentSerializer):
    def serialize(self, value: Range | Sequence[Any]) -> str:
        if isinstance(value, Range):
            return str(value)
        return ",".join(":".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)


def expand_path(text: str) -> Path:
    """Return a path from the command line, in which ~ is the home folder.

    Raises:
      UsageError: if there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: there is no home folder of that name") from None


def define_pairs(name: str, default: Sequence[tuple[float, float]], help: str) -> None:
    """Define a flag that takes one pair η:λ or several."""
    flags.DEFINE(_PairsParser(), name, default, help, serializer=_ListSerializer())


def define_axes(*, ranges: Collection[str] = (), omit: Collection[str] = (), **defaults: Any) -> None:
    """Define a flag for each axis of a configuration, which takes one value or several.

    Args:
      ranges: axes whose flags take ranges too.
      omit: axes without a flag, because the command sets them itself.
      **defaults: defaults of this command; the other axes have their own.
    """
    for name, axis in AXES.items():
        if name not in omit:
            parser, default = _AxisParser(axis, name in ranges), defaults.get(name, (axis.default,))
            text = f"{axis.label}: {'a range, or ' * parser.ranges}{axis.limits}"
            flags.DEFINE(parser, name, default, text, serializer=_ListSerializer())


def define_path_axes(omit: Collection[str] = (), **defaults: Any) -> None:
    """Define the flags of the axes of which λ takes a range, see `define_axes`."""
    define_axes(ranges=["lam"], omit=omit, **defaults)
    flags.DEFINE_integer("points", 32, "number of values of a range of λ", lower_bound=2, upper_bound=10_000)


def grid_from_flags(omit: Collection[str] = ()) -> tuple[Config, ...]:
    """Return the configurations that the flags of axes span, but for those of `omit`.

    A range of λ has --points values, evenly on its scale.

    Raises:
      UsageError: if a range is empty.
    """
    axes: dict[str, Any] = {name: FLAGS[name].value for name in AXES if name in FLAGS and name not in omit}
    try:
        for name, values in axes.items():
            if isinstance(values, Range):
                axes[name] = space_evenly(name, values, FLAGS.points)
        return grid(**axes)
    except ValueError as error:
        raise UsageError(str(error)) from None


def define_points(**defaults: Any) -> None:
    """Define the flags of a search: the axes with their ranges, and which points are drawn from them.

    Args:
      **defaults: defaults of the axes, as for `define_axes`.
    """
    define_axes(ranges=AXES, **defaults)
    flags.DEFINE_integer("points", 256, "number of points", lower_bound=1, upper_bound=2**20)
    flags.DEFINE_integer(
        "points_seed", 0, "seed of the sequence of points", lower_bound=0, upper_bound=LARGEST_SEED
    )
    axes = [name for name, axis in AXES.items() if not axis.whole]
    flags.DEFINE_list(
        "log_axes",
        [name for name in axes if AXES[name].log],
        "axes whose ranges are uniform in the logarithm; the others are uniform in the value",
    )
    flags.register_validator(
        "log_axes", lambda names: {*names} <= {*axes}, f"expected some of {', '.join(axes)}"
    )


def points_from_flags() -> tuple[Config, ...]:
    """Return the configurations that the flags of `define_points` draw.

    Raises:
      UsageError: if a range is empty or out of the hyperparameter's limits.
    """
    axes: dict[str, Any] = {name: FLAGS[name].value for name in AXES}
    for name, values in axes.items():
        if isinstance(values, Range):
            axes[name] = values._replace(log=name in FLAGS.log_axes)
    bracket = FLAGS.bracket
    if bracket & (bracket - 1):
        raise UsageError(f"--bracket={bracket}: give a power of two, for which the points are even")
    try:
        configs = draw_configs(FLAGS.points, seed=FLAGS.points_seed, bracket=bracket, **axes)
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
    try:
        halving = Halving(FLAGS.halving, FLAGS.rungs, bracket).check(
            FLAGS.epochs, FLAGS.schedule == "constant"
        )
    except ValueError as error:
        raise UsageError(f"--halving={FLAGS.halving}: {error}") from None
    return {"rungs": halving.rungs}


def define_settings(
    *,
    seeds: int = 1,
    recipes: Sequence[str] = tuple(RECIPES),
    omit: Collection[str] = (),
    selects: bool = False,
    solves: bool = False,
    halves: bool = False,
    compares: bool = False,
    **defaults: Any,
) -> None:
    """Define the flags of a training command: its settings, its data and its folder.

    Args:
      seeds: default number of seeds.
      recipes: names of the recipes that make sense for this command.
      omit: settings without a flag, because the command sets them itself.
      selects: whether the command looks for the best configuration. It then takes a user's own file, folds,
        and a number of configurations to refit.
      solves: whether the command finds exact minima; it has no seeds then.
      halves: whether the command may stop runs before their end.
      compares: whether it trains on several files of a user's own, and on nothing else.
      **defaults: defaults of this command, where they differ from those in `Settings`.
    """
    declared = declared_settings()
    assert declared.keys() >= {*omit, *defaults}, "every name belongs to a setting"
    omit = {*omit, *SIZE_FLAGS.values()}
    if not selects:
        omit = {*omit, "image_shape", "folds"}
    if not halves:
        omit = {*omit, "halving", "rungs", "bracket"}
    if not compares:
        omit = {*omit, "solver", *(DESCENT_SETTINGS if solves else PATH_SETTINGS)}
    for name, (kind, flag) in declared.items():
        if name not in omit:
            _define_setting(name, kind, flag._replace(default=defaults.get(name, flag.default)))
    if not solves:
        text = "first seed of weights, order, flips and shifts"
        flags.DEFINE_integer("seed", 0, text, lower_bound=0, upper_bound=LARGEST_SEED)
        text = "number of seeds, counted up from --seed"
        flags.DEFINE_integer("seeds", seeds, text, lower_bound=1, upper_bound=1_000_000)
    if not compares and not solves:
        define_recipe(recipes)
    if not compares:
        define_data()
    if selects:
        _define_user_file(compares)
    if selects and not compares:
        _define_best()
    _define_folder()


def sweep_from_flags(name: str, configs: Sequence[Config], **fixed: Any) -> Sweep:
    """Return a sweep with the settings and seeds that the flags give, and those that the command sets itself.

    Args:
      name: name of the sweep.
      configs: its configurations.
      **fixed: settings that replace those of the flags.
    """
    values: dict[str, Any] = {
        name: FLAGS[name].value if name in FLAGS and name not in SIZE_FLAGS else default
        for name, default in default_settings()._asdict().items()
    } | fixed
    # The validation images are always measured. One order, so that equal sets are equal settings.
    evaluate = {"val", *values["evaluate"]}
    values["evaluate"] = tuple(order_splits(evaluate))
    first, count = (FLAGS.seed, FLAGS.seeds) if "seeds" in FLAGS else (0, 1)
    seeds = range(first, first + count)
    if seeds[-1] > LARGEST_SEED:
        raise UsageError(f"--seed={first} --seeds={count}: the largest seed is {LARGEST_SEED}")
    return Sweep(name, Settings(**values), tuple(seeds), tuple(configs))


def solver_sweep_from_flags(name: str) -> Sweep:
    """Return a sweep of what --solver names, over the configurations that the flags span.

    Raises:
      UsageError: if a flag is given that does not apply to it.
    """
    solves = "solver" not in FLAGS or FLAGS.solver == PATH
    for flag in (*DESCENT_AXES, *DESCENT_SETTINGS) if solves else PATH_SETTINGS:
        if flag in FLAGS and FLAGS[flag].present:
            raise UsageError(f"--{flag}: it is for --solver={SGD if solves else PATH}")
    if solves and "seeds" in FLAGS and not any(FLAGS[name].value for name in SIZE_FLAGS):
        for flag in ("seed", "seeds"):
            if FLAGS[flag].present:
                raise UsageError(f"--{flag}: the exact minimum has no seed, unless subsets are drawn by it")
    configs = grid_from_flags(DESCENT_AXES if solves else ())
    fixed = {"solver": PATH, "flip": False, "shift": 0, "average": 1, "evaluate": ()} if solves else {}
    return sweep_from_flags(name, configs, **fixed)


def define_sizes() -> None:
    """Define the flags of training sizes, each of which takes several."""
    for name, setting in SIZE_FLAGS.items():
        flag = declared_settings()[setting][1]
        text = f"{flag.help}, drawn anew for each seed; several values train a sweep each"
        _define_setting(name, tuple[int, ...], flag._replace(help=text, default=()))


def sizes_from_flags(sweep: Sweep) -> list[Sweep]:
    """Return a sweep for each value of the flags of `define_sizes`; without any, the sweep itself."""
    sizes = [(name, size) for name in SIZE_FLAGS for size in sorted(set(FLAGS[name].value or ()))]
    if len({name for name, _ in sizes}) > 1:
        raise UsageError("--train_sizes and --shots cannot be combined: choose one")
    sweeps = []
    for name, size in sizes:
        settings = sweep.settings._replace(**{SIZE_FLAGS[name]: size})
        sweeps.append(
            sweep._replace(name=f"{sweep.name}-{size}{'shot' * (name == 'shots')}", settings=settings)
        )
    return sweeps or [sweep]


def stages_from_flags(sweep: Sweep) -> list[Stage]:
    """Return a stage that trains a sweep, and one that trains its best configurations again, see --refit.

    Raises:
      UsageError: if there are no more training examples than the configurations were trained on.
    """
    if FLAGS.refit and FLAGS.train == "batch1" and not FLAGS.folds:
        raise UsageError(
            f"--refit={FLAGS.refit}: --train=batch1 trains on all of data_batch_1 already: give --folds or "
            "--train=full"
        )
    refits = FLAGS.refit if FLAGS.refit is not None else 1 if FLAGS.folds else 0
    return [fixed_stage([sweep]), *[refit_stage(sweep, refits)] * (refits > 0)]


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
        numbers = Axis(name, name, flag.help, low=flag.lower or 0, whole=True)
        flags.DEFINE(_AxisParser(numbers), name, flag.default, flag.help, serializer=_ListSerializer())
    elif kind == tuple[str, ...]:
        flags.DEFINE_list(name, [*flag.default], flag.help)
        flags.register_validator(name, lambda names: all(map(is_split, names)), f"expected {SPLIT_NAMES}")
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


def _define_user_file(several: bool) -> None:
    text = (
        "an .npz, .safetensors, .parquet or .pt file, or a folder of .npy files. It has x_train [n, ...] and "
        "y_train [n], and optionally x_val, y_val, x_test, y_test, further test sets such as x_test_NAME and "
        "y_test_NAME, and classes; or else x (or features), y (or label) and optionally split and group. The "
        "defaults of other flags then follow from its size, see experiments/FEATURES.md"
    )
    if several:
        flags.DEFINE_list(
            "data", [], f"files of the same examples, or patterns of their names; each is {text}"
        )
        flags.register_validator("data", bool, "name files to compare, such as --data='features/*.npz'")
        flags.DEFINE_string(
            "names",
            "",
            "pattern of the files' names, such as {backbone}_{layer}.npz: the words in braces become columns "
            "of the table (default: one column with the files)",
        )
    else:
        flags.DEFINE_string("data", None, f"your own features instead of CIFAR-10: {text}")
    flags.DEFINE_list(
        "columns", [], "names of arrays or columns in --data that have others, such as x=embedding,y=species"
    )
    flags.register_validator(
        "columns",
        lambda words: (
            all("=" in word and is_array(word.split("=")[0]) for word in words)
            and len({word.split("=")[0] for word in words}) == len(words)
        ),
        f"expected ARRAY=NAME once for each, where ARRAY is one of {', '.join(WHOLE)}, or such as x_train",
    )


def _define_best() -> None:
    flags.DEFINE_bool(
        "save_probabilities",
        False,
        "write probabilities.parquet: the class probabilities of the best configuration for each held-out "
        "example; the weights of all runs are kept for it",
    )
    flags.DEFINE_integer(
        "refit",
        None,
        "train the N best configurations by validation again, on all training examples and from every seed, "
        "and test them (default: 1 with --folds, else 0)",
        lower_bound=0,
    )


def _define_folder() -> None:
    flags.DEFINE_string(
        "out",
        None,
        "folder for the results (default: results/<experiment>/<time>); an experiment in it is resumed or "
        "extended, see experiments/README.md",
    )
    flags.DEFINE_list("formats", [*FORMATS[:2]], f"formats of the figures: some of {', '.join(FORMATS)}")
    flags.register_validator(
        "formats", lambda names: names and {*names} <= {*FORMATS}, f"expected some of {', '.join(FORMATS)}"
    )
    flags.DEFINE_enum(
        "titles", "yes", ["yes", "no"], "draw the figures with their titles; a paper has captions"
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
        "largest number of runs that train at a time (default: as many as fit in memory; with "
        "--scheduler, see experiments/CLUSTER.md)",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "scheduler",
        None,
        "train on the workers of a Dask cluster: the address of its scheduler, such as tcp://host:8786, or "
        "its scheduler file. A cluster runs any code that it is sent, so keep it in a private network or "
        "behind TLS, see experiments/CLUSTER.md",
    )
