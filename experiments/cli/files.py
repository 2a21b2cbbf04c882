"""The files that a command compares: those that patterns match, their names, and what their names show."""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.artifacts.exports import COMPARE_COLUMNS
from experiments.cli.flags import expand_path
from experiments.runner.errors import UsageError
from linear_cifar.data.dataset import DataError, Dataset
from linear_cifar.data.readers import READERS

SAME = "give files of the same examples in the same order"


def expand_pattern(word: str) -> list[Path]:
    """Return the files that a pattern matches, layer 2 before layer 10, or the path that a word is.

    Raises:
      UsageError: if a pattern matches nothing.
    """
    path = expand_path(word)
    if path.exists() or not glob.has_magic(word):
        return [path]
    found = glob.glob(str(path), recursive=True)
    if not found:
        raise UsageError(f"--data={word}: this pattern matches no file")
    parts = {name: re.split(r"(\d+)", name) for name in found}  # those at odd indices are numbers
    keys = {name: [int(part) if i % 2 else part for i, part in enumerate(parts[name])] for name in found}
    return [Path(name) for name in sorted(found, key=lambda name: keys[name])]


def name_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Return different files by their names without endings, which can name folders.

    Where two would have the same name, all begin with as many folders as tell them apart.

    Raises:
      UsageError: if nothing tells two of them apart.
    """
    files = {Path(os.path.abspath(path)): path for path in paths}
    for depth in range(1, 1 + max(len(file.parts) for file in files)):
        for endings in (READERS, ()):
            texts = [
                "_".join([*file.parts[-depth:-1], file.stem if file.suffix in endings else file.name])
                for file in files
            ]
            names = ["".join(c if c.isprintable() and c != os.sep else "_" for c in text) for text in texts]
            if len({*names}) == len(files):
                return dict(zip(names, files.values(), strict=True))
    raise UsageError(f"--data: two files would both be called {names[0]}: rename one")


def read_factors(files: Mapping[str, Path], pattern: str) -> dict[str, dict[str, str]]:
    """Return the factors that the names of files show, by the keys of `files`.

    Args:
      files: paths of the files.
      pattern: pattern of the ends of the paths, such as "{backbone}_{layer}.npz". The first factor takes as
        much as fits. Without a pattern there is one factor, `file`.

    Raises:
      UsageError: if the text is not a pattern, or does not fit a file, or two files have the same factors.
    """
    if not pattern:
        return {name: {"file": name} for name in files}
    words = re.split(r"\{(\w+)\}", pattern)
    factors = [word for word in words[1::2] if word.isidentifier()]
    if not factors or len({*factors} - {*COMPARE_COLUMNS, "rank", "remark"}) < len(words) // 2:
        raise UsageError(
            f"--names={pattern}: name factors in braces, such as {{backbone}}_{{layer}}.npz, each once and "
            "not as another column"
        )
    parts = (f"(?P<{word}>[^/]+)" if i % 2 else re.escape(word) for i, word in enumerate(words))
    expression = re.compile("".join(parts))
    found: dict[str, dict[str, str]] = {}
    for name, path in files.items():
        end = "/".join(Path(os.path.abspath(path)).parts[-1 - pattern.count("/") :])
        match = expression.fullmatch(end)
        if match is None:
            raise UsageError(f"--names={pattern}: {end} is not named like this")
        if match.groupdict() in found.values():
            raise UsageError(
                f"--names={pattern}: {path} has the same factors as another file: name its folder too, as in "
                f"{{folder}}/{pattern}"
            )
        found[name] = match.groupdict()
    return found


def check_examples(first: Dataset, other: Dataset) -> None:
    """Raise DataError if two data sets of the same sizes hold other examples; name the first difference."""
    if other.classes != first.classes:
        raise DataError(f"{other.origin} has other classes than {first.origin}: {SAME}")
    for split, (_, labels, groups) in first.splits.items():
        ours, theirs = ((data.rows or {}).get(split) for data in (first, other))
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            row = int(np.setxor1d(ours, theirs)[0])
            raise DataError(f"row {row} is {split} in only one of {first.origin} and {other.origin}: {SAME}")
        _, other_labels, other_groups = other.splits[split]
        if (groups is None) != (other_groups is None):
            raise DataError(f"only one of {first.origin} and {other.origin} has groups: {SAME}")
        for array, ours, theirs in (("label", labels, other_labels), ("group", groups, other_groups)):
            differs = np.not_equal(ours, theirs) if ours is not None and theirs is not None else np.zeros(1)
            if differs.any():
                row = int(np.argmax(differs))
                raise DataError(
                    f"{split} example {row} (from 0) has another {array} in {other.origin} than in "
                    f"{first.origin}: {SAME}"
                )
