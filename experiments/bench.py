"""How fast a sweep is: beside its peers, by size, from the start, in memory.

    python -m experiments.bench

takes about 14 minutes on 2 cores, with --quick under 2. Prints tables and writes bench.json to --out. Peers
that are not installed are named and left out (`pip install -r requirements-bench.txt` installs them). The
contestants of a table run in turn, after a warm-up each; figures are medians. They train on random bytes of
CIFAR-10's shapes, since speed does not depend on what the images show; the start is measured with
--dataset and --data_dir.

    python -m experiments.bench --scale

takes under 4 minutes and measures something else: the speed by number of CPU devices, and of processes of one
device each that share the seeds among them. Both may be more than the cores.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import contestants, provenance
from experiments.contestants import RECIPE, Arena, Contestant, D, K, many, random_arena
from experiments.files import folder_for_run, write_json
from experiments.flags import define_data
from experiments.shell import cores, launch
from experiments.table import align
from experiments.timing import medians, seconds
from linear_cifar.config import Config, grid
from linear_cifar.layout import OF_CONFIGS, OF_RUNS, lay_out
from linear_cifar.params import init_params
from linear_cifar.sweep import sweep
from linear_cifar.training import hyper_of, init_state, train_epoch

FLAGS = flags.FLAGS

BATCHES = (50, 100, 200, 400)
GRID, SEEDS = 48, 4


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_bool("quick", False, "fewer images, repeats and sizes: under 2 minutes")
    flags.DEFINE_bool("scale", False, "only by number of devices and of processes: under 4 minutes")
    flags.DEFINE_string("out", None, "folder for bench.json (default: results/bench/<time>)")
    define_data("synthetic")


def main() -> None:
    """Runs all measurements and writes them."""
    # Compiling is measured too.
    jax.config.update("jax_enable_compilation_cache", False)
    n, repeats = (10_000, 1) if FLAGS.scale else (4_900, 3) if FLAGS.quick else (49_000, 5)
    out = Path(FLAGS.out or f"results/bench/{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    with folder_for_run(out) as folder:
        if FLAGS.scale:
            title = f"{GRID} configurations x {SEEDS} seeds, by number of devices and of processes"
            measured = {"scale": _show(title, _scale(n))}
        else:
            measured = _whole(n, repeats)
        described = {
            "schema": 1,
            "command": provenance.command("bench"),
            "data": "random bytes; the start: --dataset",
            "train_images": n,
            "repeats": repeats,
            "precision": RECIPE.precision,
            "flops": "training: 4 n d K per configuration and epoch; the plain product: half of it",
            "cores": cores(),
        }
        described |= provenance.describe_environment() | provenance.describe_use([(1, GRID)])
        write_json(folder / "bench.json", described | measured)
    print(f"\nfiles: {folder}")


def _whole(n: int, repeats: int) -> dict[str, Any]:
    """All tables but that of the scaling."""
    arena = random_arena(n)
    return {
        "peers": _show("An epoch of the 48 configurations", _peers(arena, repeats)),
        "alone": _show("An epoch of one configuration, batch 100", _alone(arena, repeats)),
        "sizes": _show("By number of configurations", _sizes(arena, repeats)),
        "examples": _show("48 configurations by number of images", _examples(n, repeats)),
        "epochs": _show("48 configurations by number of epochs", _epochs(arena)),
        "tiles": _show("Configurations side by side on a core", _tiles(arena)),
        "batches": _show("Other batch sizes, 12 configurations of each", _batch_sizes(arena, repeats)),
        "start": _show("From the start, in a process of its own", _start()),
    }


def _flops(n: int, configs: int) -> int:
    """Of an epoch: the products of the scores and of the gradients."""
    return 4 * n * D * K * configs


def _peers(arena: Arena, repeats: int) -> list[dict[str, Any]]:
    """The whole grid; of those who train one at a time, one of each batch size, counted 12 times."""
    n = len(arena.labels)
    makers: list[tuple[str, str | None, Callable[[], list[Contestant]]]] = [
        ("plain matrix product", None, lambda: [contestants.plain_product(arena, GRID)]),
        ("linear_cifar", None, lambda: [contestants.linear_cifar(arena, many(GRID))]),
        ("linear_cifar, one at a time", None, lambda: [_one(arena, batch) for batch in BATCHES]),
        ("NumPy", None, lambda: [contestants.numpy_loop(arena, batch) for batch in BATCHES]),
        ("PyTorch", "torch", lambda: [contestants.torch_loop(arena, batch) for batch in BATCHES]),
        ("torch.func.vmap", "torch", lambda: [contestants.torch_vmap(arena, b, GRID // 4) for b in BATCHES]),
        ("SGDClassifier", "sklearn", lambda: [contestants.sgd_classifier(arena)]),
    ]
    present = [(name, make()) for name, package, make in makers if package is None or find_spec(package)]
    every = [one for _, its in present for one in its]
    times = iter(medians([one.epoch for one in every], repeats))
    rows, peak, ours = [], 0.0, 0.0
    for name, its in present:
        took = [next(times) for _ in its]
        grid_s = GRID / len(its) * sum(t / one.configs for t, one in zip(took, its, strict=True))
        flops = _flops(n, GRID) / (2 if name == "plain matrix product" else 1)
        peak, ours = peak or flops / grid_s, grid_s if name == "linear_cifar" else ours
        rows.append(
            {
                "contestant": name,
                "epoch_s": grid_s,
                "configs_epochs_per_s": None if name == "plain matrix product" else GRID / grid_s,
                "gflops": flops / grid_s / 1e9,
                "of_peak": flops / grid_s / peak,
                "times_ours": None if name == "plain matrix product" else grid_s / ours,
            }
        )
    for name in sorted({package for _, package, _ in makers if package and not find_spec(package)}):
        print(f"left out: {name} is not installed", file=sys.stderr)
    return rows


def _one(arena: Arena, batch: int) -> Contestant:
    return contestants.linear_cifar(arena, [Config(contestants.ETA, batch, 0.0)])


def _alone(arena: Arena, repeats: int) -> list[dict[str, Any]]:
    every = [_one(arena, 100), contestants.numpy_loop(arena, 100)]
    if find_spec("torch"):
        every.append(contestants.torch_loop(arena, 100))
    times = medians([one.epoch for one in every], 2 * repeats - 1)
    return [
        {"contestant": one.name, "epoch_s": t, "times_ours": t / times[0]}
        for one, t in zip(every, times, strict=True)
    ]


def _sizes(arena: Arena, repeats: int) -> list[dict[str, Any]]:
    sweeps: dict[str, Sequence[Config]] = {
        "1": [Config(0.001, 100, 0.0)],
        "12 of one batch size": grid([0.001, 0.01, 0.1, 1.0], [100], [0.0, 0.1, 1.0]),
        "12 of four batch sizes": many(12),
        "48": many(48),
    }
    if not FLAGS.quick:
        sweeps |= {"96": many(96), "480": many(480)}
    every = [contestants.linear_cifar(arena, configs) for configs in sweeps.values()]
    times = dict(zip(sweeps, medians([one.epoch for one in every], min(repeats, 3)), strict=True))
    return [
        {
            "configurations": name,
            "epoch_s": t,
            "ms_per_configuration": 1e3 * t / len(sweeps[name]),
            "relative_to_48": (t / len(sweeps[name])) / (times["48"] / 48),
        }
        for name, t in times.items()
    ]


def _examples(n: int, repeats: int) -> list[dict[str, Any]]:
    sizes = [n // 2, n] if FLAGS.quick else [n // 4, n // 2, n]
    every = [contestants.linear_cifar(random_arena(size), many(GRID)) for size in sizes]
    times = medians([one.epoch for one in every], repeats)
    return [
        {"images": size, "epoch_s": t, "us_per_image": 1e6 * t / size}
        for size, t in zip(sizes, times, strict=True)
    ]


def _epochs(arena: Arena) -> list[dict[str, Any]]:
    rows = []
    for epochs in (1, 2, 4) if FLAGS.quick else (1, 2, 4, 8):
        run = sweep(many(GRID), arena.train, {"val": arena.val}, arena.standardizer, RECIPE, epochs)
        took = seconds(partial(list, run))
        rows.append({"epochs": epochs, "s": took, "s_per_epoch": took / epochs})
    return rows


def _tiles(arena: Arena) -> list[dict[str, Any]]:
    """What `linear_cifar.layout.CPU_TILE_BYTES` is chosen by."""
    configs = many(96 if FLAGS.quick else 192)
    layout = lay_out([one.batch for one in configs], 1, jax.local_devices(), 4 * D * K)
    hyper = layout.split(hyper_of([configs[i] for i in layout.order]), OF_CONFIGS)
    train, standardizer = layout.copy((arena.train, arena.standardizer))
    keys = jax.random.split(jax.random.key(0), 1)
    state = layout.split(init_state(jax.vmap(partial(init_params, d=D, K=K))(keys), hyper), OF_RUNS)
    tiles = [6, 24] if FLAGS.quick else [3, 6, 12, 16, 24, 48]

    def epoch(tile: int) -> None:
        tiled = layout._replace(tile=tile)
        jax.block_until_ready(train_epoch(state, hyper, train, standardizer, keys, tiled, RECIPE))

    calls = [partial(epoch, tile) for tile in tiles]
    return [
        {
            "configurations": len(configs),
            "side_by_side": tile,
            "epoch_s": t,
            "ms_per_configuration": 1e3 * t / len(configs),
            "at_most_by_the_model": layout.tile,
        }
        for tile, t in zip(tiles, medians(calls, 2), strict=True)
    ]


def _batch_sizes(arena: Arena, repeats: int) -> list[dict[str, Any]]:
    n = len(arena.labels)
    rows = []
    for sizes in [(50, 64)] if FLAGS.quick else [(50, 64), (7, 11, 13, 17), (999,), (n,)]:
        configs = grid([0.001, 0.01, 0.1, 1.0], sizes, [0.0, 0.1, 1.0])
        one = contestants.linear_cifar(arena, configs)
        first = seconds(one.epoch)
        (later,) = medians([one.epoch], min(repeats, 3))
        rows.append(
            {
                "batches": ", ".join(map(str, sizes)),
                "epoch_s": later,
                "ms_per_configuration": 1e3 * later / len(configs),
                "compiling_s": first - later,
            }
        )
    return rows


def _start() -> list[dict[str, Any]]:
    """48 with nothing compiled before and again; 480, to show what grows with their number."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for configs in (GRID,) if FLAGS.quick else (12, GRID, GRID, 480):
            given = [f"--configs={configs}", f"--dataset={FLAGS.dataset}"]
            if FLAGS.data_dir:
                given.append(f"--data_dir={FLAGS.data_dir}")
            (measured,) = _probe(1, given, {"JAX_COMPILATION_CACHE_DIR": cache})
            del measured["ends"]
            again = any(row["configs"] == configs for row in rows)
            compiling = measured["first_epoch_s"] - measured["second_epoch_s"]
            rows.append(
                {"configs": configs, "compiled_before": again} | measured | {"compiling_s": compiling}
            )
    return rows


def _scale(n: int) -> list[dict[str, Any]]:
    """The same runs on more devices of one process, and shared out among more processes of one device each.

    Processes share nothing while they train, so each is a probe with its seeds. An epoch's `overhead` is how
    much longer it takes than the fastest.
    """
    rates = {}
    for devices, processes in [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4)]:
        given = [f"--configs={GRID}", f"--seeds={SEEDS // processes}", f"--images={n}", "--epochs=5"]
        on = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        ends = [measured["ends"] for measured in _probe(processes, given, on)]
        rates[devices, processes] = GRID * SEEDS / processes * epochs_per_s(ends)
    return [
        {
            "devices": devices,
            "processes": processes,
            "epoch_s": GRID * SEEDS / rate,
            "runs_epochs_per_s": rate,
            "of_one_device": rate / rates[1, 1],
            "overhead": max(rates.values()) / rate - 1,
        }
        for (devices, processes), rate in rates.items()
    ]


def epochs_per_s(ends: Sequence[Sequence[float]]) -> float:
    """Of processes together, while all train: each is past its first epoch, which compiles, and none is done.

    Args:
      ends: of the epochs of each process.
    """
    start, end = max(its[0] for its in ends), min(its[-1] for its in ends)
    if start >= end:
        raise RuntimeError("the processes did not train at the same time: the machine is too busy")
    done = [np.diff(np.interp([start, end], its, np.arange(len(its)))).item() for its in ends]
    return sum(done) / (end - start)


def _probe(count: int, given: Sequence[str], environment: dict[str, str]) -> list[dict[str, Any]]:
    """What so many probes measure that are started at the same moment."""
    probe = [sys.executable, "-W", "ignore", "-m", "experiments.probe", f"--started={time.time()}", *given]
    probes = [
        subprocess.Popen(probe, stdout=subprocess.PIPE, env=os.environ | environment) for _ in range(count)
    ]
    try:
        outputs = [one.communicate()[0] for one in probes]
    finally:
        for one in probes:
            one.kill()  # which does nothing to those that have ended
    for one in probes:
        if one.returncode:
            raise subprocess.CalledProcessError(one.returncode, probe)
    return [json.loads(output) for output in outputs]


def _show(title: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prints the rows as a table."""

    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return (
            f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
        )

    header = list(rows[0])
    print(f"\n{title}")
    print(align([[*header, ""]] + [[*map(cell, row.values()), ""] for row in rows]), flush=True)
    return rows


if __name__ == "__main__":
    launch(define_flags, main)
