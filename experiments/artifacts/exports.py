"""The measurements of an experiment as files: results.csv, history.csv and best_params.npz."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runner.folder import BEST, HISTORY, RESULTS
from linear_cifar.atomic import atomic_text, atomic_write
from linear_cifar.config import AXES
from linear_cifar.data.dataset import SPLITS, order_splits
from linear_cifar.result import TRAIN, Result
from linear_cifar.snapshots import SOLVED
from linear_cifar.standardizer import Standardizer, fold_standardizer

# Columns that identify a run: the name of its sweep, the data set, the configuration, the seed, and the fold
# that it was trained without, or empty.
KEYS = ("sweep", "dataset", *AXES, "seed", "fold")
# A row per file of `compare`, best first, followed by its factors. `size` is the number of training examples,
# `difference` is from the best file.
COMPARE_COLUMNS = ("name", "size", "accuracy", "low", "high", "difference", "may_be_best", *AXES)


def result_columns(splits: Sequence[str] = SPLITS) -> list[str]:
    """Return the columns of results.csv for data with these splits, see FILES.md."""
    held_out = [split for split in splits if split != TRAIN]
    measured = [f"{split}_{metric}" for metric in ("class_acc", "top5") for split in held_out]
    return [*KEYS, "epochs", *_metrics(splits), *measured, *SOLVED, "diverged", "stopped"]


def history_columns(splits: Sequence[str] = SPLITS) -> list[str]:
    """Return the columns of history.csv for data with these splits, see FILES.md."""
    return [*KEYS, "epoch", "running_loss", "running_acc", *_metrics(splits), "W_norm"]


def _metrics(splits: Sequence[str]) -> list[str]:
    return [f"{split}_{metric}" for split in splits for metric in ("loss", "acc")]


def write_results(folder: Path, results: Sequence[Result], complete: bool = True) -> None:
    """Write the three files, with sweeps, replicates and configurations in the order of the command.

    Runs that are not begun have no rows. If every configuration diverged, or none has begun from every seed,
    there is no best one and no best_params.npz.

    Args:
      folder: the experiment's folder.
      results: results of the sweeps, as far as they are trained.
      complete: whether all sweeps are trained to their end.
    """
    splits = order_splits({*SPLITS}.union(*(result.sizes for result in results)))
    measured = {name for result in results for name in result.final}
    columns = [
        name
        for name in result_columns(splits)
        if name in measured or not (name.endswith("_top5") or name in SOLVED)
    ]
    write_csv(folder / RESULTS, columns, (row for result in results for row in _result_rows(result, columns)))
    history = history_columns(splits)
    write_csv(
        folder / HISTORY, history, (row for result in results for row in _history_rows(result, history))
    )
    best = best_result(results, complete)
    c = best.ranking()[0]
    if best.stayed_finite[c] and best.epochs[:, c].all():
        _write_best_params(folder / BEST, best)
    else:
        (folder / BEST).unlink(missing_ok=True)


def best_result(results: Sequence[Result], complete: bool = True) -> Result:
    """Return the best sweep by validation, among those validated on the same examples as the last one.

    Files that are compared have the same examples, and differ in their features.

    If the last one has no validation split, its configurations were chosen by an earlier one: it is the best,
    unless its training was stopped, or all of it diverged.
    """
    last = results[-1]
    if last.chosen_by is None and complete and last.stayed_finite.any():
        return last
    chosen = [result for result in results if result.chosen_by is not None]

    def accuracy(result: Result) -> float:
        mean = result.final[f"{result.chosen_by}_acc"][:, result.ranking()[0]].mean()
        return float(np.nan_to_num(mean, nan=-1))

    def examples(result: Result) -> str:
        return result.identity.data[result.chosen_by or ""].replace(result.about["fingerprint"], "")

    return max((result for result in chosen if examples(result) == examples(chosen[-1])), key=accuracy)


def run_keys(result: Result) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Yield the indices of replicate and configuration of each run that is begun, and its `KEYS`."""
    for s in range(result.identity.size[0]):
        for c in range(result.identity.size[1]):
            if result.epochs[s, c]:
                *_, seed, fold = result.key(s, c)
                axes = [result.configs[c].get(name) for name in AXES]
                yield s, c, (result.about["sweep"], result.about["dataset"], *axes, seed, fold)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; None becomes an empty cell."""
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        # str() of a NumPy scalar is the shortest text that reads back as the same number.
        writer.writerows(["" if cell is None else str(cell) for cell in row] for row in rows)


def _result_rows(result: Result, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Yield the rows of results.csv."""
    names = columns[len(KEYS) + 1 : -2]
    measured = [result.final.get(name) for name in names]
    in_history = [name in result.history for name in names]
    kinds = [int if name in SOLVED[2:] else np.asarray for name in names]
    for s, c, keys in run_keys(result):
        stopped = int(result.stopped[s, c])
        cells = (
            None if column is None or (stopped and not known) else whole(column[s, c])
            for column, known, whole in zip(measured, in_history, kinds, strict=True)
        )
        epochs = None if result.identity.is_exact else result.epochs[s, c]
        yield *keys, epochs, *cells, result.diverged[s, c] or None, stopped or None


def _history_rows(result: Result, names: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Yield the rows of history.csv; a solver's runs have no epochs."""
    columns = [result.history.get(name) for name in names[len(KEYS) + 1 :]]
    for s, c, keys in run_keys(result):
        for epoch in range(0 if result.identity.is_exact else result.epochs[s, c]):
            yield *keys, epoch + 1, *(None if column is None else column[epoch, s, c] for column in columns)


def _write_best_params(path: Path, result: Result) -> None:
    """Write W [K, d] and b [K] of the best configuration's best run, with what is needed to use them.

    `W_raw` and `b_raw` are for features that are not standardised. The file holds no Python objects, so it
    can be loaded without pickles.
    """
    c = result.ranking()[0]
    best = result.best_replicate(c)
    replicate, about, d = result.identity.replicates[best], result.about, result.identity.settings["d"]
    params = result.params_at(best, c)
    standardizer = result.standardizer_of(best) or Standardizer(np.zeros(d), np.ones(d))
    raw = fold_standardizer(params, standardizer)
    content = {
        **params._asdict(),
        "W_raw": raw.W,
        "b_raw": raw.b,
        **standardizer._asdict(),
        "standardize": about["standardize"],
        "classes": about["classes"],
        "dataset": about["dataset"],
        "fingerprint": about["fingerprint"],
        "sweep": about["sweep"],
        "loss": result.identity.settings["loss"],
        "seed": replicate.seed,
        **({} if replicate.fold is None else {"fold": replicate.fold}),
        **result.configs[c],
    }
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(value) for name, value in content.items()})
