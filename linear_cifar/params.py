"""The parameters of a single-layer classifier."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from linear_cifar.arguments import as_numbers, as_seed, describe


class Params(NamedTuple):
    """Weights and biases of K logits over d features.

    A sweep holds many at once: the same tuple with leading axes of replicates and configurations.
    """

    W: Float[Array | np.ndarray, "*runs K d"]
    b: Float[Array | np.ndarray, "*runs K"]


# The generator of all random numbers, and the independent uses of a seed.
GENERATOR = "threefry2x32"
INIT, EPOCH = range(2)


def derive_key(seed: int, use: int) -> PRNGKeyArray:
    """Return the random key of one use of a seed: `INIT` or `EPOCH`."""
    # From its two words, because `jax.random.key` also depends on JAX's default generator and seed offset.
    key = jax.random.wrap_key_data(jax.device_put(np.array([0, seed], np.uint32)), impl=GENERATOR)
    return jax.random.fold_in(key, use)


def as_params(params: Any, shape: tuple[int, int] | None = None) -> Params:
    """Return W and b as `Params`.

    Args:
      params: `Params`, or a pair of W [*runs, K, d] and b [*runs, K].
      shape: K and d, if they are known.

    Raises:
      ValueError: if they are something else; the message says which shapes are needed.
    """
    if not isinstance(params, tuple | list) or len(params) != 2:
        raise ValueError(f"params is {describe(params)}: give lc.Params(W, b)")
    W, b = (as_numbers(name, leaf) for name, leaf in zip("Wb", params, strict=True))
    for name, leaf in zip("Wb", (W, b), strict=True):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"{name} is {describe(leaf)}: give a floating-point type")
    if len(W.shape) < 2 or b.shape != W.shape[:-1]:
        raise ValueError(f"W is {tuple(W.shape)} and b is {tuple(b.shape)}: give W [K, d] and b [K]")
    if shape is not None and W.shape[-2:] != shape:
        raise ValueError(f"the weights are {tuple(W.shape[-2:])}: these examples need {shape}")
    return Params(W, b)


def init_params(
    key: PRNGKeyArray, d: int, K: int, scale: float = 0.01, dtype: DTypeLike = jnp.float32
) -> Params:
    """Draw Gaussian weights W [K, d] of standard deviation `scale` and mean 0; the biases b [K] are zero."""
    # Random numbers must not depend on how a user has set up JAX.
    with jax.threefry_partitionable(True):
        W = scale * jax.random.normal(key, (K, d), dtype)
    return Params(W=W, b=jax.device_put(np.zeros((K,), dtype)))


def jax_params(seed: int, d: int, K: int, dtype: DTypeLike = jnp.float32) -> Params:
    """Draw the parameters that a sweep starts from by default, see `init_params`."""
    return init_params(derive_key(as_seed(seed), INIT), d, K, dtype=dtype)


def numpy_params(seed: int, d: int, K: int, dtype: DTypeLike = jnp.float32) -> Params:
    """Draw the same distribution from NumPy's default generator, to compare results with NumPy programs.

    The weights are drawn row by row in float64 and then converted to `dtype`.
    """
    W = 0.01 * np.random.default_rng(as_seed(seed)).standard_normal((K, d))
    return Params(W=jnp.asarray(W, dtype), b=jnp.zeros((K,), dtype))


# Initial parameters by name: functions of a seed, d, K and the type of the weights.
INITS: dict[str, Callable[..., Params]] = {"jax": jax_params, "numpy": numpy_params}
