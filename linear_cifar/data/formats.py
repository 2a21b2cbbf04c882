"""Readers of a user's own features: files of arrays that are named as Keras names them."""

import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Num, Shaped

from linear_cifar.arguments import one_line
from linear_cifar.data.dataset import SPLITS, DataError, Dataset, ImageShape, Split, make_dataset
from linear_cifar.examples import check_finite
from linear_cifar.memory import COPIES_OF_EXAMPLES, process_memory
from linear_cifar.npz import ArrayHeader, read_array, read_header

FEATURE_TYPES = ("uint8", "float16", "float32", "float64")
CLASSES = "classes"
NAMES = (*(f"{axis}_{split}" for split in SPLITS for axis in "xy"), CLASSES)
# Numbers of channels by which an array of images is recognised: grey and colours.
CHANNELS = (1, 3)


class _Npz:
    """The arrays of an open `.npz` file by name; each header and each array is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]

    def header(self, name: str) -> ArrayHeader:
        """Read the header of an array."""
        return read_header(self._archive, self._archive.getinfo(f"{name}.npy"))

    def read(self, name: str, header: ArrayHeader) -> np.ndarray:
        """Read an array."""
        return read_array(self._archive, self._archive.getinfo(f"{name}.npy"), header)


# The function that opens a file, by the ending of its name.
READERS: dict[str, Callable[[Path], _Npz]] = {".npz": _Npz}


def read_features(
    path: str | Path, image_shape: ImageShape | None = None, log: Callable[[str], None] = warnings.warn
) -> Dataset:
    """Open and read a file at once, see `open_features`."""
    return open_features(path, image_shape, log)[1]()


def open_features(
    path: str | Path, image_shape: ImageShape | None = None, log: Callable[[str], None] = warnings.warn
) -> tuple[dict[str, int], Callable[[], Dataset]]:
    """Open a file of `x_train` [n, ...] and `y_train` [n], and perhaps of `x_val`, `x_test` and `classes`.

    `np.savez` writes such a file. Features are uint8, float16, float32 or float64; labels are whole numbers
    from 0. Further axes of the features are flattened. Arrays [n, height, width, 1 or 3] and
    [n, 1 or 3, height, width] are images, and become channel-major.

    Args:
      path: the file.
      image_shape: channels, height and width, needed if the shape of `x_train` does not show that it holds
        images.
      log: gets a note on arrays that are not used.

    Returns:
      The number of rows of each split, known from the headers alone, and a function that reads the data set.
      It has the name of the file, and a validation and a test split where there are `x_val` and `x_test`.

    Raises:
      DataError: if the file cannot be used, here or by the function. The message names the file and the
        array. Nothing in the file is executed, and no array is read before the memory for all of them is
        known to be there.
    """
    path = Path(path)
    if path.suffix not in READERS:  # so that its name is not one of a published data set
        raise DataError(f"{path} is not called {' or '.join(READERS)}: np.savez writes such a file")
    if not path.is_file():  # opening a pipe would never return
        raise DataError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    with _explain_errors(str(path)):
        archive = READERS[path.suffix](path)
    headers = {}
    for name in NAMES:
        if name in archive.names:
            with _explain_errors(f"{path}: {name}"):
                headers[name] = archive.header(name)
    others = f"{', '.join(ascii(name) for name in archive.names if name not in NAMES):.200}"
    for name in ("x_train", "y_train"):
        if name not in headers:
            raise DataError(
                f"{path} has no {name}; it has {others or 'no array'}: name the arrays as Keras does"
            )
    for split in SPLITS:
        _check_headers(path, f"x_{split}", f"y_{split}", headers)
    _check_memory(path, headers)
    image_shape = _find_image_shape(path, headers["x_train"].shape, image_shape)
    if others:
        log(f"note: {path} also has {others}, which is not used; what is used is named {', '.join(NAMES)}")
    sizes = {split: headers[f"x_{split}"].shape[0] for split in SPLITS if f"x_{split}" in headers}
    return sizes, partial(_read, path, archive, headers, image_shape)


def _read(
    path: Path, archive: _Npz, headers: Mapping[str, ArrayHeader], image_shape: ImageShape | None
) -> Dataset:
    """Read all arrays, whose headers are checked, and check their values."""
    arrays = {}
    for name, header in headers.items():
        with _explain_errors(f"{path}: {name}"):
            array = archive.read(name, header)
        arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    splits = {
        split: Split(
            _flatten_features(path, f"x_{split}", arrays.pop(f"x_{split}"), image_shape),
            _flatten_labels(path, f"y_{split}", arrays.pop(f"y_{split}")),
        )
        for split in SPLITS
        if f"x_{split}" in arrays
    }
    classes = _name_classes(path, splits["train"].labels, arrays.get(CLASSES))
    for split, (_, labels) in splits.items():
        row = int(np.argmax(labels))
        if labels[row] >= len(classes):
            raise DataError(
                f"{path}: row {row} of y_{split} is {labels[row]}: there are {len(classes)} classes, from 0"
            )
    counts = np.bincount(splits["train"].labels, minlength=len(classes))
    if not counts.all():
        raise DataError(f"{path}: class {int(np.argmin(counts))} has no row in y_train")
    name = "".join(character if character.isprintable() else "?" for character in path.name)
    return make_dataset(name, classes, splits, str(path), image_shape=image_shape, user_file=True)


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


def _check_memory(path: Path, headers: Mapping[str, ArrayHeader]) -> None:
    """Raise DataError if the arrays do not fit into the memory."""
    nbytes = COPIES_OF_EXAMPLES * sum(header.nbytes for header in headers.values())
    if nbytes > process_memory():
        largest = max(headers, key=lambda name: headers[name].nbytes)
        raise DataError(
            f"{path} needs {nbytes / 1e9:,.3g} GB, most of them for {largest}, {headers[largest].dtype}"
            f"{list(headers[largest].shape)}: this process may take {process_memory() / 1e9:,.3g} GB"
        )


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


def _find_image_shape(
    path: Path, shape: tuple[int, ...], image_shape: ImageShape | None
) -> ImageShape | None:
    """Return the shape of the images in x_train, or None: the shape that the user says, or that it shows.

    Raises:
      DataError: if the two contradict each other, or the shape fits channels first as well as last.
    """
    row = shape[1:]
    if image_shape is None:
        # Height and width are more than 1: networks pool their features to [n, 2048, 1, 1].
        first = len(row) == 3 and row[0] in CHANNELS and min(row[1:]) > 1
        last = len(row) == 3 and row[-1] in CHANNELS and min(row[:-1]) > 1
        if first and last:
            raise DataError(
                f"{path}: x_train is {list(shape)}, whose channels may come first or last: give "
                "image_shape as channels,height,width"
            )
        return row if first else (row[-1], *row[:-1]) if last else None  # type: ignore[return-value]
    rotated = (*image_shape[1:], image_shape[0])
    if row == image_shape == rotated:
        raise DataError(f"{path}: x_train is {list(shape)}: flatten its rows, with the channels first")
    fits = row in (image_shape, rotated) if len(row) == 3 else math.prod(row) == math.prod(image_shape)
    if not fits:
        raise DataError(
            f"{path}: x_train is {list(shape)}, which does not hold images of image_shape "
            f"{','.join(map(str, image_shape))} (channels,height,width)"
        )
    return image_shape


def _flatten_features(
    path: Path, name: str, features: Num[np.ndarray, "n ..."], image_shape: ImageShape | None
) -> Num[np.ndarray, "n d"]:
    """Return the features as [n, d], images channel-major; raise DataError for a row that is not finite."""
    n = len(features)
    if image_shape is not None and features.ndim == 4 and features.shape[1:] != image_shape:
        features = features.transpose(0, 3, 1, 2)  # the channels come last
    flat = np.ascontiguousarray(features).reshape(n, -1)
    try:
        # Training computes in float32 by default, where larger numbers would be infinite.
        check_finite(name, flat, np.float32)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return flat


def _flatten_labels(path: Path, name: str, labels: Integer[np.ndarray, "n ..."]) -> Integer[np.ndarray, " n"]:
    """Return the labels as int32 [n]; raise DataError for one that is no class."""
    flat = labels.reshape(-1)
    row = int(np.argmin(flat) if flat.min() < 0 else np.argmax(flat))
    if not 0 <= flat[row] <= np.iinfo(np.int32).max:
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
