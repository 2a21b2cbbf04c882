"""The devices that a sweep is divided over."""

import importlib.util
import math
import os

import jax
import jaxlib
import numpy as np
from jax.typing import DTypeLike

# JAX's name of the platform.
CPU = "cpu"
# JAX refers to an array on a CPU, and does not copy it, if it begins at a multiple of this many bytes.
ALIGNMENT = 64
# An epoch becomes one CUDA graph, in which its batch sizes overlap: 27 % less time on an H100, see
# experiments/benchmark/README.md. XLA ends a process if it does not know an option, so that only versions
# that were tried get these.
GPU_OPTIONS = "--xla_gpu_enable_command_buffer=+WHILE --xla_gpu_command_buffer_scheduling_mode=CONCURRENT"
TRIED_VERSIONS, GPU_PLUGINS = ("0.10.", "0.11."), ("jax_cuda12_plugin", "jax_cuda13_plugin")


def count_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores() -> None:
    """Give JAX one CPU device per core, which makes sweeps on a CPU about 1.6 times as fast on 2 cores.

    Call it once, before JAX's first computation. JAX_NUM_CPU_DEVICES, where it is set, decides instead.

    Raises:
      RuntimeError: if JAX has been used already.
    """
    # A core works best on configurations of its own, see `linear_cifar.layout`.
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", count_cores())


def set_gpu_options() -> None:
    """Set XLA's fastest options for an NVIDIA GPU, where JAX can use one; XLA_FLAGS can override them.

    Call it once, before JAX's first computation.
    """
    if jaxlib.__version__.startswith(TRIED_VERSIONS) and any(map(importlib.util.find_spec, GPU_PLUGINS)):
        os.environ["XLA_FLAGS"] = f"{GPU_OPTIONS} {os.environ.get('XLA_FLAGS', '')}".strip()


def on_cpu(device: jax.Device) -> bool:
    """Tell whether the device is (part of) a CPU."""
    return device.platform == CPU


def empty_aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an array without content that JAX need not copy on a CPU."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + nbytes].view(dtype).reshape(shape)
