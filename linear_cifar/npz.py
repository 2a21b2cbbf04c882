"""Named arrays and a description in one `.npz` file that is whole, checked and safe to read.

The zip archive's comment holds the SHA-256 of everything before it. `numpy.load` opens such a file too.
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from linear_cifar.files import atomic_write

DESCRIPTION = "description"
_COMMENT = struct.Struct("<H64s")  # its length and its text: the last bytes of a zip archive
_LARGEST_DESCRIPTION = 64 * 1024**2


class NpzError(ValueError):
    """A file is broken or not what `write_npz` writes; the message is one line that names the file."""


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
    with atomic_write(path) as partial:
        np.savez(partial, **members)
        with partial.open("r+b") as file:
            size = file.seek(0, 2) - 2  # without the length of the comment, which is 0 until now
            digest = _digest(file, size)
            file.seek(size)
            file.write(_COMMENT.pack(len(digest), digest))


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read back the arrays and the description. No code in the file can run, and memory is bounded by its
    size.

    Raises:
      NpzError: if the file is damaged or holds something else.
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
                    info.filename.removesuffix(".npy"): _read_array(archive, info)
                    for info in archive.infolist()
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
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NpzError(f"{path} cannot be read: {reason:.200}") from None
    return arrays, description


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


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Read one member, after checking that it is stored as is and as large as its header says."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename!r:.80} is compressed")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ValueError(f"{info.filename!r:.80} is of another version of the npy format")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype.hasobject:
            raise ValueError(f"{info.filename!r:.80} holds Python objects")
        count = 1
        for length in shape:
            count *= length
        if fortran_order or count < 0 or count * dtype.itemsize != info.file_size - member.tell():
            raise ValueError(f"{info.filename!r:.80} is not as large as its header says")
        content = member.read(count * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape)
