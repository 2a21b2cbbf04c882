"""Loss and accuracy of many classifiers on the same examples."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Num

from linear_cifar.batches import Index, over_batches, rows
from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION, hits, logits
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, standardize

# Examples evaluated at a time: bounds the float copy of the features, and is wide enough for speed.
CHUNK = 1_000


class Examples(NamedTuple):
    """Raw features (pixels as they were read) and one- or multi-hot targets."""

    features: Num[Array, "n d"]
    targets: Float[Array, "n K"]


class Metrics(NamedTuple):
    """Loss and accuracy of each run: means, or sums where said so.

    The loss is without the penalty and cross-entropy (q = 0) whatever was trained with, so that runs compare.

    Accuracy is the share of hits, in [0, 1]; as a sum, their number.
    """

    loss: Float[Array | np.ndarray, "*runs"]
    accuracy: Float[Array | np.ndarray, "*runs"]


def examples(
    features: Num[Array | np.ndarray, "n d"], labels: Integer[Array | np.ndarray, " n"], K: int
) -> Examples:
    """Examples from labels 0 … K−1 instead of targets."""
    return Examples(jnp.asarray(features), jax.nn.one_hot(labels, K, dtype=jnp.float32))


def evaluate(
    params: Params,
    examples: Examples,
    standardizer: Standardizer,
    loss: Loss,
    precision: str = FULL_PRECISION,
) -> Metrics:
    """Metrics of every run over all the examples.

    Args:
      params: W [*runs, K, d] and b [*runs, K].
      examples: what to evaluate on.
      standardizer: of the training split.
      loss: which loss.
      precision: of the product, see `logits`.

    Returns:
      Mean losses and accuracies [*runs], in the parameters' type.
    """
    return mean(_total(params, examples, standardizer, loss, precision), examples.features.shape[0])


@partial(jax.jit, static_argnames=("loss", "precision"))
def _total(
    params: Params, examples: Examples, standardizer: Standardizer, loss: Loss, precision: str
) -> Metrics:
    """Losses and hits [*runs], summed over the examples."""
    runs, n, dtype = params.W.shape[:-2], examples.features.shape[0], params.W.dtype

    def add_chunk(sums: Metrics, start: Index, size: int) -> Metrics:
        x = standardize(standardizer, rows(examples.features, start, size), dtype)
        y = rows(examples.targets, start, size).astype(dtype)

        def of_one(params: Params) -> Metrics:
            return measure(logits(params, x, precision), y, loss)

        of_all = of_one
        for _ in runs:
            of_all = jax.vmap(of_all)
        return jax.tree.map(jnp.add, sums, of_all(params))

    zeros = Metrics(jnp.zeros(runs, dtype), jnp.zeros(runs, dtype))
    return over_batches(add_chunk, zeros, n, min(CHUNK, n))


def mean(sums: Metrics, n: int) -> Metrics:
    """Sums over n examples to means, as NumPy arrays.

    By NumPy, as XLA multiplies with the reciprocal of n instead: 107 hits of 250 would not be 0.428.
    """
    return jax.tree.map(lambda total: np.asarray(total) / np.asarray(n, total.dtype), sums)


def measure(scores: Float[Array, "n K"], y: Float[Array, "n K"], loss: Loss) -> Metrics:
    """Loss and hits of one run, summed over the examples."""
    return Metrics(jnp.sum(loss.value(scores, y)), jnp.sum(hits(scores, y), dtype=scores.dtype))
