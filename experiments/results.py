"""The files of a run: results.csv, history.csv and best_params.npz, each with its columns' meaning."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.files import whole
from experiments.run import Run
from linear_cifar.dataset import Dataset

# What names a row: the data set, the configuration and the seed.
KEYS = ("dataset", "eta", "batch", "lam", "seed")
# A row per configuration: of the final parameters; diverged is empty, or the epoch.
RESULTS = (*KEYS, "train_loss", "train_acc", "val_loss", "val_acc", "test_loss", "test_acc", "diverged")
# A row per configuration and epoch (from 1); train_* are averages over the epoch's batches.
HISTORY = (*KEYS, "epoch", "train_loss", "train_acc", "val_loss", "val_acc")


def write(folder: Path, run: Run, dataset: Dataset) -> None:
    """Writes the three files; configurations in the order they were given.

    Where every configuration diverged there is no best one, and no best_params.npz.
    """
    keys = [(dataset.name, *config, run.seed) for config in run.configs]
    final = [run.train.loss, run.train.accuracy, run.val.loss, run.val.accuracy, *run.test]
    _write_csv(
        folder / files.RESULTS,
        RESULTS,
        ((*keys[i], *(column[i] for column in final), run.diverged[i]) for i in range(len(keys))),
    )
    history = [*run.history.train, *run.history.val]
    _write_csv(
        folder / files.HISTORY,
        HISTORY,
        (
            (*keys[i], epoch + 1, *(column[epoch, i] for column in history))
            for i in range(len(keys))
            for epoch in range(len(run.history.finite))
        ),
    )
    if run.diverged[run.ranking[0]] is None:
        _write_best(folder / files.BEST, run, dataset)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        # str() of a NumPy scalar is the shortest text that reads back as the same number.
        writer.writerows([["" if cell is None else str(cell) for cell in row] for row in rows])


def _write_best(path: Path, run: Run, dataset: Dataset) -> None:
    """W [K, d], b [K], the standardiser and what they belong to; loads without pickles."""
    best = run.ranking[0]
    content = {
        "W": run.params.W[best],
        "b": run.params.b[best],
        "mean": run.standardizer.mean,
        "std": run.standardizer.std,
        "classes": dataset.classes,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "seed": run.seed,
        **run.configs[best]._asdict(),
    }
    with whole(path) as partial:
        np.savez(partial, allow_pickle=False, **{name: np.asarray(value) for name, value in content.items()})
