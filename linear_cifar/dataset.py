"""Labelled images, and their division into train, validation and test splits."""

import hashlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

TrainSplit = Literal["full", "batch1"]

# CIFAR-10 publishes its 50,000 training images in five batches of this many.
BATCH_FILE_SIZE = 10_000


class DataError(Exception):
    """A data set is broken, hostile or not what was asked for; the message is one line for the user."""


class DataUnavailable(DataError):
    """A data set is neither on this machine nor to be fetched: the one case in which `auto` falls back."""


class Split(NamedTuple):
    """n images of d features, channel-major (all red, then all green, then all blue), rows from the top."""

    images: UInt8[np.ndarray, "n d"]
    labels: UInt8[np.ndarray, " n"]


class Source(NamedTuple):
    """A data set as its makers publish it, in their order, before a validation split is taken."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    origin: str  # where it was found, for the user: a file, a folder, a seed
    published: bool  # whether checksums show it to be the published data


class Dataset(NamedTuple):
    """What an experiment works on."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    origin: str
    published: bool
    fingerprint: str  # of the whole source, whichever split was taken


def fingerprint(source: Source) -> str:
    """SHA-256 (hex) of the source's labels and images, whatever files they came in.

    Hashed in the order train labels, train images, test labels, test images, so that the
    four layouts of the same data agree.
    """
    digest = hashlib.sha256()
    for split in (source.train, source.test):
        digest.update(np.ascontiguousarray(split.labels).data)
        digest.update(np.ascontiguousarray(split.images).data)
    return digest.hexdigest()


def train_size(train: TrainSplit, val_size: int, n: int = 50_000) -> int:
    """How many of n published training images are trained on, see `divide`."""
    return BATCH_FILE_SIZE if train == "batch1" else n - val_size


def divide(source: Source, train: TrainSplit = "full", val_size: int = 1_000) -> Dataset:
    """Takes the validation split out of the training images.

    Args:
      source: the data set; nothing of it is copied, the splits are views.
      train: `full` trains on all training images less the last `val_size`, which validate;
        `batch1` trains on the first published batch file and validates on the second.
      val_size: number of validation images with `full`.

    Raises:
      DataError: if the source has too few training images for the division.
    """
    images, labels = source.train
    n = len(labels)
    first = train_size(train, val_size, n)
    last = 2 * BATCH_FILE_SIZE if train == "batch1" else n
    if not 0 < first < last <= n:
        raise DataError(
            f"{source.name} has {n} training images: too few for train={train} with val_size={val_size}"
        )
    return Dataset(
        name=source.name,
        classes=source.classes,
        train=Split(images[:first], labels[:first]),
        val=Split(images[first:last], labels[first:last]),
        test=source.test,
        origin=source.origin,
        published=source.published,
        fingerprint=fingerprint(source),
    )
