"""Where the runs of a sweep are trained: their division over devices, and how many at a time."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

SEEDS, CONFIGS = "seeds", "configs"
# How the leading axes of an array are divided: those of runs, of what belongs to a seed, to a configuration.
OF_RUNS, OF_SEEDS, OF_CONFIGS = PartitionSpec(SEEDS, CONFIGS), PartitionSpec(SEEDS), PartitionSpec(CONFIGS)
EVERYWHERE = PartitionSpec()

# How much memory the weights of configurations trained side by side on a CPU may take. A step passes over
# them three times (scores, gradient, update), so they should stay in the cache of a core; but the more
# there are, the wider is the matrix product. `python -m experiments.bench` measures other sizes.
CPU_TILE_BYTES = 2 * 1024**2


class Layout(NamedTuple):
    """S seeds × C configurations on a grid of devices, as many runs on each.

    Both axes are divided evenly: of its places, the first equal share is the first devices', and so on. Where
    that does not come out even, the last places hold the last seed or configuration again. On a device,
    configurations of one batch size lie side by side.
    """

    mesh: Mesh
    seeds: tuple[int, ...]  # the index of the seed at each place of the first axis
    order: tuple[int, ...]  # the index of the configuration at each place of the second axis
    batches: tuple[int, ...]  # its batch size
    tile: int  # configurations of one batch size that a device trains side by side; 0: all, and all seeds

    @property
    def shares(self) -> list[tuple[int, ...]]:
        """The batch sizes of the configurations of each column of devices."""
        size = len(self.order) // self.mesh.shape[CONFIGS]
        return [self.batches[start : start + size] for start in range(0, len(self.order), size)]

    def split(self, tree: Tree, spec: PartitionSpec) -> Tree:
        """Leaves of all places to the devices that train them."""
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    def arrange(self, tree: Tree) -> Tree:
        """Leaves of runs [S, C, ...], in the order that was asked for, to NumPy arrays at their places."""
        places = np.ix_(self.seeds, self.order)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], tree)

    def copy(self, tree: Tree) -> Tree:
        """Every leaf to all the devices."""
        if on_cpu(self.mesh.devices.flat[0]):
            # They share their memory: as NumPy's view of it, a leaf is not copied but referred to.
            tree = jax.tree.map(np.asarray, tree)
        return jax.device_put(tree, NamedSharding(self.mesh, EVERYWHERE))

    def gather(self, tree: Tree) -> Tree:
        """Undoes `arrange`."""
        rows, columns = ({index: i for i, index in enumerate(axis)} for axis in (self.seeds, self.order))
        places = np.ix_([rows[s] for s in range(len(rows))], [columns[c] for c in range(len(columns))])
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], tree)


def on_cpu(device: jax.Device) -> bool:
    """Whether the device is (part of) a CPU."""
    return device.platform == "cpu"


def lay_out(batches: Sequence[int], seeds: int, devices: Sequence[jax.Device], config_bytes: int) -> Layout:
    """Divides runs among devices.

    Seeds share nothing, so devices take whole ones where that leaves none waiting. A device gets few
    different batch sizes, so that its products are wide: each is one of all its configurations of one batch
    size. Small batches, which take longer, and large ones are dealt in turn.

    Args:
      batches: the batch size of each of the C configurations.
      seeds: their number S.
      devices: at most S·C of them are used.
      config_bytes: of one configuration's weights.
    """
    rows, columns = shape(seeds, len(batches), len(devices))
    mesh = Mesh(np.asarray(devices[: rows * columns]).reshape(rows, columns), (SEEDS, CONFIGS))
    sizes = sorted(set(batches))
    in_turn = [sizes[i // 2] if i % 2 == 0 else sizes[-1 - i // 2] for i in range(len(sizes))]
    order = [config for size in in_turn for config, its in enumerate(batches) if its == size]
    order = _fill(order, columns)
    tile = max(1, CPU_TILE_BYTES // config_bytes) if on_cpu(devices[0]) else 0
    return Layout(
        mesh,
        tuple(_fill(range(seeds), rows)),
        tuple(order),
        tuple(batches[config] for config in order),
        tile,
    )


def shape(seeds: int, configs: int, devices: int) -> tuple[int, int]:
    """Along how many devices seeds and configurations are divided, such that none gets more than it must."""

    def columns(rows: int) -> int:
        return min(configs, devices // rows)

    def work_of_a_device(rows: int) -> int:
        # To shuffle and augment the images of a seed takes as long as to train three configurations more.
        return math.ceil(seeds / rows) * (math.ceil(configs / columns(rows)) + 3)

    # The most rows of those that are equally good.
    rows = min(range(min(seeds, devices), 0, -1), key=work_of_a_device)
    return rows, columns(rows)


def _fill(items: Sequence[int], parts: int) -> list[int]:
    """The items, and the last one again until they make equal parts."""
    return [*items, *[items[-1]] * (-len(items) % parts)]
