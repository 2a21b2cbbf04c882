r"""The objective $J = \frac1n \sum_i \ell(s_i, y_i) + \lambda \lVert W \rVert^2$ and its gradients, by hand.

The bias is not penalised. Training uses these gradients; the tests hold them against `jax.grad`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION, logits
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
    """J of these examples: mean loss plus penalty.

    Args:
      params: W [K, d] and b [K].
      x: features.
      y: targets, one- or multi-hot.
      lam: λ ≥ 0, the strength of the L2 penalty.
      loss: which loss.
      q: its power in [0, 1], see `linear_cifar.losses`.
      precision: of the product, see `logits`.
    """
    return jnp.mean(loss.value(logits(params, x, precision), y, q)) + lam * jnp.sum(params.W**2)


def gradients(
    params: Params,
    x: Float[Array, "n d"],
    y: Float[Array, "n K"],
    lam: Scalar | float,
    loss: Loss,
    q: Scalar | float = 0.0,
    precision: str = FULL_PRECISION,
) -> Params:
    """∂J/∂W and ∂J/∂b, arguments as for `objective`."""
    return backward(params, x, loss.gradient(logits(params, x, precision), y, q), lam, precision)


def backward(
    params: Params,
    x: Float[Array, "n d"],
    dscores: Float[Array, "n K"],
    lam: Scalar | float,
    precision: str = FULL_PRECISION,
) -> Params:
    r"""∂J/∂W and ∂J/∂b from each example's own ∂ℓ/∂s.

    By the chain rule through s = W x + b, with G the [n, K] matrix of ∂ℓ/∂s:
    $\partial J/\partial W = \frac1n G^\top X + 2 \lambda W$ and
    $\partial J/\partial b = \frac1n \sum_i G_i$.

    Args:
      params: W [K, d] and b [K].
      x: features.
      dscores: ∂ℓ/∂s.
      lam: λ ≥ 0.
      precision: of the product, see `logits`.
    """
    # Transposed first, as `logits` was last: the two cancel.
    G_T = dscores.T / x.shape[0]
    return Params(
        W=jnp.matmul(G_T, x, precision=precision) + 2 * lam * params.W,
        b=jnp.sum(G_T, axis=1),
    )
