"""Mini-batch gradient descent of many runs, replicates × configurations, over the same examples.

`train_epoch` is one compiled program. Its loops nest as follows, outermost first:

- device: `shard_map` gives each device its share of the runs. Devices exchange nothing.
- replicate: the seeds (and folds) on a device. On a CPU one trains after another, so that its weights stay in
  the cache; an accelerator trains all side by side.
- pass: batch sizes that share chunks go through the examples together. Mostly there is one pass.
- chunk: examples that are shuffled and augmented together, once for all configurations of a replicate.
- batch size: the configurations of one batch size move in step and need no masks.
- run: the configurations of one batch size train side by side, as one wide matrix product.
- batch: the updates of a run within the chunk, one after another; an accelerator unrolls this loop.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, Num

from linear_cifar.arguments import as_whole, check_choice, describe, look_up
from linear_cifar.augment import Augmentation
from linear_cifar.batches import Index, fold_batches, group_passes, take_rows
from linear_cifar.checks import check_augmentation, check_descent_configs, check_initial
from linear_cifar.config import Config, Hyperparams, stack_hyperparams
from linear_cifar.evaluation import Metrics, is_finite, mean_metrics, measure_examples
from linear_cifar.examples import KINDS, LABELS, SOFT, Examples, expand_targets
from linear_cifar.identity import name_function
from linear_cifar.layout import BY_CONFIG, BY_REPLICATE, BY_RUN, CONFIGS, REPLICATED, Layout, Loops
from linear_cifar.losses import Loss, get_loss
from linear_cifar.methods import Outcome, Placed, RunState, compute_norm
from linear_cifar.model import FULL_PRECISION, PRECISIONS, compute_logits, multiply
from linear_cifar.objectives import as_batch, backward
from linear_cifar.optimizers import Optimizer, find_dependencies, get_optimizer, sgd, without_velocity
from linear_cifar.params import INITS, Params, as_params
from linear_cifar.replicates import Replicate, ReplicateData
from linear_cifar.rounding import is_wide
from linear_cifar.schedules import Schedule, constant, epoch_factors
from linear_cifar.snapshots import RUNNING, Snapshot
from linear_cifar.standardizer import Standardizer, standardize

Tree = TypeVar("Tree")


# A state, and the losses and correct predictions summed on the way to it.
Carry = tuple[RunState, Metrics]


class _Chunk(NamedTuple):
    """Examples that are shuffled and augmented together."""

    features: Num[Array, "n d"]
    compact: Integer[Array, " n"] | Float[Array, "n K"]  # see `Examples`, and the weights
    weights: Float[Array, " n"] | None


class _TrainSpec(NamedTuple):
    loss: Loss
    optimizer: Optimizer
    augment: Augmentation | None
    shuffle: bool
    precision: str


class TrainSpec(_TrainSpec):
    """The fixed settings of a sweep, which are part of the compiled program.

    `optimizer` makes an optax transformation from one configuration's hyperparameters, which are traced.
    `precision` is that of the matrix products, see `multiply`.
    """

    def __new__(
        cls,
        loss: str | Loss = "softmax",
        optimizer: str | Optimizer = sgd,
        augment: Augmentation | None = None,
        shuffle: bool = True,
        precision: str = FULL_PRECISION,
    ) -> "TrainSpec":
        """Make the settings; a loss or an optimizer may be given by its name.

        Raises:
          ValueError: if one is none of the choices.
        """
        check_choice("shuffle", shuffle, (True, False))
        check_choice("precision", precision, PRECISIONS)
        return super().__new__(cls, get_loss(loss), get_optimizer(optimizer), augment, shuffle, precision)


# Initial W [K, d] and b [K] of a seed.
Initializer = Callable[[int], Params]


class Descent(NamedTuple):
    """The options of mini-batch gradient descent that all runs of a sweep share. See `sweep` for each."""

    epochs: int
    loss: str | Loss = "softmax"
    optimizer: str | Optimizer = sgd
    augment: Augmentation | None = None
    shuffle: bool = True
    precision: str = FULL_PRECISION
    schedule: str | Schedule = constant
    average: int = 1
    init: str | Initializer = "jax"
    dtype: str = "float32"
    max_loss: float | None = None

    @property
    def spec(self) -> TrainSpec:
        """The settings that are part of the compiled program."""
        return TrainSpec(self.loss, self.optimizer, self.augment, self.shuffle, self.precision)

    def initializer(self, d: int, K: int) -> Initializer:
        """Return the function from a seed to initial parameters of d features and K classes."""
        if callable(self.init):
            return self.init
        return partial(look_up("init", self.init, INITS), d=d, K=K, dtype=jnp.dtype(self.dtype))

    def check_options(self) -> "Descent":
        """Return the descent, or raise ValueError if an option is wrong by itself."""
        as_whole("epochs", self.epochs, 1)
        as_whole("average", self.average, 1, self.epochs)
        if self.max_loss is not None and not (isinstance(self.max_loss, Real) and self.max_loss > 0):
            raise ValueError(f"max_loss is {describe(self.max_loss)}: give a positive number, or None")
        assert self.spec, "its settings are checked as it is made"
        return self

    def check(
        self,
        configs: Sequence[Config],
        train: Examples,
        replicates: Sequence[Replicate],
        snapshot: Snapshot | None,
    ) -> np.dtype:
        """Return the type of the weights; raise ValueError if the arguments do not fit, see `Method`."""
        shape, rows, spec = (train.K, train.features.shape[1]), replicates[0].rows, self.spec
        seed = replicates[0].seed
        dtype = check_initial(self.dtype, self.init, self.initializer, seed, snapshot, shape)
        scheduled = any(factor != 1 for factor, _ in self.describe_epochs(dtype))
        num_rows = len(train) if rows is None else len(rows)
        check_descent_configs(configs, spec.loss, spec.optimizer, shape, dtype, num_rows, scheduled)
        check_augmentation(spec.augment, train)
        return dtype

    def describe(self) -> dict[str, Any]:
        """Return the settings of an identity that only gradient descent has, see `Method`."""
        return {
            "optimizer": name_function(self.spec.optimizer),
            "augment": name_function(self.augment),
            "init": self.init if isinstance(self.init, str) else name_function(self.init),
            "shuffle": self.shuffle,
            "max_loss": None if self.max_loss is None else float(self.max_loss),
        }

    def describe_epochs(self, dtype: DTypeLike) -> tuple[tuple[float, int], ...]:
        """Return the factor of η, and the number of epochs averaged, of every epoch."""
        factors = epoch_factors(self.schedule, self.epochs, dtype)
        counts = (int(max(1, done + 1 - self.epochs + self.average)) for done in range(self.epochs))
        return tuple(zip(factors, counts, strict=True))

    def extends(self, dtype: DTypeLike) -> bool:
        """Tell whether more epochs would begin with the same factors and averages."""
        longer = self._replace(epochs=self.epochs + 1).describe_epochs(dtype)
        return longer[:-1] == self.describe_epochs(dtype)

    def fit_to(self, configs: Sequence[Config]) -> "Descent":
        """Return the descent without a velocity where no configuration has momentum."""
        return self._replace(optimizer=without_velocity(self.optimizer, configs))

    def describe_needs(self, configs: Sequence[Config], d: int) -> dict[str, int]:
        """Return the largest batch size, for `max_runs`."""
        return {"largest_batch": max(config.batch for config in configs)}

    def start(
        self,
        configs: Sequence[Config],
        replicates: Sequence[Replicate],
        shape: tuple[int, int],
        snapshot: Snapshot | None,
    ) -> RunState:
        """Return the state of the runs that train on, from initial parameters or a snapshot, see `Method`."""
        optimizer = self.spec.optimizer
        if snapshot is None:
            init = self.initializer(*shape[::-1])
            drawn = [as_params(init(replicate.seed), shape) for replicate in replicates]
            initial = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
            return init_state(initial, stack_hyperparams(configs, initial.W.dtype), optimizer)
        params = snapshot.params
        hyperparams = stack_hyperparams([configs[c] for c in snapshot.alive], params.W.dtype)
        one_per_replicate = jax.tree.map(lambda leaf: leaf[:, 0], params)
        expected = jax.eval_shape(partial(init_state, optimizer=optimizer), one_per_replicate, hyperparams)
        return RunState(params, snapshot.restore(expected.opt_state, name_function(optimizer)))

    def prepare(self, placed: Placed) -> None:
        """Return nothing: an epoch uses only what is placed."""

    def program(
        self, placed: Placed, prepared: None, number: int, state: RunState
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return `train_epoch` and its arguments for an epoch."""
        hyperparams, factor = placed.hyperparams, placed.each_epoch[number - 1][0]
        scaled = hyperparams.replace(eta=hyperparams.eta * np.asarray(factor, hyperparams.eta.dtype))
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(placed.keys, number)
        return train_epoch, (
            state, placed.layout.shard(scaled, BY_CONFIG), placed.train, placed.standardizer,
            placed.per_replicate._replace(keys=keys), placed.layout, self.spec,
        )  # fmt: skip

    def read(self, placed: Placed, prepared: None, number: int, output: Any, averaged: Params) -> Outcome:
        """Return what `train_epoch` has returned, with mean metrics and averaged parameters."""
        state, sums, finite = output
        averaged = _update_average(averaged, state.params, placed.each_epoch[number - 1][1])
        metrics = mean_metrics(sums, placed.n)
        if self.max_loss is not None:
            finite = np.asarray(finite) & (metrics.loss <= self.max_loss)
        measured = dict(zip(RUNNING, (*metrics, compute_norm(averaged.W)), strict=True))
        return Outcome(state, averaged, measured, finite)


@partial(jax.jit, static_argnames="optimizer")
def init_state(params: Params, hyperparams: Hyperparams, optimizer: str | Optimizer = sgd) -> RunState:
    """Return the initial state of S × C runs; all configurations of a replicate start from its parameters.

    Args:
      params: W [S, K, d] and b [S, K].
      hyperparams: arrays [C].
      optimizer: as in the training spec.
    """

    make_transformation = get_optimizer(optimizer)

    def init_run(params: Params, hyperparams: Hyperparams) -> RunState:
        return RunState(params, make_transformation(hyperparams).init(params))

    return jax.vmap(jax.vmap(init_run, in_axes=(None, 0)), in_axes=(0, None))(params, hyperparams)


def train_step(
    state: RunState,
    hyperparams: Hyperparams,
    x: Num[Array | np.ndarray, "n d"],
    y: Num[Array | np.ndarray, "n K"],
    spec: TrainSpec,
    kind: str = SOFT,
    weights: Float[Array | np.ndarray, " n"] | None = None,
) -> tuple[RunState, Metrics]:
    """Update one run on one batch.

    Args:
      state: state before the update.
      hyperparams: this configuration's hyperparameters, scalars.
      x: features, standardised where a standardiser is used.
      y: targets.
      spec: loss, optimizer and precision.
      kind: kind of the targets, see `Examples`; `soft` is right for one-hot targets too. One output is of the
        kind `labels`.
      weights: factors of the examples' losses; None: all are 1.

    Returns:
      The state after the update, and each example's loss and correct prediction before it, [n].

    Raises:
      ValueError: if the shapes do not fit, or the loss or optimizer cannot be used.
    """
    params, x, y, loss = as_batch(state.params, x, y, spec.loss)
    optimizer = spec.optimizer
    check_choice("kind", kind, KINDS)
    if y.shape[1] == 1:
        kind = LABELS
    logits = compute_logits(params, x, spec.precision)
    measured = measure_examples(logits, y, loss, kind)
    dlogits = loss.gradient(logits, y, hyperparams)
    if weights is not None:
        dlogits = dlogits * jnp.asarray(weights, dlogits.dtype)[:, None]
    if optimizer is sgd:
        return state._replace(params=descend(params, x, dlogits, hyperparams, spec.precision)), measured
    # An optimizer that takes λ, such as AdamW, applies the penalty in its own way: not a second time here.
    read, _ = find_dependencies(optimizer, tuple(hyperparams), *params.W.shape, params.W.dtype)
    decays_itself = "lam" in read
    lam = 0.0 if decays_itself else hyperparams.lam
    grads = backward(params, x, dlogits, lam, spec.precision)
    updates, opt_state = optimizer(hyperparams).update(grads, state.opt_state, params)
    return RunState(optax.apply_updates(params, updates), opt_state), measured


def descend(
    params: Params,
    x: Float[Array, "n d"],
    dlogits: Float[Array, "n K"],
    hyperparams: Hyperparams,
    precision: str,
) -> Params:
    r"""Take the step of `sgd`, without the gradient in between.

    $W \leftarrow (1 - 2 \eta \lambda) W + (-\frac{\eta}{n} G)^\top X$ and
    $b \leftarrow b - \frac{\eta}{n} \sum_i G_i$, with G the [n, K] matrix of ∂ℓ/∂s. A product can add to its
    result in place, so this passes over W five times on a GPU where the general way passes eight times.
    """
    scaled_G_T = dlogits.T * (-hyperparams.eta / x.shape[0])
    # Not (1 - 2ηλ) W: in float32 that factor is rounded to a multiple of 6e-8, the same way in every step.
    decay = 2 * hyperparams.eta * hyperparams.lam * params.W
    return Params(
        W=params.W - decay + multiply(scaled_G_T, x, precision),
        b=params.b + jnp.sum(scaled_G_T, axis=1),
    )


@partial(jax.jit, static_argnames=("layout", "spec"))
def train_epoch(
    state: RunState,
    hyperparams: Hyperparams,
    train: Examples,
    standardizer: Standardizer | None,
    replicates: ReplicateData,
    layout: Layout,
    spec: TrainSpec,
) -> tuple[RunState, Metrics, Bool[Array, "S C"]]:
    """Train all runs on one pass over the training examples, in one program.

    All configurations of a replicate see the same examples in the same order with the same augmentation,
    which its key alone decides. Each takes them in batches of its own size; the last batch may be smaller.

    Args:
      state: state of the runs in the layout's S × C slots.
      hyperparams: arrays [C], in the order of the slots; other values do not compile again.
      train: n training examples, whose features the weights' type can hold, see `prepare_features`.
      standardizer: mean and std [d] of the training features; None: features are used as they are. Replicates
        with standardisers of their own use those.
      replicates: this epoch's random keys [S], rows and standardisers.
      layout: which device trains which runs; batch sizes are at most the number of rows.
      spec: settings that all runs share.

    Returns:
      The state after the epoch; loss and correct predictions [S, C] of each batch before its update, summed
      over the examples; whether each run is still finite.
    """
    if is_wide(train.features, state.params.W.dtype):
        raise ValueError(f"train has features of {train.features.dtype}: pass them through prepare_features")
    # One program for each set of batch sizes on a column of devices.
    columns = layout.batches_per_column
    distinct = list(dict.fromkeys(columns))
    programs = [partial(_train_share, batches=batches, loops=layout.loops, spec=spec) for batches in distinct]
    program_of_column = np.asarray([distinct.index(batches) for batches in columns])

    def train_on_device(*args: Any) -> tuple[RunState, Metrics, Bool[Array, "s c"]]:
        return jax.lax.switch(jnp.asarray(program_of_column)[jax.lax.axis_index(CONFIGS)], programs, *args)

    train_on_mesh = jax.shard_map(
        train_on_device,
        mesh=layout.mesh,
        in_specs=(BY_RUN, BY_CONFIG, REPLICATED, REPLICATED, BY_REPLICATE),
        out_specs=BY_RUN,
        check_vma=False,  # the check takes sums that start as constants for equal on all devices
    )
    # Random numbers must not depend on how a user has set up JAX.
    with jax.threefry_partitionable(True):
        return train_on_mesh(state, hyperparams, train, standardizer, replicates)


def _train_share(
    state: RunState,
    hyperparams: Hyperparams,
    train: Examples,
    standardizer: Standardizer | None,
    replicates: ReplicateData,
    batches: tuple[int, ...],
    loops: Loops,
    spec: TrainSpec,
) -> tuple[RunState, Metrics, Bool[Array, "s c"]]:
    """Train the runs on one device."""

    def train_replicate(args: tuple[RunState, ReplicateData]) -> tuple[RunState, Metrics, Bool[Array, " c"]]:
        state, replicate = args
        scale = standardizer if replicate.standardizer is None else replicate.standardizer
        return _train_replicate(state, hyperparams, train, scale, replicate, batches, loops, spec)

    # On a CPU one replicate after another, since they share nothing.
    batch_size = None if loops.vmap_width else len(replicates.keys)
    return jax.lax.map(train_replicate, (state, replicates), batch_size=batch_size)


def _train_replicate(
    state: RunState,
    hyperparams: Hyperparams,
    train: Examples,
    standardizer: Standardizer | None,
    replicate: ReplicateData,
    batches: tuple[int, ...],
    loops: Loops,
    spec: TrainSpec,
) -> tuple[RunState, Metrics, Bool[Array, " c"]]:
    """Train the configurations [c] of one replicate, which see the same examples."""
    n = (train.features if replicate.rows is None else replicate.rows).shape[0]
    dtype = state.params.W.dtype
    order_key, augment_key = jax.random.split(replicate.keys)
    order = jax.random.permutation(order_key, n) if spec.shuffle else jnp.arange(n)
    if replicate.rows is not None:
        order = replicate.rows[order]
    # One key for each place in the order, so that the division of the epoch into chunks changes nothing.
    keys = jax.random.split(augment_key, n)

    def prepare_chunk(start: Index, size: int) -> _Chunk:
        """Shuffle and augment the next examples, once for all configurations."""
        chosen = take_rows(order, start, size)
        features = train.features[chosen]
        if spec.augment is not None:
            features = jax.vmap(spec.augment)(take_rows(keys, start, size), features)
        # Without the barrier XLA would look up the targets again in each step.
        rest = jax.tree.map(lambda leaf: leaf[chosen], (train.compact, train.weights))
        return _Chunk(features, *jax.lax.optimization_barrier(rest))

    def train_group(carry: Carry, hyperparams: Hyperparams, chunk: _Chunk, size: int) -> Carry:
        """Train the configurations of one batch size through a chunk, as many side by side as is best."""
        train_run = partial(
            _train_run,
            chunk=chunk,
            standardizer=standardizer,
            batch=size,
            unroll=loops.unroll,
            spec=spec,
            kind=train.kind,
        )
        width = _even_width(len(hyperparams.eta), loops.vmap_width)
        # Profilers and compiled programs show this name for the steps of the batch size.
        with jax.named_scope(f"batch_{size}_"):
            return jax.lax.map(lambda run: train_run(*run), (carry, hyperparams), batch_size=width)

    def train_pass(length: int, batch_sizes: Sequence[int]) -> dict[int, Carry]:
        """Train the configurations of a few batch sizes; return a carry per batch size."""
        groups = {size: _take(hyperparams, members[size]) for size in batch_sizes}
        zeros = {size: jnp.zeros(batches.count(size), dtype) for size in batch_sizes}
        initial = {size: (_take(state, members[size]), Metrics(zero, zero)) for size, zero in zeros.items()}

        def train_chunk(carries: dict[int, Carry], start: Index, length: int) -> dict[int, Carry]:
            chunk = prepare_chunk(start, length)
            return {size: train_group(carry, groups[size], chunk, size) for size, carry in carries.items()}

        return fold_batches(train_chunk, initial, n, min(length, n))

    # The configurations of one batch size are neighbours.
    firsts = {size: batches.index(size) for size in batches}
    members = {size: slice(first, first + batches.count(size)) for size, first in firsts.items()}
    trained: dict[int, Carry] = {}
    for chunk, sizes in group_passes(members, loops.chunk):
        trained |= train_pass(chunk, sizes)
    # Slots left over are not trained.
    rest = slice(len(batches), None)
    zeros = jnp.zeros_like(hyperparams.eta[rest])
    parts = (*(trained[size] for size in members), (_take(state, rest), Metrics(zeros, zeros)))
    state, sums = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    return state, sums, is_finite(state.params) & jnp.isfinite(sums.loss)


def _train_run(
    carry: Carry,
    hyperparams: Hyperparams,
    chunk: _Chunk,
    standardizer: Standardizer | None,
    batch: int,
    unroll: int,
    spec: TrainSpec,
    kind: str,
) -> Carry:
    """Update one run through a chunk of examples, and add to its sums."""
    state, sums = carry
    n, K = chunk.features.shape[0], state.params.W.shape[-2]

    def step(carry: Carry, start: Index, size: int) -> Carry:
        state, totals = carry
        # Standardised batch by batch: a chunk of bytes is a quarter of one of floats, and XLA copies a batch
        # out of its chunk anyway.
        x = standardize(standardizer, take_rows(chunk.features, start, size), state.params.W.dtype)
        compact, weights = jax.tree.map(lambda leaf: take_rows(leaf, start, size), chunk[1:])
        y = expand_targets(compact, K, state.params.W.dtype)
        state, measured = train_step(state, hyperparams, x, y, spec, kind, weights)
        rest = min(batch, n) - size  # where the last batch is smaller
        totals = jax.tree.map(lambda total, new: total + jnp.pad(new, (0, rest)), totals, measured)
        return state, totals

    # Each step adds metrics by place in the batch. The sum over places follows once per chunk, because a sum
    # in every step would be four more kernels on a GPU.
    zeros = jax.tree.map(lambda total: jnp.zeros(min(batch, n), total.dtype), sums)
    state, totals = fold_batches(step, (state, zeros), n, batch, unroll)
    return state, jax.tree.map(lambda total, places: total + jnp.sum(places), sums, totals)


def _update_average(averaged: Params, params: Params, count: int) -> Params:
    """Return the mean of `count` parameters, from the mean of all but the last of them."""
    if count == 1:
        return params
    return jax.tree.map(lambda mean, new: mean + (new - mean) / count, averaged, params)


def _even_width(n: int, most: int) -> int:
    """Return the width of few, about equally wide parts of n, each at most `most`; 0 means all at once."""
    parts = math.ceil(n / most) if most else 1
    return math.ceil(n / parts) if parts > 1 else 0


def _take(tree: Tree, members: slice) -> Tree:
    """Take some of the configurations along the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[members], tree)
