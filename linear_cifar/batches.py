"""Passes over examples in consecutive batches."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

Carry = TypeVar("Carry")
Index = Int[Array, ""] | int
# (carry, index of the batch's first example, number of examples in it) → carry
BatchStep = Callable[[Carry, Index, int], Carry]


def fold_batches(step: BatchStep[Carry], carry: Carry, n: int, size: int, unroll: int = 1) -> Carry:
    """Fold `step` over n examples, `size` at a time; the last batch holds the remainder.

    Args:
      step: function to fold. It is traced once for the whole batches and, where `size` does not divide n,
        once more for the last batch. Its third argument is a Python int, so shapes may depend on it.
      carry: argument of the first step.
      n: number of examples.
      size: number of examples in a batch.
      unroll: number of whole batches that one iteration of the compiled loop takes.
    """
    whole, rest = divmod(n, size)
    if whole:
        carry, _ = jax.lax.scan(
            lambda c, i: (step(c, i * size, size), None), carry, jnp.arange(whole), unroll=min(unroll, whole)
        )
    return step(carry, whole * size, rest) if rest else carry


def take_rows(array: Array | np.ndarray, start: Index, size: int) -> Array:
    """Take `size` consecutive rows of an array, the first of which is `start`."""
    return jax.lax.dynamic_slice_in_dim(array, start, size)


def group_passes(batch_sizes: Iterable[int], max_chunk: int) -> list[tuple[int, tuple[int, ...]]]:
    """Divide batch sizes among few passes over the examples, chunk after chunk of about `max_chunk` examples.

    Batch sizes share a pass if a chunk of at most `max_chunk` examples is a multiple of all of them, so that
    no batch straddles two chunks. A batch larger than that has a pass to itself, in which each batch is a
    chunk.

    Returns:
      The number of examples in a chunk, and the batch sizes, of each pass.
    """
    passes: list[tuple[int, tuple[int, ...]]] = []
    for size in sorted(set(batch_sizes)):
        for i, (chunk, sizes) in enumerate(passes):
            if math.lcm(chunk, size) <= max_chunk:
                passes[i] = math.lcm(chunk, size), (*sizes, size)
                break
        else:
            passes.append((size, (size,)))
    return [(chunk * max(1, max_chunk // chunk), sizes) for chunk, sizes in passes]
