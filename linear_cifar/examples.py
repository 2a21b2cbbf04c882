"""Labelled examples, checked when they are made."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer, Num

from linear_cifar.arguments import as_numbers, as_whole, check_choice, describe, encode_groups, is_traced
from linear_cifar.devices import empty_aligned
from linear_cifar.rounding import is_wide

# Kinds of targets, see `Examples`.
CLASSES, SOFT, LABELS = KINDS = ("classes", "soft", "labels")
# Name of the examples to train on, beside the names of evaluation sets.
TRAINING = "training examples"
# Weights by which all classes weigh alike.
BALANCED = "balanced"
# Targets of soft classes sum to 1 up to this, so that float16 can hold them.
SUM_TOLERANCE = 1e-3
# Shares computed in float32 may exceed 1 by this much.
ROUNDING = 1e-6
# Bytes of features that are checked at a time.
_BYTES_AT_ONCE = 8 * 1024**2


class Examples:
    """n examples: raw features [n, d] (such as pixels as they were read), targets [n, K], and their kind.

    The kind says what the targets are, and when a prediction is right:

    | kind | targets | a prediction is right if |
    |---|---|---|
    | `classes` | one-hot: one class per example | the class with the highest logit is the target's |
    | `soft` | shares of classes, such as smoothed labels or mixup | that class has the largest share |
    | `labels` | multi-hot, or one output (K = 1): yes or no for each label | label by label, see below |

    A label is predicted where its probability is at least 1/2, and true where its target is at least 1/2.
    The accuracy of an example of kind `labels` is the share of its labels that are right. The kind belongs to
    the data set: a multi-hot row with a single label is still judged label by label.

    `features, targets = examples` unpacks the two arrays. JAX takes examples as a pytree. One-hot targets are
    kept as whole numbers, which take 4 bytes per example; `targets` makes the rows when it is asked for.
    """

    features: Num[Array | np.ndarray, "n d"]
    # The labels of the kind `classes`, or else the targets.
    compact: Integer[Array | np.ndarray, " n"] | Float[Array | np.ndarray, "n K"]
    K: int  # number of classes or labels
    kind: str
    weights: Float[Array | np.ndarray, " n"] | None  # factor of each example's loss in training; None: all 1
    groups: Integer[Array | np.ndarray, " n"] | None  # number of each example's group; None: there are none
    # Words that identify the examples where their maker knows them, so that a snapshot need not hash them.
    digest: str | None = None

    def __init__(
        self, features: Any, targets: Any, kind: str | None = None, weights: Any = None, groups: Any = None
    ) -> None:
        """Check features, targets, weights and groups.

        Args:
          features: numbers [n, d]: an array, a nested list or a DataFrame.
          targets: numbers from 0 to 1, [n, K].
          kind: one of the kinds above. None: `labels` for one output; else what all rows together show:
            `classes` if each is one-hot, `soft` if each sums to 1, `labels` if all targets are 0 or 1.
          weights: factors [n] of the examples' losses in training, not negative, as scikit-learn's
            `sample_weight`. Measured losses and accuracies are those of all examples alike. None: all are 1.
          groups: the group [n] of each example, such as its patient: words, numbers, or what else can be
            sorted. Intervals of accuracies are then about other groups, see `linear_cifar.uncertainty`.

        Raises:
          ValueError: if the shapes do not fit, a feature is not finite, a target is not from 0 to 1, or the
            targets do not fit `kind` or do not show one, or a weight or the groups are wrong. The message
            names the argument and the first wrong row.
        """
        self.features = as_features("features", features)
        rows = _as_targets(targets)
        if len(self.features) != len(rows):
            raise ValueError(
                f"features {self.features.shape} and targets {rows.shape} do not fit: give [n, d] and [n, K]"
            )
        if kind is not None:
            check_choice("kind", kind, KINDS)
        self.kind, self.K = _find_kind(rows, kind), rows.shape[1]
        self.compact = rows.argmax(axis=1).astype(np.int32) if self.kind == CLASSES else rows
        self.weights, self.groups = as_weights(weights, len(rows)), _as_groups(groups, len(rows))

    @property
    def targets(self) -> Float[Array | np.ndarray, "n K"]:
        """The targets as rows; those of one class are made in float32."""
        return expand_targets(self.compact, self.K, jnp.float32) if self.kind == CLASSES else self.compact

    @property
    def classes(self) -> Integer[Array | np.ndarray, " n"]:
        """The class of each example; of soft targets the one with the largest share."""
        return self.compact if self.kind == CLASSES else self.compact.argmax(axis=1)

    def __iter__(self) -> Iterator[Array | np.ndarray]:
        """Yield features and targets."""
        return iter((self.features, self.targets))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.features)

    def __repr__(self) -> str:
        features, targets = map(describe, self)
        return f"Examples(features={features}, targets={targets}, kind={self.kind!r})"

    def replace_features(self, features: Num[Array | np.ndarray, "n d"]) -> "Examples":
        """Return examples with these features, which are not checked, in place of their own."""
        return _make_unchecked((self.kind, self.K), (features, self.compact, self.weights, self.groups))

    def take(self, rows: Integer[Array | np.ndarray, " m"]) -> "Examples":
        """Return some of the examples, by their indices; raise ValueError if these are no indices."""
        rows = np.asarray(rows)
        if not np.issubdtype(rows.dtype, np.integer) or rows.ndim != 1:
            raise ValueError(f"rows is {describe(rows)}: give indices [m]")
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise ValueError(f"rows go from {rows.min()} to {rows.max()}: give 0 to {len(self) - 1}")
        return jax.tree.map(lambda leaf: leaf[rows], self)


def _make_unchecked(described: tuple[str, int], leaves: Any) -> Examples:
    """Make examples of a kind and K without checks, from valid arrays or the leaves of a pytree."""
    examples = object.__new__(Examples)
    examples.features, examples.compact, examples.weights, examples.groups = leaves
    examples.kind, examples.K = described
    return examples


jax.tree_util.register_pytree_node(
    Examples,
    lambda e: ((e.features, e.compact, e.weights, e.groups), (e.kind, e.K)),
    _make_unchecked,
)


def expand_targets(
    compact: Integer[Array | np.ndarray, " n"] | Float[Array | np.ndarray, "n K"], K: int, dtype: DTypeLike
) -> Float[Array, "n K"]:
    """Return the targets of some examples as rows of `dtype`, from labels or from the rows themselves."""
    if compact.ndim == 1:
        return jax.nn.one_hot(compact, K, dtype=dtype)
    return jnp.asarray(compact).astype(dtype)


def make_examples(
    features: Any, labels: Any, num_classes: int, weights: Any = None, groups: Any = None
) -> Examples:
    """Make examples of one class each from features and whole-number labels.

    Args:
      features: numbers [n, d]: an array, a nested list or a DataFrame; uint8 takes a quarter of the memory of
        float32.
      labels: whole numbers [n] from 0 to num_classes − 1.
      num_classes: number of classes K ≥ 2.
      weights: see `Examples`; or "balanced", by which all classes that there are weigh alike, as
        scikit-learn's `class_weight="balanced"`: n / (number of classes · number of the class's examples).
      groups: see `Examples`.

    Returns:
      The features and labels as JAX arrays. On a CPU, features that are read-only and begin at a multiple of
      64 bytes, such as those of a memory-mapped .npy file, are referred to and not copied. Features of a type
      that float32 cannot hold, such as float64 and int64, stay a NumPy array: training shifts and scales them
      before it rounds them, see `prepare_features`.

    Raises:
      ValueError: if the shapes do not fit, a label is not a class, or a feature is NaN or infinite. The
        message names the first wrong row.
    """
    K = as_whole("num_classes", num_classes, 2)
    values = as_features("features", features)
    known = as_labels("labels", labels, K)
    if known.shape != values.shape[:1]:
        raise ValueError(f"features {values.shape} and labels {known.shape} do not fit: give [n, d] and [n]")
    held = values
    if not (isinstance(values, jax.Array) or is_wide(values, np.float32)):
        # A user may change the array later, unless it is read-only: then a CPU need not copy it.
        if values.flags.writeable:
            held = empty_aligned(values.shape, values.dtype)
            held[:] = values
        held = jax.device_put(held)
    if isinstance(weights, str):
        check_choice("weights", weights, (BALANCED,))
        counts = np.bincount(known, minlength=K)
        weights = len(known) / (np.count_nonzero(counts) * counts[known])
    others = as_weights(weights, len(known)), _as_groups(groups, len(known))
    return _make_unchecked((CLASSES, K), (held, jax.device_put(known), *others))


def check_examples(name: str, examples: Any) -> None:
    """Raise ValueError if a value is no `Examples`; the message says how to make them."""
    if not isinstance(examples, Examples):
        raise ValueError(
            f"{name} is {describe(examples)}: give lc.make_examples(features, labels, num_classes), or "
            "lc.Examples(features, targets)"
        )


def as_features(name: str, features: Any) -> Num[Array | np.ndarray, "n d"]:
    """Return features as an array [n, d] of finite numbers, or raise ValueError with the first wrong row."""
    array = as_numbers(name, features)
    if array.ndim != 2:
        raise ValueError(f"{name} is {describe(array)}: give [n, d], a row for each example")
    if 0 in array.shape:
        raise ValueError(f"{name} is {describe(array)}: give at least one example and one feature")
    check_finite(name, array)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and not is_traced(array):
        largest = np.maximum(np.asarray(array.max(axis=0)), -np.asarray(array.min(axis=0), np.float64))
        if largest.max() > 2**53:
            column = np.argmax(largest)
            raise ValueError(f"feature {column} is beyond 2⁵³, where float64 has gaps: subtract its minimum")
    return array


def check_finite(name: str, array: Num[Array | np.ndarray, "n _"], dtype: Any = None) -> None:
    """Raise ValueError if a row holds NaN, infinity or a number beyond `dtype`; name the first one."""
    if is_traced(array) or not jnp.issubdtype(array.dtype, jnp.inexact):
        return
    limit = min(float(jnp.finfo(kind).max) for kind in (array.dtype, dtype or array.dtype))
    rows_at_once = max(1, _BYTES_AT_ONCE // array[0].nbytes)
    for start in range(0, len(array), rows_at_once):
        rows = np.asarray(array[start : start + rows_at_once])
        usable = (np.abs(rows) <= limit).all(axis=1)  # false for NaN
        if not usable.all():
            beyond = "" if dtype is None else f", or a number beyond {np.dtype(dtype)}"
            raise ValueError(
                f"row {start + np.argmin(usable)} of {name} holds NaN or infinity{beyond}: correct it, or "
                "leave it out"
            )


def as_labels(name: str, labels: Any, num_classes: int) -> Integer[np.ndarray, " n"]:
    """Return labels as whole numbers below `num_classes`, or raise ValueError with the first wrong row."""
    array = np.asarray(as_numbers(name, labels))
    advice = f"give whole numbers from 0 to {num_classes - 1}"
    if array.ndim != 1:
        raise ValueError(f"{name} is {describe(array)}: {advice}, one for each example")
    # Not a whole number, no class, or NaN.
    wrong = ~((array >= 0) & (array < num_classes) & (array == np.floor(array)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row} of {name} is {array[row]}: {advice}")
    return array.astype(np.int32)


def _as_targets(targets: Any) -> Float[Array | np.ndarray, "n K"]:
    """Return targets as an array [n, K] of numbers from 0 to 1."""
    array = as_numbers("targets", targets)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"targets is {describe(array)}: give [n, K]; make_examples makes them from labels [n]"
        )
    if not is_traced(array):
        known = np.asarray(array)
        wrong = ~((known >= 0) & (known <= 1 + ROUNDING)).all(axis=1)  # also NaN
        if wrong.any():
            raise ValueError(
                f"row {np.argmax(wrong)} of targets holds a number that is not from 0 to 1: give shares, or "
                "labels"
            )
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(np.float32)


def as_weights(weights: Any, n: int) -> Float[Array | np.ndarray, " n"] | None:
    """Return the weights of n examples in float64, or raise ValueError with the first wrong row."""
    if weights is None:
        return None
    array = as_numbers("weights", weights)
    if array.shape != (n,):
        raise ValueError(f"weights is {describe(array)}: give [n], one for each of the {n} examples")
    if is_traced(array):
        return jnp.asarray(array, jnp.float32)
    known = np.asarray(array, np.float64)
    wrong = ~((known >= 0) & (known <= np.finfo(np.float32).max))  # true for NaN
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row} of weights is {known[row]}: give finite numbers from 0")
    if not known.any():
        raise ValueError("weights are all zero: give at least one above 0")
    return known


def _as_groups(groups: Any, n: int) -> Integer[Array, " n"] | None:
    """Return the numbers of the groups of n examples, or raise ValueError if there is not one for each."""
    return None if groups is None else jnp.asarray(encode_groups(groups, (n,)))


def _find_kind(targets: Float[Array | np.ndarray, "n K"], kind: str | None) -> str:
    """Return the kind of the targets, or check the one that is given."""
    if kind is None and targets.shape[1] == 1:
        return LABELS
    if is_traced(targets):
        if kind is None:
            raise ValueError("targets are traced and do not show their kind: give kind='classes' or another")
        return kind
    known = np.asarray(targets)
    whole = bool(((known == 0) | (known == 1)).all())
    sums = known.sum(axis=1, dtype=np.float64)
    one_hot = whole and bool((sums == 1).all())
    if kind is None:
        if one_hot:
            return CLASSES
        rounding = known.shape[1] * float(jnp.finfo(targets.dtype).eps)
        if (np.abs(sums - 1) <= SUM_TOLERANCE + rounding).all():
            return SOFT
        if whole:
            return LABELS
        raise ValueError(
            "targets do not show their kind: give kind='soft' if each row is of one class, the one with the "
            "largest target, or kind='labels' if each label is right or wrong by itself"
        )
    if known.shape[1] == 1 and kind != LABELS:
        raise ValueError(f"kind is {kind!r}: one output (targets [n, 1]) is of the kind 'labels'")
    if kind == CLASSES and not one_hot:
        raise ValueError("kind is 'classes': the targets are not one-hot; give kind='soft' or 'labels'")
    if kind == SOFT and not known.any(axis=1).all():
        raise ValueError(
            f"kind is 'soft': row {np.argmin(known.any(axis=1))} of targets has no class: remove it"
        )
    return kind
