"""Passes over examples in consecutive batches."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

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


class Pass(NamedTuple):
    """Batch sizes that go through the examples together, one chunk of examples after another.

    The chunk is a multiple of each batch size, so that no batch straddles two chunks.
    """

    chunk: int
    batch_sizes: tuple[int, ...]


def plan_passes(batch_sizes: Iterable[int], max_chunk: int) -> list[Pass]:
    """Divide batch sizes among few passes whose chunks hold about `max_chunk` examples.

    Batch sizes share a pass if a chunk of at most `max_chunk` examples is a multiple of all of them. A batch
    larger than that has a pass to itself, in which each batch is a chunk.
    """
    planned: list[Pass] = []
    for size in sorted(set(batch_sizes)):
        for i, (chunk, sizes) in enumerate(planned):
            if math.lcm(chunk, size) <= max_chunk:
                planned[i] = Pass(math.lcm(chunk, size), (*sizes, size))
                break
        else:
            planned.append(Pass(size, (size,)))
    return [Pass(chunk * max(1, max_chunk // chunk), sizes) for chunk, sizes in planned]
