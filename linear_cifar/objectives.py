r"""The objective $J = \frac1n \sum_i \ell(s_i, y_i) + \lambda \lVert W \rVert^2$ and its gradients, by hand.

The bias is not penalised. Training uses these gradients; the tests compare them with `jax.grad`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION, compute_logits, multiply
from linear_cifar.params import Params

Scalar = Float[Array, ""]


def objective(
    params: Params,
    x: Float[Array, "n d"],
    y: Float[Array, "n K"],
    lam: Scalar | float,
    loss: Loss,
    q: Scalar | float = 0.0,
    precision: str = FULL_PRECISION,
) -> Scalar:
    """Compute J of these examples: the mean loss plus the penalty.

    Args:
      params: W [K, d] and b [K].
      x: features, standardised where the model expects it.
      y: targets, one- or multi-hot.
      lam: L2 strength λ ≥ 0.
      loss: the loss of one example.
      q: power of the loss in [0, 1], see `linear_cifar.losses`.
      precision: precision of the product, see `multiply`.
    """
    logits = compute_logits(params, x, precision)
    return jnp.mean(loss.value(logits, y, q)) + lam * jnp.sum(params.W**2)


def gradients(
    params: Params,
    x: Float[Array, "n d"],
    y: Float[Array, "n K"],
    lam: Scalar | float,
    loss: Loss,
    q: Scalar | float = 0.0,
    precision: str = FULL_PRECISION,
) -> Params:
    """Compute ∂J/∂W [K, d] and ∂J/∂b [K]; the arguments are those of `objective`."""
    dlogits = loss.gradient(compute_logits(params, x, precision), y, q)
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
      params: W [K, d] and b [K].
      x: features.
      dlogits: ∂ℓ/∂s.
      lam: L2 strength λ ≥ 0.
      precision: precision of the product, see `multiply`.
    """
    # Transposed first, as `compute_logits` transposes last: the two cancel.
    G_T = dlogits.T / x.shape[0]
    return Params(
        W=multiply(G_T, x, precision) + 2 * lam * params.W,
        b=jnp.sum(G_T, axis=1),
    )
