"""The program of an epoch, compiled for an absent accelerator.

The compiled program shows what runs, but not how long it takes.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from experiments.benchmark import hlo
from experiments.benchmark.accelerators import ACCELERATORS, make_devices
from experiments.benchmark.baselines import SPEC, D, K, make_configs
from experiments.benchmark.hlo import Operation, Program
from experiments.benchmark.measurements import GRID, Row
from linear_cifar.config import Config, stack_hyperparams
from linear_cifar.examples import Examples
from linear_cifar.layout import BY_CONFIG, BY_REPLICATE, BY_RUN, REPLICATED, REPLICATES, Layout, make_layout
from linear_cifar.params import Params
from linear_cifar.replicates import ReplicateData
from linear_cifar.standardizer import Standardizer
from linear_cifar.training import batch_scope, init_state, train_epoch

Tree = TypeVar("Tree")

NOTE = "compiled, not run"
COMPILERS = ("jax-cuda13-pjrt", "jax-cuda13-plugin", "libtpu")


class CountedKernel(NamedTuple):
    """A kernel: how often an epoch starts it, the bytes it moves each time, and what it belongs to.

    `batch` is the batch size in whose steps its last operation was traced; None outside of steps.
    """

    operation: Operation
    times: int
    reads: list[int]
    written: int
    batch: int | None

    @property
    def epoch_bytes(self) -> int:
        """Return the bytes that it reads and writes in an epoch."""
        return self.times * (sum(self.reads) + self.written)


def compile_epoch(name: str, n: int, seeds: int) -> tuple[list[Row], Row]:
    """Compile an epoch of the report's grid and count what is in it.

    Args:
      name: accelerator, one of `ACCELERATORS`.
      n: number of training images.
      seeds: number of seeds.

    Returns:
      - A row for each batch size on each column of devices, and one for what all batch sizes share. Kernels
        that XLA added without a name count as shared.
      - Figures of the whole epoch. Its kernels are those of the busiest device, and its bytes those of all
        devices. The memory for arguments and temporary arrays is that of one device.
    """
    devices = make_devices(name)
    arguments, layout = describe_arguments(make_configs(GRID), devices, n, seeds)
    lowered = train_epoch.lower(*arguments, layout, SPEC)
    start = time.perf_counter()
    compiled = lowered.compile(ACCELERATORS[name].options)
    compile_s = time.perf_counter() - start
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None
    assert memory is not None
    program = hlo.parse(text)
    columns, rows_of_devices = layout.batches_per_column, layout.mesh.shape[REPLICATES]
    distinct = list(dict.fromkeys(columns))
    # All devices of a column run the same branch of the program.
    kernels = [count_kernels(program, branch=distinct.index(sizes)) for sizes in columns]
    run_bytes = len(layout.replicates) // rows_of_devices * 4 * K * D
    steps = [
        describe_kernels(program, column, i, size, n, run_bytes * sizes.count(size or 0))
        for i, (column, sizes) in enumerate(zip(kernels, columns, strict=True))
        for size in (*dict.fromkeys(sizes), None)
    ]
    per_device = [sum(kernel.times for kernel in column) for column in kernels]
    every_kernel = [kernel for column in kernels for kernel in column]
    return steps, {
        "accelerator": name,
        "note": NOTE,
        "devices": layout.mesh.size,
        "kernels_per_epoch": max(per_device),
        "kernels_per_device": per_device * rows_of_devices,
        "kernels_in_sequence": max(hlo.measure_depth(program, branch) for branch in range(len(distinct))),
        "bytes_per_epoch": rows_of_devices * sum(kernel.epoch_bytes for kernel in every_kernel),
        "collectives": hlo.count_opcodes(program, hlo.COLLECTIVES),
        "conditionals": hlo.count_opcodes(program, ["conditional"]),
        "gathers_in_steps": sum(
            "gather" in hlo.collect_opcodes(program, kernel.operation)
            for kernel in every_kernel
            if kernel.batch is not None
        ),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "compile_s": compile_s,
    }


def describe_arguments(
    configs: Sequence[Config], devices: Sequence[jax.Device], n: int, seeds: int
) -> tuple[tuple[Any, ...], Layout]:
    """Return the shapes of `train_epoch`'s arguments on absent devices, and the layout."""
    layout = make_layout([config.batch for config in configs], seeds, devices, 4 * D * K)
    S = len(layout.replicates)

    def make_arguments() -> tuple[Any, ...]:
        hyperparams = stack_hyperparams([configs[c] for c in layout.configs])
        params = Params(jnp.zeros((S, K, D)), jnp.zeros((S, K)))
        return (
            init_state(params, hyperparams, SPEC.optimizer),
            hyperparams,
            Examples(jnp.zeros((n, D), jnp.uint8), jnp.zeros((n, K)), kind="classes"),
            Standardizer(jnp.zeros(D), jnp.ones(D)),
            ReplicateData(jax.random.split(jax.random.key(0), S)),
        )

    def place(tree: Tree, spec: PartitionSpec) -> Tree:
        sharding = NamedSharding(layout.mesh, spec)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    specs = (BY_RUN, BY_CONFIG, REPLICATED, REPLICATED, BY_REPLICATE)
    return tuple(map(place, jax.eval_shape(make_arguments), specs)), layout


def count_kernels(program: Program, branch: int) -> list[CountedKernel]:
    """Count the kernels of an epoch on a device that takes this branch of every conditional."""
    counted = []
    for kernel in hlo.walk(program, branch):
        batch = re.search(batch_scope(r"(\d+)"), kernel.operation.scope)
        counted.append(
            CountedKernel(
                kernel.operation,
                kernel.times,
                hlo.list_bytes_read(program, kernel),
                hlo.count_bytes_written(program, kernel),
                int(batch[1]) if batch else None,
            )
        )
    return counted


def describe_kernels(
    program: Program,
    kernels: Sequence[CountedKernel],
    device: int,
    batch: int | None,
    n: int,
    weight_bytes: int,
) -> Row:
    """Count the kernels of one batch size on a device, per step; with None, all others, per epoch.

    Args:
      program: the program.
      kernels: all kernels of the device.
      device: column of the device in the mesh.
      batch: batch size.
      n: number of training images.
      weight_bytes: bytes of the weights that train side by side.
    """
    chosen = [kernel for kernel in kernels if kernel.batch == batch]
    steps = 1 if batch is None else math.ceil(n / batch)

    def per_step(count: Callable[[CountedKernel], float]) -> float:
        return sum(kernel.times * count(kernel) for kernel in chosen) / steps

    cycles = per_step(lambda kernel: int(kernel.operation.find(r'estimated_cycles":"(\d+)"') or 0))
    return {
        "device": device,
        "batch": batch or "shared",
        "steps": steps,
        "kernels": per_step(lambda kernel: 1),
        "products": per_step(lambda kernel: hlo.is_product(program, kernel.operation)),
        "mb_read": per_step(lambda kernel: sum(kernel.reads) / 1e6),
        "mb_written": per_step(lambda kernel: kernel.written / 1e6),
        "passes_over_W": (
            per_step(lambda kernel: [*kernel.reads, kernel.written].count(weight_bytes)) if batch else None
        ),
        "cycles": cycles or None,
    }


def list_compiler_versions() -> dict[str, str]:
    """Return the versions of the compilers that are installed."""
    installed = {distribution.name: distribution.version for distribution in distributions()}
    return {name: installed[name] for name in COMPILERS if name in installed}
