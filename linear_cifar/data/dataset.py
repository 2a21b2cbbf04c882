"""Labelled images, and their division into training, validation and test splits."""

import hashlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

TrainSplit = Literal["full", "batch1"]

# CIFAR-10 publishes its 50,000 training images in five batches of this many.
BATCH_FILE_SIZE = 10_000


class DataError(Exception):
    """A data set is broken, hostile or not the one asked for; the message is one line for the user."""


class DataUnavailable(DataError):
    """A data set is not on this machine and cannot be fetched: the one case in which `auto` falls back."""


class Split(NamedTuple):
    """n images of d features, channel-major (all red, then all green, then all blue), rows from the top."""

    images: UInt8[np.ndarray, "n d"]
    labels: UInt8[np.ndarray, " n"]


class RawDataset(NamedTuple):
    """A data set as its makers publish it, in their order, before a validation split is taken."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    origin: str  # where it was found: a file, a folder, a seed
    verified: bool  # whether checksums show it to be the published data


class Dataset(NamedTuple):
    """A data set divided into splits: the data of an experiment."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    origin: str
    verified: bool
    fingerprint: str  # of the raw data set, whichever division was taken


def fingerprint(raw: RawDataset) -> str:
    """Return the SHA-256 (hex) of a data set's labels and images, whatever files they came in.

    The order is training labels, training images, test labels, test images, so that the four layouts of the
    same data agree.
    """
    digest = hashlib.sha256()
    for split in (raw.train, raw.test):
        digest.update(np.ascontiguousarray(split.labels).data)
        digest.update(np.ascontiguousarray(split.images).data)
    return digest.hexdigest()


def train_size(train: TrainSplit, val_size: int, n: int = 50_000) -> int:
    """Return how many of n published training images are trained on, see `split_dataset`."""
    return BATCH_FILE_SIZE if train == "batch1" else n - val_size


def split_dataset(raw: RawDataset, train: TrainSplit = "full", val_size: int = 1_000) -> Dataset:
    """Divide a data set into training, validation and test splits.

    Args:
      raw: the data set. Nothing is copied: the splits are views.
      train: `full` trains on all training images less the last `val_size`, which validate;
        `batch1` trains on the first published batch file and validates on the second.
      val_size: number of validation images with `full`.

    Raises:
      DataError: if there are too few training images.
    """
    images, labels = raw.train
    n = len(labels)
    first = train_size(train, val_size, n)
    last = 2 * BATCH_FILE_SIZE if train == "batch1" else n
    if not 0 < first < last <= n:
        raise DataError(
            f"{raw.name} has {n} training images: too few for train={train} with val_size={val_size}"
        )
    return Dataset(
        name=raw.name,
        classes=raw.classes,
        train=Split(images[:first], labels[:first]),
        val=Split(images[first:last], labels[first:last]),
        test=raw.test,
        origin=raw.origin,
        verified=raw.verified,
        fingerprint=fingerprint(raw),
    )
