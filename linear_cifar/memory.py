"""The memory that runs take while they train side by side, and how many runs fit into a machine."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.typing import DTypeLike

from linear_cifar.devices import on_cpu
from linear_cifar.evaluation import EXAMPLES_AT_ONCE
from linear_cifar.layout import MOST_SLOTS_PER_RUN, choose_loops

# Bytes of a process before there is any data, and copies of the examples (as loaded, and as devices read
# them). Measured on CPUs by `python -m experiments.bench`.
PROCESS_BYTES, COPIES_OF_EXAMPLES = 700 * 10**6, 2
# A run takes this multiple of its weights: state, averages, gradient, update, and copies to measure and save.
WEIGHTS_PER_RUN = 8
# And this multiple of its logits: logits, their exponentials, and the losses of an evaluation.
LOGITS_PER_RUN = 4
# An example takes this in the random order of an epoch, which is found by sorting.
ORDER_BYTES = 80
# Share of a device's memory to plan with. The rest is for the compiler and for other processes.
USABLE_SHARE = 0.6

# Linux names the control groups of a process in the first, and their memory limits below the second.
_OWN_GROUPS, _ALL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def run_bytes(
    d: int, K: int, dtype: DTypeLike, largest_batch: int, weights_per_run: int = WEIGHTS_PER_RUN
) -> int:
    """Return the bytes of one run of d features and K classes: copies of its weights, and of logits.

    The logits are those of a batch, or of the examples that are evaluated at a time, whichever is more.
    """
    rows = max(largest_batch, EXAMPLES_AT_ONCE)
    return np.dtype(dtype).itemsize * (weights_per_run * (d + 1) * K + LOGITS_PER_RUN * rows * K)


def example_bytes(d: int, feature_bytes: int, target_bytes: int = 4) -> int:
    """Return the bytes of one example: its raw features, and its targets, which for one class are a label."""
    return d * feature_bytes + target_bytes


def replicate_bytes(d: int, feature_bytes: int, dtype: DTypeLike, largest_batch: int, chunk: int) -> int:
    """Return the bytes of one replicate: a chunk of raw examples, and a batch of them standardised.

    A batch larger than `chunk` is a chunk.
    """
    raw = max(chunk, largest_batch) * feature_bytes
    return d * (raw + 2 * largest_batch * np.dtype(dtype).itemsize)


def check_memory(
    what: str, needed: float | int, available: int | None = None, error: type[Exception] = ValueError
) -> None:
    """Raise `error` if `needed` bytes exceed `available` (None: the memory of the process)."""
    available = process_memory() if available is None else available
    if needed > available:
        raise error(
            f"{what} needs {needed / 1e9:,.4g} GB, and there are {available / 1e9:,.4g} GB: give more "
            "memory, fewer examples, features or classes, or features of a narrower type such as float16"
        )


def max_runs(
    devices: Sequence[jax.Device],
    memory_bytes: int | None = None,
    *,
    n: int,
    d: int,
    K: int,
    dtype: DTypeLike,
    largest_batch: int,
    num_configs: int,
    feature_bytes: int = 1,
    target_bytes: int = 4,
    weights_per_run: int = WEIGHTS_PER_RUN,
    per_replicate: int = 0,
) -> int:
    """Return how many runs to train at a time on all devices together; at least one.

    A single run is refused only where it cannot fit: with one copy of the examples, in all of the memory.

    Args:
      devices: local devices. An accelerator holds the examples once; CPU devices share one memory.
      memory_bytes: memory of each accelerator, or of the process on a CPU; None: what there is, see
        `device_memory`.
      n: number of examples of all splits.
      d: number of features.
      K: number of classes.
      dtype: floating-point type of the weights.
      largest_batch: largest batch size of the configurations.
      num_configs: number of configurations per replicate.
      feature_bytes: bytes of one raw feature: 1 for uint8.
      target_bytes: bytes of the targets of an example: 4 for a label.
      weights_per_run: copies of its weights that a run takes.
      per_replicate: numbers that a replicate takes beside its examples.

    Raises:
      ValueError: if the memory does not hold the examples and one run.
    """
    cpu = on_cpu(devices[0])
    memory_bytes = device_memory(devices) if memory_bytes is None else memory_bytes
    # Wider features are on a device in the weights' type, and on a CPU beside it.
    feature_bytes = feature_bytes if cpu else min(feature_bytes, np.dtype(dtype).itemsize)
    data = n * example_bytes(d, feature_bytes, target_bytes)
    process = PROCESS_BYTES if cpu else 0
    chunk = choose_loops(devices[0].platform, d * K * np.dtype(dtype).itemsize).chunk
    replicate = n * ORDER_BYTES + replicate_bytes(d, feature_bytes, dtype, largest_batch, chunk)
    replicate += per_replicate * np.dtype(dtype).itemsize
    run = run_bytes(d, K, dtype, largest_batch, weights_per_run)
    single = run + replicate
    what = f"training ({n:,} examples take {data / 1e9:,.3g} GB, and one run {single / 1e9:,.3g} GB)"
    check_memory(what, process + data + single, memory_bytes)
    fixed = process + data * (COPIES_OF_EXAMPLES if cpu else 1)
    runs = max(1, int((USABLE_SHARE * memory_bytes - fixed) / (run + replicate / num_configs)))
    return runs if cpu or len(devices) == 1 else max(1, int(runs * len(devices) / MOST_SLOTS_PER_RUN))


def device_memory(devices: Sequence[jax.Device]) -> int:
    """Return the bytes of the smallest of these devices; for CPU devices, what the process may take."""
    if on_cpu(devices[0]):
        return process_memory()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return min(limit or process_memory() for limit in limits)


def process_memory() -> int:
    """Return the bytes this process may take: the machine's memory, or less where a limit is set."""
    limits = [path.read_text(encoding="utf-8").strip() for path in _limit_files() if path.exists()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(int(limit) for limit in limits if limit.isdecimal())])  # otherwise "max"


def _limit_files() -> Iterator[Path]:
    """Name the files with the limits of the process's control groups and their parents, see cgroups(7)."""
    for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines() if _OWN_GROUPS.exists() else []:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            root, name = _ALL_GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _ALL_GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group_folder = root / group.lstrip("/")
        folders = (group_folder, *group_folder.parents)
        yield from (folder / name for folder in folders if folder.is_relative_to(root))
