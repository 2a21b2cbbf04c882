"""The probabilities of the best configuration for each held-out example, as a Parquet file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.runner.stages import Sweep
from linear_cifar.atomic import atomic_write
from linear_cifar.data.division import number_rows
from linear_cifar.data.local import import_extra
from linear_cifar.data.prepare import Data
from linear_cifar.replicates import all_rows
from linear_cifar.result import TRAIN, Result

# Probabilities of each seed that are computed at a time.
AT_ONCE = 2**22


def write_probabilities(
    path: Path, sweeps: Sequence[Sweep], results: Sequence[Result], data: Mapping[str, Data]
) -> None:
    """Write a row per example of each set but train, in the order of sets, folds and rows.

    The configuration is the best one by validation. Its probabilities are means over the seeds. With folds,
    those of an example are of the runs that were trained without its fold. A set that several sweeps measure
    is of the last one, which has trained the configuration again. If the configuration diverged, nothing is
    written. FILES.md describes the columns.

    Args:
      path: the file.
      sweeps: the sweep that chooses, and perhaps one that trains the best configurations again.
      results: their results, with all weights.
      data: their data by the name of the sweep.
    """
    pyarrow, parquet = map(import_extra, ("pyarrow", "pyarrow.parquet"))
    best = results[0].configs[results[0].ranking()[0]]
    if not all(result.stayed_finite[result.configs.index(best)] for result in results):
        return
    dataset, text = data[sweeps[0].name].dataset, pyarrow.string()
    classes, splits, K = np.array(dataset.classes), np.array([*dataset.splits]), len(dataset.classes)
    kinds = {"set": text, "split": text, "row": pyarrow.int64(), "label": text}
    kinds["probabilities"] = pyarrow.list_(pyarrow.float32(), K)
    about = {"classes": json.dumps(dataset.classes), "configuration": json.dumps(dict(best))}
    schema = pyarrow.schema(kinds, about)
    last = {name: i for i, result in enumerate(results) for name in result.sizes if name != TRAIN}
    with atomic_write(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
        for name, i in last.items():
            result, settings, prepared = results[i], sweeps[i].settings, data[sweeps[i].name]
            origins = number_rows(dataset, settings.train, settings.val_size, settings.folds)
            c, origin = result.configs.index(best), origins[TRAIN if prepared.folds else name]
            replicates = np.reshape(result.order_replicates(), (len(result.seeds), -1)).T
            for fold, members in enumerate(replicates.tolist()):
                rows = all_rows(prepared.folds[fold])[name] if prepared.folds else np.arange(len(origin))
                for part in np.array_split(rows, -(-len(rows) * K // AT_ONCE)):
                    examples, (split, row) = prepared.sets[name].take(part), origin[part].T
                    by_seed = [result.predict_proba(examples.features, c, member) for member in members]
                    means = np.mean(by_seed, axis=0, dtype=np.float64).astype(np.float32)
                    lists = pyarrow.FixedSizeListArray.from_arrays(means.reshape(-1), K)
                    columns = [np.full(len(part), name), splits[split], row, classes[examples.classes], lists]
                    writer.write_table(pyarrow.table(columns, schema=schema))
