"""The data set that the flags of a training command name."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

from absl import flags

from experiments.cli.flags import expand_path
from experiments.cli.progress import download_bar, log
from experiments.runner.data import PreparedData, prepare_data
from experiments.runner.errors import UsageError
from experiments.runner.settings import Settings
from linear_cifar.data.dataset import DataError, Dataset, RawDataset, split_dataset, train_size
from linear_cifar.data.features import count_training, read_features
from linear_cifar.data.find import find_dataset
from linear_cifar.rounding import check_resolution

FLAGS = flags.FLAGS


class DataSource(NamedTuple):
    """The data set of a command.

    `count_training` returns how many examples a sweep of these settings trains on, before any are read.
    `prepare` returns its data, read and prepared once for equal settings.
    """

    count_training: Callable[[Settings], int]
    prepare: Callable[[Settings], PreparedData]


def source_from_flags() -> DataSource:
    """Return the data set that --data, or else --dataset and --data_dir, name.

    Raises:
      UsageError: if both are given, or a setting is given that the data cannot have.
    """
    file = FLAGS["data"].value if "data" in FLAGS else None
    if file is None:
        if "image_shape" in FLAGS and FLAGS.image_shape is not None:
            raise UsageError("--image_shape: it is for --data only, and CIFAR-10's images have their shape")
        return DataSource(
            lambda settings: train_size(settings.train, settings.val_size, settings.folds),
            _make_prepare(cache(_find_raw_dataset)),  # experiments divide the images in several ways
        )
    for name in ("dataset", "data_dir"):
        if FLAGS[name].present:
            raise UsageError(f"--data and --{name} cannot be combined: choose one")
    path = expand_path(file)
    return DataSource(
        lambda settings: count_training(path, settings.val_size, settings.folds),
        _make_prepare(partial(read_features, path, FLAGS.image_shape, log)),
    )


def _make_prepare(find: Callable[[], RawDataset]) -> Callable[[Settings], PreparedData]:
    """Return a function from settings to their data, of which each division is prepared once."""
    fingerprints: set[str] = set()
    log_once = cache(log)

    @cache
    def prepare_division(train: str, val_size: int, folds: int, standardize: str, dtype: str) -> PreparedData:
        raw = find()
        dataset = split_dataset(raw, train, val_size, folds)
        fingerprints.add(dataset.fingerprint)
        if len(fingerprints) > 1:
            reason = "has changed since the command was started: start it again in another folder"
            raise DataError(f"{raw.name} {reason}")
        for line in _describe_division(raw, dataset):
            log_once(f"note: {raw.name} {line}")
        return prepare_data(dataset, standardize, dtype)

    def prepare(settings: Settings) -> PreparedData:
        data = prepare_division(
            settings.train, settings.val_size, settings.folds, settings.standardize, settings.dtype
        )
        _check_settings(settings, data.dataset)
        return data

    return prepare


def _describe_division(raw: RawDataset, dataset: Dataset) -> Iterator[str]:
    """Yield what a user may not expect of the division of a data set."""
    n = len(dataset.train.labels)
    if raw.val is not None and dataset.val is None:
        yield f"has x_val: its examples join the training examples, {n:,} in all"
    if dataset.folds is not None:
        folds, m = dataset.folds.shape
        if folds * m < n:
            yield f"has {n:,} training examples: {n - folds * m} are in no fold, so that each has {m:,}"
    elif raw.user_file and raw.val is None and dataset.val is not None:
        size = len(dataset.val.labels)
        yield (
            f"has no x_val: {size:,} of its {n + size:,} training examples, drawn at random and stratified "
            "by class, validate instead"
        )
    if raw.test is None:
        yield "has no x_test: nothing is reported as test"


def _check_settings(settings: Settings, dataset: Dataset) -> None:
    """Raise UsageError if the settings ask for something that the data do not have."""
    augmentation = "flip" if settings.flip else "shift" if settings.shift else None
    if augmentation and dataset.image_shape is None:
        raise UsageError(
            f"--{augmentation} is for images, and {dataset.name} holds features: leave it out, or give "
            "--image_shape=channels,height,width"
        )
    # An augmentation changes features in their own units, before they are standardised.
    for split in dataset.splits.values() if augmentation else ():
        try:
            check_resolution(split.features, settings.dtype)
        except ValueError as error:
            raise UsageError(f"--{augmentation}: {error}") from None
    if "test" in settings.evaluate and settings.folds:
        raise UsageError("--evaluate=test: with --folds only the refitted configurations are tested")
    if "test" in settings.evaluate and dataset.test is None:
        raise UsageError(f"--evaluate=test: {dataset.name} has no x_test")


def _find_raw_dataset() -> RawDataset:
    with download_bar("CIFAR-10") as on_progress:
        return find_dataset(FLAGS.dataset, FLAGS.data_dir, log, on_progress)
