"""Loss and accuracy of many classifiers on the same examples."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from linear_cifar.arguments import as_whole, describe, is_traced
from linear_cifar.batches import Index, fold_batches, take_rows
from linear_cifar.examples import LABELS, SOFT, Examples, check_examples, expand_targets
from linear_cifar.losses import Loss, check_outputs, get_loss
from linear_cifar.model import (
    FULL_PRECISION,
    compute_logits,
    is_correct,
    multiply,
    predict_class,
    share_correct_labels,
)
from linear_cifar.params import Params, as_params
from linear_cifar.standardizer import Standardizer, as_standardizer, prepare_features, standardize

# Examples evaluated at a time: bounds the float copy of the features, and is wide enough for speed.
EXAMPLES_AT_ONCE = 1_000


# (logits [n, K], targets [n, K]) → arrays of the n examples, or their sums.
Measure = Callable[[Array, Array], Any]
# Indices of the examples that each of R replicates is measured on.
Rows = Integer[Array | np.ndarray, "R m"] | None


class Metrics(NamedTuple):
    """Loss and accuracy of each run: means over examples, or their sums or single values where stated.

    The loss is without the penalty. It is the reported one (q = 0) for every q that was trained, so that runs
    compare. Accuracy is the share of correct predictions in [0, 1], or their number as a sum; see `Examples`.
    """

    loss: Float[Array | np.ndarray, "*runs"]
    accuracy: Float[Array | np.ndarray, "*runs"]


def evaluate(
    params: Params,
    examples: Examples,
    loss: str | Loss,
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
    rows: Rows = None,
) -> Metrics:
    """Measure every run on the examples.

    Args:
      params: W [*runs, K, d] and b [*runs, K].
      examples: n examples.
      loss: the loss to measure, or the name of one.
      standardizer: mean and std [d] of the training features, or [R, d] for runs [R, ...] whose replicates
        have one each. None: the features are used as they are.
      precision: precision of the product, see `multiply`.
      rows: indices [R, m] of the examples that runs [R, ...] are measured on, as where each replicate is a
        fold. None: all examples.

    Returns:
      Mean losses and accuracies [*runs] as NumPy arrays, in the parameters' type. An accuracy is NaN where
      the parameters are not finite.

    Raises:
      ValueError: if an argument is of another kind or shape.
    """
    loss = get_loss(loss)
    params, examples, standardizer = _prepare(params, examples, standardizer, rows)
    check_outputs(loss, examples.K)
    metrics = compute_metrics(params, examples, loss, standardizer, precision, rows)
    # The predictions of parameters that are not finite mean nothing.
    return metrics._replace(
        accuracy=np.where(is_finite(params), metrics.accuracy, np.nan).astype(metrics.accuracy.dtype)
    )


def compute_metrics(
    params: Params,
    examples: Examples,
    loss: Loss,
    standardizer: Standardizer | None,
    precision: str,
    rows: Rows,
) -> Metrics:
    """Evaluate runs as `evaluate` does, from checked arguments and prepared features."""
    measure = _make_metrics_sum(loss, examples.kind)
    sums = _sum_examples(measure, params, examples, standardizer, precision, rows)
    return mean_metrics(sums, _num_measured(examples, rows))


def lower_metrics(
    params: Params,
    examples: Examples,
    loss: Loss,
    standardizer: Standardizer | None,
    precision: str,
    rows: Rows,
) -> jax.stages.Lowered:
    """Return the program of `compute_metrics` for arrays like these, which uses it once it is compiled."""
    measure = _make_metrics_sum(loss, examples.kind)
    return _sum_examples.lower(measure, params, examples, standardizer, precision, rows)


def confusion_matrix(
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
) -> Float[np.ndarray, "*runs K K"]:
    """Count each run's predictions: a row per true class, a column per predicted class.

    Args:
      params, standardizer, precision: as for `evaluate`.
      examples: n examples of one class each; of soft targets that is the class with the largest share.

    Returns:
      Whole numbers in the parameters' type; each matrix sums to n.

    Raises:
      ValueError: if examples have several labels, or an argument is of another kind or shape.
    """
    params, examples, standardizer = _prepare(params, examples, standardizer, None)
    if examples.kind == LABELS:
        raise ValueError("examples are of the kind 'labels': a confusion matrix needs one class each")
    return np.asarray(_sum_examples(_count_predictions, params, examples, standardizer, precision, None))


def mark_correct(
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
    rows: Rows = None,
    loss: str | Loss | None = None,
    top: int = 1,
) -> Bool[np.ndarray, "*runs n"] | Float[np.ndarray, "*runs n"]:
    """Mark the examples that each run predicts right.

    The marks are for the functions of `linear_cifar.uncertainty`.

    Args:
      params, examples, standardizer, precision, rows: as for `evaluate`.
      loss: the loss whose probabilities decide on labels; needed for examples of the kind `labels` only.
      top: a prediction is right if the class is among the `top` highest logits; of equal logits the first
        class counts as the highest. Above 1 not for the kind `labels`.

    Returns:
      True where a prediction is right, see `Examples`. For the kind `labels`, the share of each example's
      labels that is right. Runs whose parameters are not finite get False or 0 throughout.

    Raises:
      ValueError: if an argument is of another kind or shape.
    """
    params, examples, standardizer = _prepare(params, examples, standardizer, rows)
    if examples.kind == LABELS and loss is None:
        raise ValueError(
            "loss is None: give the loss whose probabilities predict the labels of these examples"
        )
    if as_whole("top", top, 1) > 1 and examples.kind == LABELS:
        raise ValueError(f"top is {top}: examples of the kind 'labels' have no one class, so give 1")
    found = None if loss is None else get_loss(loss)
    if found is not None:
        check_outputs(found, examples.K)
    measure = _make_marks(found, examples.kind, top)
    # On the device once, and not again for each chunk.
    params, standardizer = jax.tree.map(jnp.asarray, (params, standardizer))
    marked = []
    n, at_once = _num_measured(examples, rows), _examples_at_once(params, standardizer, rows)
    for start in range(0, n, at_once):
        chunk, chosen = examples, rows
        if n > at_once:
            chunk, chosen = _take_chunk(examples, rows, start, min(at_once, n - start))
        marked.append(np.asarray(_measure_runs(measure, params, chunk, standardizer, precision, chosen)))
    return np.concatenate(marked, axis=-1) * np.asarray(is_finite(params))[..., None]


def mean_class_accuracy(
    correct: Bool[Array | np.ndarray, "*runs n"], labels: Integer[Array | np.ndarray, "*replicates n"]
) -> Float[np.ndarray, "*runs"]:
    """Compute the accuracy on the examples of each class, and average over the classes.

    Every class counts alike, however many examples it has; scikit-learn calls this `balanced_accuracy_score`.
    Classes without examples are left out.

    Args:
      correct: which of n ≥ 1 examples each run predicts right, see `mark_correct`.
      labels: class of each example, [n], or [R, n] for runs [R, ...] that are measured on other examples.

    Returns:
      Shares in [0, 1], in float64.

    Raises:
      ValueError: if there is not one label for each example.
    """
    correct, labels = np.asarray(correct), np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or (
        correct.size and not 0 <= correct.min() <= correct.max() <= 1
    ):
        raise ValueError(
            f"correct is {describe(correct)} and labels is {describe(labels)}: give marks from 0 to 1, and "
            "whole-number labels"
        )
    if labels.shape[-1:] != correct.shape[-1:]:
        raise ValueError(f"correct is {correct.shape} and labels is {labels.shape}: give one label each")
    if labels.ndim == 2:
        return np.stack([mean_class_accuracy(*pair) for pair in zip(correct, labels, strict=True)])
    by_class = [correct[..., labels == label].mean(axis=-1) for label in np.unique(labels)]
    return np.mean(by_class, axis=0)


def _prepare(
    params: Params, examples: Examples, standardizer: Standardizer | None, rows: Rows
) -> tuple[Params, Examples, Standardizer | None]:
    """Return checked arguments that fit one another, with features that the parameters' type can hold."""
    check_examples("examples", examples)
    d, K = examples.features.shape[1], examples.K
    params = as_params(params, (K, d))
    runs = params.W.shape[:-2]
    standardizer = as_standardizer(standardizer, d, stacked=True)
    if standardizer is not None and standardizer.mean.ndim == 2 and standardizer.mean.shape[:1] != runs[:1]:
        raise ValueError(f"{len(standardizer.mean)} standardisers are given for runs {runs}: give one each")
    if rows is not None:
        check_rows(rows, runs[:1], len(examples))
    (features,), prepared = prepare_features([examples.features], standardizer, params.W.dtype)
    return params, examples.replace_features(features), prepared


@jax.jit
def is_finite(params: Params) -> Bool[Array, "*runs"]:
    """Tell for each run whether all its parameters are finite."""
    return jnp.isfinite(params.W).all(axis=(-2, -1)) & jnp.isfinite(params.b).all(axis=-1)


def check_rows(rows: Rows, replicates: tuple[int, ...], n: int) -> None:
    """Raise ValueError if rows are not indices [R, m] of n examples; `replicates` is the shape (R,)."""
    if is_traced(rows):
        return
    known = np.asarray(rows)
    if known.ndim != 2 or known.shape[:1] != replicates or not np.issubdtype(known.dtype, np.integer):
        raise ValueError(f"the rows are {describe(known)}: give indices [R, m] with (R,) = {replicates}")
    if known.size and not 0 <= known.min() <= known.max() < n:
        raise ValueError(f"the rows go from {known.min()} to {known.max()}: give rows from 0 to {n - 1}")


@cache
def _make_metrics_sum(loss: Loss, kind: str) -> Measure:
    """Return the same function each time, because JAX compiles a program for each function it meets."""
    return lambda logits, y: jax.tree.map(jnp.sum, measure_examples(logits, y, loss, kind))


@cache
def _make_marks(loss: Loss | None, kind: str, top: int) -> Measure:
    """Return the same function each time, see `_make_metrics_sum`."""
    return lambda logits, y: _measure_correct(logits, y, loss, kind, top)


def _measure_correct(
    logits: Float[Array, "n K"], y: Float[Array, "n K"], loss: Loss | None, kind: str, top: int = 1
) -> Bool[Array, " n"] | Float[Array, " n"]:
    """Return for each example whether its prediction is right; for labels, the share that is right."""
    if kind == SOFT:
        y = jax.nn.one_hot(predict_class(y), y.shape[1])
    if kind != LABELS:
        return is_correct(logits, y, top)
    assert loss is not None, "labels are predicted from probabilities"
    return share_correct_labels(loss.probabilities(logits), y)


def _count_predictions(logits: Float[Array, "n K"], y: Float[Array, "n K"]) -> Float[Array, "K K"]:
    """Count the examples of each true class (rows) that are predicted to be of each class (columns)."""
    true, predicted = (
        jax.nn.one_hot(predict_class(scores), y.shape[1], dtype=y.dtype) for scores in (y, logits)
    )
    return multiply(true.T, predicted)


@partial(jax.jit, static_argnames=("measure", "precision"))
def _sum_examples(
    measure: Measure,
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None,
    precision: str,
    rows: Rows,
) -> Any:
    """Sum over the examples what `measure` returns for some of them, for each run."""
    n = _num_measured(examples, rows)

    def measure_chunk(start: Index, size: int) -> Any:
        chunk, chosen = _take_chunk(examples, rows, start, size)
        return _measure_runs(measure, params, chunk, standardizer, precision, chosen)

    def add_chunk(sums: Any, start: Index, size: int) -> Any:
        return jax.tree.map(jnp.add, sums, measure_chunk(start, size))

    shapes = jax.eval_shape(lambda: measure_chunk(0, 1))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return fold_batches(add_chunk, zeros, n, min(_examples_at_once(params, standardizer, rows), n))


@partial(jax.jit, static_argnames=("measure", "precision"))
def _measure_runs(
    measure: Measure,
    params: Params,
    examples: Examples,
    standardizer: Standardizer | None,
    precision: str,
    rows: Rows,
) -> Any:
    """Return what `measure` returns for the examples, or for each replicate's rows of them, for each run."""
    runs, dtype = params.W.shape[:-2], params.W.dtype

    def measure_replicate(params: Params, standardizer: Standardizer | None, rows: Any) -> Any:
        features, compact = jnp.asarray(examples.features), jnp.asarray(examples.compact)
        if rows is not None:
            features, compact = features[rows], compact[rows]
        x, y = standardize(standardizer, features, dtype), expand_targets(compact, examples.K, dtype)

        def measure_run(params: Params) -> Any:
            return measure(compute_logits(params, x, precision), y)

        measure_runs = measure_run
        for _ in runs[1:]:
            measure_runs = jax.vmap(measure_runs)
        return measure_runs(params)

    if not runs:
        return measure_replicate(params, standardizer, None)
    # A shared standardiser has no replicate axis: the examples are then standardised once for all.
    axis = 0 if _has_replicates(standardizer) else None
    return jax.vmap(measure_replicate, in_axes=(0, axis, None if rows is None else 0))(
        params, standardizer, rows
    )


def _has_replicates(standardizer: Standardizer | None) -> bool:
    """Tell whether each replicate has its own mean and standard deviation."""
    return standardizer is not None and standardizer.mean.ndim == 2


def _num_measured(examples: Examples, rows: Rows) -> int:
    """Return the number of examples that each run is measured on."""
    return examples.features.shape[0] if rows is None else rows.shape[1]


@partial(jax.jit, static_argnames="size")
def _take_chunk(
    examples: Examples, rows: Rows, start: Index, size: int
) -> tuple[Examples, Integer[Array, "R size"] | None]:
    """Return the next examples to measure; or all of them, and the next rows of each replicate."""
    if rows is None:
        return jax.tree.map(lambda leaf: take_rows(leaf, start, size), examples), None
    return examples, jax.lax.dynamic_slice_in_dim(rows, start, size, axis=1)


def _examples_at_once(params: Params, standardizer: Standardizer | None, rows: Rows) -> int:
    """Return how many examples to evaluate at a time."""
    # With rows or a standardiser of its own, each replicate has a float copy of the examples.
    copies = 1 if rows is None and not _has_replicates(standardizer) else params.W.shape[0]
    return max(1, EXAMPLES_AT_ONCE // copies)


def mean_metrics(sums: Metrics, n: int) -> Metrics:
    """Divide sums over n examples by n, as NumPy arrays.

    NumPy divides exactly. XLA would multiply by the reciprocal: 107 of 250 would not be 0.428.
    """
    return jax.tree.map(lambda total: np.asarray(total) / np.asarray(n, total.dtype), sums)


def measure_examples(logits: Float[Array, "n K"], y: Float[Array, "n K"], loss: Loss, kind: str) -> Metrics:
    """Return the loss of each of n examples, and the share of its prediction that is right, both [n]."""
    correct = _measure_correct(logits, y, loss, kind)
    return Metrics(loss.value(logits, y, loss.reported_hyperparams()), correct.astype(logits.dtype))
