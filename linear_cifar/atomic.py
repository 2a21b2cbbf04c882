"""Files that appear whole or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# Characters of a file's name that its temporary name keeps.
LONGEST = 50
# Pattern of the temporary names.
PARTIAL = ".*.????????.partial.*"


def remove_unfinished(folder: Path, depth: str = "") -> None:
    """Remove the temporary files that a killed process has left; `depth` is a pattern of folders below."""
    for path in folder.glob(depth + PARTIAL):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place once the block has written it.

    The temporary file has the same suffix. Its name is its own, so that two processes may write `path`.
    If the block raises, `path` is as it was before.

    Raises:
      OSError: if something else than a file is at `path`, such as a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "there is a directory or a device", str(path))
    # The longest name that a file may have leaves no room for more.
    partial = path.with_name(f".{path.stem[:LONGEST]}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """Yield a text file that appears at `path`, whole, once the block has written it.

    It is UTF-8 with Unix line ends, whatever the locale says. A byte of a file name that is not UTF-8 is a
    lone surrogate in Python. It becomes an escape such as `\\udcff`, which JSON reads back as the same.
    """
    with (
        atomic_write(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        yield file
