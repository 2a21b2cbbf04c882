"""What every training experiment does around its settings and figures: checks, data, sweeps, files."""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments import provenance, results
from experiments.files import CONFIG, TABLES, folder_for_run, write_json
from experiments.progress import download_bar
from experiments.run import Run, run
from experiments.settings import Variant
from experiments.shell import UsageError
from experiments.table import Table
from linear_cifar.config import check
from linear_cifar.dataset import Source, divide, train_size
from linear_cifar.load import find

FLAGS = flags.FLAGS

# Draws an experiment's figures into the folder, and gives its tables.
Present = Callable[[Path, Sequence[Run]], Sequence[Table]]


def conduct(experiment: str, variants: Sequence[Variant], present: Present) -> None:
    """Trains the variants, writes the run's files and prints its tables.

    Args:
      experiment: name of the experiment's module.
      variants: what to train, one sweep after the other.
      present: the experiment's own figures and tables.

    Raises:
      UsageError: if the flags don't go together, or the folder can't be used; before anything is loaded.
      DataError: if there is no usable data.
    """
    for variant in variants:
        _check(variant)
    out = Path(FLAGS.out or f"results/{experiment}/{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    with folder_for_run(out) as folder:
        source = _source()
        runs: list[Run] = []
        for variant in variants:
            runs.append(_run(variant, source))
            # What is finished stays, whatever becomes of the rest.
            results.write(folder, runs)
        tables = write(folder, experiment, _settings(), runs, present)
    print("\n\n".join(map(str, tables)))
    print(f"files: {folder}")


def write(
    folder: Path, experiment: str, settings: dict[str, Any], runs: Sequence[Run], present: Present
) -> Sequence[Table]:
    """Writes all files of an experiment that was run; `settings` are its flags. Gives its tables."""
    results.write(folder, runs)
    write_json(folder / CONFIG, provenance.describe(experiment, settings, runs))
    tables = present(folder, runs)
    write_json(folder / TABLES, {"tables": [table._asdict() for table in tables]})
    return tables


def _check(variant: Variant) -> None:
    settings = variant.settings
    if settings.average > settings.epochs:
        raise UsageError(f"average is {settings.average}: the run has {settings.epochs} epochs")
    n = train_size(settings.train, settings.val_size)
    for config in variant.configs:
        try:
            check(config, n)
        except ValueError as error:
            raise UsageError(str(error)) from None


def _source() -> Source:
    data_dir = None if FLAGS.data_dir is None else Path(FLAGS.data_dir).expanduser()
    with download_bar("CIFAR-10") as report:
        return find(FLAGS.dataset, data_dir, _tell, report)


def _run(variant: Variant, source: Source) -> Run:
    settings = variant.settings
    with jax.enable_x64(settings.dtype == "float64"):
        return run(variant, divide(source, settings.train, settings.val_size))


def _settings() -> dict[str, Any]:
    """The experiment's flags, those left at their defaults too."""
    return {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
