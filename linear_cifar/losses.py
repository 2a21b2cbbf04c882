r"""The losses of one example, and their gradients with respect to its scores, by hand.

Both are generalised by a power q in [0, 1], with $(1 - p^q)/q$ in place of $-\log p$ (Zhang & Sabuncu 2018,
"Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels"): q = 0, the limit, is
cross-entropy, q = 1 the mean absolute error. The larger q, the less count the examples that the model is
wrong about.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from linear_cifar.model import of_each, sigmoid_probabilities, softmax_probabilities

# Of one example; `of_each` makes functions of n examples out of functions of one.
Scores = Float[Array, " K"]
Targets = Float[Array, " K"]
Power = Float[Array, ""] | float


def shortfall(log_p: Float[Array, "*shape"], q: Power) -> Float[Array, "*shape"]:
    r"""$(1 - p^q) / q$ from $\log p$, and its limit $-\log p$ at q = 0."""
    # The branch that is not taken must be finite too, or its gradient would be NaN.
    divisor = jnp.where(q == 0, 1.0, q).astype(log_p.dtype)
    return jnp.where(q == 0, -log_p, -jnp.expm1(divisor * log_p) / divisor)


@of_each
def softmax_cross_entropy(scores: Scores, y: Targets, q: Power = 0.0) -> Float[Array, ""]:
    r"""$\ell = \sum_k y_k (1 - p_k^q)/q$ with $p = \mathrm{softmax}(s)$; for q = 0 $-\sum_k y_k \log p_k$.

    Finite for finite scores.
    """
    return jnp.sum(y * shortfall(jax.nn.log_softmax(scores), q))


@of_each
def softmax_cross_entropy_gradient(scores: Scores, y: Targets, q: Power = 0.0) -> Scores:
    r"""$\partial\ell/\partial s = p \sum_k y_k p_k^q - y \circ p^q$.

    For one-hot targets that is $p_y^q (p - y)$, and $p - y$ at q = 0. From
    $\partial \log p_k / \partial s_j = [k = j] - p_j$.
    """
    pull = y * jnp.exp(q * jax.nn.log_softmax(scores))
    return softmax_probabilities(scores) * jnp.sum(pull) - pull


@of_each
def binary_cross_entropy(scores: Scores, y: Targets, q: Power = 0.0) -> Float[Array, ""]:
    r"""$\ell = \frac1K \sum_k [(1-y_k) (1 - (1-p_k)^q)/q + y_k (1 - p_k^q)/q]$ with $p = \sigma(s)$.

    For q = 0 that is $-\frac1K \sum_k [(1-y_k)\log(1-p_k) + y_k \log p_k]$. Through $\log\sigma(s)$ and
    $\log\sigma(-s)$, so that it is finite for finite scores.
    """
    log_p, log_not_p = jax.nn.log_sigmoid(scores), jax.nn.log_sigmoid(-scores)
    return jnp.mean((1 - y) * shortfall(log_not_p, q) + y * shortfall(log_p, q))


@of_each
def binary_cross_entropy_gradient(scores: Scores, y: Targets, q: Power = 0.0) -> Scores:
    r"""$\partial\ell/\partial s = [(1-y)\,p\,(1-p)^q - y\,(1-p)\,p^q] / K$, which at q = 0 is $(p - y)/K$.

    From $\sigma' = \sigma (1 - \sigma)$.
    """
    p_q, not_p_q = jnp.exp(q * jax.nn.log_sigmoid(scores)), jnp.exp(q * jax.nn.log_sigmoid(-scores))
    p, not_p = sigmoid_probabilities(scores), sigmoid_probabilities(-scores)
    return ((1 - y) * p * not_p_q - y * not_p * p_q) / scores.shape[0]


class Loss(NamedTuple):
    """A loss by its name, and what belongs to it.

    `value` maps scores and targets [n, K], and q (0 if it is not given), to losses [n]; `gradient` maps
    them to the derivatives of each example's own loss [n, K]; `probabilities` maps scores to probabilities.
    """

    name: str
    value: Callable[..., Float[Array, " n"]]
    gradient: Callable[..., Float[Array, "n K"]]
    probabilities: Callable[[Float[Array, "n K"]], Float[Array, "n K"]]


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("softmax", softmax_cross_entropy, softmax_cross_entropy_gradient, softmax_probabilities),
        Loss("bce", binary_cross_entropy, binary_cross_entropy_gradient, sigmoid_probabilities),
    )
}


def get_loss(name: str) -> Loss:
    """The loss of that name.

    Raises:
      ValueError: naming the losses there are.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
