"""Reader of the CIFAR-10 that tensorflow-datasets (tfds) has prepared; it does not need TensorFlow."""

import io
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from linear_cifar.data.dataset import DataError, RawDataset, Split

CLASSES = 10
SIDE = 32


def read_tfds(data_dir: Path, counts: tuple[int, int] = (50_000, 10_000)) -> RawDataset | None:
    """Read the newest version in `data_dir/cifar10/<version>/`, in the published order.

    tfds shuffles the images that it prepares. Their ids (`train_00000`, ...) restore the published order.

    Args:
      data_dir: the `data_dir` of tfds.
      counts: numbers of training and test images that there must be.

    Returns:
      uint8 images [n, 3072] and uint8 labels [n] of both splits; None if tfds has prepared nothing there.
      They are never `verified`, because tfds keeps no checksums of the images.

    Raises:
      DataError: if the copy is not in the array_record format of tfds, cannot be read, or does not hold each
        image exactly once.
    """
    folder = _newest(data_dir / "cifar10")
    if folder is None:
        return None
    try:
        return _read(folder, counts)
    except DataError as error:
        raise DataError(f"the CIFAR-10 that tfds prepared in {folder} {error}") from error
    # tfds, array_record and Pillow raise undocumented errors of many types on broken files.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"the CIFAR-10 that tfds prepared in {folder} cannot be read ({reason:.200})"
        ) from error


def _newest(folder: Path) -> Path | None:
    # tfds names unfinished work `incomplete.*`, so only full version numbers count.
    versions = [path for path in folder.glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return max(versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None)


def _read(folder: Path, counts: tuple[int, int]) -> RawDataset:
    # Imported here, as the import takes a second.
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise DataError(
            f"is in the format {', '.join(formats)}, which only TensorFlow can read: prepare it with "
            "file_format='array_record', or supply cifar-10-binary.tar.gz"
        )
    absent = {"id", "image", "label"} - set(builder.info.features)
    if absent:
        raise DataError(f"has no features {', '.join(sorted(absent))}")
    names = builder.info.features["label"].names
    if len(names) != CLASSES:
        raise DataError(f"has {len(names)} classes instead of {CLASSES}")

    def split(name: str, count: int) -> Split:
        # Otherwise tfds would decode with OpenCV, or warn that it is missing.
        decoders = {"image": tfds.decode.SkipDecoding()}
        records = builder.as_data_source(name, decoders=decoders, file_format="array_record")
        return _in_order(records, name, count)

    train, test = split("train", counts[0]), split("test", counts[1])
    return RawDataset("cifar10", tuple(names), train, test, str(folder), False, (3, SIDE, SIDE))


def _in_order(records: Collection[Mapping[str, Any]], name: str, count: int) -> Split:
    if len(records) != count:
        raise DataError(f"has {len(records)} {name} images instead of {count}")
    images = np.empty((count, 3 * SIDE * SIDE), np.uint8)
    labels = np.empty(count, np.uint8)
    rows = {f"{name}_{row:05d}".encode(): row for row in range(count)}
    for record in records:
        # There are as many records as rows. If no row is taken twice, none is missing.
        row = rows.pop(record["id"], None)
        if row is None:
            raise DataError(
                f"has the id {record['id']!r} twice, or in place of another one, among its {name} images"
            )
        if not 0 <= record["label"] < CLASSES:
            raise DataError(f"labels {record['id']!r} {record['label']}: not one of {CLASSES} classes")
        with Image.open(io.BytesIO(record["image"])) as picture:
            pixels = np.asarray(picture)
        if pixels.shape != (SIDE, SIDE, 3) or pixels.dtype != np.uint8:
            raise DataError(f"has no {SIDE} x {SIDE} image in 8-bit colours at {record['id']!r}")
        images[row] = pixels.transpose(2, 0, 1).ravel()
        labels[row] = record["label"]
    return Split(images, labels)
