"""The program of an epoch, compiled for an accelerator that is not there, and counts of what is in it.

    python tests/compiling.py h100        # a GPU: 10 seconds
    python tests/compiling.py v5e         # a TPU: a minute
    python tests/compiling.py h100 20     # 20 seeds instead of one

prints the counts as JSON; nothing is run. The compilers are installed by `pip install '.[compile]'`, in an
environment of their own: with them, JAX looks for a GPU and a TPU at every start.

The counts are read from the text of XLA's optimised program. Bytes are those of the operands and results of
kernels, as if nothing stayed in a cache. A slice counts only the bytes that it takes.
"""

import json
import math
import os
import re
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding

from linear_cifar.augment import horizontal_flip
from linear_cifar.config import grid, stack_hyperparams
from linear_cifar.examples import Examples
from linear_cifar.layout import BY_CONFIG, BY_REPLICATE, BY_RUN, REPLICATED, make_layout
from linear_cifar.params import Params
from linear_cifar.replicates import ReplicateData
from linear_cifar.standardizer import Standardizer
from linear_cifar.training import TrainSpec, init_state, train_epoch

# XLA's GpuTargetConfigProto, with facts from the data sheet. With a cub_version, sorting would need a GPU.
H100 = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  runtime_version: "13.0.0" driver_version: "13.0.0" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# The arguments of JAX's `get_topology_desc`.
TOPOLOGIES = {
    "h100": {"platform": "cuda", "topology_name": "h100", "target_config": H100, "topology": "1x1x1"},
    "v5e": {"platform": "tpu", "topology_name": "v5e:1x1"},
}
# Without a GPU nothing can be tuned by trying. Then Triton's products fail to compile, as does CUB's sort.
OPTIONS = {
    "h100": {"xla_gpu_enable_triton_gemm": False, "xla_gpu_deviceless_cub_mode": "DEVICELESS_CUB_DISABLED"},
    "v5e": {},
}
# Without these, libtpu asks the cloud which TPU it is on.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
# The report's grid.
BATCHES = (50, 100, 200, 400)
CONFIGS = grid(eta=[0.001, 0.01, 0.1, 1.0], batch=BATCHES, lam=[0.0, 0.1, 1.0])
N, D, K = 49_000, 3_072, 10

# Operations that start no kernel.
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy-done")
SLICES = ("dynamic-slice", "slice", "gather")
# Operations by which devices communicate; all-reduce-start and others contain these words.
COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast",
)  # fmt: skip


def compile_epoch(accelerator, seeds):
    """Return the compiled program of an epoch; call it before JAX's first use."""
    # JAX would look for the GPU or TPU itself, and not find it.
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(TPU_ENVIRONMENT)
    devices = topologies.get_topology_desc(**TOPOLOGIES[accelerator]).devices
    layout = make_layout([config.batch for config in CONFIGS], seeds, devices, 4 * D * K)
    spec = TrainSpec(augment=horizontal_flip)

    def make_arguments():
        hyperparams = stack_hyperparams([CONFIGS[c] for c in layout.configs])
        params = Params(jnp.zeros((seeds, K, D)), jnp.zeros((seeds, K)))
        return (
            init_state(params, hyperparams, spec.optimizer),
            hyperparams,
            Examples(jnp.zeros((N, D), jnp.uint8), jnp.zeros((N, K)), kind="classes"),
            Standardizer(jnp.zeros(D), jnp.ones(D)),
            ReplicateData(jax.random.split(jax.random.key(0), seeds)),
        )

    def place(tree, partition):
        sharding = NamedSharding(layout.mesh, partition)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    partitions = (BY_RUN, BY_CONFIG, REPLICATED, REPLICATED, BY_REPLICATE)
    arguments = map(place, jax.eval_shape(make_arguments), partitions)
    return train_epoch.lower(*arguments, layout, spec).compile(OPTIONS[accelerator])


def find(pattern, text):
    """Return the first group of a pattern, or None where the text does not have it."""
    found = re.search(pattern, text)
    return found[1] if found else None


class Operation:
    """An operation of a program, read from its line `%name = shape opcode(operands), attributes`."""

    def __init__(self, line):
        self.line = line
        self.shape, self.opcode, operands = re.search(r" = (.*?) ([\w-]+)\((.*?)\)", line).groups()
        self.operands = re.findall(r"%([\w.-]+)", operands)
        self.fused = find(r" calls=%([\w.-]+)", line)  # name of the computation that a fusion consists of


class Kernel(NamedTuple):
    """A kernel, how often an epoch starts it, and the opcodes in it.

    `moved` has the bytes that it reads of each operand, and last those that it writes. `batch` is the batch
    size in whose steps it was traced; None outside of steps.
    """

    line: str
    times: int
    opcodes: set[str]
    moved: list[int]
    batch: int | None


def parse(text):
    """Return the operations of each computation, by name. The computation that starts is called ENTRY."""
    computations = {}
    for line in text.splitlines():
        if header := re.match(r"(?:(ENTRY) )?%([\w.-]+) .*\{$", line):
            operations = computations[header[1] or header[2]] = {}
        elif name := find(r"^\s+(?:ROOT )?%([\w.-]+) = ", line):
            operations[name] = Operation(line)
    return computations


def walk(computations, name="ENTRY", times=1):
    """Yield the kernels of a computation that an epoch runs some times, and those of its loops."""
    for operation in computations[name].values():
        line = operation.line
        if operation.opcode == "while":
            iterations = find(r'known_trip_count[^}]*?"n":"(\d+)"', line)
            if iterations is None:
                # A TPU's loop counts from 0 to the only whole number in its condition.
                condition = computations[find(r"condition=%([\w.-]+)", line)].values()
                limits = [find(r"= s32\[\]\S* constant\((\d+)\)", inner.line) for inner in condition]
                (iterations,) = filter(None, limits)
            yield from walk(computations, find(r"body=%([\w.-]+)", line), times * int(iterations))
        elif operation.opcode not in FREE:
            opcodes = collect_opcodes(computations, operation)
            moved = list_bytes(computations, operation, computations[name])
            batch = find(r'op_name="[^"]*batch_(\d+)_', line)
            yield Kernel(line, times, opcodes, moved, int(batch) if batch else None)


def collect_opcodes(computations, operation):
    """Return the opcodes of an operation and of all that are fused in it."""
    inside = computations.get(operation.fused, {}).values()
    return {operation.opcode}.union(*(collect_opcodes(computations, inner) for inner in inside))


def count_bytes(shape):
    """Return the bytes of a shape, or of all shapes in a tuple, such as `(f32[10,3072]{1,0}, pred[])`."""
    return sum(
        int(bits or 8) // 8 * math.prod(map(int, filter(None, sizes.split(","))))
        for bits, sizes in re.findall(r"\b[a-z]+(\d*)\[([\d,]*)\]", shape)
    )


def list_bytes(computations, operation, around):
    """Return the bytes that a kernel reads of each operand, and last those that it writes."""
    inside = computations.get(operation.fused)
    if not inside:
        # Besides the result, a product returns its workspace, and the start of a copy its operand.
        several = operation.opcode == "copy-start" or "__cublas" in operation.line
        written = count_bytes(operation.shape.split("]")[0] + "]" if several else operation.shape)
        read = [count_bytes(around[name].shape) for name in operation.operands]
        return [written, written] if operation.opcode in SLICES else [*read, written]
    parameters = {find(r" parameter\((\d+)\)", inner.line): name for name, inner in inside.items()}
    read = [count_bytes_read(inside, parameters[str(i)]) for i in range(len(operation.operands))]
    *_, root = inside.values()
    outputs = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    # An update in place writes only its second operand.
    updates = [inside[o.operands[1]] if o.opcode == "dynamic-update-slice" else o for o in outputs]
    return [*read, sum(count_bytes(update.shape) for update in updates)]


def count_bytes_read(inside, name):
    """Return the bytes that a fusion reads of one of its values."""
    total, size = 0, count_bytes(inside[name].shape)
    for user_name, user in inside.items():
        if name not in user.operands:
            continue
        if user.opcode in SLICES and user.operands[0] == name:
            total += count_bytes(user.shape)
        elif user.opcode == "bitcast":
            total += count_bytes_read(inside, user_name)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            return size
    return min(total, size)


def is_product(kernel):
    """Tell whether a kernel is a matrix product."""
    return "__cublas" in kernel.line or not kernel.opcodes.isdisjoint({"dot", "convolution"})


def count_step(kernels, batch, seeds):
    """Return the figures of one step of a batch size; `cycles` is the estimate of a TPU's compiler."""
    steps = math.ceil(N / batch)
    W_bytes = seeds * sum(config.batch == batch for config in CONFIGS) * 4 * K * D

    def per_step(count):
        return sum(kernel.times * count(kernel) for kernel in kernels if kernel.batch == batch) / steps

    return {
        "steps": steps,
        "kernels": per_step(lambda kernel: 1),
        "products": per_step(is_product),
        "bytes": per_step(lambda kernel: sum(kernel.moved)),
        "passes_over_W": per_step(lambda kernel: kernel.moved.count(W_bytes)),
        "cycles": per_step(lambda kernel: int(find(r'estimated_cycles":"(\d+)"', kernel.line) or 0)),
    }


def main(accelerator, seeds):
    compiled = compile_epoch(accelerator, seeds)
    text, memory = compiled.as_text(), compiled.memory_analysis()
    kernels = list(walk(parse(text)))
    figures = {
        "kernels_per_epoch": sum(kernel.times for kernel in kernels),
        "bytes_per_epoch": sum(kernel.times * sum(kernel.moved) for kernel in kernels),
        "gathers_in_steps": sum("gather" in kernel.opcodes for kernel in kernels if kernel.batch),
        "collectives": sum(text.count(f" {opcode}") for opcode in COLLECTIVES),
        "conditionals": text.count(" conditional("),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "steps": {batch: count_step(kernels, batch, seeds) for batch in BATCHES},
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main(sys.argv[1], seeds=int(sys.argv[2]) if len(sys.argv) > 2 else 1)
