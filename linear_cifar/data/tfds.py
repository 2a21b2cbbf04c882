"""Reader of the CIFAR-10 that tensorflow-datasets (tfds) has prepared; it does not need TensorFlow."""

import io
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from linear_cifar.arguments import one_line
from linear_cifar.data.dataset import DataError, Dataset, Split, make_dataset
from linear_cifar.data.local import AnyPath, expand_home, find_files, import_extra

CLASSES = 10
SIDE = 32
# tfds starts the names of its files with the name of the data set: cifar10-train.array_record-00000-of-00001.
_SHARD = re.compile(r"cifar10-(train|test)\..*")


def read_tfds(data_dir: AnyPath, counts: tuple[int, int] = (50_000, 10_000)) -> Dataset | None:
    """Read the newest version of CIFAR-10 that tfds has prepared, in the published order.

    tfds shuffles the images that it prepares. Their ids (`train_00000`, ...) restore the published order.

    Args:
      data_dir: the `data_dir` of tfds, its folder `cifar10/`, or the folder of a version.
      counts: numbers of training and test images that there must be.

    Returns:
      uint8 images [n, 3072] and uint8 labels [n] of both splits; None if tfds has prepared nothing there.
      They are never `verified`, because tfds keeps no checksums of the images.

    Raises:
      DataError: if the copy is not in the array_record format of tfds, cannot be read, or does not hold each
        image exactly once; or if a package is missing that reads it.
    """
    folders = (folder for folder, _ in find_files(expand_home(data_dir), _SHARD))
    folder = max(folders, key=_version, default=None)
    if folder is None:
        return None
    try:
        return _read(folder, counts)
    except DataError as error:
        raise DataError(f"the CIFAR-10 that tfds prepared in {folder} {error}") from error
    # tfds, array_record and Pillow raise undocumented errors of many types on broken files.
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise DataError(f"the CIFAR-10 that tfds prepared in {folder} cannot be read ({reason})") from error


def _version(folder: Path) -> list[int]:
    return [*map(int, folder.name.split("."))] if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) else []


def _read(folder: Path, counts: tuple[int, int]) -> Dataset:
    # Not at the top, as the import takes a second.
    tfds = import_extra("tensorflow_datasets")
    builder = tfds.builder_from_directory(folder)
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise DataError(
            f"is in the format {', '.join(formats)}, which only TensorFlow can read: prepare it with "
            "file_format='array_record', or supply cifar-10-binary.tar.gz"
        )
    import_extra("array_record")  # tfds imports it late, and prints a long text if it is missing
    absent = {"id", "image", "label"} - set(builder.info.features)
    if absent:
        raise DataError(f"has no features {', '.join(sorted(absent))}")
    names = builder.info.features["label"].names
    if len(names) != CLASSES:
        raise DataError(f"has {len(names)} classes instead of {CLASSES}")

    splits = {}
    for name, count in zip(("train", "test"), counts, strict=True):
        # Otherwise tfds would decode with OpenCV, or warn that it is missing.
        decoders = {"image": tfds.decode.SkipDecoding()}
        records = builder.as_data_source(name, decoders=decoders, file_format="array_record")
        splits[name] = _restore_order(records, name, count)
    return make_dataset("cifar10", tuple(names), splits, str(folder), image_shape=(3, SIDE, SIDE))


def _restore_order(records: Collection[Mapping[str, Any]], name: str, count: int) -> Split:
    if len(records) != count:
        raise DataError(f"has {len(records)} {name} images instead of {count}")
    pillow = import_extra("PIL.Image")
    images = np.empty((count, 3 * SIDE * SIDE), np.uint8)
    labels = np.empty(count, np.uint8)
    rows = {f"{name}_{row:05d}".encode(): row for row in range(count)}
    for record in records:
        # There are as many records as rows. If no row is taken twice, none is missing.
        row = rows.pop(record["id"], None)
        if row is None:
            raise DataError(f"has the id {record['id']!r} twice, or in place of another {name} image's")
        if not 0 <= record["label"] < CLASSES:
            raise DataError(f"labels {record['id']!r} {record['label']}: not one of {CLASSES} classes")
        with pillow.open(io.BytesIO(record["image"])) as picture:
            pixels = np.asarray(picture)
        if pixels.shape != (SIDE, SIDE, 3) or pixels.dtype != np.uint8:
            raise DataError(f"has no {SIDE} x {SIDE} image in 8-bit colours at {record['id']!r}")
        images[row] = pixels.transpose(2, 0, 1).ravel()
        labels[row] = record["label"]
    return Split(images, labels)
