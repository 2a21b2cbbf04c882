"""A folder that one process writes to at a time: its lock, and its JSON files."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linear_cifar.atomic import atomic_text, remove_unfinished

LOCK = ".lock"
# No JSON file of an experiment comes near this.
LARGEST_JSON = 64 * 1024**2


class FolderError(Exception):
    """A folder cannot be used, for the stated reason; nothing in it was touched."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder, self.reason = folder, reason


class SaveError(OSError):
    """A checkpoint could not be saved; earlier checkpoints are untouched."""


@contextmanager
def locked_folder(path: Path) -> Iterator[Path]:
    """Make or take a folder for this process alone; remove it if it is left empty.

    The lock dies with its process. Files that a killed process has not finished are removed.

    Raises:
      FolderError: if the folder cannot be made or written to, or another process works in it.
    """
    # Imported here, because only sweeps with a folder need it.
    from filelock import FileLock, Timeout

    new = None
    lock = FileLock(path / LOCK, timeout=0)
    try:
        new = _first_missing(path)
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderError(
            path, "another process is writing there; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        _remove_empty(path, new)
        raise FolderError(path, f"cannot be written to: {error.strerror}") from None
    try:
        remove_unfinished(path)
        yield path
    finally:
        # Removed while the lock is held: a process that opened the file meanwhile sees that it is gone.
        (path / LOCK).unlink(missing_ok=True)
        lock.release()
        _remove_empty(path, new)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; raise ValueError if it holds something else."""
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"it has {size:,} bytes")
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it does not hold an object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write readable JSON to a file that appears whole or not at all; NaN and infinity raise ValueError."""
    with atomic_text(path) as file:
        file.write(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _first_missing(path: Path) -> Path | None:
    """Return the topmost folder of the path that does not exist yet."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    return missing[-1] if missing else None


def _remove_empty(path: Path, top: Path | None) -> None:
    """Remove the empty folders from `path` up to `top`, which were made for this use."""
    if top is None:
        return
    for folder in (path, *path.parents):
        try:
            folder.rmdir()
        except OSError:
            return
        if folder == top:
            return
