"""A run's folder, and files that appear in it whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.shell import UsageError

# Of config.json and the CSV files.
SCHEMA = 2
CONFIG, TABLES = "config.json", "tables.json"
RESULTS, HISTORY, MEASURES, BEST = "results.csv", "history.csv", "measures.csv", "best_params.npz"


@contextmanager
def folder_for_run(path: Path) -> Iterator[Path]:
    """Makes the folder, proves that it can be written to, and removes it if the block leaves it empty.

    Raises:
      UsageError: if it can't be made or written to, or holds another run.
    """
    if any((path / name).exists() for name in (CONFIG, RESULTS, HISTORY, BEST)):
        raise UsageError(f"--out={path} holds another run: name another folder, or remove this one")
    new = _first_missing(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        _remove_empty(path, new)
        raise UsageError(f"--out={path} can't be written to: {error.strerror}") from None
    try:
        yield path
    finally:
        _remove_empty(path, new)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path of the same suffix beside `path`: takes its place once the block has written it."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
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
