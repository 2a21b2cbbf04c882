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
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from linear_cifar.data.dataset import BATCH_FILE_SIZE, DataError, RawDataset, Split
from linear_cifar.data.paths import AnyPath, expand_home, find_files
from linear_cifar.data.unpickle import unpickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FEATURES, IMAGE_SHAPE = 3072, (3, 32, 32)

# MD5 of each file in cifar-10-batches-bin. In every layout the records are hashed, and not the file. Two
# projects record the same six: rai-project/dldataset, vision/cifar10.go, and prabhuomkar/pytorch-cpp,
# cmake/fetch_cifar10.cmake. The MD5s that torchvision has of the pickles also cover names of image files.
BATCHES = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}

# MD5 of the published labels of each file, one byte each. They also identify a file whose images were
# compressed again.
LABELS = {
    "data_batch_1": "30f55b79f7954f592721267e37ffcbcf",
    "data_batch_2": "bdca50851f742064551c3fa947e975d6",
    "data_batch_3": "23228d18cd9f4c032bb8cfa72996e3ef",
    "data_batch_4": "61be7314d261d42101f429408af67a28",
    "data_batch_5": "8ca6bc10f4bd0e81fba552f724423842",
    "test_batch": "251f18ce75337ae9ca5d0dbd7ea62cf4",
}

_GZIP = b"\x1f\x8b"  # start of a gzipped file
_BLOCK = 512  # bytes of a block of a tar file
_MEMBER_DEPTH = 2  # folders of an archive in which a batch may lie
_SLACK = 1 << 20  # bytes for the tar headers, the class names and the read-me


class _Layout(NamedTuple):
    """Kind of the batch files, which have the same names in a folder and in an archive."""

    suffix: str  # of the file names

    def limit(self, count: int) -> int:
        """Return the largest number of bytes that a file of `count` images may have."""
        return count * (1 + FEATURES) if self.suffix else count * (FEATURES + 512) + 4096


class _Part(NamedTuple):
    batch: str
    layout: _Layout
    where: str  # its place, for messages
    content: bytes


class _NoBatchesError(DataError):
    """Error: a sound archive without batch files."""


_LAYOUTS = (_Layout(".bin"), _Layout(""))  # binary, pickles
_FILES = {f"{batch}{layout.suffix}": (batch, layout) for layout in _LAYOUTS for batch in BATCHES}
# Other files that come with the batch files.
_COMPANIONS = ("batches.meta", "batches.meta.txt", "readme.html")

# Other data sets have such names too, for example CIFAR-10-C.tar: the files in the archive decide.
_ARCHIVE = re.compile(r"(?i:(?!\.|.*cifar[-_ ]?100).*cifar[-_ ]?10(?!\d).*\.(tar|tar\.gz|tgz))")
_PUBLISHED_ARCHIVE = re.compile(r"(?i:.*cifar-10-(binary|python|batches))")
_SOUGHT = re.compile("|".join([*map(re.escape, _FILES), _ARCHIVE.pattern]))


def read_cifar10(data_dir: AnyPath, count: int = BATCH_FILE_SIZE) -> RawDataset | None:
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
    for path, layout in _find_copies(data_dir):
        try:
            return _read(path, layout, count)
        except _NoBatchesError as error:
            if path != data_dir and not _PUBLISHED_ARCHIVE.match(path.name):
                continue  # another data set, as in CIFAR-10-C.tar
            problem = str(error)
        except DataError as error:
            problem = str(error)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            problem = f"{path} cannot be read ({' '.join(str(error).split())})"
        if _is_only_a_copy(path):
            raise DataError(f"{problem}; replace {path}, or delete it to download CIFAR-10 again")
        raise DataError(f"{problem}; put a whole copy in its place, or name another folder (data_dir)")
    return None


def _find_copies(data_dir: Path) -> Iterator[tuple[Path, _Layout | None]]:
    """Yield folders with their layout, and archives with None, in the order of preference."""
    if not os.path.isdir(data_dir):
        if data_dir.name in _FILES and os.path.lexists(data_dir):
            yield data_dir.parent, _FILES[data_dir.name][1]
        elif _is_archive(data_dir):
            yield data_dir, None
        return
    found = list(find_files(data_dir, _SOUGHT))
    folders = [
        (path, layout, len(wanted) == len(BATCHES))
        for layout in _LAYOUTS
        for path, names in found
        # A lone test_batch may belong to any data set.
        if (wanted := {f"{batch}{layout.suffix}" for batch in BATCHES}.intersection(names))
        - {f"test_batch{layout.suffix}"}
    ]
    archives = [path / name for path, names in found for name in names if name not in _FILES]
    yield from ((path, layout) for path, layout, whole in folders if whole)
    # Archives come later, because decompressing takes seconds.
    yield from ((path, None) for path in sorted(archives, key=lambda path: "bin" not in path.name.lower()))
    yield from ((path, layout) for path, layout, whole in folders if not whole)


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


def _read(path: Path, layout: _Layout | None, count: int) -> RawDataset:
    images = np.empty((len(BATCHES), count, FEATURES), np.uint8)
    labels = np.empty((len(BATCHES), count), np.uint8)
    missing = list(BATCHES)
    parts = _archive_parts(path, count) if layout is None else _folder_parts(path, layout, count)
    for part in parts:
        layout = part.layout
        if part.batch not in missing:
            raise DataError(f"{part.where} is there twice")
        missing.remove(part.batch)
        row = list(BATCHES).index(part.batch)
        images[row], labels[row] = _parse(part, count)
    if layout is None:
        raise _NoBatchesError(f"{path} holds none of the files data_batch_1 to test_batch")
    if missing:
        raise DataError(f"{path} has no {missing[0]}{layout.suffix}")
    complaint = f"{path}: {{}}{layout.suffix} has the content of {{}}"
    _check_labels(labels, complaint)
    verified = _check_images(images, labels, complaint)
    train = Split(images[:-1].reshape(-1, FEATURES), labels[:-1].reshape(-1))
    test = Split(images[-1], labels[-1])
    return RawDataset("cifar10", CLASSES, train, test, str(path), verified, IMAGE_SHAPE)


def _check_images(
    images: UInt8[np.ndarray, "b n d"], labels: UInt8[np.ndarray, "b n"], complaint: str
) -> bool:
    """Tell whether all batches are the published ones; raise DataError if two are equal or exchanged."""
    with ThreadPoolExecutor(max_workers=2) as pool:  # each thread has a copy of a batch
        digests = dict(zip(BATCHES, pool.map(_digest, images, labels), strict=True))
    for batch, digest in digests.items():
        # Any two of these files, or one of them and a published one.
        for other, known in [*digests.items(), *BATCHES.items()]:
            if digest == known and batch != other:
                raise DataError(complaint.format(batch, other))
    return digests == BATCHES


def _check_labels(labels: UInt8[np.ndarray, "b n"], complaint: str) -> None:
    """Raise DataError if a batch has the published labels of another."""
    owners = {digest: batch for batch, digest in LABELS.items()}
    for batch, row in zip(BATCHES, labels, strict=True):
        other = owners.get(hashlib.md5(row.data, usedforsecurity=False).hexdigest(), batch)
        if other != batch:
            raise DataError(complaint.format(batch, other))


def _digest(images: UInt8[np.ndarray, "n d"], labels: UInt8[np.ndarray, " n"]) -> str:
    return hashlib.md5(np.column_stack((labels, images)).data, usedforsecurity=False).hexdigest()


def _parse(part: _Part, count: int) -> tuple[UInt8[np.ndarray, "n d"], UInt8[np.ndarray, " n"]]:
    """Return the images and labels of one batch, after the checks that need no other batch."""
    if part.layout.suffix:
        expected = count * (1 + FEATURES)
        if len(part.content) != expected:
            raise DataError(f"{part.where} has {len(part.content)} bytes instead of {expected}")
        records = np.frombuffer(part.content, np.uint8).reshape(count, 1 + FEATURES)
        images, labels = records[:, 1:], records[:, 0]
    else:
        try:
            images, labels, title = unpickle(part.content, count)
        except DataError as error:
            raise DataError(f"{part.where} {error}") from error
        kind, number = part.batch.split("_batch")
        wanted = f"training batch {number[1:]} of 5" if kind == "data" else "testing batch 1 of 1"
        if title != wanted.encode():
            raise DataError(f"{part.where} calls itself {title[:80]!r} instead of '{wanted}'")
    wrong = np.flatnonzero(labels >= len(CLASSES))
    if len(wrong):
        raise DataError(
            f"{part.where} labels image {wrong[0]} with {labels[wrong[0]]}, which is not a class from 0 to 9"
        )
    return images, labels


def _folder_parts(path: Path, layout: _Layout, count: int) -> Iterator[_Part]:
    """Yield the files in the published order."""
    limit = layout.limit(count)
    for batch in BATCHES:
        file = path / f"{batch}{layout.suffix}"
        if not file.is_file():  # opening a pipe would never return
            raise DataError(f"{file} is missing")
        size = file.stat().st_size
        if size > limit:
            raise DataError(f"{file} has {size} bytes, more than the {limit} of a batch")
        yield _Part(batch, layout, str(file), file.read_bytes())


def _archive_parts(path: Path, count: int) -> Iterator[_Part]:
    """Yield the batches in the order of the archive, all in the layout of the first.

    Only the headers are read by `tarfile`. Its iterator would obey a header that asks for a name or a sparse
    map of any size.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    with path.open("rb") as file:
        start = file.read(len(_GZIP))
    if not start:
        raise EOFError("the file is empty")
    # A folder that is packed may hold both layouts.
    budget = _SLACK + sum(len(BATCHES) * (layout.limit(count) + _BLOCK) for layout in _LAYOUTS)
    layout: _Layout | None = None
    with gzip.open(path) if start == _GZIP else path.open("rb") as stream:
        while (header := stream.read(_BLOCK)) and any(header):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
            where = f"{path} member {member.name!r}"
            *folders, name = member.name.removeprefix("./").split("/")
            if member.name.removeprefix("./").startswith("/") or ".." in [*folders, name]:
                raise DataError(f"{where} points outside: the archive may be hostile")
            # Dates and owners, which are not needed.
            extension = member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE)
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            if not (extension or plain or member.isdir()):
                raise DataError(f"{where} is not a plain file: the archive may be hostile")
            batch, kind = (
                _FILES.get(name, ("", None)) if plain and len(folders) <= _MEMBER_DEPTH else ("", None)
            )
            layout = layout or kind
            if kind != layout:
                kind = None  # of the other layout
            if kind and not 0 <= member.size <= kind.limit(count):
                raise DataError(f"{where} has {member.size} bytes: a batch has at most {kind.limit(count)}")
            padding = -member.size % _BLOCK
            budget -= _BLOCK + member.size + padding
            if member.size < 0 or budget < 0:
                error = DataError if layout else _NoBatchesError
                raise error(f"{where} makes the archive larger than the published one")
            if kind:
                # Where the archive ends, the content is too short, and the parser says so.
                yield _Part(batch, kind, where, stream.read(member.size))
                _skip(stream, padding)
            else:
                _skip(stream, member.size + padding)
        # Read to the end, where gzip has its checksum.
        _skip(stream, budget)
        if stream.read(1):
            raise DataError(f"{path} is larger than the published one")


def _skip(stream: io.BufferedIOBase, size: int) -> None:
    """Read and drop up to `size` bytes, a few at a time."""
    while size > 0 and (dropped := len(stream.read(min(size, 2**16)))):
        size -= dropped
