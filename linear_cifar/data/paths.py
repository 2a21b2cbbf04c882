"""Folders that a user names, and the search for files in them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from linear_cifar.arguments import describe
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


def find_files(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder that holds files whose whole name matches, with these names in order.

    Everything that is not a folder counts as a file, also a pipe and a broken link.

    Args:
      folder: where to start. It need not exist. The search goes `DEPTH` levels deeper, level by level.
      pattern: pattern of the names.
    """
    level = [folder]
    for _ in range(1 + DEPTH):
        deeper = []
        for path in level:
            names, folders = [], []
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        if _is_folder(entry):
                            folders.append(entry.name)
                        elif pattern.fullmatch(entry.name):
                            names.append(entry.name)
            except OSError:  # a folder that cannot be listed is passed over, as one that is missing
                continue
            if names:
                yield path, sorted(names)
            deeper += [path / name for name in sorted(folders) if not _SKIPPED.match(name)]
        level = deeper


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
