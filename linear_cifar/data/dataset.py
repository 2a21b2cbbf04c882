"""Labelled examples, and their division into training, validation and test splits."""

import hashlib
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int, Integer, Num

from linear_cifar.arguments import as_seed, as_whole, check_choice

TrainSplit = Literal["full", "batch1"]
SPLITS = ("train", "val", "test")
# Channels, height and width of an image.
ImageShape = tuple[int, int, int]

# CIFAR-10 publishes its 50,000 training images in five batches of this many.
BATCH_FILE_SIZE = 10_000
# Seed of the rows that validate where there is no validation split, and of the folds. It is not a run's seed,
# so that all runs on a data set are validated on the same rows.
VALIDATION_SEED = 0


class DataError(Exception):
    """A data set is broken, hostile or not the one asked for; the message is one line for the user."""


class DataUnavailable(DataError):
    """A data set is not on this machine and cannot be fetched: the one case in which `auto` falls back."""


class Split(NamedTuple):
    """n examples of d features, with their classes as whole numbers from 0.

    Images are channel-major: all red, then all green, then all blue, each with its rows from the top.
    """

    features: Num[np.ndarray, "n d"]
    labels: Integer[np.ndarray, " n"]


class RawDataset(NamedTuple):
    """A data set as it was found, before a validation split is taken from its training examples."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split | None
    origin: str  # where it was found: a file, a folder, a seed
    verified: bool  # whether checksums show it to be the published data
    image_shape: ImageShape | None  # None if the rows are not images
    val: Split | None = None
    user_file: bool = False  # whether it is a user's own file, with rows in any order


class Dataset(NamedTuple):
    """A data set divided into splits: the data of an experiment.

    With folds, `train` has all training examples. Each fold is some of its rows: they validate the runs that
    train on the others, and nothing is tested.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split | None
    origin: str
    verified: bool
    fingerprint: str  # of the raw data set, whichever division was taken
    image_shape: ImageShape | None = None
    user_file: bool = False
    folds: Int[np.ndarray, "F m"] | None = None  # rows of each fold

    @property
    def label(self) -> str:
        """The name for tables and figures, see `label_dataset`."""
        return label_dataset(self.name, self.fingerprint, self.user_file)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name, without those that there are not."""
        found = {name: getattr(self, name) for name in SPLITS}
        return {name: split for name, split in found.items() if split is not None}


def label_dataset(name: str, fingerprint: str, user_file: bool) -> str:
    """Return a data set's name for tables and figures, with the first digits of a user file's fingerprint."""
    return f"{name} {fingerprint[:8]}" if user_file else name


def fingerprint(raw: RawDataset) -> str:
    """Return the SHA-256 (hex) of a data set's labels and features, whatever files they came in.

    Each split's labels come before its features, and the splits are in the order training, validation, test.
    So the four layouts of CIFAR-10 agree. The names of the classes in a user's file follow.
    """
    digest = hashlib.sha256()
    for split in (raw.train, raw.val, raw.test):
        if split is not None:
            digest.update(np.ascontiguousarray(split.labels).data)
            digest.update(np.ascontiguousarray(split.features).data)
    if raw.user_file:
        digest.update("\n".join(raw.classes).encode())
    return digest.hexdigest()


def check_division(train: Any, val_size: Any, folds: Any = 0) -> None:
    """Raise ValueError if `train` is unknown, or there can be no such `val_size` or number of `folds`."""
    check_choice("train", train, get_args(TrainSplit))
    as_whole("val_size", val_size, 0)
    if as_whole("folds", folds, 0) == 1:
        raise ValueError("folds is 1: give at least 2, or 0 for none")


def train_size(train: str, val_size: int, folds: int = 0, *, n: int = 50_000) -> int:
    """Return how many of n published training images a run is trained on, see `split_dataset`.

    Raises:
      ValueError: see `check_division`.
    """
    check_division(train, val_size, folds)
    if train == "batch1":
        n, val_size = BATCH_FILE_SIZE, 0
    return n // folds * (folds - 1) if folds else n - val_size


def split_dataset(raw: RawDataset, train: str = "full", val_size: int = 1_000, folds: int = 0) -> Dataset:
    """Divide a data set into training, validation and test splits, or into folds.

    Args:
      raw: the data set. Its validation split is kept where it has one.
      train: `full` trains on all training examples less `val_size`, which validate: of published images the
        last ones (the splits are views), of a user's own file a random choice, see `draw_stratified`.
        `batch1` trains on the first published batch file and validates on the second.
      val_size: number of validation examples to take with `full`. 0: there is no validation split, and all
        training examples are trained on, with those of the data set's own validation split.
      folds: number of folds into which all training examples are divided instead: five of the published
        50,000 images are the batch files; others are drawn, see `draw_folds`. 0: none.

    Raises:
      DataError: if there are too few training examples, or no batch files.
      ValueError: see `check_division`.
    """
    check_division(train, val_size, folds)
    if raw.user_file and train == "batch1":
        raise DataError(f"{raw.name} has no batch files as CIFAR-10 has: give train=full")
    val: Split | None = None
    if folds or val_size == 0:
        training = _join_training(raw, train)
    elif raw.val is not None:
        training, val = raw.train, raw.val
    elif raw.user_file:
        training, val = _split_stratified(raw, val_size)
    else:
        training, val = _split_in_order(raw, train, val_size)
    return Dataset(
        name=raw.name,
        classes=raw.classes,
        train=training,
        val=val,
        test=None if folds else raw.test,
        origin=raw.origin,
        verified=raw.verified,
        fingerprint=fingerprint(raw),
        image_shape=raw.image_shape,
        user_file=raw.user_file,
        folds=_make_folds(raw, training.labels, folds) if folds else None,
    )


def draw_folds(
    labels: Integer[np.ndarray, " n"], folds: int, seed: int = VALIDATION_SEED
) -> Int[np.ndarray, "folds m"]:
    """Divide rows at random into folds of equal size m = ⌊n / folds⌋, with each class spread over all folds.

    The numbers of a class in two folds differ by at most one. The n − m · folds rows that are left over are
    in no fold; they are of the largest classes.

    Args:
      labels: class of each row, whole numbers from 0.
      folds: number of folds.
      seed: seed of the draw.

    Returns:
      Indices in ascending order.

    Raises:
      ValueError: if `folds` is no whole number from 2, or a class would have a row in one fold only.
    """
    as_whole("folds", folds, 2)
    counts = np.bincount(labels)
    random = np.random.default_rng(as_seed(seed)).random(len(labels))
    # Dealt like cards: the rows of a class follow one another, and the smallest class comes first.
    order = np.lexsort((random, labels, counts[labels]))
    m = len(labels) // folds
    dealt = order[: m * folds].reshape(m, folds).T
    rare = np.flatnonzero((counts > 0) & (np.bincount(labels[dealt.ravel()], minlength=len(counts)) < 2))
    if len(rare):
        raise ValueError(f"class {rare[0]} has {counts[rare[0]]} of {len(labels)} rows, too few to divide")
    return np.sort(dealt, axis=1)


def draw_stratified(
    labels: Integer[np.ndarray, " n"], size: int, seed: int = VALIDATION_SEED
) -> Int[np.ndarray, " size"]:
    """Draw rows at random so that each class has its share of them, and keeps at least one other row.

    The shares are rounded down, and the rows that are left go to the classes with the largest remainders
    (Hamilton's method).

    Args:
      labels: class of each row, whole numbers from 0.
      size: number of rows to draw.
      seed: seed of the draw.

    Returns:
      Indices in ascending order.

    Raises:
      ValueError: if `size` is no whole number from 1, or fewer than one row per class would be left.
    """
    as_whole("size", size, 0)
    counts = np.bincount(labels)
    most = np.maximum(counts - 1, 0)
    if not 0 < size <= most.sum():
        raise ValueError(f"size is {size}: give 1 to {most.sum()}, so that each class keeps a row")
    quotas = counts * size / len(labels)
    drawn = np.minimum(np.floor(quotas).astype(int), most)
    by_remainder = np.argsort(drawn - quotas, kind="stable")
    while drawn.sum() < size:
        open_classes = by_remainder[drawn[by_remainder] < most[by_remainder]]
        drawn[open_classes[: size - drawn.sum()]] += 1
    rng = np.random.default_rng(as_seed(seed))
    rows_by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = [
        rng.choice(rows, count, replace=False)
        for rows, count in zip(rows_by_class, drawn, strict=True)
        if count
    ]
    return np.sort(np.concatenate(chosen))


def _join_training(raw: RawDataset, train: str) -> Split:
    """Return all examples that may be trained on: all but the test split, or the first batch file."""
    if train == "batch1":
        return _split_in_order(raw, train, 0)[0]
    if raw.val is None:
        return raw.train
    return Split(*(np.concatenate(pair) for pair in zip(raw.train, raw.val, strict=True)))


def _make_folds(raw: RawDataset, labels: Integer[np.ndarray, " n"], folds: int) -> Int[np.ndarray, "folds m"]:
    """Return the rows of each fold: the published batch files, or a stratified draw."""
    n = len(labels)
    if not raw.user_file and n == folds * BATCH_FILE_SIZE:
        return np.arange(n).reshape(folds, -1)
    try:
        return draw_folds(labels, folds)
    except ValueError as error:
        raise DataError(f"{raw.name} cannot be divided into {folds} folds: {error}") from None


def _split_in_order(raw: RawDataset, train: str, val_size: int) -> tuple[Split, Split]:
    """Take the validation split from the end of the training images, or from the second batch file."""
    n = len(raw.train.labels)
    first = train_size(train, val_size, n=n)
    last = 2 * BATCH_FILE_SIZE if train == "batch1" else n
    if not 0 < first < last <= n:
        raise DataError(
            f"{raw.name} has {n} training images: too few for train={train} with val_size={val_size}"
        )
    return _take(raw.train, slice(first)), _take(raw.train, slice(first, last))


def _split_stratified(raw: RawDataset, val_size: int) -> tuple[Split, Split]:
    try:
        rows = draw_stratified(raw.train.labels, val_size)
    except ValueError as error:
        raise DataError(f"{raw.name} has no x_val to validate on, and val_{error}") from None
    rest = np.delete(np.arange(len(raw.train.labels)), rows)
    return _take(raw.train, rest), _take(raw.train, rows)


def _take(split: Split, rows: slice | np.ndarray) -> Split:
    return Split(split.features[rows], split.labels[rows])
