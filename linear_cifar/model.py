"""Scores, probabilities and predictions of a single-layer classifier."""

from collections.abc import Callable
from functools import wraps

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from linear_cifar.params import Params

# float32 products in full: accelerators otherwise round their operands to TF32 or bfloat16.
FULL_PRECISION = "float32"


def logits(params: Params, x: Float[Array, "n d"], precision: str = FULL_PRECISION) -> Float[Array, "n K"]:
    r"""Scores s = W x + b of every example.

    Args:
      params: W [K, d] and b [K].
      x: features, of the parameters' floating-point type.
      precision: of the product, as `jax.numpy.matmul` takes it: `float32` or `tensorfloat32`.
        It matters on accelerators only; float64 is never rounded.
    """
    # W @ x.T rather than x @ W.T: under vmap over configurations the leading axes of W merge, and
    # the products of all configurations become one wide one (twice as fast on a CPU).
    return (jnp.matmul(params.W, x.T, precision=precision) + params.b[:, None]).T


def softmax_probabilities(scores: Float[Array, "*n K"]) -> Float[Array, "*n K"]:
    """Probabilities of K exclusive classes; each row sums to 1."""
    return jax.nn.softmax(scores, axis=-1)


def sigmoid_probabilities(scores: Float[Array, "*n K"]) -> Float[Array, "*n K"]:
    """Probabilities of K independent labels."""
    return jax.nn.sigmoid(scores)


def predict_class(scores: Float[Array, "*n K"]) -> Int[Array, "*n"]:
    """The class of the highest score; softmax and sigmoid keep the order, so it is theirs too."""
    return jnp.argmax(scores, axis=-1)


def predict_labels(probabilities: Float[Array, "n K"], threshold: float = 0.5) -> Bool[Array, "n K"]:
    """Every label whose probability reaches the threshold: none, one or several."""
    return probabilities >= threshold


def of_each(of_one: Callable[..., Array]) -> Callable[..., Shaped[Array, "n *out"]]:
    """A function of one example's scores and targets [K], for n of them [n, K]: to [n] or [n, K].

    Further arguments are shared by the examples.
    """

    @wraps(of_one)
    def of_all(
        scores: Float[Array, "n K"], y: Float[Array, "n K"], *shared: Shaped[Array, ""] | float
    ) -> Shaped[Array, "n *out"]:
        # With the examples along the last axis, as `logits` computes them, a CPU's vector units take many
        # at once; K is small.
        def of_these(scores: Float[Array, " K"], y: Float[Array, " K"]) -> Array:
            return of_one(scores, y, *shared)

        return jax.vmap(of_these, in_axes=-1, out_axes=-1)(scores.T, y.T).T

    return of_all


@of_each
def hits(scores: Float[Array, " K"], y: Float[Array, " K"]) -> Bool[Array, ""]:
    """Whether the predicted class is one of the example's labels (for one-hot y: is its label)."""
    return y[predict_class(scores)] > 0
