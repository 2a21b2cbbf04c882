"""The benchmark's tables that are measured by probes: sweeps in processes of their own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.benchmark.measurements import GRID, Row

# Seeds of the runs in the table of devices and processes.
SEEDS = 4


def measure_start(dataset: str, data_dir: str | None, quick: bool) -> list[Row]:
    """Measure a command's start, its first epochs and its memory, by the number of configurations.

    The grid is measured twice. The second time it finds its programs in the compilation cache.

    Args:
      dataset: name of the data set.
      data_dir: folder with the data set; None: the default.
      quick: whether to measure only the grid, once.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as cache:
        for num_configs in (GRID,) if quick else (12, GRID, GRID, 480):
            flags = [f"--configs={num_configs}", f"--dataset={dataset}"]
            if data_dir:
                flags.append(f"--data_dir={data_dir}")
            (measured,) = run_probes(1, flags, {"JAX_COMPILATION_CACHE_DIR": cache})
            del measured["ends"]
            compiled_before = any(row["configs"] == num_configs for row in rows)
            compiling_s = measured["first_epoch_s"] - measured["second_epoch_s"]
            rows.append(
                {"configs": num_configs, "compiled_before": compiled_before}
                | measured
                | {"compiling_s": compiling_s}
            )
    return rows


def measure_scaling(n: int) -> list[Row]:
    """Measure the same runs on several devices of one process, and in several processes of one device each.

    Processes exchange nothing while they train, so each is a probe with its share of the seeds. `overhead`
    tells how much longer an epoch takes than the fastest, as a share.

    Args:
      n: number of training images.
    """
    rates = {}
    for devices, processes in [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4)]:
        flags = [f"--configs={GRID}", f"--seeds={SEEDS // processes}", f"--images={n}", "--epochs=5"]
        environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        ends = [measured["ends"] for measured in run_probes(processes, flags, environment)]
        rates[devices, processes] = GRID * SEEDS / processes * epochs_per_second(ends)
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


def epochs_per_second(ends: Sequence[Sequence[float]]) -> float:
    """Return the epochs per second of several processes together, while all of them train.

    That is from the end of the last first epoch, which compiles, until the first process has finished. An
    epoch that lies partly outside counts in proportion.

    Args:
      ends: the time at which each epoch of each process ended.

    Raises:
      RuntimeError: if the processes never trained at the same time.
    """
    start, end = max(times[0] for times in ends), min(times[-1] for times in ends)
    if start >= end:
        raise RuntimeError("the processes did not train at the same time: the machine is too busy")
    done = [np.diff(np.interp([start, end], times, np.arange(len(times)))).item() for times in ends]
    return sum(done) / (end - start)


def run_probes(count: int, flags: Sequence[str], environment: Mapping[str, str]) -> list[Row]:
    """Start equal probes at the same moment, and return the measurements of each.

    Args:
      count: number of probes.
      flags: flags of `experiments.benchmark.probe`.
      environment: environment variables in addition to those of this process.

    Raises:
      subprocess.CalledProcessError: if a probe fails.
    """
    module = ["-m", "experiments.benchmark.probe"]
    command = [sys.executable, "-W", "ignore", *module, f"--started={time.time()}", *flags]
    probes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment})
        for _ in range(count)
    ]
    try:
        outputs = [probe.communicate()[0] for probe in probes]
    finally:
        for probe in probes:
            probe.kill()  # does nothing to a probe that has ended
    for probe in probes:
        if probe.returncode:
            raise subprocess.CalledProcessError(probe.returncode, command)
    return [json.loads(output) for output in outputs]
