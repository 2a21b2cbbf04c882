"""How much memory runs take while they are trained side by side, and how many a device holds."""

import jax
import numpy as np
from jax.typing import DTypeLike

from linear_cifar.layout import on_cpu
from linear_cifar.training import BLOCK

# What a process takes before there is any data, and of an image: its bytes as loaded and as a device reads
# them. Measured on CPUs: `python -m experiments.bench`.
PROCESS_BYTES, IMAGE_COPIES = 700 * 10**6, 2
# Times its weights that a run takes: state, averages, gradient, update, and what is measured and saved.
WEIGHTS_OF_A_RUN = 8
# Share of a device's memory that is planned with: the rest is the compiler's, and other processes'.
SHARE = 0.6


def run_bytes(d: int, K: int, dtype: DTypeLike, largest_batch: int) -> int:
    """Of one run of d features and K classes: its weights, over again, and a batch's scores and gradients."""
    return np.dtype(dtype).itemsize * (WEIGHTS_OF_A_RUN * (d + 1) * K + 4 * largest_batch * K)


def seed_bytes(d: int, dtype: DTypeLike, largest_batch: int) -> int:
    """Of one seed on a device: a block of images as bytes, and a batch of them standardised."""
    return d * (BLOCK + 2 * largest_batch * np.dtype(dtype).itemsize)


def runs_that_fit(
    memory: int,
    device: jax.Device,
    n: int,
    d: int,
    K: int,
    dtype: DTypeLike,
    largest_batch: int,
    configs: int,
) -> int:
    """How many runs to train at a time on a device, at least one.

    Args:
      memory: of the device, in bytes.
      device: an accelerator holds the images once, as bytes; of CPUs a process's memory is the devices'.
      n: images of all splits.
      d, K, dtype: of the weights.
      largest_batch: of the configurations.
      configs: how many there are of each seed.
    """
    fixed = n * d + (PROCESS_BYTES + (IMAGE_COPIES - 1) * n * d if on_cpu(device) else 0)
    each = run_bytes(d, K, dtype, largest_batch) + seed_bytes(d, dtype, largest_batch) / configs
    return max(1, int((SHARE * memory - fixed) / each))
