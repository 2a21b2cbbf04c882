"""Mini-batch gradient descent of many runs, seeds × configurations, over the same examples."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from linear_cifar.augment import Augmentation
from linear_cifar.batches import Index, Pass, over_batches, passes, rows
from linear_cifar.config import Config
from linear_cifar.evaluation import Examples, Metrics, measure
from linear_cifar.layout import CONFIGS, EVERYWHERE, OF_CONFIGS, OF_RUNS, OF_SEEDS, Layout
from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION, logits
from linear_cifar.objective import backward
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, standardize

Tree = TypeVar("Tree")

# Examples shuffled and augmented at a time, in number: 5 MB of CIFAR-10's, a part of a CPU's cache.
BLOCK = 1_600


class Hyper(NamedTuple):
    """The settings that may differ between configurations without compiling again."""

    eta: Float[Array, "*configs"]
    lam: Float[Array, "*configs"]
    q: Float[Array, "*configs"]
    momentum: Float[Array, "*configs"]


class State(NamedTuple):
    """What an update changes; in a sweep every leaf has leading axes of seeds and configurations."""

    params: Params
    opt_state: optax.OptState


# A state, and the loss and hits summed on the way to it.
Carry = tuple[State, Metrics]
Optimizer = Callable[[Hyper], optax.GradientTransformation]


def sgd(hyper: Hyper) -> optax.GradientTransformation:
    """Plain gradient descent with learning rate η."""
    return optax.sgd(hyper.eta)


def heavy_ball(hyper: Hyper) -> optax.GradientTransformation:
    """Gradient descent with momentum μ: v ← μ v + ∂J, W ← W − η v (Polyak 1964)."""
    return optax.sgd(hyper.eta, momentum=hyper.momentum)


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
    return Hyper(*(jnp.asarray([getattr(one, name) for one in configs], dtype) for name in Hyper._fields))


def init_state(params: Params, hyper: Hyper, optimizer: Optimizer = sgd) -> State:
    """The state of S × C runs; all configurations of a seed start from its parameters.

    Args:
      params: W [S, K, d] and b [S, K].
      hyper: settings [C].
      optimizer: as in the recipe.
    """

    def of_one(params: Params, hyper: Hyper) -> State:
        return State(params, optimizer(hyper).init(params))

    return jax.vmap(jax.vmap(of_one, in_axes=(None, 0)), in_axes=(0, None))(params, hyper)


def train_step(
    state: State, hyper: Hyper, x: Float[Array, "n d"], y: Float[Array, "n K"], recipe: Recipe
) -> tuple[State, Metrics]:
    """One update of one run on one batch.

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
    dscores = recipe.loss.gradient(scores, y, hyper.q)
    grads = backward(state.params, x, dscores, hyper.lam, recipe.precision)
    updates, opt_state = recipe.optimizer(hyper).update(grads, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state), measure(scores, y, recipe.loss)


@partial(jax.jit, static_argnames=("layout", "recipe"))
def train_epoch(
    state: State,
    hyper: Hyper,
    train: Examples,
    standardizer: Standardizer,
    keys: Key[Array, " S"],
    layout: Layout,
    recipe: Recipe,
) -> tuple[State, Metrics, Bool[Array, "S C"]]:
    """One pass of all runs over the training examples, in one program.

    All configurations of a seed see the same examples in the same order with the same augmentation, which
    its key alone decides, each in batches of its own size; the last batch may be smaller.

    Args:
      state: of the runs at the layout's S × C places.
      hyper: the settings [C] of its configurations; other values do not compile again.
      train: n training examples.
      standardizer: of the training features.
      keys: this epoch's random keys [S], of its seeds.
      layout: which device trains which runs; batch sizes are at most n.
      recipe: what all runs share.

    Returns:
      The state after the epoch; loss and hits [S, C] summed over the examples, of each batch before
      its update; whether each run is finite still.
    """
    # A program for each set of batch sizes; the devices have nothing to tell one another.
    distinct = list(dict.fromkeys(layout.shares))
    programs = [partial(_train_share, batches=share, tile=layout.tile, recipe=recipe) for share in distinct]
    program_of = np.asarray([distinct.index(share) for share in layout.shares])

    def on_device(*args: Any) -> tuple[State, Metrics, Bool[Array, "s c"]]:
        return jax.lax.switch(jnp.asarray(program_of)[jax.lax.axis_index(CONFIGS)], programs, *args)

    return jax.shard_map(
        on_device,
        mesh=layout.mesh,
        in_specs=(OF_RUNS, OF_CONFIGS, EVERYWHERE, EVERYWHERE, OF_SEEDS),
        out_specs=OF_RUNS,
        check_vma=False,  # the check takes sums that start as constants for equal on all devices
    )(state, hyper, train, standardizer, keys)


def _train_share(
    state: State,
    hyper: Hyper,
    train: Examples,
    standardizer: Standardizer,
    keys: Key[Array, " s"],
    batches: tuple[int, ...],
    tile: int,
    recipe: Recipe,
) -> tuple[State, Metrics, Bool[Array, "s c"]]:
    """`train_epoch` of the runs on one device: on a CPU one seed after another, since they share nothing."""

    def of_seed(one: tuple[State, PRNGKeyArray]) -> tuple[State, Metrics, Bool[Array, " c"]]:
        return _train_seed(*one, hyper, train, standardizer, batches, tile, recipe)

    return jax.lax.map(of_seed, (state, keys), batch_size=None if tile else len(keys))


def _train_seed(
    state: State,
    key: PRNGKeyArray,
    hyper: Hyper,
    train: Examples,
    standardizer: Standardizer,
    batches: tuple[int, ...],
    tile: int,
    recipe: Recipe,
) -> tuple[State, Metrics, Bool[Array, " c"]]:
    """An epoch of the configurations [c] of one seed, which see the same examples."""
    n, dtype = train.features.shape[0], state.params.W.dtype
    order_key, augment_key = jax.random.split(key)
    order = jax.random.permutation(order_key, n) if recipe.shuffle else jnp.arange(n)
    # A key for each place in the order, so that how the epoch is cut into blocks changes nothing.
    keys = jax.random.split(augment_key, n)

    def block(start: Index, size: int) -> Examples:
        """The next examples, shuffled and augmented once for all configurations."""
        chosen = rows(order, start, size)
        features = train.features[chosen]
        if recipe.augment is not None:
            features = jax.vmap(recipe.augment)(rows(keys, start, size), features)
        return Examples(features, train.targets[chosen].astype(dtype))

    def train_group(carry: Carry, hyper: Hyper, now: Examples, size: int) -> Carry:
        """Trains the configurations of one batch size through a block, as many side by side as is best."""
        of_one = partial(_train_one, examples=now, standardizer=standardizer, size=size, recipe=recipe)
        return jax.lax.map(lambda one: of_one(*one), (carry, hyper), batch_size=_even(len(hyper.eta), tile))

    def train_pass(one: Pass) -> dict[int, Carry]:
        """Trains the configurations of a few batch sizes; a result per size."""
        hypers = {size: _part(hyper, members[size]) for size in one.sizes}
        zeros = {size: jnp.zeros(batches.count(size), dtype) for size in one.sizes}
        start = {size: (_part(state, members[size]), Metrics(zeros[size], zeros[size])) for size in one.sizes}

        def train_block(carries: dict[int, Carry], start: Index, length: int) -> dict[int, Carry]:
            now = block(start, length)
            return {size: train_group(carry, hypers[size], now, size) for size, carry in carries.items()}

        return over_batches(train_block, start, n, min(one.block, n))

    # Configurations of one batch size move in step, so they need no masks. They lie side by side.
    firsts = {size: batches.index(size) for size in batches}
    members = {size: slice(first, first + batches.count(size)) for size, first in firsts.items()}
    trained: dict[int, Carry] = {}
    for one in passes(members, BLOCK):
        trained |= train_pass(one)
    groups = [trained[size] for size in members]
    state, sums = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *groups)
    return state, sums, is_finite(state.params) & jnp.isfinite(sums.loss)


def _train_one(
    carry: Carry, hyper: Hyper, examples: Examples, standardizer: Standardizer, size: int, recipe: Recipe
) -> Carry:
    """Updates one run through a block of examples, and adds to its sums."""

    def step(carry: Carry, start: Index, size: int) -> Carry:
        state, sums = carry
        # Standardised batch by batch: a block of bytes is a quarter of one of floats, and an XLA for CPUs
        # copies a batch out of its block anyway.
        x = standardize(standardizer, rows(examples.features, start, size), state.params.W.dtype)
        state, measured = train_step(state, hyper, x, rows(examples.targets, start, size), recipe)
        return state, jax.tree.map(jnp.add, sums, measured)

    return over_batches(step, carry, examples.features.shape[0], size)


def _even(n: int, most: int) -> int:
    """How many of n things are in a part, where they are cut into few parts of at most `most`; 0: all."""
    parts = math.ceil(n / most) if most else 1
    return math.ceil(n / parts) if parts > 1 else 0


def _part(tree: Tree, members: slice) -> Tree:
    """Some of the configurations along the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[members], tree)


def is_finite(params: Params) -> Bool[Array, " c"]:
    """Whether every number of each configuration is finite."""
    return jnp.isfinite(params.W).all(axis=(1, 2)) & jnp.isfinite(params.b).all(axis=1)
