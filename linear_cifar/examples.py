"""Labelled examples, checked when they are made."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, Shaped


class Examples(NamedTuple):
    """n examples: raw features (pixels as they were read) and one- or multi-hot targets.

    `make_examples` makes them from labels. Targets of several labels are given here directly.
    """

    features: Num[Array | np.ndarray, "n d"]
    targets: Float[Array | np.ndarray, "n K"]


def make_examples(
    features: Shaped[Array | np.ndarray, "..."], labels: Shaped[Array | np.ndarray, "..."], num_classes: int
) -> Examples:
    """Make examples from features and integer labels.

    Args:
      features: numbers [n, d]; uint8 takes a quarter of the memory of float32.
      labels: whole numbers [n] from 0 to num_classes − 1.
      num_classes: number of classes K ≥ 2.

    Returns:
      The features as a JAX array, and one-hot targets [n, K] in float32.

    Raises:
      ValueError: if the shapes do not fit, a label is not a class, or a feature is NaN or infinite. The
        message names the first wrong row.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features {features.shape} and labels {labels.shape} do not fit: give [n, d] and [n]"
        )
    if len(features) == 0:
        raise ValueError("there are no examples")
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}: a classifier needs at least two classes")
    known = np.asarray(labels)
    if not np.issubdtype(known.dtype, np.integer):
        raise ValueError(f"labels are {known.dtype}: give whole numbers from 0 to {num_classes - 1}")
    wrong = np.flatnonzero((known < 0) | (known >= num_classes))
    if len(wrong):
        raise ValueError(
            f"row {wrong[0]} has label {known[wrong[0]]}: give numbers from 0 to {num_classes - 1}"
        )
    converted = jnp.asarray(features)
    if jnp.issubdtype(converted.dtype, jnp.inexact):
        finite = np.isfinite(np.asarray(converted)).all(axis=1)
        if not finite.all():
            raise ValueError(f"row {np.argmin(finite)} of the features holds NaN or infinity")
    return Examples(converted, jax.nn.one_hot(known, num_classes, dtype=jnp.float32))
