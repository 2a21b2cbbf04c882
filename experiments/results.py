"""The files of a run: results.csv, history.csv and best_params.npz, each with its columns' meaning."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.files import whole
from experiments.run import SPLITS, Run
from linear_cifar.config import Config

# What names a run: the variant of the experiment, the data set, the configuration and the seed.
KEYS = ("variant", "dataset", *Config._fields, "seed")
_METRICS = tuple(f"{split}_{metric}" for split in SPLITS for metric in ("loss", "acc"))
# A row per run: epochs are those trained, the metrics those of the parameters then; diverged is empty, or the
# epoch.
RESULTS = (*KEYS, "epochs", *_METRICS, "diverged")
# A row per run and epoch (from 1): running_* are means over the epoch's batches, each before its update;
# W_norm is Frobenius's. Empty where a split was not measured after every epoch.
HISTORY = (*KEYS, "epoch", "running_loss", "running_acc", *_METRICS, "W_norm")


def write(folder: Path, runs: Sequence[Run]) -> None:
    """Writes the three files; variants, seeds and configurations in the order they were given.

    Where every configuration diverged there is no best one, and no best_params.npz.
    """
    write_csv(folder / files.RESULTS, RESULTS, (row for run in runs for row in _results(run)))
    write_csv(folder / files.HISTORY, HISTORY, (row for run in runs for row in _history(run)))
    run = best(runs)
    if run.ended.any():
        _write_best(folder / files.BEST, run)
    else:
        (folder / files.BEST).unlink(missing_ok=True)


def best(runs: Sequence[Run]) -> Run:
    """The variant that is best by validation, of those that are validated on the last one's images."""

    def images(run: Run) -> tuple[str, int]:
        return run.settings.train, run.settings.val_size

    def accuracy(run: Run) -> float:
        return float(np.nan_to_num(run.final["val"].accuracy[:, run.ranking[0]].mean(), nan=-1))

    return max((run for run in runs if images(run) == images(runs[-1])), key=accuracy)


def keys(run: Run) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """The indices of seed and configuration of each run, and its cells of KEYS."""
    for s, seed in enumerate(run.settings.seeds):
        for c, config in enumerate(run.configs):
            yield s, c, (run.variant.name, run.dataset.name, *config, seed)


def _results(run: Run) -> Iterator[Sequence[Any]]:
    columns = [column for split in SPLITS for column in run.final[split]]
    for s, c, its in keys(run):
        yield *its, run.epochs, *(column[s, c] for column in columns), run.diverged(s, c)


def _history(run: Run) -> Iterator[Sequence[Any]]:
    watched = [run.history.watched.get(split, (None, None)) for split in SPLITS]
    columns = [*run.history.running, *(column for split in watched for column in split), run.history.norm]
    for s, c, its in keys(run):
        for epoch in range(run.epochs):
            yield *its, epoch + 1, *(None if column is None else column[epoch, s, c] for column in columns)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file; None is an empty cell."""
    with whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        # str() of a NumPy scalar is the shortest text that reads back as the same number.
        writer.writerows(["" if cell is None else str(cell) for cell in row] for row in rows)


def _write_best(path: Path, run: Run) -> None:
    """The best configuration's best seed: W [K, d], b [K], the standardiser; loads without pickles."""
    c = run.ranking[0]
    s = run.best_seed(c)
    content = {
        **run.params_of(s, c)._asdict(),
        "mean": run.standardizer.mean,
        "std": run.standardizer.std,
        "classes": run.dataset.classes,
        "dataset": run.dataset.name,
        "fingerprint": run.dataset.fingerprint,
        "variant": run.variant.name,
        "loss": run.settings.loss,
        "seed": run.settings.seeds[s],
        **run.configs[c]._asdict(),
    }
    with whole(path) as partial:
        np.savez(partial, allow_pickle=False, **{name: np.asarray(value) for name, value in content.items()})
