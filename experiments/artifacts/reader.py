"""The public reader of a run's folder: config.json, tables.json, the CSV files and the values per example."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import Float

from experiments.artifacts.examples import ExampleValues, read_example_values
from experiments.artifacts.intervals import Interval, interval_over_examples, interval_over_seeds
from experiments.artifacts.measures import Measures
from experiments.artifacts.results import HISTORY_COLUMNS, KEYS, RESULT_COLUMNS
from experiments.artifacts.tables import Table
from experiments.runner.files import (
    CONFIG,
    CORRECT,
    HISTORY,
    MEASURES,
    RESULTS,
    SCHEMA,
    TABLES,
    VALUES,
    read_json,
)
from linear_cifar.comparison import rank
from linear_cifar.config import Config
from linear_cifar.data.dataset import label_dataset
from linear_cifar.uncertainty import unpack_correct

MEASURE_COLUMNS = (*KEYS, *Measures._fields)
_INTEGERS = ("batch", "seed", "fold", "epoch", "epochs", "diverged", "stopped")
_WORDS = ("variant", "dataset")
# Characters of the longest line that a CSV file may have.
LONGEST_LINE = 100_000


class ReadError(Exception):
    """A folder does not hold what a run writes; the message is one line for the user."""


class MissingResult(Exception):
    """A run does not hold what is asked of it; the message names it."""


class Row(NamedTuple):
    """A row of a CSV file: the run it is of, and its other columns by name; None is an empty cell."""

    sweep: str
    config: Config
    seed: int
    fold: int | None
    cells: dict[str, Any]


class RunResult:
    """A run's folder. The JSON files are read at once, and the CSV files when they are asked for.

    An incomplete run has no tables, and rows only of what was trained.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read config.json and tables.json.

        Raises:
          ReadError: if one is missing, broken or of another version.
        """
        folder = Path(folder)
        self.folder = folder
        self.config: dict[str, Any] = _read_json(folder / CONFIG)
        schema = self.config.get("schema")
        if schema != SCHEMA:
            raise ReadError(
                f"{folder / CONFIG} was written by another version (schema {schema!r:.20}, not {SCHEMA}): "
                "run the experiment again in another folder"
            )
        try:
            self.experiment = str(self.config["experiment"])
            self.complete = self.config["complete"] is True
            self.command = str(self.config["command"])
            self.written = str(self.config["written"])
            self.settings = _expect_object(self.config["settings"])
            data = _expect_object(self.config["dataset"])
            self.dataset, self.fingerprint = str(data["name"]), str(data["fingerprint"])
            self.user_file = data["user_file"] is True
            sweeps = _expect_object(self.config["sweeps"])
            self.sweeps: dict[str, dict[str, Any]] = {
                name: _expect_object(settings) for name, settings in sweeps.items()
            }
            tables = _read_json(folder / TABLES)["tables"] if self.complete else []
            self.tables = {table["name"]: _parse_table(table) for table in tables}
        except KeyError as error:
            raise ReadError(f"{folder}: {CONFIG} or {TABLES} has no {error}") from None
        except (TypeError, ValueError) as error:
            raise ReadError(f"{folder}: {CONFIG} or {TABLES} has {error}") from None

    @property
    def label(self) -> str:
        """The data set's name for the page, see `label_dataset`."""
        return label_dataset(self.dataset, self.fingerprint, self.user_file)

    @cached_property
    def results(self) -> list[Row]:
        """The rows of results.csv."""
        return list(_read_rows(self.folder / RESULTS, RESULT_COLUMNS))

    @cached_property
    def history(self) -> list[Row]:
        """The rows of history.csv."""
        return list(_read_rows(self.folder / HISTORY, HISTORY_COLUMNS))

    @cached_property
    def measures(self) -> list[Row]:
        """The rows of measures.csv."""
        return list(_read_rows(self.folder / MEASURES, MEASURE_COLUMNS))

    def configs(self, sweep: str) -> tuple[Config, ...]:
        """Return a sweep's configurations, in the order of the command, without those that were stopped."""
        return tuple(
            config
            for (name, config), rows in self._results_by_config.items()
            if name == sweep and not rows[0].cells["stopped"]
        )

    def values(self, column: str, sweep: str, config: Config) -> Float[np.ndarray, " S"]:
        """Return a column of results.csv or measures.csv for one configuration, NaN where it diverged.

        Raises:
          MissingResult: if that configuration was not run.
        """
        by_config = self._results_by_config if column in RESULT_COLUMNS else self._measures_by_config
        rows = by_config.get((sweep, config))
        if not rows:
            raise MissingResult(f"{sweep} with eta {config.eta:g}, batch {config.batch}, lam {config.lam:g}")
        return np.asarray([row.cells[column] for row in rows], np.float64)

    def example_values(self, column: str, sweep: str, config: Config) -> Float[np.ndarray, "S n"]:
        """Return the values per example whose mean is a column of results.csv or measures.csv.

        With folds, the n examples are those of all folds. NaN where a run diverged.

        Args:
          column: `val_acc` or `test_acc`, or a measure that the command has written to values.npz.
          sweep: name of the sweep.
          config: one of its configurations.

        Raises:
          MissingResult: if there are no such values.
          ReadError: if the run is incomplete, or the file is broken or of another run.
        """
        if not self.complete:
            command = self.command
            raise ReadError(f"{self.folder} is incomplete: to resume it, run its command again ({command})")
        packed, name = column.endswith("_acc"), column.removesuffix("_acc")
        found = [
            part
            for part in (self._correct if packed else self._values)
            if part.sweep == sweep and config in part.configs and name in part.arrays
        ]
        if not found:
            raise MissingResult(f"{column} of {sweep} with eta {config.eta:g}, batch {config.batch}")
        values = found[0].arrays[name][:, found[0].configs.index(config)]
        if packed:
            values = unpack_correct(values, found[0].sizes[name])
        diverged = np.isnan(self.values(column, sweep, config))
        if len(diverged) != len(values):
            raise ReadError(f"{self.folder} holds values per example of another run: remove the folder")
        values = np.where(diverged[:, None], np.nan, values.astype(np.float64))
        return values.reshape(len(self.sweeps[sweep]["seeds"]), -1)

    def interval(self, split: str, sweep: str, config: Config) -> Interval:
        """Return the accuracy of a configuration on a split, with its interval, see `accuracy_interval`.

        Raises:
          MissingResult: if that configuration was not run, or not measured on that split.
          ReadError: if the run is incomplete, or a file is broken or of another run.
        """
        if split == "train":
            values = self.values("train_acc", sweep, config)
            return interval_over_seeds(values.reshape(len(self.sweeps[sweep]["seeds"]), -1))
        return interval_over_examples(self.example_values(f"{split}_acc", sweep, config))

    def best(self, sweep: str, accept: Callable[[Config], bool] = lambda config: True) -> Config:
        """Return the best configuration by validation among those that `accept` takes, see `rank`.

        Raises:
          MissingResult: if there are none.
        """
        configs = [config for config in self.configs(sweep) if accept(config)]
        if not configs:
            raise MissingResult(sweep)
        columns = [
            [self.values(name, sweep, config) for config in configs] for name in ("val_loss", "val_acc")
        ]
        return configs[rank(*(np.transpose(column) for column in columns))[0]]

    @cached_property
    def _correct(self) -> list[ExampleValues]:
        return _read_examples(self.folder / CORRECT, packed=True)

    @cached_property
    def _values(self) -> list[ExampleValues]:
        return _read_examples(self.folder / VALUES, packed=False)

    @cached_property
    def _results_by_config(self) -> dict[tuple[str, Config], list[Row]]:
        return _group_by_config(self.results)

    @cached_property
    def _measures_by_config(self) -> dict[tuple[str, Config], list[Row]]:
        return _group_by_config(self.measures)


def find_runs(folder: str | Path, log: Callable[[str], None]) -> list[RunResult]:
    """Return the complete runs in a folder and below it, newest first.

    Args:
      folder: folder to search.
      log: gets a line about each folder whose run is incomplete or cannot be read.
    """
    found = []
    for path in sorted(Path(folder).rglob(CONFIG)):
        try:
            run = RunResult(path.parent)
        except ReadError as error:
            log(f"left out: {error}")
            continue
        if run.complete:
            found.append(run)
        else:
            out = "" if " --out" in run.command else f" --out={run.folder}"
            log(f"left out: {run.folder} is incomplete; to resume it: {run.command}{out}")
    return sorted(found, key=lambda run: run.written, reverse=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ReadError(f"{path} cannot be read: {error}") from None


def _read_examples(path: Path, packed: bool) -> list[ExampleValues]:
    try:
        return read_example_values(path, packed)
    except (OSError, ValueError) as error:
        raise ReadError(str(error)) from None


def _expect_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.40} in place of an object")
    return value


def _parse_table(content: dict[str, Any]) -> Table:
    table = Table(**content)
    for row in (table.columns, *table.rows):
        if not isinstance(row, list) or len(row) != len(table.columns):
            raise ValueError("a table with a row of another length than its columns")
    cells = [cell for row in table.rows for cell in row]
    if not all(
        isinstance(text, str) for text in (table.name, table.title, table.note, *table.columns, *cells)
    ):
        raise ValueError("a table that does not hold text")
    return table


def _read_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file, none of which is longer than any that a run writes."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError("a line is too long")
        yield line


def _read_rows(path: Path, header: Sequence[str]) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(_read_lines(file))
            if tuple(next(reader, ())) != tuple(header):
                raise ReadError(f"{path} has other columns than this version writes")
            for cells in reader:
                values = {name: _parse_cell(name, text) for name, text in zip(header, cells, strict=True)}
                config = Config(*(values[name] for name in Config._fields))
                others = {name: values[name] for name in header if name not in KEYS}
                yield Row(values["variant"], config, values["seed"], values["fold"], others)
    except (OSError, ValueError, csv.Error) as error:
        raise ReadError(f"{path} cannot be read: {error}") from None


def _group_by_config(rows: Iterable[Row]) -> dict[tuple[str, Config], list[Row]]:
    """Group rows by sweep and configuration, in the order of the file."""
    grouped: dict[tuple[str, Config], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.sweep, row.config), []).append(row)
    return grouped


def _parse_cell(name: str, text: str) -> Any:
    if name in _WORDS:
        return text
    if not text and (name == "fold" or name not in KEYS):
        return None
    return int(text) if name in _INTEGERS else float(text)
