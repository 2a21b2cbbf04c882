"""A user's own features: the arrays of a file, checked, and their labels as classes."""

import itertools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Num, Shaped

from linear_cifar.arguments import one_line
from linear_cifar.data.dataset import (
    SPLIT_NAMES,
    SPLITS,
    DataError,
    Dataset,
    ImageShape,
    Split,
    is_split,
    make_dataset,
    order_splits,
)
from linear_cifar.data.readers import READERS, Reader
from linear_cifar.examples import check_finite
from linear_cifar.memory import check_memory
from linear_cifar.npz import ArrayHeader

FEATURE_TYPES = ("uint8", "bfloat16", "float16", "float32", "float64")
CLASSES = "classes"
# Names of arrays for all splits; a file with one for each has x_train, and so on. Tables have other names.
GROUP = "group"
AXES = ("x", "y", GROUP)
WHOLE = (*AXES, "split", CLASSES)
TABLE_NAMES = {"x": "features", "y": "label", GROUP: "groups"}
# Numbers of channels by which an array of images is recognised: grey and colours.
CHANNELS = (1, 3)
# Names of a split's features, labels and groups (or None), and the split's rows of them.
Part = tuple[str, str, str | None, slice | Int[np.ndarray, " n"]]


def read_features(path: str | Path, **options: Any) -> Dataset:
    """Open and read a file at once, see `open_features`."""
    return open_features(path, **options)[1]()


def open_features(
    path: str | Path,
    image_shape: ImageShape | None = None,
    log: Callable[[str], None] = warnings.warn,
    names: Mapping[str, str] | None = None,
) -> tuple[dict[str, int], Callable[[], Dataset]]:
    """Open a file or folder of features and labels by its reader in `READERS`.

    It holds `x_train` [n, ...] and `y_train` [n], and perhaps the same for `val`, `test` and further test
    sets `test_NAME`. Or it holds `x` and `y`, also called `features` and `label`, and perhaps `split` [n]:
    the word train, val, test or test_NAME. Beside each `x` may be a `group` [n], such as the patient, of any
    type that labels have.
    Features are of one of `FEATURE_TYPES`, and further axes are flattened. Arrays [n, height, width, 1 or 3]
    and [n, 1 or 3, height, width] are images, and become channel-major.

    Labels are whole numbers, words, bytes or booleans. Their different values in ascending order are the
    classes and give them their names. Where there are names in `classes` [K], labels are numbers from 0.

    Args:
      path: the file or folder.
      image_shape: channels, height and width, needed if the shape of the features does not show that they are
        images.
      log: gets a note on arrays that are not used.
      names: the file's names of arrays that have others, such as `{"x": "embedding"}`.

    Returns:
      The number of rows of each split, known before the features are read, and a function that reads the data
      set. It has the name of the file or folder.

    Raises:
      DataError: if the file cannot be used, here or by the function. The message names the file and the
        array. Nothing in the file is executed, and no array is read before the memory for all of them is
        known to be there.
    """
    path = Path(path)
    # The ending is required so that the name is not one of a published data set.
    if not path.exists():
        raise DataError(f"{path} does not exist")
    ending = "" if path.is_dir() else path.suffix or "."
    if ending not in READERS:
        kinds = ", ".join(filter(None, READERS))
        raise DataError(f"{path} is no folder and not called {kinds}: np.savez writes an .npz file")
    if ending and not path.is_file():  # opening a pipe would never return
        raise DataError(f"{path} is not a file")
    with _explain_errors(str(path)):
        archive = READERS[ending](path)
    found = _find_arrays(path, archive.names, names or {}, log)
    headers = {}
    for name in found.values():
        with _explain_errors(f"{path}: {name}"):
            headers[name] = archive.header(name)
    splits = {array[2:]: array[1:] for array in found if array[0] == "x"}
    named = {
        split: (found[f"x{end}"], found[f"y{end}"], found.get(f"{GROUP}{end}"))
        for split, end in splits.items()
    }
    first = named[next(iter(named))][0]
    for x, *beside in named.values():
        _check_headers(path, x, [*filter(None, (*beside, found.get("split")))], first, headers)
    largest = max(headers, key=lambda name: headers[name].nbytes)
    what = f"{path} (most of it {largest}, {headers[largest].dtype}{list(headers[largest].shape)})"
    check_memory(what, sum(header.nbytes for header in headers.values()), error=DataError)
    image_shape = _find_image_shape(path, first, headers[first].shape, image_shape)
    parts: dict[str, Part] = {split or "train": (*three, slice(None)) for split, three in named.items()}
    sizes = {split: headers[x].shape[0] for split, (x, *_) in parts.items()}
    if "split" in found:
        rows = _read_split(path, found["split"], archive, headers.pop(found["split"]))
        parts = {split: (*named[""], rows[split]) for split in rows}
        sizes = {split: len(rows[split]) for split in rows}
    return sizes, partial(_read, path, archive, headers, parts, found.get(CLASSES), image_shape)


def is_array(name: str) -> bool:
    """Tell whether a file may have an array of this name."""
    axis, _, split = name.partition("_")
    return name in WHOLE or (axis in AXES and is_split(split))


def _find_arrays(
    path: Path, held: Sequence[str], names: Mapping[str, str], log: Callable[[str], None]
) -> dict[str, str]:
    """Return the names that the used arrays have among all that the file holds; note what is not used."""
    arrays: Sequence[str] = WHOLE
    if "x_train" in {*held, *names}:
        ends = {name.partition("_")[2] for name in (*held, *names) if name.partition("_")[0] in AXES}
        splits = order_splits({*SPLITS, *(end for end in ends if end.startswith("test_"))})
        if not all(map(is_split, splits)):
            wrong = next(split for split in splits if not is_split(split))
            raise DataError(f"{path} has an array of the split {wrong!a:.60}: call it {SPLIT_NAMES}")
        arrays = (*(f"{axis}_{split}" for split in splits for axis in AXES), CLASSES)
    usual = {array: array if array in held else TABLE_NAMES.get(array, array) for array in arrays}
    found = {array: name for array, name in (usual | dict(names)).items() if name in held}
    cut = [array.partition("_") for array in found]
    # Beside any features are labels, and groups if there are groups at all; and the other way round.
    axes = [axis for axis in AXES if axis != GROUP or any(part[0] == GROUP for part in cut)]
    partners = [f"{axis}{dash}{split}" for kind, dash, split in cut if kind in axes for axis in axes]
    for array in (*arrays[:2], *names, *partners):
        if array not in found or array not in arrays:
            raise DataError(
                f"{path} has no {names.get(array, 'x_train' if array == 'x' else array)}; it has "
                f"{', '.join(map(ascii, held)) or 'no array':.200}: name the arrays x_train and y_train, or "
                "x and y (or features and label), or say by names (--columns) which they are"
            )
    others = ", ".join(ascii(name) for name in held if name not in found.values())
    if others:
        used = ", ".join(arrays)
        log(f"note: {path} also has {others:.200}, which is not used; what is used is named {used}")
    return found


def _read_split(
    path: Path, name: str, archive: Reader, header: ArrayHeader
) -> dict[str, Int[np.ndarray, " m"]]:
    """Return the rows of each split; raise DataError if a word is no split, or no row is to train on."""
    with _explain_errors(f"{path}: {name}"):
        words = archive.read(name, header)
    codes, found = _encode_labels(path, {name: words}, None)
    rows = {word: np.flatnonzero(codes[name] == code) for code, word in enumerate(found)}
    for word in found:
        if not is_split(word):
            raise DataError(f"{path}: row {rows[word][0]} of {name} is {word!a:.40}: give {SPLIT_NAMES}")
    if "train" not in rows:
        raise DataError(f"{path}: no row of {name} is train")
    return {split: rows[split] for split in order_splits(rows)}


def _read(
    path: Path,
    archive: Reader,
    headers: Mapping[str, ArrayHeader],
    parts: Mapping[str, Part],
    classes_name: str | None,
    image_shape: ImageShape | None,
) -> Dataset:
    """Read all arrays, whose headers are checked, and check their values."""
    arrays = {}
    for name, header in headers.items():
        with _explain_errors(f"{path}: {name}"):
            array = archive.read(name, header)
            if array.shape != header.shape:
                raise ValueError("it is not as large as its header says")
        arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    label_arrays = {y: arrays[y] for _, y, *_ in parts.values()}
    labels, classes = _encode_labels(path, label_arrays, arrays.get(classes_name or ""))
    for name, count in Counter(classes).items():
        if count > 1 or not name or not name.isprintable():
            where = classes_name or " and ".join(label_arrays)
            raise DataError(
                f"{path}: {where} holds the name {name!a:.40} twice, or it is empty or cannot be printed"
            )
    group_arrays = {group: arrays[group] for *_, group, _ in parts.values() if group}
    groups, group_names = _encode_labels(path, group_arrays, None) if group_arrays else ({}, ())
    pixels = dict.fromkeys(x for x, *_ in parts.values())
    # `pop` frees each array after it is flattened, because flattening may copy it.
    features = {x: _flatten_features(path, x, arrays.pop(x), image_shape) for x in pixels}
    splits = {
        split: Split(features[x], labels[y], groups.get(group or "")).take(rows)
        for split, (x, y, group, rows) in parts.items()
    }
    used = {split: rows.groups for split, rows in splits.items() if rows.groups is not None}
    for first, second in itertools.combinations(used, 2):
        if first.startswith("test"):  # two test sets may have the same rows, changed
            continue
        shared = np.intersect1d(used[first], used[second])
        if len(shared):
            name = group_names[shared[0]]
            raise DataError(f"{path}: group {name!a:.40} is in {first} and {second}: give its rows one split")
    K, n = len(classes), len(splits["train"].labels)
    if not 2 <= K < n:
        raise DataError(
            f"{path}: {parts['train'][1]} has {n} rows and {K} class{'es' * (K != 1)} to train on: give "
            "labels of at least two classes, and fewer classes than rows"
        )
    counts = np.bincount(splits["train"].labels, minlength=K)
    if not counts.all():
        rare = classes[np.argmin(counts)]
        raise DataError(
            f"{path}: class {rare:.40} has no row to train on: leave its rows out, and its name in {CLASSES}"
        )
    name = "".join(character if character.isprintable() else "?" for character in path.resolve().name)
    name += "/" * path.is_dir()
    rows = {split: part[-1] for split, part in parts.items() if isinstance(part[-1], np.ndarray)}
    return make_dataset(
        name, classes, splits, str(path), image_shape=image_shape, user_file=True, rows=rows or None
    )


def _check_headers(
    path: Path, x_name: str, beside: Sequence[str], first_name: str, headers: Mapping[str, ArrayHeader]
) -> None:
    """Raise DataError if a split's types and shapes do not fit one another or those of the first split."""
    x, first = headers[x_name], headers[first_name]
    if x.dtype.name not in FEATURE_TYPES:
        raise DataError(f"{path}: {x_name} is {x.dtype.name:.40}: give {', '.join(FEATURE_TYPES)}")
    if len(x.shape) < 2 or 0 in x.shape:
        raise DataError(f"{path}: {x_name} is {list(x.shape)}: give [n, ...], a row for each example")
    for name in beside:
        dtype, shape = headers[name].dtype, headers[name].shape
        if dtype.kind not in "iubUS":
            raise DataError(f"{path}: {name} is {dtype.name:.40}: give whole numbers, words or booleans")
        # Keras's own CIFAR-10 has labels [n, 1].
        if shape not in ((x.shape[0],), (x.shape[0], 1)):
            raise DataError(
                f"{path}: {name} is {list(shape)}, and {x_name} is {list(x.shape)}: give [n] labels"
            )
    if x.shape[1:] != first.shape[1:] or x.dtype != first.dtype:
        raise DataError(
            f"{path}: {x_name} is {x.dtype}{list(x.shape)}, and {first_name} is {first.dtype}"
            f"{list(first.shape)}: only the number of rows may differ"
        )


@contextmanager
def _explain_errors(where: str) -> Iterator[None]:
    """Turn the errors of the formats, which are of many types, into a DataError of one line.

    Args:
      where: the file, and the array if it is known.
    """
    try:
        yield
    except MemoryError:
        raise
    except DataError as error:  # a library is missing
        raise DataError(f"{where} {error}") from None
    except Exception as error:
        raise DataError(f"{where} cannot be read: {one_line(error, 200)}") from None


def _find_image_shape(
    path: Path, name: str, shape: tuple[int, ...], image_shape: ImageShape | None
) -> ImageShape | None:
    """Return the shape of the images in an array, or None: the shape that the user says, or that it shows.

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
                f"{path}: {name} is {list(shape)}, whose channels may come first or last: give "
                "image_shape as channels,height,width"
            )
        return row if first else (row[-1], *row[:-1]) if last else None  # type: ignore[return-value]
    rotated = (*image_shape[1:], image_shape[0])
    if row == image_shape == rotated:
        raise DataError(f"{path}: {name} is {list(shape)}: flatten its rows, with the channels first")
    fits = row in (image_shape, rotated) if len(row) == 3 else math.prod(row) == math.prod(image_shape)
    if not fits:
        raise DataError(
            f"{path}: {name} is {list(shape)}, which does not hold images of image_shape "
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
    flat.flags.writeable = False
    return flat


def _encode_labels(
    path: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]], named: Shaped[np.ndarray, "..."] | None
) -> tuple[dict[str, Int[np.ndarray, " n"]], tuple[str, ...]]:
    """Return the labels, or the groups, of each array as int32 [n] from 0, and their names.

    Raises:
      DataError: if a name is no text, or a label has none.
    """
    where = f"{path}: {' and '.join(arrays)}"
    with _explain_errors(where):
        joined = np.concatenate([array.reshape(-1) for array in arrays.values()])
        if joined.dtype.kind == "f":
            raise ValueError("whole numbers of these types do not fit into one")
        values, codes = np.unique(joined, return_inverse=True)
        names = [str(value.decode() if isinstance(value, bytes) else value) for value in values.tolist()]
    if named is not None:
        if named.dtype.kind != "U" or named.ndim != 1:
            raise DataError(f"{path}: {CLASSES} is {named.dtype}{list(named.shape)}: give a list of names")
        if values.dtype.kind not in "iu" or not 0 <= values[0] <= values[-1] < len(named):
            raise DataError(
                f"{where} holds other labels than 0 to {len(named) - 1}, the numbers of {CLASSES}"
            )
        with _explain_errors(f"{path}: {CLASSES}"):
            names, codes = named.tolist(), joined
    ends = np.cumsum([len(array) for array in arrays.values()])[:-1]
    return dict(zip(arrays, np.split(codes.astype(np.int32), ends), strict=True)), tuple(names)
