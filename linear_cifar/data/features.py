"""Reader of a user's own features: an `.npz` file of arrays that are named as Keras names them."""

import math
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Num, Shaped

from linear_cifar.arguments import one_line
from linear_cifar.data.dataset import SPLITS, DataError, ImageShape, RawDataset, Split
from linear_cifar.examples import check_finite
from linear_cifar.memory import COPIES_OF_EXAMPLES, process_memory
from linear_cifar.npz import ArrayHeader, read_array, read_header

FEATURE_TYPES = ("uint8", "float16", "float32", "float64")
CLASSES = "classes"
NAMES = (*(f"{axis}_{split}" for split in SPLITS for axis in "xy"), CLASSES)
# Numbers of channels by which an array of images is recognised: grey and colours.
CHANNELS = (1, 3)


class _Layout(NamedTuple):
    """Arrangement of images in the rows of a file."""

    image_shape: ImageShape | None  # None if the rows are not images
    channels_last: bool = False


def read_features(
    path: str | Path, image_shape: ImageShape | None = None, log: Callable[[str], None] = warnings.warn
) -> RawDataset:
    """Read `x_train` [n, ...] and `y_train` [n], and where they are there `x_val`, `x_test` and `classes`.

    `np.savez` writes such a file. Features are uint8, float16, float32 or float64; labels are whole numbers
    from 0. Further axes of the features are flattened. Arrays [n, height, width, 1 or 3] and
    [n, 1 or 3, height, width] are images, and become channel-major.

    Args:
      path: the file.
      image_shape: channels, height and width, needed if the shape of `x_train` does not show that it holds
        images.
      log: gets a note on arrays that are not used.

    Returns:
      A data set with the name of the file. It has no test split where there is no `x_test`, and no validation
      split where there is no `x_val`.

    Raises:
      DataError: if the file cannot be used. The message names the file and the array. Nothing in the file is
        executed, and no array is read before the memory for all of them is known to be there.
    """
    path = Path(path)
    headers = read_headers(path)
    layout = _find_layout(path, headers["x_train"].shape, image_shape)
    with _open(path) as archive:
        if others := _describe_others(archive):
            log(
                f"note: {path} also has {others}, which is not used; what is used is named {', '.join(NAMES)}"
            )
        arrays = {name: _read(path, archive, name, header) for name, header in headers.items()}
    names = [split for split in SPLITS if f"x_{split}" in arrays]
    splits = {
        name: Split(
            _check_features(path, f"x_{name}", arrays.pop(f"x_{name}"), layout),
            _check_labels(path, f"y_{name}", arrays.pop(f"y_{name}")),
        )
        for name in names
    }
    classes = _name_classes(path, splits["train"].labels, arrays.get(CLASSES))
    for name, split in splits.items():
        _check_classes(path, f"y_{name}", split.labels, len(classes))
    counts = np.bincount(splits["train"].labels, minlength=len(classes))
    if not counts.all():
        raise DataError(f"{path}: class {int(np.argmin(counts))} has no row in y_train")
    return RawDataset(
        name="".join(character if character.isprintable() else "?" for character in path.name),
        classes=classes,
        train=splits["train"],
        test=splits.get("test"),
        origin=str(path),
        verified=False,
        image_shape=layout.image_shape,
        val=splits.get("val"),
        user_file=True,
    )


def count_training(path: str | Path, val_size: int, folds: int = 0) -> int:
    """Return how many rows of a file a run is trained on, without reading them.

    Args:
      path: the file.
      val_size: number of rows to validate on, where the file has no `x_val`.
      folds: number of folds, see `split_dataset`.

    Raises:
      DataError: if the file's headers show that it cannot be used.
    """
    headers = read_headers(path)
    num_train, num_val = (headers[name].shape[0] if name in headers else 0 for name in ("x_train", "x_val"))
    if folds:
        return (num_train + num_val) // folds * (folds - 1)
    return num_train - (0 if num_val else val_size)


def read_headers(path: str | Path) -> dict[str, ArrayHeader]:
    """Read and check the headers of all arrays in a file.

    Raises:
      DataError: if an array is missing, of a type or a shape that does not fit, or too large for the memory.
    """
    path = Path(path)
    with _open(path) as archive:
        headers = {name: _read_header(path, archive, name) for name in _find_known(archive)}
        others = _describe_others(archive)
    for name in ("x_train", "y_train"):
        if name not in headers:
            raise DataError(
                f"{path} has no {name}; it has {others or 'no array'}: name the arrays as Keras does"
            )
    for split in SPLITS:
        _check_headers(path, f"x_{split}", f"y_{split}", headers)
    nbytes = COPIES_OF_EXAMPLES * sum(header.nbytes for header in headers.values())
    if nbytes > process_memory():
        largest = max(headers, key=lambda name: headers[name].nbytes)
        raise DataError(
            f"{path} needs {nbytes / 1e9:,.3g} GB, most of them for {largest}, {headers[largest].dtype}"
            f"{list(headers[largest].shape)}: this process may take {process_memory() / 1e9:,.3g} GB"
        )
    return headers


def _find_known(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the known arrays in the archive."""
    stored = archive.namelist()
    return [name for name in NAMES if f"{name}.npy" in stored]


def _describe_others(archive: zipfile.ZipFile) -> str:
    """Return the names of the other arrays as text."""
    known = [f"{name}.npy" for name in NAMES]
    others = [name.removesuffix(".npy") for name in archive.namelist() if name not in known]
    return f"{', '.join(map(ascii, others)):.200}"


def _check_headers(path: Path, x_name: str, y_name: str, headers: dict[str, ArrayHeader]) -> None:
    """Raise DataError if a split's types and shapes do not fit one another or those of x_train."""
    x, y = headers.get(x_name), headers.get(y_name)
    if x is None and y is None:
        return
    if x is None or y is None:
        raise DataError(f"{path} has {x_name if x else y_name} and no {y_name if x else x_name}")
    if x.dtype.name not in FEATURE_TYPES:
        raise DataError(f"{path}: {x_name} is {x.dtype.name:.40}: give {', '.join(FEATURE_TYPES)}")
    if y.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {y_name} is {y.dtype.name:.40}: give whole numbers (an integer type) from 0"
        )
    if len(x.shape) < 2 or 0 in x.shape:
        raise DataError(f"{path}: {x_name} is {list(x.shape)}: give [n, ...], a row for each example")
    # Keras's own CIFAR-10 has labels [n, 1].
    if y.shape not in ((x.shape[0],), (x.shape[0], 1)):
        raise DataError(
            f"{path}: {y_name} is {list(y.shape)}, and {x_name} is {list(x.shape)}: give [n] labels"
        )
    train = headers["x_train"]
    if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
        raise DataError(
            f"{path}: {x_name} is {x.dtype}{list(x.shape)}, and x_train is {train.dtype}{list(train.shape)}: "
            "only the number of rows may differ"
        )


def _open(path: Path) -> zipfile.ZipFile:
    if path.suffix != ".npz":  # so that its name is not one of a published data set
        raise DataError(f"{path} is not called .npz: np.savez writes such a file")
    if not path.is_file():  # opening a pipe would never return
        raise DataError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    with _explain_errors(str(path)):
        return zipfile.ZipFile(path)


@contextmanager
def _explain_errors(where: str) -> Iterator[None]:
    """Turn the errors of the zip and npy formats, which are of many types, into a DataError of one line.

    Args:
      where: the file, and the array if it is known.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{where} cannot be read: {one_line(error, 200)}") from None


def _read_header(path: Path, archive: zipfile.ZipFile, name: str) -> ArrayHeader:
    with _explain_errors(f"{path}: {name}"):
        return read_header(archive, archive.getinfo(f"{name}.npy"))


def _read(path: Path, archive: zipfile.ZipFile, name: str, header: ArrayHeader) -> np.ndarray:
    """Read one array, in the machine's order of bytes."""
    with _explain_errors(f"{path}: {name}"):
        array = read_array(archive, archive.getinfo(f"{name}.npy"), header)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _find_layout(path: Path, shape: tuple[int, ...], image_shape: ImageShape | None) -> _Layout:
    """Tell from the shape of x_train, and from what the user says, how its rows become images.

    Raises:
      DataError: if the two contradict each other, or the shape fits channels first as well as last.
    """
    row = shape[1:]
    # Height and width are more than 1: networks pool their features to [n, 2048, 1, 1].
    first = len(row) == 3 and row[0] in CHANNELS and min(row[1:]) > 1
    last = len(row) == 3 and row[-1] in CHANNELS and min(row[:-1]) > 1
    if image_shape is None:
        if first and last:
            raise DataError(
                f"{path}: x_train is {list(shape)}, whose channels may come first or last: give "
                "image_shape as channels,height,width"
            )
        if first or last:
            return _Layout((row[-1], *row[:-1]) if last else row, channels_last=last)  # type: ignore[arg-type]
        return _Layout(None)
    rotated = (*image_shape[1:], image_shape[0])
    if len(row) == 3 and row == image_shape == rotated:
        raise DataError(f"{path}: x_train is {list(shape)}: flatten its rows, with the channels first")
    if len(row) == 3 and row in (image_shape, rotated):
        return _Layout(image_shape, channels_last=row == rotated)
    if len(row) == 3 or math.prod(row) != math.prod(image_shape):
        raise DataError(
            f"{path}: x_train is {list(shape)}, which does not hold images of image_shape "
            f"{','.join(map(str, image_shape))} (channels,height,width)"
        )
    return _Layout(image_shape)


def _check_features(path: Path, name: str, features: Num[np.ndarray, "n ..."], layout: _Layout) -> np.ndarray:
    """Return the features as [n, d], images channel-major; raise DataError for a row that is not finite."""
    n = len(features)
    if layout.channels_last:
        features = features.transpose(0, 3, 1, 2)
    flat = np.ascontiguousarray(features).reshape(n, -1)
    try:
        # Training computes in float32 by default, where larger numbers would be infinite.
        check_finite(name, flat, np.float32)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return flat


def _check_labels(path: Path, name: str, labels: Integer[np.ndarray, "n ..."]) -> Integer[np.ndarray, " n"]:
    """Return the labels as int32 [n]; raise DataError for one that is no class."""
    flat = labels.reshape(-1)
    row = int(np.argmin(flat))
    if flat[row] < 0:
        raise DataError(f"{path}: row {row} of {name} is {flat[row]}: classes are numbered from 0")
    row = int(np.argmax(flat))
    if flat[row] > np.iinfo(np.int32).max:
        raise DataError(
            f"{path}: row {row} of {name} is {flat[row]}: classes are numbered from 0 without gaps"
        )
    return flat.astype(np.int32)


def _name_classes(
    path: Path, labels: Integer[np.ndarray, " n"], named: Shaped[np.ndarray, "..."] | None
) -> tuple[str, ...]:
    """Return the names of the classes, which are their numbers where the file does not name them.

    Raises:
      DataError: if the names are not text, or there are as many classes as rows.
    """
    K = int(labels.max()) + 1
    if named is not None:
        if named.dtype.kind != "U" or named.ndim != 1:
            raise DataError(f"{path}: {CLASSES} is {named.dtype}{list(named.shape)}: give a list of names")
        K = len(named)
    if not 2 <= K < len(labels):
        raise DataError(
            f"{path}: y_train has {len(labels)} rows and {K} class" + "es" * (K != 1) + ": give labels of at "
            "least two classes, and fewer classes than rows"
        )
    with _explain_errors(f"{path}: {CLASSES}"):
        names = tuple(map(str, range(K) if named is None else named.tolist()))
    if len(set(names)) < K or not all(name.isprintable() and name for name in names):
        raise DataError(f"{path}: {CLASSES} holds a name twice, or one that is empty or has a line break")
    return names


def _check_classes(path: Path, name: str, labels: Integer[np.ndarray, " n"], K: int) -> None:
    """Raise DataError if a label is not one of K classes."""
    row = int(np.argmax(labels))
    if labels[row] >= K:
        raise DataError(f"{path}: row {row} of {name} is {labels[row]}: there are {K} classes, from 0")
