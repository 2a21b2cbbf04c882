"""Reader of CIFAR-10, binary or pickled, unpacked or in an archive, which it checks and never unpacks."""

import gzip
import hashlib
import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from linear_cifar.arguments import one_line
from linear_cifar.data.dataset import BATCH_FILE_SIZE, DataError, Dataset, Split, make_dataset
from linear_cifar.data.local import AnyPath, expand_home, find_files
from linear_cifar.data.unpickle import FEATURES, unpickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SHAPE = (3, 32, 32)
# Numbers of images that are published.
SIZES = {"train": 5 * BATCH_FILE_SIZE, "test": BATCH_FILE_SIZE}

# MD5s of each published file: of its records as cifar-10-batches-bin has them, and of its labels alone, one
# byte each. In every layout the records are hashed, and not the file: the MD5s that torchvision has of the
# pickles also cover names of image files. Two projects record the same six: rai-project/dldataset,
# vision/cifar10.go, and prabhuomkar/pytorch-cpp, cmake/fetch_cifar10.cmake. The labels also identify a file
# whose images were compressed again.
BATCHES = {
    "data_batch_1": ("5dd7e06a14cb22eb9f671a540d1b7c25", "30f55b79f7954f592721267e37ffcbcf"),
    "data_batch_2": ("5ea93a67294ea407fff1d09f752e9692", "bdca50851f742064551c3fa947e975d6"),
    "data_batch_3": ("942cd6a4bcdd0dd3c604fbe906cb4421", "23228d18cd9f4c032bb8cfa72996e3ef"),
    "data_batch_4": ("ae636b3ba5c66a11e91e8cb52e771fcb", "61be7314d261d42101f429408af67a28"),
    "data_batch_5": ("53f37980c15c3d472c316c40844f3f0d", "8ca6bc10f4bd0e81fba552f724423842"),
    "test_batch": ("803d5f7f4d78ea53de84dbe85f74fb6d", "251f18ce75337ae9ca5d0dbd7ea62cf4"),
}

_GZIP = b"\x1f\x8b"  # start of a gzipped file
_BLOCK = 512  # bytes of a block of a tar file
_MEMBER_DEPTH = 2  # folders of an archive in which a batch may lie
_SLACK = 1 << 20  # bytes for the tar headers, the class names and the read-me

# The two layouts, by the suffix of their files: binary, and pickles. They have the same names in a folder and
# in an archive.
_LAYOUTS = (".bin", "")
_FILES = [f"{batch}{suffix}" for suffix in _LAYOUTS for batch in BATCHES]
# Other files that come with the batch files.
_COMPANIONS = ["batches.meta", "batches.meta.txt", "readme.html"]

# Other data sets have such names too, for example CIFAR-10-C.tar: the files in the archive decide.
_ARCHIVE = re.compile(r"(?i:(?!\.|.*cifar[-_ ]?100).*cifar[-_ ]?10(?!\d).*\.(tar|tar\.gz|tgz))")
_PUBLISHED_ARCHIVE = re.compile(r"(?i:.*cifar-10-(binary|python|batches))")
_SOUGHT = re.compile("|".join([*map(re.escape, _FILES), _ARCHIVE.pattern]))


class _NoBatchesError(DataError):
    """Error: a sound archive without batch files."""


def read_cifar10(data_dir: AnyPath, count: int = BATCH_FILE_SIZE) -> Dataset | None:
    """Read the first copy found in `data_dir`, or in a folder up to three levels below it.

    The batch files identify a copy, and the names of its folders do not matter. Copies are tried in this
    order: the six files of the binary version, the six pickles, archives of either, incomplete copies. See
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
      data_dir: folder to search, which need not exist. It may also be a batch file, or an archive
        of any name.
      count: number of images that each of the six batches must have.

    Returns:
      uint8 images [5 count, 3072] and [count, 3072] with uint8 labels; None if there is no copy. They are
      `verified` if every batch has the published MD5.

    Raises:
      DataError: if the copy found is broken, incomplete or hostile. No other one is tried then.
    """
    data_dir = expand_home(data_dir)
    for path, suffix in _find_copies(data_dir):
        try:
            return _read(path, suffix, count)
        except _NoBatchesError as error:
            if path != data_dir and not _PUBLISHED_ARCHIVE.match(path.name):
                continue  # another data set, as in CIFAR-10-C.tar
            problem = str(error)
        except DataError as error:
            problem = str(error)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            problem = f"{path} cannot be read ({one_line(error, 200)})"
        if _is_only_a_copy(path):
            raise DataError(f"{problem}; replace {path}, or delete it to download CIFAR-10 again")
        raise DataError(f"{problem}; put a whole copy in its place, or name another folder (data_dir)")
    return None


def _find_copies(data_dir: Path) -> list[tuple[Path, str | None]]:
    """Return folders with the suffix of their layout, and archives with None, in the order of preference."""
    if not os.path.isdir(data_dir):
        if data_dir.name in _FILES and os.path.lexists(data_dir):
            return [(data_dir.parent, data_dir.suffix)]
        return [(data_dir, None)] if _is_archive(data_dir) else []
    found = find_files(data_dir, _SOUGHT)
    whole: list[tuple[Path, str | None]] = []
    incomplete: list[tuple[Path, str | None]] = []
    for suffix in _LAYOUTS:
        for path, names in found:
            batches = [batch for batch in BATCHES if f"{batch}{suffix}" in names]
            if len(batches) == len(BATCHES):
                whole.append((path, suffix))
            elif batches not in ([], ["test_batch"]):  # a lone test_batch may belong to any data set
                incomplete.append((path, suffix))
    archives = [path / name for path, names in found for name in names if name not in _FILES]
    archives.sort(key=lambda path: "bin" not in path.name.lower())
    # Archives come after whole folders, because decompressing takes seconds.
    return [*whole, *((path, None) for path in archives), *incomplete]


def _is_archive(path: Path) -> bool:
    """Tell whether a path has the name of an archive, or is a file that starts as one."""
    if _ARCHIVE.fullmatch(path.name):
        return os.path.lexists(path)
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(_BLOCK)
        return start.startswith(_GZIP) or bool(tarfile.TarInfo.frombuf(start, "utf-8", "replace"))
    except (OSError, tarfile.TarError):
        return False


def _is_only_a_copy(path: Path) -> bool:
    """Tell whether a path holds nothing but a copy of CIFAR-10, so that a user may delete it."""
    if not os.path.isdir(path):
        return _PUBLISHED_ARCHIVE.match(path.name) is not None
    try:
        return all(name in _FILES or name in _COMPANIONS for name in os.listdir(path))
    except OSError:
        return False


def _read(path: Path, suffix: str | None, count: int) -> Dataset:
    images = np.empty((len(BATCHES), count, FEATURES), np.uint8)
    labels = np.empty((len(BATCHES), count), np.uint8)
    missing = list(BATCHES)
    parts = _read_archive(path, count) if suffix is None else _read_folder(path, suffix, count)
    for name, where, content in parts:
        batch, suffix = os.path.splitext(name)
        if batch not in missing:
            raise DataError(f"{where} is there twice")
        missing.remove(batch)
        row = list(BATCHES).index(batch)
        images[row], labels[row] = _parse(name, where, content, count)
    if suffix is None:
        raise _NoBatchesError(f"{path} holds none of the files data_batch_1 to test_batch")
    if missing:
        raise DataError(f"{path} has no {missing[0]}{suffix}")
    verified = _verify(images, labels, f"{path}: {{}}{suffix} has the content of {{}}")
    splits = {
        "train": Split(images[:-1].reshape(-1, FEATURES), labels[:-1].reshape(-1)),
        "test": Split(images[-1], labels[-1]),
    }
    return make_dataset("cifar10", CLASSES, splits, str(path), verified=verified, image_shape=IMAGE_SHAPE)


def _verify(images: UInt8[np.ndarray, "b n d"], labels: UInt8[np.ndarray, "b n"], complaint: str) -> bool:
    """Tell whether all batches are the published ones.

    Raises:
      DataError: if two are equal, or one has the content or the labels of another that is published.
    """

    def digest_records(images: UInt8[np.ndarray, "n d"], labels: UInt8[np.ndarray, " n"]) -> str:
        return _md5(np.column_stack((labels, images)))

    with ThreadPoolExecutor(max_workers=2) as pool:  # each thread has a copy of a batch
        records = dict(zip(BATCHES, pool.map(digest_records, images, labels), strict=True))
    published = [(batch, digest) for batch, digests in BATCHES.items() for digest in digests]
    for batch, row in zip(BATCHES, labels, strict=True):
        digests = (records[batch], _md5(row))
        for other, digest in [*published, *records.items()]:
            if digest in digests and batch != other:
                raise DataError(complaint.format(batch, other))
    return all(records[batch] == digest for batch, (digest, _) in BATCHES.items())


def _md5(array: UInt8[np.ndarray, "..."]) -> str:
    return hashlib.md5(array.data, usedforsecurity=False).hexdigest()


def _parse(
    name: str, where: str, content: bytes, count: int
) -> tuple[UInt8[np.ndarray, "n d"], UInt8[np.ndarray, " n"]]:
    """Return the images and labels of a file, after the checks that need no other file."""
    if name.endswith(".bin"):
        expected = _largest_size(".bin", count)
        if len(content) != expected:
            raise DataError(f"{where} has {len(content)} bytes instead of {expected}")
        records = np.frombuffer(content, np.uint8).reshape(count, 1 + FEATURES)
        images, labels = records[:, 1:], records[:, 0]
    else:
        try:
            images, labels, title = unpickle(content, count)
        except DataError as error:
            raise DataError(f"{where} {error}") from error
        wanted = "testing batch 1 of 1" if name == "test_batch" else f"training batch {name[-1]} of 5"
        if title != wanted.encode():
            raise DataError(f"{where} calls itself {title[:80]!r} instead of '{wanted}'")
    row = int(np.argmax(labels))
    if labels[row] >= len(CLASSES):
        raise DataError(f"{where} labels image {row} with {labels[row]}, which is not a class from 0 to 9")
    return images, labels


def _largest_size(suffix: str, count: int) -> int:
    """Return the largest number of bytes that a file of `count` images may have."""
    return count * (FEATURES + 512) + 4096 if suffix == "" else count * (1 + FEATURES)


def _read_folder(path: Path, suffix: str, count: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield the name, the place (for messages) and the content of each file, in the published order."""
    limit = _largest_size(suffix, count)
    for batch in BATCHES:
        file = path / f"{batch}{suffix}"
        if not file.is_file():  # opening a pipe would never return
            raise DataError(f"{file} is missing")
        size = file.stat().st_size
        if size > limit:
            raise DataError(f"{file} has {size} bytes, more than the {limit} of a batch")
        yield file.name, str(file), file.read_bytes()


def _read_archive(path: Path, count: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield files as `_read_folder` does, in the order of the archive, all in the layout of the first.

    Only the headers are read by `tarfile`. Its iterator would obey a header that asks for a name or a sparse
    map of any size.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    with path.open("rb") as file:
        start = file.read(len(_GZIP))
    if not start:
        raise EOFError("the file is empty")
    limits = {suffix: _largest_size(suffix, count) for suffix in _LAYOUTS}
    # A folder that is packed may hold both layouts.
    budget = _SLACK + sum(len(BATCHES) * (limit + _BLOCK) for limit in limits.values())
    layout: str | None = None
    with gzip.open(path) if start == _GZIP else path.open("rb") as stream:
        while (header := stream.read(_BLOCK)) and any(header):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
            where = f"{path} member {member.name!r}"
            *folders, name = member.name.removeprefix("./").split("/")
            if folders[:1] == [""] or ".." in [*folders, name]:
                raise DataError(f"{where} points outside: the archive may be hostile")
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            # Extended headers hold dates and owners, which are not needed.
            if not (plain or member.isdir() or member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE)):
                raise DataError(f"{where} is not a plain file: the archive may be hostile")
            suffix = os.path.splitext(name)[1]
            wanted = plain and name in _FILES and len(folders) <= _MEMBER_DEPTH and layout in (None, suffix)
            if wanted:
                layout = suffix
                if not 0 <= member.size <= limits[suffix]:
                    raise DataError(f"{where} has {member.size} bytes: a batch has at most {limits[suffix]}")
            size = member.size + -member.size % _BLOCK
            budget -= _BLOCK + size
            if member.size < 0 or budget < 0:
                error = _NoBatchesError if layout is None else DataError
                raise error(f"{where} makes the archive larger than the published one")
            if wanted:
                # Where the archive ends, the content is too short, and the parser says so.
                yield name, where, stream.read(member.size)
                size -= member.size
            _skip(stream, size)
        # Read to the end, where gzip has its checksum.
        _skip(stream, budget)
        if stream.read(1):
            raise DataError(f"{path} is larger than the published one")


def _skip(stream: io.BufferedIOBase, size: int) -> None:
    """Read and drop up to `size` bytes, a few at a time."""
    while size > 0 and (dropped := len(stream.read(min(size, 2**16)))):
        size -= dropped
