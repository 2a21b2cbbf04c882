"""Local files and packages for readers of data: named folders, files in them, and optional packages."""

import importlib
import os
import re
from pathlib import Path
from typing import Any

from linear_cifar.arguments import describe, one_line
from linear_cifar.data.dataset import DataError

AnyPath = str | os.PathLike[str]

# Levels of folders that are searched below the named one: tfds unpacks to downloads/<name>/<layout>/
DEPTH = 3
# Hidden folders, and those in which tfds has unfinished work.
_SKIPPED = re.compile(r"\.|incomplete\.|.*\.tmp\.")


def expand_home(path: AnyPath) -> Path:
    """Return the path, in which ~ is the home folder.

    Raises:
      DataError: if there is no such home folder, or the path is empty or not a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise DataError(f"data_dir is {describe(path)}: name a folder")
    if path == "" or "\0" in os.fspath(path):
        raise DataError("data_dir is empty, or no path: name a folder")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DataError(
            f"there is no home folder for {path}: name the folder that holds CIFAR-10 (data_dir)"
        ) from None


def find_files(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, list[str]]]:
    """Return each folder that holds files whose whole name matches, with these names in order.

    The search starts in `folder`, which need not exist, and goes `DEPTH` levels deeper, level by level.
    Everything that is not a folder counts as a file, also a pipe and a broken link. Folders that cannot be
    listed are passed over.
    """
    found = []
    for path, folders, names in os.walk(folder, followlinks=True):
        depth = len(Path(path).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < DEPTH and not _SKIPPED.match(name))
        matching = sorted(filter(pattern.fullmatch, names))
        if matching:
            found.append((depth, Path(path), matching))
    return [(path, names) for _, path, names in sorted(found, key=lambda entry: entry[0])]


def import_extra(name: str, advice: str = "pip install 'linear_cifar[data]'") -> Any:
    """Import and return an optional module; `advice` says how to install it.

    Raises:
      DataError: if it cannot be imported. The caller puts what needs the module before the message.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"needs {name}, which cannot be imported ({one_line(error)}): {advice}") from error
