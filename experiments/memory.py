"""What memory there is for training."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax

from linear_cifar.layout import on_cpu

# Where Linux says what a container or a scheduler's job may take.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def of_device(devices: Sequence[jax.Device]) -> int:
    """Bytes of the smallest of these devices; of CPUs, what all of them share."""
    if on_cpu(devices[0]):
        return of_process()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return min(limit or of_process() for limit in limits)


def of_process() -> int:
    """Bytes that this process may take: the machine's, or fewer where a limit is set."""
    stated = [Path(path).read_text().strip() for path in _LIMITS if Path(path).exists()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(int(words) for words in stated if words.isdecimal())])  # else "max"
