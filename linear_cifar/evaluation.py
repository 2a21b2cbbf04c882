"""Loss and accuracy of many classifiers on the same examples."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from linear_cifar.batches import Index, fold_batches, take_rows
from linear_cifar.examples import Examples
from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION, compute_logits, is_correct
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, standardize

# Examples evaluated at a time: bounds the float copy of the features, and is wide enough for speed.
EXAMPLES_AT_ONCE = 1_000


class Metrics(NamedTuple):
    """Loss and accuracy of each run: means over examples, or their sums or single values where stated.

    The loss is without the penalty and with q = 0, whatever was trained, so that runs compare. Accuracy is
    the share of correct predictions in [0, 1]; as a sum, their number.
    """

    loss: Float[Array | np.ndarray, "*runs"]
    accuracy: Float[Array | np.ndarray, "*runs"]


def evaluate(
    params: Params,
    examples: Examples,
    loss: Loss,
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
) -> Metrics:
    """Measure every run on all the examples.

    Args:
      params: W [*runs, K, d] and b [*runs, K].
      examples: n examples.
      loss: the loss to measure.
      standardizer: mean and std [d] of the training features, or [R, d] for runs [R, ...] whose replicates
        have one each. None: the features are used as they are.
      precision: precision of the product, see `multiply`.

    Returns:
      Mean losses and accuracies [*runs] as NumPy arrays, in the parameters' type.
    """
    sums = _sum_metrics(params, examples, loss, standardizer, precision)
    return mean_metrics(sums, examples.features.shape[0])


@partial(jax.jit, static_argnames=("loss", "precision"))
def _sum_metrics(
    params: Params, examples: Examples, loss: Loss, standardizer: Standardizer | None, precision: str
) -> Metrics:
    """Sum losses and correct predictions over the examples."""
    runs, n, dtype = params.W.shape[:-2], examples.features.shape[0], params.W.dtype
    own_standardizers = standardizer is not None and standardizer.mean.ndim == 2

    def add_chunk(sums: Metrics, start: Index, size: int) -> Metrics:
        features = take_rows(examples.features, start, size)
        y = take_rows(examples.targets, start, size).astype(dtype)

        def measure_replicate(params: Params, standardizer: Standardizer | None) -> Metrics:
            x = standardize(standardizer, features, dtype)

            def measure_run(params: Params) -> Metrics:
                measured = measure_examples(compute_logits(params, x, precision), y, loss)
                return jax.tree.map(jnp.sum, measured)

            measure_runs = measure_run
            for _ in runs[1:]:
                measure_runs = jax.vmap(measure_runs)
            return measure_runs(params)

        measure_all = measure_replicate
        if runs:
            # A shared standardiser has no replicate axis: the chunk is then standardised once for all.
            measure_all = jax.vmap(measure_replicate, in_axes=(0, 0 if own_standardizers else None))
        return jax.tree.map(jnp.add, sums, measure_all(params, standardizer))

    zeros = Metrics(jnp.zeros(runs, dtype), jnp.zeros(runs, dtype))
    # With standardisers of their own, each replicate has a float copy of the chunk.
    at_once = EXAMPLES_AT_ONCE // runs[0] if own_standardizers else EXAMPLES_AT_ONCE
    return fold_batches(add_chunk, zeros, n, min(max(1, at_once), n))


def mean_metrics(sums: Metrics, n: int) -> Metrics:
    """Divide sums over n examples by n, as NumPy arrays.

    NumPy divides exactly. XLA would multiply by the reciprocal: 107 of 250 would not be 0.428.
    """
    return jax.tree.map(lambda total: np.asarray(total) / np.asarray(n, total.dtype), sums)


def measure_examples(logits: Float[Array, "n K"], y: Float[Array, "n K"], loss: Loss) -> Metrics:
    """Return the loss of each of n examples, and 1 or 0 for a correct or a wrong prediction, all [n]."""
    return Metrics(loss.value(logits, y), is_correct(logits, y).astype(logits.dtype))
