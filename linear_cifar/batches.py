"""Passes over examples in consecutive batches."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

Carry = TypeVar("Carry")
Index = Int[Array, ""] | int
# (carry, index of the batch's first example, number of examples in it) → carry
BatchStep = Callable[[Carry, Index, int], Carry]


def over_batches(step: BatchStep[Carry], carry: Carry, n: int, size: int) -> Carry:
    """Folds `step` over n examples, `size` at a time; the last batch holds what is left.

    Args:
      step: is traced once for the whole batches and, where `size` does not divide n, once more
        for the last one; its third argument is a Python int, so shapes may depend on it.
      carry: what the first step gets.
      n: number of examples.
      size: number of examples in a batch.
    """
    whole, rest = divmod(n, size)
    if whole:
        carry, _ = jax.lax.scan(lambda c, i: (step(c, i * size, size), None), carry, jnp.arange(whole))
    return step(carry, whole * size, rest) if rest else carry


def rows(array: Array, start: Index, size: int) -> Array:
    """`size` rows of an array from `start` on."""
    return jax.lax.dynamic_slice_in_dim(array, start, size)


class Pass(NamedTuple):
    """Batch sizes that go through the examples together, a block of examples at a time.

    The block is a multiple of each of them, so that no batch straddles two blocks.
    """

    block: int
    sizes: tuple[int, ...]


def passes(sizes: Iterable[int], most: int) -> list[Pass]:
    """Divides batch sizes among few passes whose blocks hold about `most` examples.

    Sizes share a pass if a block of at most `most` examples is a multiple of all of them; a size
    larger than that has a pass to itself, and its batches for blocks.
    """
    found: list[Pass] = []
    for size in sorted(set(sizes)):
        for i, (block, others) in enumerate(found):
            if math.lcm(block, size) <= most:
                found[i] = Pass(math.lcm(block, size), (*others, size))
                break
        else:
            found.append(Pass(size, (size,)))
    return [Pass(block * max(1, most // block), together) for block, together in found]
