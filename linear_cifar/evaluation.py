"""Loss and accuracy of many classifiers on the same examples."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from linear_cifar.batches import Index, fold_batches, take_rows
from linear_cifar.examples import Examples
from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION, compute_logits, is_correct, multiply, predict_class
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, standardize

# Examples evaluated at a time: bounds the float copy of the features, and is wide enough for speed.
EXAMPLES_AT_ONCE = 1_000


# (logits [n, K], targets [n, K]) → arrays of the n examples, or their sums.
Measure = Callable[[Array, Array], Any]


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
    sums = _sum_examples(_make_metrics_sum(loss), params, examples, standardizer, precision)
    return mean_metrics(sums, examples.features.shape[0])


def mean_class_accuracy(
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
) -> Float[np.ndarray, "*runs"]:
    """Measure each run's accuracy on the examples of each class, and average over the classes.

    Every class counts alike, however many examples it has; scikit-learn calls this `balanced_accuracy_score`.
    Classes without examples are left out.

    Args:
      params, standardizer, precision: as for `evaluate`.
      examples: n examples with one-hot targets.

    Returns:
      Shares in [0, 1], in the parameters' type.
    """
    correct = np.asarray(_sum_examples(_count_correct, params, examples, standardizer, precision))
    counts = np.asarray(jnp.sum(examples.targets, axis=0)).astype(correct.dtype)
    present = counts > 0
    return (correct[..., present] / counts[present]).mean(axis=-1)


def confusion_matrix(
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
) -> Float[np.ndarray, "*runs K K"]:
    """Count each run's predictions: a row per true class, a column per predicted class.

    Args:
      params, standardizer, precision: as for `evaluate`.
      examples: n examples with one-hot targets.

    Returns:
      Whole numbers in the parameters' type; each matrix sums to n.
    """
    return np.asarray(_sum_examples(_count_predictions, params, examples, standardizer, precision))


def mark_correct(
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
) -> Bool[np.ndarray, "*runs n"]:
    """Mark the examples that each run predicts right.

    The marks are for the functions of `linear_cifar.uncertainty`.

    Args:
      params, examples, standardizer, precision: as for `evaluate`.

    Returns:
      True where the predicted class is one of the example's labels; False throughout where the parameters are
      not finite.
    """
    # On the device once, and not again for each chunk.
    params, standardizer = jax.tree.map(jnp.asarray, (params, standardizer))
    marked = []
    at_once = _examples_at_once(params, standardizer)
    for start in range(0, examples.features.shape[0], at_once):
        rows = slice(start, start + at_once)
        chunk = Examples(examples.features[rows], examples.targets[rows])
        marked.append(np.asarray(_measure_runs(is_correct, params, chunk, standardizer, precision)))
    finite = jnp.isfinite(params.W).all(axis=(-2, -1)) & jnp.isfinite(params.b).all(axis=-1)
    return np.concatenate(marked, axis=-1) & np.asarray(finite)[..., None]


@cache
def _make_metrics_sum(loss: Loss) -> Measure:
    """Return the same function each time, because JAX compiles a program for each function it meets."""
    return lambda logits, y: jax.tree.map(jnp.sum, measure_examples(logits, y, loss))


def _count_correct(logits: Float[Array, "n K"], y: Float[Array, "n K"]) -> Float[Array, " K"]:
    """Count the correct predictions among the examples of each class."""
    correct = is_correct(logits, y).astype(y.dtype)
    return multiply(correct[None, :], y)[0]


def _count_predictions(logits: Float[Array, "n K"], y: Float[Array, "n K"]) -> Float[Array, "K K"]:
    """Count the examples of each true class (rows) that are predicted to be of each class (columns)."""
    return multiply(y.T, jax.nn.one_hot(predict_class(logits), y.shape[1], dtype=y.dtype))


@partial(jax.jit, static_argnames=("measure", "precision"))
def _sum_examples(
    measure: Measure,
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None,
    precision: str,
) -> Any:
    """Sum over the examples what `measure` returns for some of them, for each run."""
    n = examples.features.shape[0]

    def measure_chunk(start: Index, size: int) -> Any:
        chunk = jax.tree.map(lambda leaf: take_rows(leaf, start, size), examples)
        return _measure_runs(measure, params, chunk, standardizer, precision)

    def add_chunk(sums: Any, start: Index, size: int) -> Any:
        return jax.tree.map(jnp.add, sums, measure_chunk(start, size))

    shapes = jax.eval_shape(lambda: measure_chunk(0, 1))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return fold_batches(add_chunk, zeros, n, min(_examples_at_once(params, standardizer), n))


@partial(jax.jit, static_argnames=("measure", "precision"))
def _measure_runs(
    measure: Measure,
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None,
    precision: str,
) -> Any:
    """Return what `measure` returns for the examples, for each run."""
    runs, dtype = params.W.shape[:-2], params.W.dtype
    y = jnp.asarray(examples.targets, dtype)

    def measure_replicate(params: Params, standardizer: Standardizer | None) -> Any:
        x = standardize(standardizer, jnp.asarray(examples.features), dtype)

        def measure_run(params: Params) -> Any:
            return measure(compute_logits(params, x, precision), y)

        measure_runs = measure_run
        for _ in runs[1:]:
            measure_runs = jax.vmap(measure_runs)
        return measure_runs(params)

    if not runs:
        return measure_replicate(params, standardizer)
    # A shared standardiser has no replicate axis: the examples are then standardised once for all.
    axis = 0 if _has_replicates(standardizer) else None
    return jax.vmap(measure_replicate, in_axes=(0, axis))(params, standardizer)


def _has_replicates(standardizer: Standardizer | None) -> bool:
    """Tell whether each replicate has its own mean and standard deviation."""
    return standardizer is not None and standardizer.mean.ndim == 2


def _examples_at_once(params: Params, standardizer: Standardizer | None) -> int:
    """Return how many examples to evaluate at a time."""
    # With standardisers of their own, each replicate has a float copy of the examples.
    copies = params.W.shape[0] if _has_replicates(standardizer) else 1
    return max(1, EXAMPLES_AT_ONCE // copies)


def mean_metrics(sums: Metrics, n: int) -> Metrics:
    """Divide sums over n examples by n, as NumPy arrays.

    NumPy divides exactly. XLA would multiply by the reciprocal: 107 of 250 would not be 0.428.
    """
    return jax.tree.map(lambda total: np.asarray(total) / np.asarray(n, total.dtype), sums)


def measure_examples(logits: Float[Array, "n K"], y: Float[Array, "n K"], loss: Loss) -> Metrics:
    """Return the loss of each of n examples, and 1 or 0 for a correct or a wrong prediction, all [n]."""
    return Metrics(loss.value(logits, y), is_correct(logits, y).astype(logits.dtype))
