"""Named arrays and a description in one `.npz` file that is whole, checked and safe to read.

The zip archive's comment holds the SHA-256 of everything before it. `numpy.load` opens such a file too.
"""

import hashlib
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from linear_cifar.arguments import one_line
from linear_cifar.atomic import atomic_write
from linear_cifar.devices import empty_aligned

T = TypeVar("T")

DESCRIPTION = "description"
_COMMENT = struct.Struct("<H64s")  # its length and its text: the last bytes of a zip archive
_LARGEST_DESCRIPTION = 64 * 1024**2

# The npy format's headers by its version: their length, with which they begin, and their reader.
_HEADERS = {
    (1, 0): (struct.Struct("<H"), np.lib.format.read_array_header_1_0),
    (2, 0): (struct.Struct("<I"), np.lib.format.read_array_header_2_0),
}
_LARGEST_HEADER = 10_000
_PART = 1024**2


class FileError(ValueError):
    """A file is broken or not what `write_npz` writes; the message is one line that names the file."""


class ArrayHeader(NamedTuple):
    """The header of an array: what to expect, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool = False
    start: int = 0  # bytes of the header itself, where the array's file has one

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Write arrays and a description (JSON) to a file that appears whole or not at all.

    Raises:
      ValueError: if an array holds Python objects, or the description is not JSON.
      OSError: if the file cannot be written; an earlier file at `path` is untouched.
    """
    text = json.dumps(description, allow_nan=False).encode()
    # `read_npz` reads no other order of the axes.
    members: dict[str, Any] = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in members.items():
        if array.dtype.hasobject:
            raise ValueError(f"the array {name} holds Python objects")
    members[DESCRIPTION] = np.frombuffer(text, np.uint8)
    # `np.savez` gets the open file, because it would add a suffix to a path.
    with atomic_write(path) as partial, partial.open("w+b") as file:
        np.savez(file, **members)
        size = file.seek(0, 2) - 2  # without the length of the comment, which is 0 until now
        digest = _digest(file, size)
        file.seek(size)
        file.write(_COMMENT.pack(len(digest), digest))


def read_npz(path: Path, without: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read back the arrays and the description. No code in the file can run, and memory is bounded by its
    size.

    Args:
      path: the file.
      without: beginning of the names of arrays to leave out; None: read all.

    Raises:
      FileError: if the file is damaged or holds something else.
      OSError: if the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2) - _COMMENT.size
            file.seek(max(size, 0))
            ending = file.read()
            if size < 0 or ending != _COMMENT.pack(64, _digest(file, size)):
                raise ValueError("it is not what was written")
            with zipfile.ZipFile(file) as archive:
                if sum(info.compress_size for info in archive.infolist()) > size:
                    raise ValueError("its arrays overlap")
                arrays = {
                    info.filename.removesuffix(".npy"): _read_as_written(archive, info)
                    for info in archive.infolist()
                    if without is None or not info.filename.startswith(without)
                }
        text = arrays.pop(DESCRIPTION)
        if text.dtype != np.uint8 or text.size > _LARGEST_DESCRIPTION:
            raise ValueError("its description is not text")
        description = json.loads(text.tobytes())
        if not isinstance(description, dict):
            raise ValueError("its description is not an object")
    except (MemoryError, PermissionError, FileNotFoundError):
        raise
    # The zip and npy formats raise errors of many types on hostile bytes.
    except Exception as error:
        raise FileError(f"{path} cannot be read: {one_line(error, 200)}") from None
    return arrays, description


def parse_npz(path: Path, kind: str, parse: Callable[[Any, Any], T], without: str | None = None) -> T:
    """Return what `parse` makes of the arrays and the description in a file, see `read_npz`.

    Raises:
      FileError: if they are damaged, or `parse` fails; the message says that the file is not of this kind.
      OSError: if the file cannot be opened.
    """
    content = read_npz(path, without)
    try:
        return parse(*content)
    # Content of the wrong kind may raise any of these.
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise FileError(f"{path} does not hold {kind}: {one_line(error, 200)}") from None


def expect(name: str, array: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Raise ValueError if an array is of another shape or type; the message names it."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, not {np.dtype(dtype)}{list(shape)}")


def _digest(file: IO[bytes], size: int) -> bytes:
    """Return the SHA-256 (hex) of the first `size` bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        content = file.read(min(size, 1024**2))
        if not content:
            raise ValueError("it is shorter than its length")
        digest.update(content)
        size -= len(content)
    return digest.hexdigest().encode()


def _read_as_written(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Read one array that `write_npz` wrote: not compressed, and with its axes in C's order."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename!r:.80} is compressed")
    with archive.open(info) as member:
        header = read_header(member, info.filename, info.file_size)
    if header.fortran_order:
        raise ValueError(f"{info.filename!r:.80} has its axes in another order")
    return read_array(archive, info, header)


def read_header(stream: IO[bytes] | io.BufferedIOBase, name: str, size: int) -> ArrayHeader:
    """Read the header of an array from its file, which has this name and size.

    Raise ValueError if the array holds Python objects, or is of an unknown format or another size.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"{name!r:.80} is of another version of the npy format")
    length_field, parse = _HEADERS[version]
    prefix = stream.read(length_field.size)
    # NumPy would read a header of any length before it refuses it.
    (length,) = length_field.unpack(prefix)
    if length > _LARGEST_HEADER:
        raise ValueError(f"{name!r:.80} has a header of {length:,} bytes")
    shape, fortran_order, dtype = parse(io.BytesIO(prefix + stream.read(length)))
    header = ArrayHeader(shape, dtype, fortran_order, stream.tell())
    if dtype.hasobject:
        raise ValueError(f"{name!r:.80} holds Python objects (dtype=object), which are never unpickled")
    if min(shape, default=0) < 0 or header.nbytes != size - header.start:
        raise ValueError(f"{name!r:.80} is not as large as its header says")
    return header


def read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: ArrayHeader) -> np.ndarray:
    """Read one array, after `read_header`; raise ValueError if it has fewer bytes than its header says."""
    content = empty_aligned((header.nbytes,), np.uint8)
    with archive.open(info) as member:
        member.read(header.start)
        # In parts, because one read of a compressed member copies all that came before over and over.
        for start in range(0, header.nbytes, _PART):
            size = min(_PART, header.nbytes - start)
            part = member.read(size)
            if len(part) < size:
                raise ValueError(f"{info.filename!r:.80} ends early")
            content[start : start + size] = np.frombuffer(part, np.uint8)
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    return content.view(header.dtype).reshape(header.shape, order=order)
