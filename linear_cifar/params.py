"""The parameters of a single-layer classifier."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray


class Params(NamedTuple):
    """Weights and biases of K logits over d features.

    A sweep holds many at once: the same tuple with leading axes of replicates and configurations.
    """

    W: Float[Array | np.ndarray, "*runs K d"]
    b: Float[Array | np.ndarray, "*runs K"]


def init_params(
    key: PRNGKeyArray, d: int, K: int, scale: float = 0.01, dtype: DTypeLike = jnp.float32
) -> Params:
    """Draw Gaussian weights of standard deviation `scale`; biases are zero.

    Args:
      key: JAX random key.
      d: number of features.
      K: number of classes.
      scale: standard deviation of the weights.
      dtype: floating-point type of both.

    Returns:
      W [K, d] and b [K].
    """
    W = scale * jax.random.normal(key, (K, d), dtype)
    return Params(W=W, b=jnp.zeros((K,), dtype))


def numpy_params(seed: int, d: int, K: int, scale: float = 0.01, dtype: DTypeLike = jnp.float32) -> Params:
    """Draw the same distribution from NumPy's default generator, to compare results with NumPy programs.

    The weights are drawn row by row in float64 and then converted to `dtype`.
    """
    W = scale * np.random.default_rng(seed).standard_normal((K, d))
    return Params(W=jnp.asarray(W, dtype), b=jnp.zeros((K,), dtype))
