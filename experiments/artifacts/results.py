"""The measurements of a run as files: results.csv, history.csv, correct.npz and best_params.npz."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.artifacts.examples import write_correct
from experiments.runner.files import BEST, CORRECT, HISTORY, RESULTS
from experiments.runner.sweeps import HELD_OUT, SweepResult
from linear_cifar.config import Config
from linear_cifar.data.dataset import SPLITS
from linear_cifar.files import atomic_text, atomic_write
from linear_cifar.standardizer import Standardizer, fold_standardizer

# Columns that identify a run: the name of its sweep, the data set, the configuration, the seed, and the fold
# that it was trained without, or empty.
KEYS = ("variant", "dataset", *Config._fields, "seed", "fold")
_NO_METRICS = (None, None)
_METRICS = tuple(f"{split}_{metric}" for split in SPLITS for metric in ("loss", "acc"))
# A row per run. `epochs` is the number of epochs trained, and the metrics are of the parameters after them.
# `*_class_acc` are means of the accuracy on each class. `diverged` is the epoch in which the run diverged,
# `stopped` the epoch after which halving stopped it; both may be empty. The cells of a split that the data
# set does not have are empty. So are those that were not measured before a run was stopped.
RESULT_COLUMNS = (
    *KEYS, "epochs", *_METRICS, *(f"{split}_class_acc" for split in HELD_OUT), "diverged", "stopped",
)  # fmt: skip
# A row per run and epoch, from 1. `running_*` are means over the epoch's batches, each before its update.
# `W_norm` is Frobenius's. The cells of a split that was not measured after every epoch are empty.
HISTORY_COLUMNS = (*KEYS, "epoch", "running_loss", "running_acc", *_METRICS, "W_norm")


def write_results(folder: Path, results: Sequence[SweepResult], complete: bool = True) -> None:
    """Write the four files, with sweeps, replicates and configurations in the order of the command.

    If every configuration diverged there is no best one, and no best_params.npz.

    Args:
      folder: the run's folder.
      results: results of the sweeps, or of the blocks that were trained before a stop.
      complete: whether all sweeps are trained to their end.
    """
    write_csv(folder / RESULTS, RESULT_COLUMNS, (row for result in results for row in _result_rows(result)))
    write_csv(folder / HISTORY, HISTORY_COLUMNS, (row for result in results for row in _history_rows(result)))
    write_correct(folder / CORRECT, results)
    best = best_sweep(results, complete)
    if best.stayed_finite.any():
        _write_best_params(folder / BEST, best)
    else:
        (folder / BEST).unlink(missing_ok=True)


def best_sweep(results: Sequence[SweepResult], complete: bool = True) -> SweepResult:
    """Return the best sweep by validation, among those validated on the same examples as the last one.

    If the last one has no validation split, its configurations were chosen by an earlier one: it is the best,
    unless its training was stopped, or all of it diverged.
    """
    last = results[-1]
    if "val" not in last.final and complete and last.stayed_finite.any():
        return last
    results = [result for result in results if "val" in result.final]

    def validation_examples(result: SweepResult) -> tuple[str, int]:
        return result.settings.train, result.settings.val_size

    def accuracy(result: SweepResult) -> float:
        return float(np.nan_to_num(result.final["val"].accuracy[:, result.ranking[0]].mean(), nan=-1))

    comparable = [
        result for result in results if validation_examples(result) == validation_examples(results[-1])
    ]
    return max(comparable, key=accuracy)


def run_keys(result: SweepResult) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Yield the indices of replicate and configuration of each run, and its cells of the columns `KEYS`."""
    for r, replicate in enumerate(result.sweep.replicates):
        for c, config in enumerate(result.configs):
            yield r, c, (result.sweep.name, result.dataset.name, *config, *replicate)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; None becomes an empty cell."""
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        # str() of a NumPy scalar is the shortest text that reads back as the same number.
        writer.writerows(["" if cell is None else str(cell) for cell in row] for row in rows)


def _result_rows(result: SweepResult) -> Iterator[Sequence[Any]]:
    columns = [column for split in SPLITS for column in result.final.get(split, _NO_METRICS)]
    columns += [result.class_accuracy.get(split) for split in HELD_OUT]
    after_each_epoch = [split in result.settings.evaluate for split in SPLITS for _ in _NO_METRICS]
    after_each_epoch += [False] * len(HELD_OUT)
    for r, c, keys in run_keys(result):
        stopped = result.stopped[r, c]
        cells = (
            None if column is None or (stopped and not measured) else column[r, c]
            for column, measured in zip(columns, after_each_epoch, strict=True)
        )
        yield *keys, stopped or result.epochs, *cells, result.diverged(r, c), stopped or None


def _history_rows(result: SweepResult) -> Iterator[Sequence[Any]]:
    history = result.history
    evaluated = [history.evaluated.get(split, _NO_METRICS) for split in SPLITS]
    columns = [*history.running, *(column for metrics in evaluated for column in metrics), history.norm]
    for r, c, keys in run_keys(result):
        for epoch in range(result.stopped[r, c] or result.epochs):
            yield *keys, epoch + 1, *(None if column is None else column[epoch, r, c] for column in columns)


def _write_best_params(path: Path, result: SweepResult) -> None:
    """Write W [K, d] and b [K] of the best configuration's best run, with what is needed to use them.

    `W_raw` and `b_raw` are for features that are not standardised. The file holds no Python objects, so it
    can be loaded without pickles.
    """
    c = result.ranking[0]
    best = result.best_replicate(c)
    replicate, d = result.sweep.replicates[best], result.data.d
    params = result.params_of(best, c)
    standardizer = result.data.standardizer_of(replicate) or Standardizer(np.zeros(d), np.ones(d))
    raw = fold_standardizer(params, standardizer)
    content = {
        **params._asdict(),
        "W_raw": raw.W,
        "b_raw": raw.b,
        **standardizer._asdict(),
        "standardize": result.settings.standardize,
        "classes": result.dataset.classes,
        "dataset": result.dataset.name,
        "fingerprint": result.dataset.fingerprint,
        "variant": result.sweep.name,
        "loss": result.settings.loss,
        "seed": replicate.seed,
        **({} if replicate.fold is None else {"fold": replicate.fold}),
        **result.configs[c]._asdict(),
    }
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(value) for name, value in content.items()})
