"""What memory there is for training."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from linear_cifar.layout import on_cpu

# Where Linux says in which groups the process is, and what a group may take: a container's, a job's.
_OWN, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def of_device(devices: Sequence[jax.Device]) -> int:
    """Bytes of the smallest of these devices; of CPUs, what all of them share."""
    if on_cpu(devices[0]):
        return of_process()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return min(limit or of_process() for limit in limits)


def of_process() -> int:
    """Bytes that this process may take: the machine's, or fewer where a limit is set."""
    stated = [path.read_text().strip() for path in _limits() if path.exists()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(int(words) for words in stated if words.isdecimal())])  # else "max"


def _limits() -> Iterator[Path]:
    """The files with the limits of the process's group and of those that hold it, see cgroups(7)."""
    for line in _OWN.read_text().splitlines() if _OWN.exists() else []:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            root, name = _GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / group.lstrip("/")
        yield from (above / name for above in (own, *own.parents) if above.is_relative_to(root))
