"""Where the configurations of a sweep are trained: their division over devices, and how many at a time."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

AXIS = "configs"
OVER_DEVICES, EVERYWHERE = PartitionSpec(AXIS), PartitionSpec()

# How much memory the weights of configurations trained side by side on a CPU may take. A step passes over
# them three times (scores, gradient, update), so they should stay in the cache of a core; but the more
# there are, the wider is the matrix product. `python -m experiments.bench` measures other sizes.
CPU_TILE_BYTES = 2 * 1024**2


class Layout(NamedTuple):
    """C configurations on D devices, as many on each.

    Of the P = D·⌈C/D⌉ places, the first P/D are the first device's, and so on. Where D does not divide C,
    the last places hold the last configuration again. On a device, those of one batch size lie side by side.
    """

    mesh: Mesh
    order: tuple[int, ...]  # the configuration at each place
    batches: tuple[int, ...]  # its batch size
    tile: int  # configurations of one batch size that a device trains side by side; 0: all

    @property
    def shares(self) -> list[tuple[int, ...]]:
        """The batch sizes of each device's configurations."""
        size = len(self.order) // self.mesh.size
        return [self.batches[start : start + size] for start in range(0, len(self.order), size)]

    def split(self, tree: Tree) -> Tree:
        """Leaves [P, ...] of all places to the devices that train them."""
        return jax.device_put(tree, NamedSharding(self.mesh, OVER_DEVICES))

    def copy(self, tree: Tree) -> Tree:
        """Every leaf to all the devices."""
        if on_cpu(self.mesh.devices[0]):
            # They share their memory: as NumPy's view of it, a leaf is not copied but referred to.
            tree = jax.tree.map(np.asarray, tree)
        return jax.device_put(tree, NamedSharding(self.mesh, EVERYWHERE))

    def gather(self, tree: Tree) -> Tree:
        """Leaves [P, ...] to NumPy arrays [C, ...] in the configurations' own order."""
        place = {config: place for place, config in enumerate(self.order)}
        places = [place[config] for config in range(len(place))]
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], tree)


def on_cpu(device: jax.Device) -> bool:
    """Whether the device is (part of) a CPU."""
    return device.platform == "cpu"


def lay_out(batches: Sequence[int], devices: Sequence[jax.Device], config_bytes: int) -> Layout:
    """Divides C configurations among devices.

    A device gets few different batch sizes, so that its products are wide: each is one of all its
    configurations of one batch size. Small batches, which take longer, and large ones are dealt in turn.

    Args:
      batches: each configuration's batch size.
      devices: at most C of them are used.
      config_bytes: of one configuration's weights.
    """
    mesh = Mesh(np.asarray(devices[: len(batches)]), (AXIS,))
    sizes = sorted(set(batches))
    in_turn = [sizes[i // 2] if i % 2 == 0 else sizes[-1 - i // 2] for i in range(len(sizes))]
    order = [config for size in in_turn for config, its in enumerate(batches) if its == size]
    order += [order[-1]] * (math.ceil(len(order) / mesh.size) * mesh.size - len(order))
    tile = max(1, CPU_TILE_BYTES // config_bytes) if on_cpu(devices[0]) else 0
    return Layout(mesh, tuple(order), tuple(batches[config] for config in order), tile)
