"""The parameters of a single-layer classifier."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray


class Params(NamedTuple):
    """Weights and biases of K linear scores over d features.

    A sweep holds many at once: the same tuple with a leading axis of configurations.
    """

    W: Float[Array, "*configs K d"]
    b: Float[Array, "*configs K"]


def init_params(
    key: PRNGKeyArray, d: int, K: int, scale: float = 0.01, dtype: DTypeLike = jnp.float32
) -> Params:
    """Gaussian weights of standard deviation `scale`, zero biases.

    Args:
      key: JAX random key.
      d: number of features.
      K: number of classes.
      scale: standard deviation of the weights.
      dtype: floating-point type of both.
    """
    W = scale * jax.random.normal(key, (K, d), dtype)
    return Params(W=W, b=jnp.zeros((K,), dtype))
