"""A run's folder, and files that appear in it whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.shell import UsageError

# Of config.json and the CSV files, see the README.
SCHEMA = 3
CONFIG, TABLES = "config.json", "tables.json"
RESULTS, HISTORY, MEASURES, BEST = "results.csv", "history.csv", "measures.csv", "best_params.npz"
BLOCKS = "blocks"
# No JSON file of a run comes near this.
LARGEST_JSON = 16 * 1024**2
LOCK = ".lock"


@contextmanager
def folder_for_run(path: Path) -> Iterator[Path]:
    """Makes the folder, or takes the one there is, for this process alone; removes it if it is left empty.

    What keeps others out is a lock that dies with the process.

    Raises:
      UsageError: if it can't be made or written to, or another process works in it.
    """
    new = _first_missing(path)
    lock = FileLock(path / LOCK, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"--out={path}: another run is writing there; wait for it, or name another"
        ) from None
    except OSError as error:
        _remove_empty(path, new)
        raise UsageError(f"--out={path} can't be written to: {error.strerror}") from None
    try:
        yield path
    finally:
        # As long as it is held; whoever opened it meanwhile sees that it is gone.
        (path / LOCK).unlink(missing_ok=True)
        lock.release()
        _remove_empty(path, new)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path of the same suffix beside `path`: takes its place once the block has written it."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      OSError: if the file can't be read.
      ValueError: if it holds something else.
    """
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
    """Writes readable JSON; NaN and infinity are errors."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _first_missing(path: Path) -> Path | None:
    """The topmost folder of the path that is yet to be made."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    return missing[-1] if missing else None


def _remove_empty(path: Path, top: Path | None) -> None:
    """Removes the empty folders from `path` up to `top`, which were made for this run."""
    if top is None:
        return
    for folder in (path, *path.parents):
        try:
            folder.rmdir()
        except OSError:
            return
        if folder == top:
            return
