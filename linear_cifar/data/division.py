"""The division of a data set into examples to train on, to validate on and to test on, or into folds."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int, Integer

from linear_cifar.arguments import as_seed, as_whole, check_choice
from linear_cifar.data.dataset import BATCH_FILE_SIZE, DataError, Dataset, Split, order_splits

TrainSplit = Literal["full", "batch1"]
# Seed of the rows that validate where there is no validation split, and of the folds. It is not a run's seed,
# so that all runs on a data set are validated on the same rows.
VALIDATION_SEED = 0
# At most this many folds are made to choose a validation split of whole groups, because each takes time.
MOST_FOLDS = 50

# Group of each row.
Groups = Integer[np.ndarray, " n"] | None


def check_division(train: Any, val_size: Any, folds: Any = 0) -> None:
    """Raise ValueError if `train` is unknown, or there can be no such `val_size` or number of `folds`."""
    check_choice("train", train, get_args(TrainSplit))
    as_whole("val_size", val_size, 0)
    if as_whole("folds", folds, 0) == 1:
        raise ValueError("folds is 1: give at least 2, or 0 for none")


def train_size(sizes: Mapping[str, int], train: str, val_size: int, folds: int = 0) -> int:
    """Return the number of examples that a run is trained on, from those of each split, see `divide`.

    Raises:
      ValueError: see `check_division`.
    """
    check_division(train, val_size, folds)
    if train == "batch1":
        sizes, val_size = {"train": BATCH_FILE_SIZE}, 0
    if folds or val_size == 0:
        n = sizes["train"] + sizes.get("val", 0)
        return n // folds * (folds - 1) if folds else n
    return sizes["train"] - (0 if "val" in sizes else val_size)


def divide(dataset: Dataset, train: str = "full", val_size: int = 1_000, folds: int = 0) -> dict[str, Split]:
    """Divide a data set into training, validation and test examples, by name.

    Args:
      dataset: the data set. Its validation split is kept where it has one.
      train: `full` trains on all training examples less `val_size`, which validate: of published images the
        last ones (the splits are views), of a user's own file a random choice, see `draw_stratified`, or
        whole groups, see `draw_groups`.
        `batch1` trains on the first published batch file and validates on the second.
      val_size: number of validation examples to take with `full`. 0: there is no validation split, and all
        training examples are trained on, with those of the data set's own validation split.
      folds: if not 0, `train` has all training examples, which `find_folds` divides, and nothing is tested.

    Raises:
      DataError: if there are too few training examples, or no batch files.
      ValueError: see `check_division`.
    """
    check_division(train, val_size, folds)
    if dataset.user_file and train == "batch1":
        raise DataError(f"{dataset.name} has no batch files as CIFAR-10 has: give train=full")
    splits = dict(dataset.splits)
    whole = splits["train"]
    validates = val_size > 0 and not folds
    if train == "batch1" or (validates and "val" not in splits):
        train_rows, val_rows = _choose_rows(dataset, train, val_size)
        splits["train"], splits["val"] = whole.take(train_rows), whole.take(val_rows)
    elif "val" in splits and not validates:
        splits["train"] = whole.join(splits["val"])
    used = {"train": True, "val": validates}
    return {name: splits[name] for name in order_splits(splits) if used.get(name, not folds)}


def number_rows(dataset: Dataset, train: str, val_size: int, folds: int) -> dict[str, Int[np.ndarray, "n 2"]]:
    """Return the number of the data set's split, and the row in it, that each example of `divide` is from.

    Of a user's file with one matrix for all splits it is the row of the matrix.
    """
    splits = {}
    for number, (name, split) in enumerate(dataset.splits.items()):
        rows = np.arange(len(split.labels)) if dataset.rows is None else dataset.rows[name]
        splits[name] = split._replace(features=np.column_stack([np.full(len(rows), number), rows]))
    divided = divide(dataset._replace(splits=splits), train, val_size, folds)
    return {name: split.features for name, split in divided.items()}


def _choose_rows(
    dataset: Dataset, train: str, val_size: int
) -> tuple[slice | Int[np.ndarray, " n"], slice | Int[np.ndarray, " m"]]:
    """Choose the rows of the training split to train on, and those to validate on."""
    _, labels, groups = dataset.splits["train"]
    n = len(labels)
    if dataset.user_file:
        try:
            rows = (
                draw_stratified(labels, val_size) if groups is None else draw_groups(labels, groups, val_size)
            )
        except ValueError as error:
            keeps = ": each class keeps a row" * (groups is None)
            raise DataError(f"{dataset.name} has no x_val to validate on, and val_{error}{keeps}") from None
        return np.delete(np.arange(n), rows), rows
    first, last = (BATCH_FILE_SIZE, 2 * BATCH_FILE_SIZE) if train == "batch1" else (n - val_size, n)
    if not 0 < first < last <= n:
        raise DataError(
            f"{dataset.name} has {n} training images: too few for train={train} with val_size={val_size}"
        )
    return slice(first), slice(first, last)


def find_folds(
    dataset: Dataset, labels: Integer[np.ndarray, " n"], folds: int, groups: Groups = None
) -> Int[np.ndarray, "folds m"]:
    """Return the rows of each fold of all training examples: the published batch files, or a stratified draw.

    Raises:
      DataError: if a class has too few examples, or there are too few groups, see `draw_folds`.
    """
    n = len(labels)
    if not dataset.user_file and n == folds * BATCH_FILE_SIZE:
        return np.arange(n).reshape(folds, -1)
    try:
        return draw_folds(labels, folds, groups)
    except ValueError as error:
        raise DataError(f"{dataset.name} cannot be divided into {folds} folds: {error}") from None


def draw_folds(
    labels: Integer[np.ndarray, " n"], folds: int, groups: Groups = None, seed: int = VALIDATION_SEED
) -> Int[np.ndarray, "folds m"]:
    """Divide rows at random into folds of equal size m, with each class spread over all folds.

    Without groups m is ⌊n / folds⌋, and the numbers of a class in two folds differ by at most one. The rows
    that are left over are in no fold; they are of the largest classes. With groups, no group is in two folds,
    see `assign_groups`. The folds are then cut to the size of the smallest, each class in its share.

    Args:
      labels: class of each row, whole numbers from 0.
      folds: number of folds.
      groups: group of each row, whole numbers; None: there are none.
      seed: seed of the draw.

    Returns:
      Indices in ascending order.

    Raises:
      ValueError: if `folds` is no whole number from 2, there are fewer groups, or a class would have a row in
        one fold only.
    """
    as_whole("folds", folds, 2)
    counts = np.bincount(labels)
    random = np.random.default_rng(as_seed(seed)).random(len(labels))
    # Dealt like cards: the rows of a class follow one another, and the smallest class comes first.
    order = np.lexsort((random, labels, counts[labels]))
    if groups is None:
        m = len(labels) // folds
        dealt = order[: m * folds].reshape(m, folds).T
    else:
        fold_of = assign_groups(labels, groups, folds)[order]
        by_fold = [order[fold_of == fold] for fold in range(folds)]
        m = min(map(len, by_fold))
        dealt = np.stack([rows[np.arange(m) * len(rows) // m] for rows in by_fold])
    folds_with = sum(np.bincount(labels[rows], minlength=len(counts)) > 0 for rows in dealt)
    rare = np.flatnonzero((counts > 0) & (folds_with < 2))
    if len(rare):
        whole = " without dividing groups" * (groups is not None)
        raise ValueError(
            f"class {rare[0]} has {counts[rare[0]]} of {len(labels)} rows, too few to divide{whole}"
        )
    return np.sort(dealt, axis=1)


def draw_groups(
    labels: Integer[np.ndarray, " n"], groups: Integer[np.ndarray, " n"], size: int
) -> Int[np.ndarray, " m"]:
    """Choose two whole groups or more with about `size` rows: of n / `size` folds the nearest in size.

    Raises:
      ValueError: if no fold of `assign_groups` has two groups and leaves rows of every class.
    """
    folds = max(2, min(round(len(labels) / size), MOST_FOLDS, len(np.unique(groups)) // 2))
    fold_of = assign_groups(labels, groups, folds)
    chosen = [np.flatnonzero(fold_of == fold) for fold in range(folds)]
    chosen = [
        rows
        for rows in chosen
        if len(np.unique(groups[rows])) > 1 and {*np.delete(labels, rows)} == {*labels}
    ]
    if not chosen:
        raise ValueError(f"size is {size}: no two whole groups or more leave rows of every class to train on")
    return min(chosen, key=lambda rows: abs(len(rows) - size))


def assign_groups(
    labels: Integer[np.ndarray, " n"], groups: Integer[np.ndarray, " n"], folds: int
) -> Int[np.ndarray, " n"]:
    """Return a fold for each row, one for all rows of a group, so that folds have equal shares of each class.

    The folds are those of scikit-learn's `StratifiedGroupKFold`. Groups come in the order of the standard
    deviation of their class counts, and each is put where the shares of the classes then scatter least over
    the folds.
    """
    found, codes = np.unique(groups, return_inverse=True)
    if len(found) < folds:
        raise ValueError(f"give at most {len(found)} folds, the number of groups")
    classes, labels = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(found), len(classes)))
    np.add.at(counts, (codes, labels), 1)
    by_fold, fold_of = np.zeros((folds, len(classes))), np.zeros(len(found), int)
    for group in np.argsort(-counts.std(axis=1), kind="stable"):
        # [f, g, k]: the rows of class k in fold g, if the group is put into fold f.
        shares = (by_fold + np.eye(folds)[..., None] * counts[group]) / counts.sum(axis=0)
        least, size = np.inf, np.inf
        for fold, scatter in enumerate(shares.std(axis=1).mean(axis=1)):
            rows = by_fold[fold].sum()
            if scatter < least or (scatter - least <= 1e-8 + 1e-5 * least and rows < size):
                least, size, fold_of[group] = scatter, rows, fold
        by_fold[fold_of[group]] += counts[group]
    return fold_of[codes]


def draw_subset(
    labels: Integer[np.ndarray, " n"], size: int = 0, shots: int = 0, seed: int = 0, fold: int = 0
) -> Int[np.ndarray, " m"]:
    """Draw `size` rows with each class in its share, or `shots` rows of each class; groups may be divided.

    The rows of a seed and fold have one random order, so that a small subset is part of a larger one. The
    i-th row of a class of c rows, i from 0, is at (i + u) / c with a uniform u of the class. So every
    beginning is stratified, and many small classes do not all miss their turn.

    Returns:
      Indices in ascending order.

    Raises:
      ValueError: if both or neither are given, there are fewer rows, or fewer than classes are to be drawn.
    """
    classes, counts = np.unique(labels, return_counts=True)
    n, K, fewest = len(labels), len(classes), counts.argmin()
    if bool(as_whole("train_size", size, 0)) == bool(as_whole("shots", shots, 0)):
        raise ValueError(f"train_size is {size} and shots is {shots}: give one of them")
    if shots > counts[fewest]:
        raise ValueError(f"shots is {shots}: class {classes[fewest]} has {counts[fewest]:,} rows to train on")
    if size and not K <= size <= n:
        raise ValueError(f"train_size is {size}: give from {K}, the number of classes, to {n:,} rows")
    rng = np.random.default_rng([as_seed(seed), 1 + fold])  # another stream than that of the folds
    order = np.lexsort((rng.random(n), labels))  # class after class
    within = np.concatenate([*map(np.arange, counts)])
    places = (within + np.repeat(rng.random(K), counts)) / np.repeat(counts, counts)
    return np.sort(order[within < shots] if shots else order[np.argsort(places, kind="stable")[:size]])


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
    counts = np.bincount(labels)
    most = np.maximum(counts - 1, 0)
    as_whole("size", size, 1, int(most.sum()))
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
