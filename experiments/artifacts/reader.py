"""The public reader of an experiment's folder: config.json, tables.json and the results of its sweeps."""

import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.artifacts.tables import Table
from experiments.runner.folder import BLOCKS, CONFIG, HISTORY, LATEX, RESULTS, SCHEMA, TABLES, VALUES
from linear_cifar.blocks import load_result
from linear_cifar.config import Config
from linear_cifar.data.dataset import label_dataset
from linear_cifar.folders import read_json
from linear_cifar.npz import expect, read_npz
from linear_cifar.result import Result


class ReadError(Exception):
    """A folder does not hold what an experiment writes; the message is one line for the user."""


class MissingResult(Exception):
    """An experiment does not hold the requested result; the message names it."""


class ExperimentFolder:
    """An experiment's folder. The JSON files are read at once, and results when they are asked for.

    An incomplete experiment has no tables, and results only of what was trained.
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
            self.name = str(self.config["experiment"])
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
        self._results: dict[str, Result] = {}

    @property
    def label(self) -> str:
        """The name of the first data set for the page, see `label_dataset`, and the number of others."""
        prints = {sweep.get("dataset", {}).get("fingerprint") for sweep in self.sweeps.values()}
        others = len(prints - {None, self.fingerprint})
        label = label_dataset(self.dataset, self.fingerprint, self.user_file)
        return label + f" and {others} more" * (others > 0)

    def result(self, sweep: str) -> Result:
        """Return the result of a sweep, without its weights.

        Raises:
          MissingResult: if there is no sweep of this name.
          ReadError: if the experiment is incomplete, or a file is broken or of another experiment.
        """
        if sweep not in self.sweeps:
            raise MissingResult(sweep)
        if not self.complete:
            raise ReadError(
                f"{self.folder} is incomplete: to resume it, run its command again ({self.command})"
            )
        if sweep not in self._results:
            try:
                result = load_result(self.folder / BLOCKS / sweep, weights=False)
            except (ValueError, OSError) as error:
                raise ReadError(f"{error}: run the experiment again in another folder") from None
            if result.identity.hash() != self.sweeps[sweep].get("identity"):
                raise ReadError(
                    f"{self.folder} does not hold the results that {CONFIG} describes: run its command again"
                )
            self._results[sweep] = result
        return self._results[sweep]

    def measured(self, name: str, sweep: str, config: Config) -> Float[np.ndarray, "S n"]:
        """Return a measure of confidence per test image, from values.npz; NaN where a run diverged.

        Raises:
          MissingResult: if there is no such measure of this configuration.
          ReadError: if the file is broken.
        """
        arrays, configs = self._values
        values, result = arrays.get(f"{sweep}.{name}"), self.result(sweep)
        if values is None or configs.get(sweep) != config:
            raise MissingResult(f"{name} of {sweep} with eta {config.eta:g}, batch {config.batch}")
        try:
            expect(f"{sweep}.{name}", values, (len(result.seeds), result.sizes.get("test", 0)), np.float32)
        except ValueError as error:
            raise ReadError(f"{self.folder / VALUES} cannot be read: {error}") from None
        return values.astype(np.float64)

    @cached_property
    def _values(self) -> tuple[dict[str, np.ndarray], dict[str, Config]]:
        """The arrays of values.npz, and the configuration of each sweep that they are of."""
        try:
            arrays, description = read_npz(self.folder / VALUES)
            configs = {name: Config(**values) for name, values in description["configs"].items()}
        except FileNotFoundError:
            return {}, {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReadError(f"{self.folder / VALUES} cannot be read: {error}") from None
        return arrays, configs

    def has_results(self, sweeps: dict[str, dict[str, Any]]) -> bool:
        """Tell whether the folder holds the finished files of sweeps that config.json describes like this."""
        files = all((self.folder / name).exists() for name in (RESULTS, HISTORY, TABLES, LATEX))
        keys = ("identity", "epochs", "max_evaluations")
        ours, theirs = (
            {name: [sweep.get(key) for key in keys] for name, sweep in described.items()}
            for described in (sweeps, self.sweeps)
        )
        return self.complete and files and ours == theirs


def find_experiments(folder: str | Path, log: Callable[[str], None]) -> list[ExperimentFolder]:
    """Return the complete experiments in a folder and below it, newest first.

    Args:
      folder: folder to search.
      log: gets a line about each folder whose experiment is incomplete or cannot be read.
    """
    found = []
    for path in sorted(Path(folder).rglob(CONFIG)):
        try:
            experiment = ExperimentFolder(path.parent)
        except ReadError as error:
            log(f"left out: {error}")
            continue
        if experiment.complete:
            found.append(experiment)
        else:
            command = experiment.command
            out = "" if " --out" in command else f" --out={shlex.quote(str(experiment.folder))}"
            log(f"left out: {experiment.folder} is incomplete; to resume it: {command}{out}")
    return sorted(found, key=lambda experiment: experiment.written, reverse=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ReadError(f"{path} cannot be read: {error}") from None


def _expect_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.40} in place of an object")
    return value


def _parse_table(content: dict[str, Any]) -> Table:
    # Earlier commands left the names of some columns empty.
    columns = [name or f"column {number}" for number, name in enumerate(content["columns"], start=1)]
    return Table(**(content | {"columns": columns}))
