"""The division of a sweep's runs over devices, and how many runs train side by side."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linear_cifar.devices import CPU, on_cpu

Tree = TypeVar("Tree")

REPLICATES, CONFIGS = "replicates", "configs"
# Divisions of the leading axes of arrays over the mesh.
BY_RUN = PartitionSpec(REPLICATES, CONFIGS)
BY_REPLICATE = PartitionSpec(REPLICATES)
BY_CONFIG = PartitionSpec(CONFIGS)
REPLICATED = PartitionSpec()

# Bytes of weights that train side by side on a CPU. A step passes over them three times (logits, gradient,
# update), so they should stay in the cache of a core. More of them make the matrix product wider.
# `python -m experiments.bench` measures other sizes.
CPU_CACHE_BYTES = 2 * 1024**2
# Examples shuffled and augmented at a time. On a CPU 1,600 of CIFAR-10's are 5 MB, a part of its cache. An
# accelerator unrolls the loop over the batches of a chunk, and a shorter one compiles sooner.
CPU_CHUNK, ACCELERATOR_CHUNK = 1_600, 400
# Updates in one iteration of an accelerator's loop. On a CPU, unrolling only takes longer to compile.
ACCELERATOR_UNROLL = 8
# A device may have this many times its even share of slots, where that gives the busiest one fewer steps.
MOST_SLOTS_PER_RUN = 1.5


class Loops(NamedTuple):
    """The shape of an epoch's loops on one device, see `linear_cifar.training`."""

    vmap_width: int  # configurations of one batch size that train side by side; 0: all, and all replicates
    chunk: int  # most examples that are shuffled and augmented together
    unroll: int  # updates in one iteration of the loop over batches


class Layout(NamedTuple):
    """S replicates × C configurations on a mesh of devices, equally many slots on each device.

    The first device has the first slots of each axis, and so on. On a device, configurations of one batch
    size are neighbours. Where the division leaves slots over, they come last and repeat the last replicate or
    the device's last configuration. Repeated configurations are not trained.
    """

    mesh: Mesh
    replicates: tuple[int, ...]  # index of the replicate in each slot of the first axis
    configs: tuple[int, ...]  # index of the configuration in each slot of the second axis
    batches: tuple[int, ...]  # batch size of each slot of the second axis
    loops: Loops

    @property
    def batches_per_column(self) -> list[tuple[int, ...]]:
        """Batch sizes of the configurations that each column of devices trains, without repeated ones."""
        size = len(self.configs) // self.mesh.shape[CONFIGS]
        starts = range(0, len(self.configs), size)
        trained = [len(set(self.configs[start : start + size])) for start in starts]
        return [self.batches[start : start + count] for start, count in zip(starts, trained, strict=True)]

    def shard(self, tree: Tree, spec: PartitionSpec) -> Tree:
        """Put the leaves, in the order of the slots, on the devices that train them."""
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    def broadcast(self, tree: Tree) -> Tree:
        """Put a copy of every leaf on every device."""
        if on_cpu(self.mesh.devices.flat[0]):
            # CPU devices share their memory: a NumPy view of a leaf is referred to and not copied.
            tree = jax.tree.map(np.asarray, tree)
        return jax.device_put(tree, NamedSharding(self.mesh, REPLICATED))

    def to_slots(self, tree: Tree) -> Tree:
        """Bring leaves of runs [S, C, ...] into the order of the slots, as NumPy arrays."""
        slots = np.ix_(self.replicates, self.configs)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[slots], tree)

    def from_slots(self, tree: Tree) -> Tree:
        """Undo `to_slots`."""
        rows, columns = (
            # The first of equal ones, since repeated configurations are not trained.
            {index: i for i, index in reversed(list(enumerate(axis)))}
            for axis in (self.replicates, self.configs)
        )
        places = np.ix_([rows[s] for s in range(len(rows))], [columns[c] for c in range(len(columns))])
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], tree)


def make_layout(
    batches: Sequence[int], num_replicates: int, devices: Sequence[jax.Device], config_bytes: int
) -> Layout:
    """Divide runs over devices.

    Replicates share nothing, so devices take whole ones where no device is left idle. A device gets few
    different batch sizes, so that its products are wide: all its configurations of one batch size form one
    product. Where a replicate's configurations are divided, CPUs get equally many of them. Accelerators get
    about equally many steps, because starting a step takes them longer than its arithmetic; that is, where no
    device then has more than `MOST_SLOTS_PER_RUN` times its even share of slots.

    Args:
      batches: batch size of each of the C configurations.
      num_replicates: number of replicates S.
      devices: devices to use; at most S·C of them are used.
      config_bytes: bytes of one configuration's weights.
    """
    rows, columns = mesh_shape(num_replicates, len(batches), len(devices))
    mesh = Mesh(np.asarray(devices[: rows * columns]).reshape(rows, columns), (REPLICATES, CONFIGS))
    deal = deal_configs if on_cpu(devices[0]) else deal_steps
    dealt = deal(batches, columns)
    if max(map(len, dealt)) > MOST_SLOTS_PER_RUN * math.ceil(len(batches) / columns):
        dealt = deal_configs(batches, columns)
    most = max(map(len, dealt))
    configs = [config for share in dealt for config in _pad_with_last(share, most)]
    return Layout(
        mesh=mesh,
        replicates=tuple(_pad_with_last(range(num_replicates), rows)),
        configs=tuple(configs),
        batches=tuple(batches[config] for config in configs),
        loops=choose_loops(devices[0].platform, config_bytes),
    )


def choose_loops(platform: str, config_bytes: int) -> Loops:
    """Choose the shape of the loops for JAX's name of a platform and the bytes of one configuration."""
    if platform == CPU:
        return Loops(max(1, CPU_CACHE_BYTES // config_bytes), CPU_CHUNK, unroll=1)
    return Loops(0, ACCELERATOR_CHUNK, ACCELERATOR_UNROLL)


def deal_configs(batches: Sequence[int], num_devices: int) -> list[list[int]]:
    """Divide configurations so that the numbers of two devices differ by at most one.

    Small batches, which take longer, are dealt alternately with large ones.

    Args:
      batches: batch size of each configuration; there are at least as many as devices.
      num_devices: number of devices.

    Returns:
      The indices of each device's configurations, at least one; those of one batch size are neighbours.
    """
    sizes = sorted(set(batches))
    alternating = [sizes[i // 2] if i % 2 == 0 else sizes[-1 - i // 2] for i in range(len(sizes))]
    # Neighbours may take about equally long, as those of a path of λ do: they are dealt in turn.
    in_turn = [config for first in range(num_devices) for config in range(first, len(batches), num_devices)]
    order = [config for size in alternating for config in in_turn if batches[config] == size]
    ends = [math.ceil(len(order) * (device + 1) / num_devices) for device in range(num_devices)]
    return [order[start:end] for start, end in pairwise([0, *ends])]


def deal_steps(batches: Sequence[int], num_devices: int) -> list[list[int]]:
    """Divide configurations so that the device with the most steps has few.

    A device takes n / batch steps per epoch for each of its batch sizes, however many configurations have it.
    Batch sizes are dealt in order of their steps, most first. Each goes to the device with the fewest steps
    so far (Graham 1969, "Bounds on multiprocessing timing anomalies"). A device that is left over takes half
    of the fullest one's configurations of each batch size.

    Arguments and result are those of `deal_configs`.
    """
    sizes = sorted(set(batches))
    groups: list[list[int]] = [[] for _ in range(min(num_devices, len(sizes)))]
    for size in sizes:
        min(groups, key=lambda group: sum(1 / other for other in group)).append(size)
    dealt = [
        [config for size in group for config, batch in enumerate(batches) if batch == size]
        for group in groups
    ]
    while len(dealt) < num_devices:
        fullest = max(dealt, key=len)
        by_size = [[config for config in fullest if batches[config] == size] for size in sizes]
        dealt.remove(fullest)
        # An odd configuration goes to the shorter half, so that neither is empty.
        halves: tuple[list[int], list[int]] = ([], [])
        for members in by_size:
            less, more = sorted(halves, key=len)
            less += members[: (len(members) + 1) // 2]
            more += members[(len(members) + 1) // 2 :]
        dealt += halves
    return dealt


def mesh_shape(num_replicates: int, num_configs: int, num_devices: int) -> tuple[int, int]:
    """Return along how many devices replicates and configurations are divided, for the least work on each."""

    def columns(rows: int) -> int:
        return min(num_configs, num_devices // rows)

    def work_per_device(rows: int) -> int:
        # Shuffling and augmenting the examples of a replicate costs as much as three more configurations.
        return math.ceil(num_replicates / rows) * (math.ceil(num_configs / columns(rows)) + 3)

    # The most rows of those that are equally good.
    rows = min(range(min(num_replicates, num_devices), 0, -1), key=work_per_device)
    return rows, columns(rows)


def count_devices(num_replicates: int, num_configs: int, num_devices: int) -> int:
    """Return how many of the devices train so many runs; there may be fewer runs than devices."""
    return math.prod(mesh_shape(num_replicates, num_configs, num_devices))


def _pad_with_last(items: Sequence[int], multiple: int) -> list[int]:
    """Repeat the last item until the length is a multiple of `multiple`."""
    return [*items, *[items[-1]] * (-len(items) % multiple)]
