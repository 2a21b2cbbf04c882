"""Reader of CIFAR-10 in any of its four published layouts, which it checks and never unpacks."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from linear_cifar.data.dataset import BATCH_FILE_SIZE, DataError, RawDataset, Split
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

_BLOCK = 512  # bytes of a block of a tar file
_SLACK = 1 << 20  # bytes for the tar headers, the class names and the read-me


class _Layout(NamedTuple):
    name: str
    folder: str  # its name, also inside an archive
    suffix: str  # of the file names


class _Part(NamedTuple):
    batch: str
    where: str  # its place, for messages
    content: bytes


# Archives come last, because decompressing takes seconds.
_LAYOUTS = (
    _Layout("cifar-10-batches-bin", "cifar-10-batches-bin", ".bin"),
    _Layout("cifar-10-batches-py", "cifar-10-batches-py", ""),
    _Layout("cifar-10-binary.tar.gz", "cifar-10-batches-bin", ".bin"),
    _Layout("cifar-10-python.tar.gz", "cifar-10-batches-py", ""),
)


def read_cifar10(data_dir: Path, count: int = BATCH_FILE_SIZE) -> RawDataset | None:
    """Read the first layout found in `data_dir`, in a folder directly below it, or where tfds downloads to.

    The order is `cifar-10-batches-bin/`, `cifar-10-batches-py/`, `cifar-10-binary.tar.gz`,
    `cifar-10-python.tar.gz`. `data_dir` may also be one of them. See
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
      data_dir: folder to search, which need not exist.
      count: number of images that each of the six batches must have.

    Returns:
      uint8 images [5 count, 3072] and [count, 3072] with uint8 labels; None if there is no layout. They are
      `verified` if every batch has the published MD5.

    Raises:
      DataError: if the layout found is broken or hostile. No other one is tried then.
    """
    for layout in _LAYOUTS:
        path = _find(data_dir, layout)
        if path is not None:
            try:
                return _read(path, layout, count)
            except DataError as error:
                problem = str(error)
            except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
                problem = f"{path} cannot be read ({' '.join(str(error).split())})"
            raise DataError(f"{problem}; replace {path}, or delete it to download CIFAR-10 again")
    return None


def _find(data_dir: Path, layout: _Layout) -> Path | None:
    # tfds names a download by its address and a hash.
    downloaded = "cs.toronto.edu_kriz_" + layout.name.replace(".tar", "*.tar")
    for folder in ("", "*/", "downloads/*/"):
        for pattern in (layout.name, downloaded):
            if found := sorted(data_dir.glob(folder + pattern)):
                return found[0]
    return data_dir if data_dir.name == layout.name and data_dir.exists() else None


def _read(path: Path, layout: _Layout, count: int) -> RawDataset:
    limit = count * (1 + FEATURES) if layout.suffix else count * (FEATURES + 512) + 4096
    parts = _folder_parts if path.name == layout.folder else _archive_parts
    images = np.empty((len(BATCHES), count, FEATURES), np.uint8)
    labels = np.empty((len(BATCHES), count), np.uint8)
    missing = list(BATCHES)
    for part in parts(path, layout, limit):
        if part.batch not in missing:
            raise DataError(f"{part.where} is there twice")
        missing.remove(part.batch)
        row = list(BATCHES).index(part.batch)
        images[row], labels[row] = _parse(part, layout, count)
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


def _parse(
    part: _Part, layout: _Layout, count: int
) -> tuple[UInt8[np.ndarray, "n d"], UInt8[np.ndarray, " n"]]:
    """Return the images and labels of one batch, after the checks that need no other batch."""
    if layout.suffix:
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


def _folder_parts(path: Path, layout: _Layout, limit: int) -> Iterator[_Part]:
    """Yield the files in the published order."""
    for batch in BATCHES:
        file = path / f"{batch}{layout.suffix}"
        if not file.is_file():  # opening a pipe would never return
            raise DataError(f"{file} is missing")
        size = file.stat().st_size
        if size > limit:
            raise DataError(f"{file} has {size} bytes, more than the {limit} of a batch")
        yield _Part(batch, str(file), file.read_bytes())


def _archive_parts(path: Path, layout: _Layout, limit: int) -> Iterator[_Part]:
    """Yield the batches in the order of the archive.

    Only the headers are read by `tarfile`. Its iterator would obey a header that asks for a name or a sparse
    map of any size.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    names = {f"{layout.folder}/{batch}{layout.suffix}": batch for batch in BATCHES}
    budget = len(BATCHES) * (limit + _BLOCK) + _SLACK
    with gzip.open(path) as stream:
        while (header := stream.read(_BLOCK)) and any(header):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
            where = f"{path} member {member.name!r}"
            name = member.name.removeprefix("./")
            if name.startswith("/") or ".." in name.split("/"):
                raise DataError(f"{where} points outside: the archive may be hostile")
            extension = member.type in (
                tarfile.XHDTYPE,
                tarfile.XGLTYPE,
            )  # dates and owners, which are not needed
            if not (extension or member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
                raise DataError(f"{where} is not a plain file: the archive may be hostile")
            batch = None if extension else names.get(name)
            if batch is not None and not 0 <= member.size <= limit:
                raise DataError(f"{where} has {member.size} bytes: a batch has at most {limit}")
            padding = -member.size % _BLOCK
            budget -= _BLOCK + member.size + padding
            if member.size < 0 or budget < 0:
                raise DataError(f"{where} makes the archive larger than the published one")
            content = stream.read(
                member.size
            )  # where the archive ends, it is too short, and the parser says so
            stream.read(padding)
            if batch is not None:
                yield _Part(batch, where, content)
        # Read to the end, where gzip has its checksum.
        stream.read(budget)
        if stream.read(1):
            raise DataError(f"{path} is larger than the published one")
