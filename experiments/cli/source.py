"""The data set that the flags of a training command name."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from absl import flags

from experiments.cli.files import SAME, check_examples, expand_pattern, name_files
from experiments.cli.flags import expand_path
from experiments.cli.progress import download_bar, log
from experiments.cli.recipes import fit_defaults
from experiments.runner.errors import UsageError
from experiments.runner.settings import Settings
from linear_cifar.data.cifar10 import SIZES
from linear_cifar.data.dataset import DataError, Dataset
from linear_cifar.data.find import find_dataset
from linear_cifar.data.formats import open_features
from linear_cifar.data.prepare import Data, prepare_data
from linear_cifar.result import TEST
from linear_cifar.rounding import check_resolution

FLAGS = flags.FLAGS
# Returns the divided, prepared data of settings and of a file, by its name (by default the only one).
Prepare = Callable[..., Data]


def open_source() -> tuple[dict[str, int], Prepare]:
    """Open the data set, or the files of the same examples, that the flags name.

    Returns:
      The number of examples of each split, known before any are read, and a function from settings, and the
      name of one of several files, to their data. All files are read when the function is first called, and
      prepared once for equal settings. The defaults of flags for a user's own data are set.

    Raises:
      UsageError: if both are given, or a setting is given that the data cannot have.
      DataError: if a file cannot be used, or the files do not hold the same examples.
    """
    files = find_files()
    names = dict(word.split("=", 1) for word in FLAGS.columns) if files else {}
    opened = {name: open_features(path, FLAGS.image_shape, log, names) for name, path in files.items()}
    opened = opened or {"": (SIZES, _find_dataset)}
    first, (sizes, _) = next(iter(opened.items()))
    for name, path in files.items():
        if opened[name][0] != sizes:
            listed = (opened[key][0].items() for key in (name, first))
            theirs, ours = (", ".join(f"{n:,} {split}" for split, n in pairs) for pairs in listed)
            raise DataError(f"{path} has {theirs} examples, and {files[first]} {ours}: {SAME}")
    words = fit_defaults(sizes) if files else []
    log_once = cache(log)

    @cache
    def read_all() -> dict[str, Dataset]:
        datasets = {}
        for name, (_, read) in opened.items():
            datasets[name] = read()
            check_examples(datasets[first], datasets[name])
        return datasets

    @cache
    def prepare_division(file: str, *, train_size: int, shots: int, **division: str | int) -> Data:
        if train_size or shots:  # all sizes share the examples
            return prepare_division(file, **division, train_size=0, shots=0).limit(train_size, shots)
        data = prepare_data(read_all()[file], **division)  # type: ignore[arg-type]
        if words:
            log_once(f"note: {sizes['train']:,} rows to train on; the defaults are {' '.join(words)}")
        for line in _describe_division(data) if file == first else ():
            log_once(f"note: {data.dataset.name} {line}")
        return data

    def prepare(settings: Settings, file: str = "") -> Data:
        names = ("train", "val_size", "folds", "standardize", "class_weight", "dtype", "train_size", "shots")
        data = prepare_division(file, **{name: getattr(settings, name) for name in names})
        _check_settings(settings, data)
        return data

    return sizes, prepare


def find_files() -> dict[str, Path]:
    """Return the files that --data names, by names for their sweeps; a single file has the name "".

    Raises:
      UsageError: if a pattern matches no file, or --data does not go with another flag.
    """
    if not getattr(FLAGS, "data", None):
        if getattr(FLAGS, "image_shape", None) is not None:
            raise UsageError("--image_shape: it is for --data only, and CIFAR-10's images have their shape")
        if getattr(FLAGS, "columns", None):
            raise UsageError("--columns: it is for --data only")
        return {}
    for name in ("dataset", "data_dir"):
        if name in FLAGS and FLAGS[name].present:
            raise UsageError(f"--data and --{name} cannot be combined: choose one")
    if isinstance(FLAGS.data, str):
        return {"": expand_path(FLAGS.data)}
    return name_files([path for word in FLAGS.data for path in expand_pattern(word)])


def _find_dataset() -> Dataset:
    with download_bar("CIFAR-10") as on_progress:
        return find_dataset(FLAGS.dataset, FLAGS.data_dir, log, on_progress)


def _describe_division(data: Data) -> Iterator[str]:
    """Yield what a user may not expect of the division of a data set."""
    splits, n = data.dataset.splits, len(data.sets["train"])
    grouped = data.sets["train"].groups is not None
    groups = {name: len(np.unique(np.asarray(examples.groups))) for name, examples in data.sets.items()}
    if "val" in splits and (data.folds or "val" not in data.sets):
        yield f"has x_val: its examples join the training examples, {n:,} in all"
    if data.folds:
        m = data.size("val")
        if len(data.folds) * m < n:
            left_over = n - len(data.folds) * m
            yield f"has {n:,} training examples: {left_over:,} are in no fold, so that each has {m:,}"
        if grouped:
            yield f"has {groups['train']:,} groups of training examples, and no fold divides one"
    elif data.dataset.user_file and "val" not in splits and "val" in data.sets:
        size, drawn = len(data.sets["val"]), "drawn at random and stratified by class"
        if grouped:
            drawn = f"{groups['val']:,} of {groups['val'] + groups['train']:,} groups, stratified by class"
        yield f"has no x_val: {size:,} of its {n + size:,} training examples, {drawn}, validate instead"
    if not any(name.startswith(TEST) for name in splits):
        yield "has no x_test: nothing is reported as test"


def _check_settings(settings: Settings, data: Data) -> None:
    """Raise UsageError if the settings ask for something that the data do not have."""
    name = data.dataset.name
    augmentation = "flip" if settings.flip else "shift" if settings.shift else None
    if augmentation and data.dataset.image_shape is None:
        raise UsageError(
            f"--{augmentation} is for images, and {name} holds features: leave it out, or give "
            "--image_shape=channels,height,width"
        )
    # An augmentation changes features in their own units, before they are standardised.
    for examples in data.sets.values() if augmentation else ():
        try:
            check_resolution(examples.features, settings.dtype)
        except ValueError as error:
            raise UsageError(f"--{augmentation}: {error}") from None
    for split in filter(lambda split: split.startswith(TEST), settings.evaluate):
        if settings.folds:
            raise UsageError(f"--evaluate={split}: with --folds only the refitted configurations are tested")
        if split not in data.sets:
            raise UsageError(f"--evaluate={split}: {name} has no x_{split}")
