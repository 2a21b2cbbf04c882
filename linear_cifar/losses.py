r"""The losses of one example, and their gradients with respect to its logits, written by hand.

Each loss has a power q in [0, 1] that puts $(1 - p^q)/q$ in place of $-\log p$ (Zhang & Sabuncu 2018,
"Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels"). The limit q = 0 is
cross-entropy; q = 1 is the mean absolute error. The larger q is, the less the wrongly classified examples
count.

Each also smooths the targets: a share ε in [0, 1) of a target is spread evenly over what it might have been
(Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision").
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from linear_cifar.arguments import describe, look_up, one_line
from linear_cifar.config import Hyperparams, get_axis
from linear_cifar.model import sigmoid_probabilities, softmax_probabilities, vmap_examples

# Arguments of one example; `vmap_examples` turns functions of one example into functions of n.
Logits = Float[Array, " K"]
Targets = Float[Array, " K"]
Power = Float[Array, ""] | float
# Attribute of a loss's value: the user's function that it is made from.
MADE_FROM = "made_from"


def lq_term(log_p: Float[Array, "*shape"], q: Power) -> Float[Array, "*shape"]:
    r"""Compute $(1 - p^q) / q$ from $\log p$; its limit at q = 0 is $-\log p$."""
    # The branch that is not taken must be finite too, or its gradient would be NaN.
    divisor = jnp.where(q == 0, 1.0, q).astype(log_p.dtype)
    return jnp.where(q == 0, -log_p, -jnp.expm1(divisor * log_p) / divisor)


def smooth(y: Targets, hyperparams: Hyperparams, even: float) -> Targets:
    r"""Compute $y + \varepsilon (u - y)$, with u the target that favours nothing; at ε = 0 the bits of y."""
    return y + hyperparams.smoothing * (even - y)


@vmap_examples
def softmax_cross_entropy(logits: Logits, y: Targets, hyperparams: Hyperparams) -> Float[Array, ""]:
    r"""Compute $\ell = \sum_k y_k (1 - p_k^q)/q$ with $p = \mathrm{softmax}(s)$.

    For q = 0 that is $-\sum_k y_k \log p_k$. The value is finite for finite logits. Smoothing takes u = 1/K.
    """
    y = smooth(y, hyperparams, 1 / len(logits))
    return jnp.sum(y * lq_term(jax.nn.log_softmax(logits), hyperparams.q))


@vmap_examples
def softmax_cross_entropy_gradient(logits: Logits, y: Targets, hyperparams: Hyperparams) -> Logits:
    r"""Compute $\partial\ell/\partial s = p \sum_k y_k p_k^q - y \circ p^q$.

    For one-hot targets that is $p_y^q (p - y)$, and $p - y$ at q = 0. It follows from
    $\partial \log p_k / \partial s_j = [k = j] - p_j$.
    """
    y = smooth(y, hyperparams, 1 / len(logits))
    pull = y * jnp.exp(hyperparams.q * jax.nn.log_softmax(logits))
    return softmax_probabilities(logits) * jnp.sum(pull) - pull


@vmap_examples
def binary_cross_entropy(logits: Logits, y: Targets, hyperparams: Hyperparams) -> Float[Array, ""]:
    r"""Compute $\ell = \frac1K \sum_k [(1-y_k) (1 - (1-p_k)^q)/q + y_k (1 - p_k^q)/q]$ with $p = \sigma(s)$.

    For q = 0 that is $-\frac1K \sum_k [(1-y_k)\log(1-p_k) + y_k \log p_k]$. It is computed through
    $\log\sigma(s)$ and $\log\sigma(-s)$, and so it is finite for finite logits.
    Smoothing takes u = 1/2, because each label is a problem of two classes.
    """
    q, y = hyperparams.q, smooth(y, hyperparams, 1 / 2)
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return jnp.mean((1 - y) * lq_term(log_not_p, q) + y * lq_term(log_p, q))


@vmap_examples
def binary_cross_entropy_gradient(logits: Logits, y: Targets, hyperparams: Hyperparams) -> Logits:
    r"""Compute $\partial\ell/\partial s = [(1-y)\,p\,(1-p)^q - y\,(1-p)\,p^q] / K$.

    At q = 0 that is $(p - y)/K$. It follows from $\sigma' = \sigma (1 - \sigma)$.
    """
    q, y = hyperparams.q, smooth(y, hyperparams, 1 / 2)
    p_q, not_p_q = jnp.exp(q * jax.nn.log_sigmoid(logits)), jnp.exp(q * jax.nn.log_sigmoid(-logits))
    p, not_p = sigmoid_probabilities(logits), sigmoid_probabilities(-logits)
    return ((1 - y) * p * not_p_q - y * not_p * p_q) / logits.shape[0]


class Loss(NamedTuple):
    """A named loss, its gradient and its probabilities.

    `value` maps logits [n, K], targets [n, K] and hyperparameters to losses [n]. `gradient` takes the same
    and returns each example's own derivatives [n, K]. `probabilities` maps logits [n, K] to probabilities
    [n, K]. `reported_at` names the axes that the loss reads, each with the value at which the loss is
    reported whatever was trained, so that reported losses compare.
    """

    name: str
    value: Callable[..., Float[Array, " n"]]
    gradient: Callable[..., Float[Array, "n K"]]
    probabilities: Callable[[Float[Array, "n K"]], Float[Array, "n K"]]
    reported_at: tuple[tuple[str, float], ...] = ()

    @classmethod
    def from_value(
        cls,
        name: str,
        value: Callable[..., Float[Array, ""]],
        probabilities: Callable[[Float[Array, "n K"]], Float[Array, "n K"]] = softmax_probabilities,
        **reported_at: float,
    ) -> "Loss":
        """Make a loss from its value on one example; its gradient comes from `jax.grad`.

        Each call makes a new loss, for which JAX compiles a new program: make it once.

        Args:
          name: name under which results and snapshots mention the loss.
          value: maps logits [K] and targets [K] of one example to a scalar; or logits, targets and
            hyperparameters, if it reads any.
          probabilities: maps logits [n, K] to probabilities [n, K].
          **reported_at: the axes that `value` reads, each with the value at which the loss is reported.

        Raises:
          ValueError: if the name is that of a built-in loss, `value` is no function, or a value is out of
            its axis's limits.

        Example:
          hinge = Loss.from_value("hinge", lambda s, y: jnp.sum(jnp.maximum(0, 1 - (2 * y - 1) * s)))

        The README of this package has a focal loss that reads an axis of its own.
        """
        if not callable(value):
            raise ValueError(f"value is {describe(value)}: give a function of logits [K] and targets [K]")
        reported = tuple((axis, get_axis(axis).check(number)) for axis, number in reported_at.items())

        def value_of_one(logits: Logits, y: Targets, hyperparams: Hyperparams) -> Float[Array, ""]:
            return value(logits, y, hyperparams) if reported else value(logits, y)

        batched, gradient = vmap_examples(value_of_one), vmap_examples(jax.grad(value_of_one))
        setattr(batched, MADE_FROM, value)
        return get_loss(cls(name, batched, gradient, probabilities, reported))

    def reported_hyperparams(self) -> Hyperparams:
        """Return the hyperparameters at which the loss is reported."""
        return Hyperparams(**dict(self.reported_at))


# The axes that the built-in losses read, and the values at which they are reported.
READ = (("q", 0.0), ("smoothing", 0.0))
LOSSES = {
    loss.name: loss
    for loss in (
        Loss("softmax", softmax_cross_entropy, softmax_cross_entropy_gradient, softmax_probabilities, READ),
        Loss("bce", binary_cross_entropy, binary_cross_entropy_gradient, sigmoid_probabilities, READ),
    )
}


def get_loss(loss: str | Loss) -> Loss:
    """Return the loss of that name; return a `Loss` unchanged.

    Raises:
      ValueError: if there is none, a function is given in place of a loss, or a loss of one's own has the
        name of a built-in one. The message names the losses there are.
    """
    found: Any = look_up("loss", loss, LOSSES)
    names = ", ".join(LOSSES)
    if not isinstance(found, Loss):
        raise ValueError(
            f"loss is {describe(found)}: choose one of {names}, or make one by lc.Loss.from_value"
        )
    if not isinstance(found.name, str):
        raise ValueError(f"loss has the name {describe(found.name)}: give a string")
    if found.name in LOSSES and found != LOSSES[found.name]:
        raise ValueError(f"loss has the name {found.name!r} of a built-in one: give it another name")
    return found


@lru_cache(maxsize=256)
def check_outputs(loss: Loss, K: int) -> None:
    """Raise ValueError if a loss cannot be used for K outputs.

    The softmax of one output is always 1. A loss of one's own must return a number for each example.
    """
    if K == 1 and loss.probabilities is softmax_probabilities:
        raise ValueError(
            f"loss is {loss.name}, and there is one output, whose softmax is always 1: give loss='bce', or a "
            "loss with probabilities=lc.sigmoid_probabilities"
        )
    logits = jax.ShapeDtypeStruct((2, K), jnp.float32)
    # No others than those in `reported_at`: reading one that is not there is an error.
    names = tuple(name for name, _ in loss.reported_at)
    hyperparams = Hyperparams.make(names, (jax.ShapeDtypeStruct((), jnp.float32),) * len(names))
    try:
        shapes = [
            jax.eval_shape(function, logits, logits, hyperparams).shape
            for function in (loss.value, loss.gradient)
        ]
    # It is the user's function, which may raise anything.
    except Exception as error:
        raise ValueError(
            f"loss {loss.name} fails on logits [n, {K}] ({one_line(error)}): see lc.Loss.from_value"
        ) from error
    if shapes != [(2,), (2, K)]:
        raise ValueError(f"loss {loss.name} returns {shapes[0]} for 2 examples: give one number for each")
