"""A sweep: many runs, replicates × configurations, trained side by side, epoch by epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from linear_cifar.arguments import as_seed
from linear_cifar.augment import Augmentation
from linear_cifar.checks import Initializer, SweepOptions, check_arguments, check_devices
from linear_cifar.config import Config, as_configs, stack_hyperparams
from linear_cifar.evaluation import Metrics, check_rows, compute_metrics, evaluate, mark_correct, mean_metrics
from linear_cifar.examples import Examples, check_examples
from linear_cifar.layout import BY_CONFIG, BY_REPLICATE, BY_RUN, Layout, make_layout
from linear_cifar.losses import Loss
from linear_cifar.model import FULL_PRECISION
from linear_cifar.optimizers import Optimizer, sgd
from linear_cifar.params import Params, as_params, init_params
from linear_cifar.replicates import (
    Replicate,
    as_replicates,
    digest_arrays,
    identify_replicate,
    replace_standardizers,
    stack_replicates,
    stack_rows,
    stack_standardizers,
)
from linear_cifar.schedules import Schedule, constant
from linear_cifar.snapshots import (
    Snapshot,
    SweepIdentity,
    check_names,
    describe_difference,
    name_function,
    name_loss,
)
from linear_cifar.standardizer import Standardizer, as_standardizer, prepare_features
from linear_cifar.training import RunState, TrainSpec, init_state, train_epoch

Tree = TypeVar("Tree")

# The generator of all random numbers.
GENERATOR = "threefry2x32"


class KeyUse(IntEnum):
    """The independent uses of a seed."""

    INIT = 0
    EPOCH = 1


class EpochMetrics(NamedTuple):
    """Measurements of S replicates × C configurations in one epoch, or stacked in E epochs, as NumPy arrays.

    `running` is averaged over the epoch's batches, each before its update. `evaluated` are of the parameters
    after the epoch, by the name of the evaluation set. `norm` is their ‖W‖ (Frobenius). `finite` tells
    whether the parameters and the running loss are finite.
    """

    running: Metrics
    evaluated: dict[str, Metrics]
    norm: Float[np.ndarray, "*epochs S C"]
    finite: Bool[np.ndarray, "*epochs S C"]


class Epoch(NamedTuple):
    """A sweep after an epoch: its metrics, and the state of its runs on the devices."""

    number: int  # 1-based
    metrics: EpochMetrics
    state: RunState  # in the layout's slots
    averaged: Params  # in the layout's slots
    layout: Layout
    identify: Callable[[], SweepIdentity]

    def params(self) -> Params:
        """Copy the parameters that count from the devices: W [S, C, K, d] and b [S, C, K], NumPy arrays.

        They are those of this epoch, or their mean over the last epochs where that was asked for.
        """
        return self.layout.from_slots(self.averaged)

    def snapshot(self) -> Snapshot:
        """Copy all that is needed to resume from here from the devices."""
        state, averaged = self.layout.from_slots((self.state, self.averaged))
        identity = self.identify()
        identity = identity._replace(plan=identity.plan[: self.number])
        return Snapshot(
            identity, self.number, state.params, tuple(jax.tree.leaves(state.opt_state)), averaged
        )


def derive_key(seed: int, use: KeyUse) -> PRNGKeyArray:
    """Return the random key of one use of a seed."""
    # From its two words, because `jax.random.key` also depends on JAX's default generator and seed offset.
    key = jax.random.wrap_key_data(jnp.asarray([0, seed], jnp.uint32), impl=GENERATOR)
    return jax.random.fold_in(key, use)


def jax_params(seed: int, d: int, K: int, dtype: DTypeLike = jnp.float32) -> Params:
    """Draw the parameters that a sweep starts from by default, see `init_params`.

    Raises:
      ValueError: if the seed is no whole number from 0 to 2³² − 1.
    """
    return init_params(derive_key(as_seed(seed), KeyUse.INIT), d, K, dtype=dtype)


def sweep(
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    *,
    epochs: int,
    seeds: Sequence[int | Replicate] = (0,),
    loss: str | Loss = "softmax",
    standardizer: Standardizer | None = None,
    optimizer: str | Optimizer = sgd,
    augment: Augmentation | None = None,
    shuffle: bool = True,
    precision: str = FULL_PRECISION,
    schedule: str | Schedule = constant,
    average: int = 1,
    init: Initializer | None = None,
    devices: Sequence[jax.Device] | None = None,
    resume_from: Snapshot | None = None,
) -> Iterator[Epoch]:
    """Train every configuration from every seed at once, and yield after each epoch.

    Each run depends on its configuration and replicate alone, not on what runs beside it. All configurations
    of a replicate start from the same weights and see the same examples, augmented alike, in the same order.

    Args:
      configs: the C configurations, in any order; equal ones are allowed.
      train: n training examples, see `make_examples`.
      evaluation_sets: examples to evaluate on after every epoch, by name: {"val": ...}.
      epochs: number of passes over the training examples, including those before the snapshot.
      seeds: the S seeds of weights, order and augmentation, whole numbers from 0 to 2³² − 1; or replicates
        with rows and standardisers of their own. The folds of a cross-validation are replicates, see
        `Replicate`.
      loss: a loss, or the name of one.
      standardizer: mean and std of the training features, see `fit_standardizer`. None: the features are
        used as they are. That is right for features of about unit scale; on raw pixels, η would have to be
        about 10⁻⁴ times as large.
      optimizer: makes an optax transformation from a configuration's traced hyperparameters, or the name of
        one: `sgd`, `heavy_ball` or `adamw`. If its updates depend on `lam`, it applies the penalty itself,
        and the gradient is without 2λW.
      augment: random change of each training example; see `linear_cifar.augment`.
      shuffle: whether each epoch has an order of its own.
      precision: precision of the matrix products, see `multiply`.
      schedule: how η changes over the epochs, see `linear_cifar.schedules`, or the name of a schedule.
      average: number of last epochs over which the parameters are averaged (Izmailov et al. 2018); 1: none.
      init: initial parameters of a seed, `jax_params` by default; their type is that of all arithmetic.
      devices: devices to divide the runs over; all local ones by default.
      resume_from: snapshot of an earlier sweep with the same arguments; `epochs` may be larger where the
        epochs so far do not depend on it. On the same devices the resumed sweep has the same bits. `init`
        is then not used. A snapshot identifies loss, optimizer and augmentation by name: each must be
        built in, or a function at the top level of a module.

    Returns:
      An iterator over the epochs that follow. Nothing is trained before it is advanced.

    Raises:
      ValueError: if there are no configurations or seeds, an argument is out of range (a batch larger than
        the training rows, for example) or of another kind, a hyperparameter would change nothing, or the
        snapshot is of another sweep. The message names the argument, and says what to give.
    """
    configs, replicates = as_configs(configs), as_replicates(seeds)
    options = SweepOptions(
        loss=loss,
        standardizer=standardizer,
        optimizer=optimizer,
        augment=augment,
        shuffle=shuffle,
        precision=precision,
        schedule=schedule,
        average=average,
        init=init,
    )
    spec, plan, dtype = check_arguments(
        configs, train, evaluation_sets, replicates, epochs, options, resume_from, devices
    )
    d, K = train.features.shape[1], train.targets.shape[1]
    standardizer = as_standardizer(standardizer, d)
    start = _start(configs, replicates, spec, init or partial(jax_params, d=d, K=K), (K, d), resume_from)

    @cache  # hashing the examples takes a while: only where a snapshot is taken or resumed
    def identify() -> SweepIdentity:
        return SweepIdentity(
            configs=configs,
            replicates=tuple(map(identify_replicate, replicates)),
            d=d,
            K=K,
            dtype=str(dtype),
            data=f"{train.kind} {digest_arrays(jax.tree.leaves((train, standardizer)))}",
            loss=name_loss(spec.loss),
            optimizer=name_function(spec.optimizer),
            augment=name_function(augment),
            shuffle=shuffle,
            precision=precision,
            plan=plan,
        )

    if resume_from is not None:
        difference = describe_difference(resume_from.identity, identify())
        if difference is not None:
            raise ValueError(f"the snapshot is of another sweep: it has {difference}")
        check_names(identify())
    layout = _make_run_layout(configs, start[2], devices)
    prepared = prepare_sets(train, evaluation_sets, standardizer, replicates, dtype, augment)
    return _iterate_epochs(start, configs, *prepared, spec, plan, layout, identify)


def prepare_sets(
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    standardizer: Standardizer | None,
    replicates: Sequence[Replicate],
    dtype: DTypeLike,
    augment: Augmentation | None = None,
) -> tuple[Examples, dict[str, Examples], Standardizer | None, Sequence[Replicate]]:
    """Return examples, standardiser and replicates for arithmetic in `dtype`, see `prepare_features`.

    Raises:
      ValueError: if `dtype` cannot hold features that stay in their own units, because there is no
        standardiser or an augmentation changes them.
    """
    stacked = stack_standardizers(replicates)
    # Folds are evaluated on the examples that others train on, of which one copy is enough.
    distinct = {id(examples): examples for examples in (train, *evaluation_sets.values())}
    features: Sequence[Any] = [examples.features for examples in distinct.values()]
    features, prepared = prepare_features(
        features, stacked or standardizer, dtype, keep_units=augment is not None
    )
    pairs = zip(distinct.items(), features, strict=True)
    held = {key: examples.replace_features(array) for (key, examples), array in pairs}
    if stacked is not None and prepared is not None:
        replicates = replace_standardizers(replicates, prepared)
    else:
        standardizer = prepared
    sets = {name: held[id(examples)] for name, examples in evaluation_sets.items()}
    return held[id(train)], sets, standardizer, replicates


def _iterate_epochs(
    start: tuple[int, RunState, Params],
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    standardizer: Standardizer | None,
    replicates: Sequence[Replicate],
    spec: TrainSpec,
    plan: Sequence[tuple[float, int]],
    layout: Layout,
    identify: Callable[[], SweepIdentity],
) -> Iterator[Epoch]:
    """Train epoch after epoch; the arguments are those of `sweep`, checked."""
    done, state, averaged = start
    state, averaged = layout.shard(layout.to_slots((state, averaged)), BY_RUN)
    dtype = averaged.W.dtype
    hyperparams = layout.shard(stack_hyperparams([configs[c] for c in layout.configs], dtype), BY_CONFIG)
    in_slots = [replicates[s] for s in layout.replicates]
    keys = jnp.stack([derive_key(replicate.seed, KeyUse.EPOCH) for replicate in in_slots])
    per_replicate = layout.shard(stack_replicates(in_slots, keys), BY_REPLICATE)
    on_devices = {id(examples): layout.broadcast(examples) for examples in (train, *evaluation_sets.values())}
    sets = {
        name: (on_devices[id(examples)], layout.shard(stack_rows(in_slots, name), BY_REPLICATE))
        for name, examples in evaluation_sets.items()
    }
    train, standardizer = on_devices[id(train)], layout.broadcast(standardizer)
    n = train.features.shape[0] if per_replicate.rows is None else per_replicate.rows.shape[1]
    evaluated_with = per_replicate.standardizer or standardizer
    for number in range(done + 1, len(plan) + 1):
        eta_factor, count = plan[number - 1]
        scaled = hyperparams._replace(eta=hyperparams.eta * np.asarray(eta_factor, dtype))
        epoch_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
        this_epoch = per_replicate._replace(keys=epoch_keys)
        # Optimizers and augmentations may take JAX's default type, which a user may have changed.
        with jax.enable_x64(dtype == np.float64):
            state, sums, finite = train_epoch(state, scaled, train, standardizer, this_epoch, layout, spec)
        averaged = _update_average(averaged, state.params, count)
        evaluated = {
            name: compute_metrics(averaged, examples, spec.loss, evaluated_with, spec.precision, rows)
            for name, (examples, rows) in sets.items()
        }
        metrics = EpochMetrics(mean_metrics(sums, n), evaluated, _norm(averaged.W), finite)
        yield Epoch(number, layout.from_slots(metrics), state, averaged, layout, identify)


def evaluate_runs(
    configs: Sequence[Config],
    params: Params,
    examples: Examples,
    *,
    seeds: Sequence[int | Replicate],
    loss: str | Loss = "softmax",
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
    rows: Integer[np.ndarray, "S m"] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Metrics:
    """Measure the runs of a sweep on further examples, on the devices where `sweep` trains them.

    Args:
      configs: the C configurations.
      params: W [S, C, K, d] and b [S, C, K].
      examples: examples to measure on.
      seeds, loss, standardizer, precision, devices: as for `sweep`.
      rows: indices of the examples to measure each replicate on, as where it is a fold; None: all. The
        replicates' own `evaluation_rows` are not used.

    Returns:
      Mean losses and accuracies [S, C].

    Raises:
      ValueError: if the parameters are not those of S × C runs, or a row is not an index.
    """
    measure = partial(evaluate, loss=loss, precision=precision)
    return _measure_runs(measure, configs, params, examples, seeds, standardizer, rows, devices)


def mark_correct_of_runs(
    configs: Sequence[Config],
    params: Params,
    examples: Examples,
    *,
    seeds: Sequence[int | Replicate],
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
    rows: Integer[np.ndarray, "S m"] | None = None,
    devices: Sequence[jax.Device] | None = None,
    loss: str | Loss | None = None,
) -> Bool[np.ndarray, "S C m"] | Float[np.ndarray, "S C m"]:
    """Mark the examples that each run of a sweep predicts right, see `mark_correct`.

    Arguments and errors are those of `evaluate_runs`; `loss` is needed as for `mark_correct`.
    """
    measure = partial(mark_correct, precision=precision, loss=loss)
    return _measure_runs(measure, configs, params, examples, seeds, standardizer, rows, devices)


def _measure_runs(
    measure: Callable[..., Tree],
    configs: Sequence[Config],
    params: Params,
    examples: Examples,
    seeds: Sequence[int | Replicate],
    standardizer: Standardizer | None,
    rows: Integer[np.ndarray, "S m"] | None,
    devices: Sequence[jax.Device] | None,
) -> Tree:
    """Measure parameters [S, C] in the layout of their sweep."""
    configs, replicates, params = as_configs(configs), as_replicates(seeds), as_params(params)
    check_examples("examples", examples)
    check_devices(devices)
    standardizer = as_standardizer(standardizer, examples.features.shape[1])
    if params.W.shape[:2] != (len(replicates), len(configs)):
        raise ValueError(
            f"the parameters are of {params.W.shape[:2]} runs: there are {(len(replicates), len(configs))}"
        )
    if rows is not None:
        rows = np.asarray(rows)
        check_rows(rows, (len(replicates),), len(examples))
    layout = _make_run_layout(configs, params, devices)
    examples, _, standardizer, prepared = prepare_sets(examples, {}, standardizer, replicates, params.W.dtype)
    in_slots = [prepared[s] for s in layout.replicates]
    per_replicate = layout.shard(stack_standardizers(in_slots), BY_REPLICATE)
    rows = None if rows is None else layout.shard(rows[list(layout.replicates)], BY_REPLICATE)
    params = layout.shard(layout.to_slots(params), BY_RUN)
    examples, standardizer = layout.broadcast((examples, standardizer))
    measured = measure(params, examples, standardizer=per_replicate or standardizer, rows=rows)
    return layout.from_slots(measured)


def mask_diverged(metrics: EpochMetrics, max_loss: float | None = None) -> EpochMetrics:
    """Put NaN in place of all that was measured of a run from the epoch in which it diverged.

    Args:
      metrics: measurements [E, S, C].
      max_loss: a run also counts as diverged once its mean training loss of an epoch is above this.

    Returns:
      The same measurements; `finite` is False from the epoch of divergence to the last.
    """
    finite = metrics.finite
    if max_loss is not None:
        finite = finite & (metrics.running.loss <= max_loss)
    # A sum of losses may overflow in one epoch and not in the next: a diverged run stays diverged.
    finite = np.logical_and.accumulate(finite, axis=0)
    masked = mask_metrics((metrics.running, metrics.evaluated, metrics.norm), finite)
    return EpochMetrics(*masked, finite)


def mask_metrics(tree: Tree, finite: Bool[np.ndarray, "*shape"]) -> Tree:
    """Put NaN where a run is not finite: the predictions of such parameters mean nothing."""
    return jax.tree.map(lambda values: np.where(finite, values, np.nan).astype(values.dtype), tree)


def _start(
    configs: Sequence[Config],
    replicates: Sequence[Replicate],
    spec: TrainSpec,
    init: Initializer,
    shape: tuple[int, int],
    snapshot: Snapshot | None,
) -> tuple[int, RunState, Params]:
    """Return the epochs done, and the state and averages of the runs [S, C].

    Raises:
      ValueError: if the optimizer's state in the snapshot is not this optimizer's.
    """
    if snapshot is None:
        drawn = [as_params(init(replicate.seed), shape) for replicate in replicates]
        initial = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        state = init_state(initial, stack_hyperparams(configs, initial.W.dtype), spec.optimizer)
        return 0, state, state.params
    params = snapshot.params
    hyperparams = stack_hyperparams(snapshot.identity.configs, params.W.dtype)
    one_per_replicate = jax.tree.map(lambda leaf: leaf[:, 0], params)
    expected = jax.eval_shape(partial(init_state, optimizer=spec.optimizer), one_per_replicate, hyperparams)
    leaves, structure = jax.tree.flatten(expected.opt_state)
    shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
    if shapes != [(leaf.shape, leaf.dtype) for leaf in snapshot.opt_state]:
        names = f"{snapshot.identity.optimizer}, not {name_function(spec.optimizer)}"
        raise ValueError(f"the snapshot is of another sweep: it has another optimizer's state ({names})")
    state = RunState(params, jax.tree.unflatten(structure, snapshot.opt_state))
    return snapshot.number, state, snapshot.averaged


def _make_run_layout(
    configs: Sequence[Config], params: Params, devices: Sequence[jax.Device] | None
) -> Layout:
    """Divide runs with these parameters [S, C, ...] over devices."""
    S, _, K, d = params.W.shape
    nbytes = K * d * params.W.dtype.itemsize
    return make_layout([config.batch for config in configs], S, devices or jax.local_devices(), nbytes)


def _update_average(averaged: Params, params: Params, count: int) -> Params:
    """Return the mean of `count` parameters, from the mean of all but the last of them."""
    if count == 1:
        return params
    return jax.tree.map(lambda mean, new: mean + (new - mean) / count, averaged, params)


@jax.jit
def _norm(W: Float[Array, "S C K d"]) -> Float[Array, "S C"]:
    return jnp.sqrt(jnp.sum(W**2, axis=(-2, -1)))
