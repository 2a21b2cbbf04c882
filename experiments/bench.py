"""The benchmark: speed beside other libraries, growth with size, start and memory.

    python -m experiments.bench

takes about 14 minutes on 2 cores, with --quick under 2. It prints tables and writes bench.json to --out. The
libraries to compare with are installed by `pip install '.[bench]'`; those that are missing are named and left
out.

The programs of a table run in turn, once to warm up and then several times; the figures are medians. They
train on random bytes of CIFAR-10's shapes, because the speed does not depend on what the images show. Only
the start is measured with --dataset and --data_dir.

    python -m experiments.bench --scale

takes under 4 minutes. It measures only the speed by the number of CPU devices, and by the number of processes
that share the seeds.

    python -m experiments.bench --probes

takes about 11 minutes on 2 cores, with --quick under one. It measures only linear probes: up to 1,000 heads
on random float32 features, trained by the sweep, in PyTorch and by scikit-learn.

    python -m experiments.bench --search

takes about 35 minutes on 2 cores, with --quick under one. It measures only how soon a search finds a good
configuration: with halving, without it, the plain grid, and Optuna's trials one at a time. It uses the real
images where they are at hand.

    python -m experiments.bench --path

takes about 18 minutes on 2 cores. It measures only the minimum of the objective for
many values of λ: by the solver here, scikit-learn, optax and PyTorch, all to the same objective.

experiments/benchmark/README.md discusses the figures.
"""

import sys
from collections.abc import Callable
from datetime import datetime
from functools import cache, partial
from itertools import combinations
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.artifacts import provenance
from experiments.artifacts.tables import Table
from experiments.benchmark import linear_probes, paths, probing, searching
from experiments.benchmark.baselines import SPEC, BenchData, jax_device, random_data
from experiments.benchmark.measurements import (
    GRID,
    Row,
    measure_baselines,
    measure_batch_sizes,
    measure_epochs,
    measure_image_counts,
    measure_single_run,
    measure_sizes,
    measure_vmap_widths,
    missing_packages,
)
from experiments.cli.flags import define_data, expand_path
from experiments.cli.launch import check_devices, launch
from experiments.cli.source import open_source
from experiments.cli.streams import terminal_width
from experiments.runner.errors import UsageError
from experiments.runner.settings import default_settings
from linear_cifar.data.prepare import Data
from linear_cifar.devices import count_cores
from linear_cifar.folders import locked_folder, write_json

FLAGS = flags.FLAGS

# Version of bench.json.
SCHEMA = 3
# Training images of the report's grid.
TRAIN_IMAGES = 49_000
# Modes that cannot be combined.
EXCLUSIVE = (("quick", "scale"), *combinations(("path", "search", "probes", "scale"), 2))


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_bool("quick", False, "use fewer images, repeats and sizes: under 2 minutes")
    flags.DEFINE_bool("scale", False, "measure only the speed by number of devices and of processes")
    flags.DEFINE_bool("probes", False, "measure only linear probes: many heads on random features")
    flags.DEFINE_bool("search", False, "measure only the best accuracy against time: searches and the grid")
    flags.DEFINE_bool("path", False, "measure only the minimum of the objective for many values of λ")
    flags.DEFINE_string("out", None, "folder for bench.json (default: results/bench/<time>)")
    define_data("synthetic")


def main() -> None:
    """Measure, print and write all tables."""
    for first, second in EXCLUSIVE:
        if FLAGS[first].value and FLAGS[second].value:
            raise UsageError(f"--{first} and --{second} cannot be combined: choose one")
    check_devices()
    # Compiling is measured too.
    jax.config.update("jax_enable_compilation_cache", False)
    out = expand_path(FLAGS.out or f"results/bench/{datetime.now():%Y%m%d-%H%M%S}")
    with locked_folder(out) as folder:
        write_json(folder / "bench.json", measure_tables())
    print(f"\nfiles: {folder}")


def measure_tables() -> dict[str, Any]:
    """Measure and print all tables, and return the content of bench.json."""
    quick = FLAGS.quick
    if FLAGS.scale:
        n, repeats, make_tables = 10_000, 1, scaling_tables
    elif FLAGS.probes:
        n, repeats, make_tables = 5_000 if quick else linear_probes.N, 3, probe_tables
    elif FLAGS.search:
        n, repeats, make_tables = 4_900 if quick else TRAIN_IMAGES, 2 if quick else 5, search_tables
    elif FLAGS.path:
        n, repeats, make_tables = 2_000 if quick else 20_000, 3, path_tables
    else:
        n, repeats, make_tables = 4_900 if quick else TRAIN_IMAGES, 3 if quick else 5, standard_tables
    if not FLAGS.scale:
        log_missing_packages()
    # The tables of devices and processes are of CPUs, wherever they are measured.
    device = "cpu" if FLAGS.scale else jax_device()
    measured = {}
    for key, (title, measure) in make_tables(n, repeats).items():
        measured[key] = [{**row, "device": row.get("device", device)} for row in measure()]
        print(f"\n{make_table(key, title, measured[key]).format(terminal_width(sys.stdout))}", flush=True)
    return describe_measurement(n, repeats) | measured


# The title of each table and the function that measures it, by its key in bench.json.
Tables = dict[str, tuple[str, Callable[[], list[Row]]]]


def standard_tables(n: int, repeats: int) -> Tables:
    """Return all tables except that of devices and processes."""
    data, quick = random_data(n), FLAGS.quick
    start = partial(probing.measure_start, FLAGS.dataset, FLAGS.data_dir, quick)
    return {
        "baselines": (f"An epoch of the {GRID} configurations", partial(measure_baselines, data, repeats)),
        "alone": ("An epoch of one configuration, batch 100", partial(measure_single_run, data, repeats)),
        "sizes": ("By number of configurations", partial(measure_sizes, data, repeats, quick)),
        "examples": (
            f"{GRID} configurations by number of images",
            partial(measure_image_counts, n, repeats, quick),
        ),
        "epochs": (f"{GRID} configurations by number of epochs", partial(measure_epochs, data, quick)),
        "vmap_widths": ("Configurations side by side on a core", partial(measure_vmap_widths, data, quick)),
        "batches": (
            "Other batch sizes, 12 configurations of each",
            partial(measure_batch_sizes, data, repeats, quick),
        ),
        "start": ("From the start, in a process of its own", start),
    }


def scaling_tables(n: int, repeats: int) -> Tables:
    """Return the table of devices and processes, which is measured once whatever `repeats` is."""
    title = f"{GRID} configurations x {probing.SEEDS} seeds, by number of devices and of processes"
    return {"scale": (title, partial(probing.measure_scaling, n))}


def probe_tables(n: int, repeats: int) -> Tables:
    """Return the table of linear probes; with --quick a tenth of the heads."""
    sizes = [(K, heads // 10 if FLAGS.quick else heads) for K, heads in linear_probes.SIZES]
    examples = f"{n:,} examples of {linear_probes.D} features, batch {linear_probes.BATCH}"
    measure = partial(linear_probes.measure_linear_probes, n, repeats, sizes)
    return {"probes": (f"An epoch of linear probes: {examples}", measure)}


def search_tables(n: int, repeats: int) -> Tables:
    """Return the table of searches, on the first n training images; with --quick only a few epochs."""
    epochs, points = (4, (8,)) if FLAGS.quick else (40, (32, 64))
    data = prepare_search_data()
    if n < len(data.sets["train"]):
        data = data._replace(sets=data.sets | {"train": data.sets["train"].take(np.arange(n))})
    title = f"{data.dataset.label}: searches for {epochs} epochs, median of {repeats}"
    return {"search": (title, partial(searching.measure_searches, data, epochs, points, repeats))}


def path_tables(n: int, repeats: int) -> Tables:
    """Return the tables of the minimum for many λ, each of other examples; without images with --quick."""
    images, d, many = prepare_search_data(), 256 * n // 20_000, paths.MANY_LAMS
    as_data = partial(BenchData, images.sets["train"], images.sets["val"], images.standardizer)
    make = paths.make_gaussian_classes
    cases: list[tuple[str, Any, tuple[float, ...], int]] = [
        *(("Gaussian classes", partial(make, n, d, 0.1), many, folds) for folds in (0, 5)),
        *(("Correlated features", partial(make, n, d, 0.15, True), many, folds) for folds in (0, 5)),
        ("More of both", partial(make, 5 * n // 2, 3 * d, 0.07), (1e-4, 1e-2, 1.0), 0),
        (images.dataset.label, as_data, (1e-4, 1e-2, 1e-1), 0),
    ]
    return {
        f"path_{i}": (
            f"{title}, λ: {len(lams)}, folds: {folds}",
            partial(paths.measure_path, data, lams, folds, repeats),
        )
        for i, (title, data, lams, folds) in enumerate(cases[: -1 if FLAGS.quick else None])
    }


@cache
def prepare_search_data() -> Data:
    """Return the data that --dataset and --data_dir name; by default real images where they are at hand."""
    FLAGS.set_default("dataset", "auto")
    return open_source()[1](default_settings())


def log_missing_packages() -> None:
    """Name the packages whose baselines are left out."""
    for package in missing_packages():
        print(f"left out: {package} is not installed (pip install '.[bench]')", file=sys.stderr)


def describe_measurement(n: int, repeats: int) -> dict[str, Any]:
    """Return what bench.json says of the command, its surroundings and the measurement itself."""
    return {
        "schema": SCHEMA,
        "command": provenance.command_line("bench"),
        "train_images": n,
        "precision": SPEC.precision,
        **provenance.describe_environment(),
        "data": _describe_data(),
        "repeats": repeats,
        "flops": "training: 4 n d K per configuration and epoch; the plain product: half of it",
        "cores": count_cores(),
        **provenance.describe_use([(1, GRID)]),
    }


def _describe_data() -> str | dict[str, Any]:
    if FLAGS.search or FLAGS.path:
        return provenance.describe_dataset(prepare_search_data().dataset)
    return "random float32 features" if FLAGS.probes else "random bytes; the start: --dataset"


def make_table(key: str, title: str, rows: list[Row]) -> Table:
    """Return the rows as a table, whose columns have the names of their values."""
    return Table(key, title, [*rows[0]], [[*map(format_cell, row.values())] for row in rows])


def format_cell(value: Any) -> str:
    """Return a value as text: 4 digits of a float, a whole number with commas, - where there is none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)


if __name__ == "__main__":
    launch(define_flags, main)
