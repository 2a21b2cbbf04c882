"""Mini-batch gradient descent of many configurations over the same examples."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from linear_cifar.augment import Augmentation
from linear_cifar.batches import over_batches, rows
from linear_cifar.config import Config
from linear_cifar.evaluation import Examples, Metrics, measure
from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION, logits
from linear_cifar.objective import backward
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, standardize


class Hyper(NamedTuple):
    """The settings that may differ between configurations without compiling again."""

    eta: Float[Array, "*configs"]
    lam: Float[Array, "*configs"]


class State(NamedTuple):
    """What an update changes; in a sweep every leaf has a leading axis of configurations."""

    params: Params
    opt_state: optax.OptState


Optimizer = Callable[[Hyper], optax.GradientTransformation]


def sgd(hyper: Hyper) -> optax.GradientTransformation:
    """Plain gradient descent with learning rate η."""
    return optax.sgd(hyper.eta)


class Recipe(NamedTuple):
    """What all configurations of a sweep share; part of the compiled program.

    `precision` is that of the matrix products, see `logits`.
    """

    loss: Loss
    optimizer: Optimizer = sgd
    augment: Augmentation | None = None
    shuffle: bool = True
    precision: str = FULL_PRECISION


def hyper_of(configs: Sequence[Config], dtype: DTypeLike = jnp.float32) -> Hyper:
    """The traced settings of C configurations as arrays [C]."""
    return Hyper(
        *(jnp.asarray(values, dtype) for values in zip(*((c.eta, c.lam) for c in configs), strict=True))
    )


def init_state(params: Params, hyper: Hyper, optimizer: Optimizer = sgd) -> State:
    """The state of C configurations that all start from the same parameters.

    Args:
      params: W [K, d] and b [K].
      hyper: settings [C].
      optimizer: as in the recipe.
    """

    def of_one(hyper: Hyper) -> State:
        return State(params, optimizer(hyper).init(params))

    return jax.vmap(of_one)(hyper)


def train_step(
    state: State, hyper: Hyper, x: Float[Array, "n d"], y: Float[Array, "n K"], recipe: Recipe
) -> tuple[State, Metrics]:
    """One update of one configuration on one batch.

    Args:
      state: before the update.
      hyper: this configuration's settings, scalars.
      x: standardised features.
      y: targets.
      recipe: loss and optimiser.

    Returns:
      The state after the update, and the batch's loss and hits before it, summed over the examples.
    """
    scores = logits(state.params, x, recipe.precision)
    grads = backward(state.params, x, recipe.loss.gradient(scores, y), hyper.lam, recipe.precision)
    updates, opt_state = recipe.optimizer(hyper).update(grads, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state), measure(scores, y, recipe.loss)


@partial(jax.jit, static_argnames=("batches", "recipe"))
def train_epoch(
    state: State,
    hyper: Hyper,
    train: Examples,
    standardizer: Standardizer,
    key: PRNGKeyArray,
    batches: tuple[int, ...],
    recipe: Recipe,
) -> tuple[State, Metrics, Bool[Array, " C"]]:
    """One pass of C configurations over the training examples, in one program.

    All see the same examples in the same order with the same augmentation, which the key alone
    decides, each in batches of its own size; the last batch may be smaller.

    Args:
      state: of C configurations.
      hyper: settings [C]; other values do not compile again.
      train: n training examples.
      standardizer: of the training features.
      key: this epoch's random key.
      batches: the C batch sizes, each at most n.
      recipe: what the configurations share.

    Returns:
      The state after the epoch; loss and hits [C] summed over the examples, of each batch before
      its update; whether each configuration is finite still.
    """
    n, dtype = train.features.shape[0], state.params.W.dtype
    order_key, augment_key = jax.random.split(key)
    features, targets = train
    if recipe.shuffle:
        order = jax.random.permutation(order_key, n)
        features, targets = features[order], targets[order]
    if recipe.augment is not None:
        features = recipe.augment(augment_key, features)
    # The epoch's one float copy of the data: every batch below is a contiguous slice of it.
    features, targets = standardize(standardizer, features, dtype), targets.astype(dtype)

    def train_group(group: Int[np.ndarray, " c"]) -> tuple[State, Metrics]:
        group_state, group_hyper = jax.tree.map(lambda leaf: leaf[group], (state, hyper))

        def step(
            carry: tuple[State, Metrics], start: Int[Array, ""] | int, size: int
        ) -> tuple[State, Metrics]:
            state, sums = carry
            x, y = rows(features, start, size), rows(targets, start, size)
            state, measured = jax.vmap(lambda s, h: train_step(s, h, x, y, recipe))(state, group_hyper)
            return state, jax.tree.map(jnp.add, sums, measured)

        zeros = jnp.zeros(len(group), dtype)
        carry = (group_state, Metrics(zeros, zeros))
        group_state, sums = over_batches(step, carry, n, batches[group[0]])
        return group_state, sums

    # Configurations of one batch size move in step, so they need no masks.
    sizes = np.asarray(batches)
    groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    trained = [train_group(group) for group in groups]
    back = np.argsort(np.concatenate(groups))
    state, sums = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *trained)
    return state, sums, is_finite(state.params) & jnp.isfinite(sums.loss)


def is_finite(params: Params) -> Bool[Array, " C"]:
    """Whether every number of each configuration is finite."""
    return jnp.isfinite(params.W).all(axis=(1, 2)) & jnp.isfinite(params.b).all(axis=1)
