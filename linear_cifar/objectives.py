r"""The objective $J = \frac1n \sum_i \ell(s_i, y_i) + \lambda \lVert W \rVert^2$ and its gradients, by hand.

The bias is not penalised. Training uses these gradients; the tests compare them with `jax.grad`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from linear_cifar.arguments import as_numbers, describe, is_traced
from linear_cifar.config import DEFAULTS, Hyperparams, get_axis
from linear_cifar.losses import Loss, check_outputs, get_loss
from linear_cifar.model import FULL_PRECISION, compute_logits, multiply
from linear_cifar.params import Params, as_params
from linear_cifar.rounding import as_floats

Scalar = Float[Array, ""]
AnyArray = Array | np.ndarray


def as_batch(
    params: Any, x: Any, y: Any, loss: str | Loss
) -> tuple[Params, Float[Array, "n d"], Float[Array, "n K"], Loss]:
    """Return the arguments of a step: floating-point arrays that fit one another, and the loss.

    Shapes are known while JAX traces a function, so the check costs nothing when it runs.

    Raises:
      ValueError: if the shapes do not fit. Labels [n] would be broadcast against the logits, for example.
    """
    params = as_params(params)
    *runs, K, _ = params.W.shape
    if runs:
        raise ValueError(f"W is {tuple(params.W.shape)}: give the parameters of one run, W [K, d]")
    x, y = (as_floats(name, array, params.W.dtype) for name, array in (("x", x), ("y", y)))
    if x.ndim == 2 and y.shape != (len(x), K):
        raise ValueError(
            f"y is {describe(y)}: give targets {(len(x), K)}, of labels jax.nn.one_hot(labels, {K})"
        )
    found = get_loss(loss)
    check_outputs(found, K)
    return params, x, y, found


def _as_hyperparams(loss: Loss, lam: Any, axes: Mapping[str, Any]) -> Hyperparams:
    """Return λ and what the loss reads, see `objective`; raise ValueError for a value that is wrong."""
    values = loss.reported_hyperparams().replace(lam=lam, **axes)
    for name, value in values.items():
        scalar = as_numbers(name, value)
        if scalar.ndim:
            raise ValueError(f"{name} is {describe(scalar)}: give one number")
        known = None if is_traced(scalar) else get_axis(name).check(scalar.item())
        if name not in ("lam", *dict(loss.reported_at)) and known != DEFAULTS.get(name):
            raise ValueError(f"{name} is {describe(scalar)}: the loss {loss.name} does not read it")
    return values


def objective(
    params: Params,
    x: Num[AnyArray, "n d"],
    y: Num[AnyArray, "n K"],
    loss: str | Loss = "softmax",
    *,
    lam: Scalar | float = 0.0,
    precision: str = FULL_PRECISION,
    **axes: Scalar | float,
) -> Scalar:
    """Compute J of these examples: the mean loss plus the penalty.

    Args:
      params: W [K, d] and b [K].
      x: features, standardised where the model expects it.
      y: targets, one- or multi-hot.
      loss: the loss of one example, or the name of one.
      lam: L2 strength λ ≥ 0.
      precision: precision of the product, see `multiply`.
      **axes: hyperparameters that the loss reads, such as `q=0.7`; those that are left out have the values at
        which the loss is reported.

    Raises:
      ValueError: if the shapes do not fit: labels [n] in place of targets, for example.
    """
    params, x, y, loss = as_batch(params, x, y, loss)
    hyperparams = _as_hyperparams(loss, lam, axes)
    logits = compute_logits(params, x, precision)
    return jnp.mean(loss.value(logits, y, hyperparams)) + lam * jnp.sum(params.W**2)


def gradients(
    params: Params,
    x: Num[AnyArray, "n d"],
    y: Num[AnyArray, "n K"],
    loss: str | Loss = "softmax",
    *,
    lam: Scalar | float = 0.0,
    precision: str = FULL_PRECISION,
    **axes: Scalar | float,
) -> Params:
    """Compute ∂J/∂W [K, d] and ∂J/∂b [K]; arguments and errors are those of `objective`."""
    params, x, y, loss = as_batch(params, x, y, loss)
    hyperparams = _as_hyperparams(loss, lam, axes)
    dlogits = loss.gradient(compute_logits(params, x, precision), y, hyperparams)
    return backward(params, x, dlogits, lam, precision)


def backward(
    params: Params,
    x: Float[Array, "n d"],
    dlogits: Float[Array, "n K"],
    lam: Scalar | float,
    precision: str = FULL_PRECISION,
) -> Params:
    r"""Compute ∂J/∂W [K, d] and ∂J/∂b [K] from each example's own ∂ℓ/∂s.

    By the chain rule through s = W x + b, with G the [n, K] matrix of ∂ℓ/∂s:
    $\partial J/\partial W = \frac1n G^\top X + 2 \lambda W$ and
    $\partial J/\partial b = \frac1n \sum_i G_i$.

    Args:
      params, x, lam, precision: as for `objective`.
      dlogits: ∂ℓ/∂s.
    """
    # Transposed first, as `compute_logits` transposes last: the two cancel.
    G_T = dlogits.T / x.shape[0]
    return Params(
        W=multiply(G_T, x, precision) + 2 * lam * params.W,
        b=jnp.sum(G_T, axis=1),
    )
