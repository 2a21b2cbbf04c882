"""Runs read back from their folders."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import Float

from experiments import files
from experiments.measures import Measures
from experiments.results import HISTORY, KEYS, RESULTS
from experiments.table import Table
from linear_cifar.comparison import rank
from linear_cifar.config import Config

_INTEGERS = ("batch", "seed", "epoch", "epochs", "diverged")
_WORDS = ("variant", "dataset")
# Of characters in a CSV file.
LONGEST_LINE = 100_000


class ArchiveError(Exception):
    """A folder does not hold what a run writes; the message is one line for the user."""


class Missing(Exception):
    """A run does not hold what is asked of it; the message names it."""


class Row(NamedTuple):
    """Whose row it is, and its further columns by name; an empty cell is None."""

    variant: str
    config: Config
    seed: int
    cells: dict[str, Any]


class Archive:
    """A run's folder: config.json and tables.json at once, the CSV files when they are asked for.

    Of an incomplete run there are no tables, and the rows are those of what was trained.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what the run says of itself.

        Raises:
          ArchiveError: if the files are missing, broken or of another version.
        """
        self.folder = folder
        self.config: dict[str, Any] = _json(folder / files.CONFIG)
        if self.config.get("schema") != files.SCHEMA:
            raise ArchiveError(
                f"{folder / files.CONFIG} is not of schema {files.SCHEMA}: run the experiment again"
            )
        try:
            self.experiment = str(self.config["experiment"])
            self.complete = self.config["complete"] is True
            self.command = str(self.config["command"])
            self.written = str(self.config["written"])
            self.settings = _object(self.config["settings"])
            data = _object(self.config["dataset"])
            self.dataset, self.fingerprint = str(data["name"]), str(data["fingerprint"])
            variants = _object(self.config["variants"])
            self.variants: dict[str, dict[str, Any]] = {name: _object(its) for name, its in variants.items()}
            tables = _json(folder / files.TABLES)["tables"] if self.complete else []
            self.tables = {table["name"]: _table(table) for table in tables}
        except (KeyError, TypeError, ValueError) as error:
            raise ArchiveError(f"{folder} lacks {error} in config.json or tables.json") from None

    @cached_property
    def results(self) -> list[Row]:
        """The rows of results.csv."""
        return list(_rows(self.folder / files.RESULTS, RESULTS))

    @cached_property
    def history(self) -> list[Row]:
        """The rows of history.csv."""
        return list(_rows(self.folder / files.HISTORY, HISTORY))

    @cached_property
    def measures(self) -> list[Row]:
        """The rows of measures.csv."""
        return list(_rows(self.folder / files.MEASURES, (*KEYS, *Measures._fields)))

    def configs(self, variant: str) -> tuple[Config, ...]:
        """A variant's configurations, in the order they were given."""
        return tuple(config for name, config in self._results_of if name == variant)

    def values(self, column: str, variant: str, config: Config) -> Float[np.ndarray, " S"]:
        """A column of results.csv or measures.csv of one configuration over its seeds, NaN where it diverged.

        Raises:
          Missing: if that configuration was not run.
        """
        rows = (self._results_of if column in RESULTS else self._measures_of).get((variant, config))
        if not rows:
            raise Missing(f"{variant} with eta {config.eta:g}, batch {config.batch}, lam {config.lam:g}")
        return np.asarray([row.cells[column] for row in rows], np.float64)

    @cached_property
    def _results_of(self) -> dict[tuple[str, Config], list[Row]]:
        return _by_config(self.results)

    @cached_property
    def _measures_of(self) -> dict[tuple[str, Config], list[Row]]:
        return _by_config(self.measures)

    def best(self, variant: str, among: Callable[[Config], bool] = lambda config: True) -> Config:
        """The configuration that is best by validation, see `rank`, of those that `among` takes.

        Raises:
          Missing: if there are none.
        """
        configs = [config for config in self.configs(variant) if among(config)]
        if not configs:
            raise Missing(variant)
        columns = [[self.values(name, variant, one) for one in configs] for name in ("val_loss", "val_acc")]
        return configs[rank(*(np.transpose(column) for column in columns))[0]]


def read(folder: Path) -> Archive:
    """The run in a folder: what results.csv, history.csv, config.json and the other files hold.

    Raises:
      ArchiveError: if the files are missing, broken or of another version; those of the CSV files when they
        are asked for.
    """
    return Archive(folder)


def find(folder: Path, tell: Callable[[str], None]) -> list[Archive]:
    """The complete runs in a folder and below it, newest first.

    Args:
      folder: where to look.
      tell: gets a line about each folder that looks like a run's but can't be read, or is incomplete.
    """
    found = []
    for path in sorted(folder.rglob(files.CONFIG)):
        try:
            one = read(path.parent)
        except ArchiveError as error:
            tell(f"left out: {error}")
            continue
        if one.complete:
            found.append(one)
        else:
            out = "" if " --out" in one.command else f" --out={one.folder}"
            tell(f"left out: {one.folder} is incomplete; to go on: {one.command}{out}")
    return sorted(found, key=lambda archive: archive.written, reverse=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path)
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{path} can't be read: {error}") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object in place of {value!r:.40}")
    return value


def _table(content: dict[str, Any]) -> Table:
    table = Table(**content)
    for row in (table.columns, *table.rows):
        if not isinstance(row, list) or len(row) != len(table.columns):
            raise ValueError("a row for each column")
    words = [
        table.name,
        table.title,
        table.note,
        *table.columns,
        *(cell for row in table.rows for cell in row),
    ]
    if not all(isinstance(word, str) for word in words):
        raise ValueError("tables of text")
    return table


def _lines(file: TextIO) -> Iterator[str]:
    """The lines, none of which is longer than any that a run writes."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError("a line is too long")
        yield line


def _rows(path: Path, header: Sequence[str]) -> Iterator[Row]:
    try:
        with path.open(newline="") as file:
            reader = csv.reader(_lines(file))
            if tuple(next(reader, ())) != tuple(header):
                raise ArchiveError(f"{path} has other columns than this version writes")
            for cells in reader:
                read = {name: _cell(name, text) for name, text in zip(header, cells, strict=True)}
                config = Config(*(read[name] for name in Config._fields))
                further = {name: read[name] for name in header if name not in KEYS}
                yield Row(read["variant"], config, read["seed"], further)
    except (OSError, ValueError, csv.Error) as error:
        raise ArchiveError(f"{path} can't be read: {error}") from None


def _by_config(rows: Iterable[Row]) -> dict[tuple[str, Config], list[Row]]:
    """The rows of each configuration of each variant, in the order they were given."""
    grouped: dict[tuple[str, Config], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.variant, row.config), []).append(row)
    return grouped


def _cell(name: str, text: str) -> Any:
    if name in _WORDS:
        return text
    if not text and name not in KEYS:
        return None
    return int(text) if name in _INTEGERS else float(text)
