"""A pass over examples in consecutive batches."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

Carry = TypeVar("Carry")
# (carry, index of the batch's first example, number of examples in it) → carry
BatchStep = Callable[[Carry, Int[Array, ""] | int, int], Carry]


def over_batches(step: BatchStep[Carry], carry: Carry, n: int, size: int) -> Carry:
    """Folds `step` over n examples, `size` at a time; the last batch holds what is left.

    Args:
      step: is traced once for the whole batches and, where `size` does not divide n, once more
        for the last one; its third argument is a Python int, so shapes may depend on it.
      carry: what the first step gets.
      n: number of examples.
      size: number of examples in a batch, at most n.
    """
    whole, rest = divmod(n, size)
    carry, _ = jax.lax.scan(lambda c, i: (step(c, i * size, size), None), carry, jnp.arange(whole))
    return step(carry, whole * size, rest) if rest else carry


def rows(array: Array, start: Int[Array, ""] | int, size: int) -> Array:
    """`size` rows of an array from `start` on."""
    return jax.lax.dynamic_slice_in_dim(array, start, size)
