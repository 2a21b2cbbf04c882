"""The losses of one example, and their gradients with respect to its scores, by hand."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from linear_cifar.model import of_each, sigmoid_probabilities, softmax_probabilities

# Of one example; `of_each` makes functions of n examples out of functions of one.
Scores = Float[Array, " K"]
Targets = Float[Array, " K"]


@of_each
def softmax_cross_entropy(scores: Scores, y: Targets) -> Float[Array, ""]:
    r"""$\ell = -\sum_k y_k \log p_k$ with $p = \mathrm{softmax}(s)$; finite for finite scores."""
    return -jnp.sum(y * jax.nn.log_softmax(scores))


@of_each
def softmax_cross_entropy_gradient(scores: Scores, y: Targets) -> Scores:
    r"""$\partial\ell/\partial s = p \sum_k y_k - y$, which for one-hot targets is $p - y$.

    From $\partial \log p_k / \partial s_j = [k = j] - p_j$.
    """
    return softmax_probabilities(scores) * jnp.sum(y) - y


@of_each
def binary_cross_entropy(scores: Scores, y: Targets) -> Float[Array, ""]:
    r"""$\ell = -\frac1K \sum_k [(1-y_k)\log(1-p_k) + y_k \log p_k]$ with $p = \sigma(s)$.

    Through $\log\sigma(s)$ and $\log\sigma(-s)$, so that it is finite for finite scores.
    """
    log_p, log_not_p = jax.nn.log_sigmoid(scores), jax.nn.log_sigmoid(-scores)
    return -jnp.mean((1 - y) * log_not_p + y * log_p)


@of_each
def binary_cross_entropy_gradient(scores: Scores, y: Targets) -> Scores:
    r"""$\partial\ell/\partial s = (p - y) / K$, from $\sigma' = \sigma (1 - \sigma)$."""
    return (sigmoid_probabilities(scores) - y) / scores.shape[0]


class Loss(NamedTuple):
    """A loss by its name, and what belongs to it.

    `value` maps scores and targets [n, K] to losses [n]; `gradient` maps them to the
    derivatives of each example's own loss [n, K]; `probabilities` maps scores to probabilities.
    """

    name: str
    value: Callable[[Float[Array, "n K"], Float[Array, "n K"]], Float[Array, " n"]]
    gradient: Callable[[Float[Array, "n K"], Float[Array, "n K"]], Float[Array, "n K"]]
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
