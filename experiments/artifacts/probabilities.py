"""The probabilities of the best configuration for each held-out example, as a Parquet file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runner.stages import Sweep
from linear_cifar.atomic import atomic_write
from linear_cifar.data.division import number_rows
from linear_cifar.data.local import import_extra
from linear_cifar.data.prepare import Data
from linear_cifar.replicates import all_rows
from linear_cifar.result import TRAIN, Result

# Probabilities that are computed at a time, of one run.
AT_ONCE = 2**24


def import_parquet() -> Any:
    """Return the module that writes the file; raise DataError if it is not installed."""
    return import_extra("pyarrow.parquet", "pip install 'linear_cifar[parquet]'")


def write_probabilities(
    path: Path, sweeps: Sequence[Sweep], results: Sequence[Result], data: Mapping[str, Data]
) -> None:
    """Write a row per example of each set but train, in the order of sets, folds and rows.

    The configuration is the best one by validation. Its probabilities are means over the seeds. With folds,
    those of an example are of the runs that were trained without its fold. A set that several sweeps measure
    is of the last one, which has trained the configuration again. If the configuration diverged, there is no
    file. The columns are in FILES.md.

    Args:
      path: the file.
      sweeps: the sweep that chooses, and perhaps one that trains the best configurations again.
      results: their results, with all weights.
      data: their data by the name of the sweep.
    """
    pyarrow, parquet = import_extra("pyarrow"), import_parquet()
    best = results[0].configs[results[0].ranking()[0]]
    if not all(result.stayed_finite[result.configs.index(best)] for result in results):
        path.unlink(missing_ok=True)
        return
    dataset = data[sweeps[0].name].dataset
    classes, splits = np.array(dataset.classes), np.array([*dataset.splits])
    kinds = {"set": pyarrow.string(), "split": pyarrow.string(), "row": pyarrow.int64()}
    kinds |= {"label": pyarrow.string(), "probabilities": pyarrow.list_(pyarrow.float32(), len(classes))}
    schema = pyarrow.schema(
        kinds, {"classes": json.dumps(dataset.classes), "configuration": json.dumps({**best})}
    )
    measured = {name: place for place, result in enumerate(results) for name in result.sizes if name != TRAIN}
    with atomic_write(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
        for name, place in measured.items():
            result, settings, own = results[place], sweeps[place].settings, data[sweeps[place].name]
            division = {key: getattr(settings, key) for key in ("train", "val_size", "folds")}
            origins = number_rows(dataset, **division)[TRAIN if own.folds else name]
            replicates = np.reshape(result.order_replicates(), (len(result.seeds), -1)).T
            for fold, members in enumerate(replicates.tolist()):
                rows = np.arange(len(own.sets[name]))
                if own.folds:
                    rows = all_rows(own.folds[fold])[name]
                for part in np.array_split(rows, -(-len(rows) * len(classes) // AT_ONCE)):
                    examples = own.sets[name].take(part)
                    predicted = [
                        result.predict_proba(examples.features, result.configs.index(best), member)
                        for member in members
                    ]
                    means = np.mean(predicted, axis=0, dtype=np.float64).astype(np.float32)
                    columns = [
                        np.full(len(part), name),
                        splits[origins[part, 0]],
                        origins[part, 1],
                        classes[examples.classes],
                        pyarrow.FixedSizeListArray.from_arrays(means.reshape(-1), len(classes)),
                    ]
                    writer.write_table(pyarrow.table(columns, schema=schema))
