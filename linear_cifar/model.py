"""Logits, probabilities and predictions of a single-layer classifier."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from linear_cifar.arguments import check_choice, describe
from linear_cifar.params import Params
from linear_cifar.rounding import as_floats

# Full float32 products. Accelerators would otherwise round the operands to TF32 or bfloat16.
FULL_PRECISION = "float32"
BFLOAT16 = "bfloat16"
PRECISIONS = (FULL_PRECISION, "tensorfloat32", BFLOAT16)


def multiply(
    a: Float[Array | np.ndarray, "m k"], b: Float[Array | np.ndarray, "k n"], precision: str = FULL_PRECISION
) -> Float[Array, "m n"]:
    """Return the matrix product of a and b, in their floating-point type.

    `precision` is one of the following. float64 is never rounded.

    - `float32`: no rounding.
    - `tensorfloat32`: an accelerator rounds the operands. A GPU uses TF32 (10 bits), a TPU three products of
      bfloat16. A CPU does not round.
    - `bfloat16`: every device rounds the operands to 7 bits, and adds the products up in float32.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision == BFLOAT16 and a.dtype == jnp.float32:
        return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=a.dtype)
    return jnp.matmul(a, b, precision=FULL_PRECISION if precision == BFLOAT16 else precision)


def compute_logits(
    params: Params, x: Num[Array | np.ndarray, "n d"], precision: str = FULL_PRECISION
) -> Float[Array, "n K"]:
    r"""Compute the logits $s = W x + b$ of every example.

    Args:
      params: W [K, d] and b [K].
      x: features, standardised where the model expects it.
      precision: precision of the product, see `multiply`.

    Raises:
      ValueError: if the features are not of the parameters' d.
    """
    x = as_floats("x", x, params.W.dtype)
    if len(x.shape) != 2 or x.shape[1] != params.W.shape[-1]:
        raise ValueError(
            f"x is {describe(x)}: W is {tuple(params.W.shape)}, so give features [n, {params.W.shape[-1]}]"
        )
    # W @ x.T instead of x @ W.T: under vmap over configurations the leading axes of W merge, and
    # all configurations become one wide product (twice as fast on a CPU).
    return (multiply(params.W, x.T, precision) + params.b[:, None]).T


def softmax_probabilities(logits: Float[Array | np.ndarray, "*n K"]) -> Float[Array, "*n K"]:
    """Return the probabilities of K exclusive classes; each row sums to 1."""
    return jax.nn.softmax(logits, axis=-1)


def sigmoid_probabilities(logits: Float[Array | np.ndarray, "*n K"]) -> Float[Array, "*n K"]:
    """Return the probabilities of K independent labels."""
    return jax.nn.sigmoid(logits)


def predict_class(logits: Float[Array | np.ndarray, "*n K"]) -> Int[Array, "*n"]:
    """Return the class with the highest logit, which is also the most probable one.

    Softmax and sigmoid both keep the order of the logits.
    """
    return jnp.argmax(logits, axis=-1)


def predict_labels(
    probabilities: Float[Array | np.ndarray, "n K"], threshold: float = 0.5
) -> Bool[Array, "n K"]:
    """Mark every label whose probability is ≥ `threshold`: none, one or several per example."""
    return jnp.asarray(probabilities) >= threshold


def vmap_examples(per_example: Callable[..., Array]) -> Callable[..., Shaped[Array, "n *out"]]:
    """Turn a function of one example into a function of n examples.

    Args:
      per_example: maps logits [K], targets [K] and further shared arguments to a scalar or to [K].

    Returns:
      A function of logits [n, K], targets [n, K] and the same shared arguments, to [n] or [n, K].
    """

    @wraps(per_example)
    def batched(logits: Float[Array, "n K"], y: Float[Array, "n K"], *shared: Any) -> Shaped[Array, "n *out"]:
        def call(logits: Float[Array, " K"], y: Float[Array, " K"]) -> Array:
            return per_example(logits, y, *shared)

        # Examples lie along the last axis, as `compute_logits` makes them: K is small, and so a CPU's
        # vector units take many examples at once.
        return jax.vmap(call, in_axes=-1, out_axes=-1)(logits.T, y.T).T

    return batched


@vmap_examples
def is_correct(logits: Float[Array, " K"], y: Float[Array, " K"], top: int) -> Bool[Array, ""]:
    """Tell whether the example's class, from a one-hot target, has one of the `top` highest logits.

    Of equal logits the first one counts as the highest, as in `predict_class`.
    """
    # Sums in place of the arg max, which takes a CPU longer, or of `logits[label]`: XLA of jaxlib 0.10.0
    # gathers wrong elements where runs are divided over devices.
    places = jnp.arange(len(logits))
    true_logit, true = (jnp.sum(jnp.where(y > 0, values, 0)) for values in (logits, places))
    # False for NaN, which is then higher.
    lower = (logits < true_logit) | ((logits == true_logit) & (places >= true))
    return jnp.sum(~lower) < top


def share_correct_labels(probabilities: Float[Array, "n K"], y: Float[Array, "n K"]) -> Float[Array, " n"]:
    """Return the share of each example's labels that are predicted right, see `predict_labels`."""
    right = predict_labels(probabilities) == predict_labels(y)
    return jnp.mean(right, axis=-1, dtype=probabilities.dtype)
