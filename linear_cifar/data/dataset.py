"""Labelled examples as they were read, and the errors of reading them."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Integer, Num

from linear_cifar.devices import empty_aligned

# The splits that a data set may have, in their order; further test sets follow. Measurements of one called
# test_class would have the names of other measurements.
SPLITS = ("train", "val", "test")
_FURTHER_TEST = re.compile(r"test_[A-Za-z0-9_-]+(?<!_class)")
SPLIT_NAMES = "train, val, test, or test_NAME (letters, digits, _ and -, without _class at the end)"
# Channels, height and width of an image.
ImageShape = tuple[int, int, int]

# CIFAR-10 publishes its 50,000 training images in five batches of this many.
BATCH_FILE_SIZE = 10_000


class DataError(Exception):
    """A data set is broken, hostile or not the requested one; the message is one line for the user."""


class DataUnavailable(DataError):
    """A data set is not on this machine and cannot be fetched: the one case in which `auto` falls back."""


class Split(NamedTuple):
    """n examples of d features, with their classes, and perhaps their groups, as whole numbers from 0.

    Images are channel-major: all red, then all green, then all blue, each with its rows from the top.
    """

    features: Num[np.ndarray, "n d"]
    labels: Integer[np.ndarray, " n"]
    groups: Integer[np.ndarray, " n"] | None = None

    def take(self, rows: slice | Integer[np.ndarray, " m"]) -> "Split":
        """Return some rows, read-only: views, or one copy, which JAX need not copy again on a CPU."""
        labels, groups = jax.tree.map(lambda leaf: leaf[rows], self[1:])
        if isinstance(rows, slice):
            return Split(self.features[rows], labels, groups)
        taken = empty_aligned((len(rows), self.features.shape[1]), self.features.dtype)
        np.take(self.features, rows, axis=0, out=taken, mode="clip")  # "raise" would make a second copy
        taken.flags.writeable = False
        return Split(taken, labels, groups)

    def join(self, other: "Split") -> "Split":
        """Return the rows of both splits as one read-only copy."""
        labels, groups = jax.tree.map(lambda *leaves: np.concatenate(leaves), self[1:], other[1:])
        joined = empty_aligned((len(labels), self.features.shape[1]), self.features.dtype)
        np.concatenate((self.features, other.features), out=joined)
        joined.flags.writeable = False
        return Split(joined, labels, groups)


class Dataset(NamedTuple):
    """A data set as it was read; `make_dataset` makes it, and `prepare_data` divides it."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]  # train, and those of val, test and further test sets that there are
    origin: str  # where it was found: a file, a folder, a seed
    verified: bool  # whether checksums show it to be the published data
    image_shape: ImageShape | None  # None if the rows are not images
    user_file: bool  # whether it is a user's own file, with rows in any order
    fingerprint: str  # SHA-256 (hex) of its content
    rows: dict[str, Int[np.ndarray, " m"]] | None = None  # of one matrix that has all splits, those of each

    @property
    def label(self) -> str:
        """The name for tables and figures, see `label_dataset`."""
        return label_dataset(self.name, self.fingerprint, self.user_file)


def make_dataset(
    name: str,
    classes: tuple[str, ...],
    splits: Mapping[str, Split],
    origin: str,
    *,
    verified: bool = False,
    image_shape: ImageShape | None = None,
    user_file: bool = False,
    rows: dict[str, Int[np.ndarray, " m"]] | None = None,
) -> Dataset:
    """Return a data set with its fingerprint: the SHA-256 (hex) of its labels and features.

    The files that they came in do not matter. Each split's labels come before its features, and the splits
    are in the order of `order_splits`. So the four layouts of CIFAR-10 agree. Groups follow, and the names
    of the classes and of further test sets in a user's file.
    """
    digest = hashlib.sha256()
    ordered = {split: splits[split] for split in order_splits(splits)}
    for features, labels, _ in ordered.values():
        digest.update(np.ascontiguousarray(labels).data)
        digest.update(np.ascontiguousarray(features).view(np.uint8).data)  # bfloat16 has no buffer
    for groups in (split.groups for split in ordered.values() if split.groups is not None):
        digest.update(np.ascontiguousarray(groups).data)
    if user_file:
        digest.update("\n".join((*classes, *(split for split in ordered if split not in SPLITS))).encode())
    fingerprint = digest.hexdigest()
    return Dataset(name, classes, ordered, origin, verified, image_shape, user_file, fingerprint, rows)


def is_split(name: str) -> bool:
    """Tell whether a split may have this name: train, val, test, or test_NAME for a further test set."""
    return name in SPLITS or _FURTHER_TEST.fullmatch(name) is not None


def order_splits(names: Iterable[str]) -> list[str]:
    """Return the names of splits in order: train, val and test, then the others alphabetically."""
    return sorted(names, key=lambda name: ([*SPLITS, name].index(name), name))


def label_dataset(name: str, fingerprint: str, user_file: bool) -> str:
    """Return a data set's name for tables and figures, with the first digits of a user file's fingerprint."""
    return f"{name} {fingerprint[:8]}" if user_file else name
