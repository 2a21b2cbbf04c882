"""The parameters of a single-layer classifier."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray


class Params(NamedTuple):
    """Weights and biases of K linear scores over d features.

    A sweep holds many at once: the same tuple with leading axes of seeds and configurations.
    """

    W: Float[Array, "*runs K d"]
    b: Float[Array, "*runs K"]


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


def numpy_params(seed: int, d: int, K: int, scale: float = 0.01, dtype: DTypeLike = jnp.float32) -> Params:
    """The same from NumPy's default generator, row by row in float64, for results to compare with NumPy's."""
    W = scale * np.random.default_rng(seed).standard_normal((K, d))
    return Params(W=jnp.asarray(W, dtype), b=jnp.zeros((K,), dtype))
