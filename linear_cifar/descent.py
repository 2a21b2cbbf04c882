"""A sweep: many runs, replicates × configurations, trained side by side, epoch by epoch."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int, Integer

from linear_cifar.augment import Augmentation
from linear_cifar.checks import check_arguments, check_devices
from linear_cifar.config import Config, as_configs, stack_hyperparams
from linear_cifar.evaluation import (
    Metrics,
    check_rows,
    compute_metrics,
    evaluate,
    lower_metrics,
    mark_correct,
)
from linear_cifar.examples import TRAINING, Examples, check_examples
from linear_cifar.identity import Identity, check_names, identify, name_loss
from linear_cifar.layout import BY_REPLICATE, BY_RUN, Layout, make_layout
from linear_cifar.losses import Loss
from linear_cifar.methods import Method, Placed, RunState
from linear_cifar.model import FULL_PRECISION
from linear_cifar.optimizers import Optimizer
from linear_cifar.params import EPOCH, Params, as_params, derive_key
from linear_cifar.replicates import (
    Replicate,
    ReplicateData,
    as_replicates,
    replace_standardizers,
    stack_rows,
    stack_standardizers,
)
from linear_cifar.schedules import Schedule
from linear_cifar.snapshots import Columns, Snapshot
from linear_cifar.standardizer import Standardizer, as_standardizer, prepare_features
from linear_cifar.training import Descent, Initializer

Tree = TypeVar("Tree")


class Epoch(NamedTuple):
    """A sweep after an epoch: what was measured, and the state of its runs on the devices.

    `metrics` has an array [S, C] for each name: `running_loss` and `running_acc` are averaged over the
    epoch's batches, each before its update. `val_loss` and `val_acc` are of the parameters after the epoch,
    on the evaluation set `val`, and so on. `W_norm` is their ‖W‖ (Frobenius). All are NaN from the epoch in
    which a run diverged, and after halving stopped it.
    """

    number: int  # 1-based
    metrics: Columns
    diverged: Int[np.ndarray, "S C"]  # epoch in which a run diverged; 0: it has not
    state: RunState  # in the layout's slots
    averaged: Params  # in the layout's slots
    layout: Layout
    identify: Callable[[], Identity]
    stopped: Int[np.ndarray, "S C"]
    earlier: tuple[Columns, ...]  # metrics of the epochs before, [E, S, C]

    def params(self) -> Params:
        """Copy the parameters to evaluate from the devices: W [S, C, K, d] and b [S, C, K], NumPy arrays.

        They are those of this epoch, or their mean over the last epochs with `average`. Runs that
        halving has stopped are left out.
        """
        return self.layout.from_slots(self.averaged)

    def snapshot(self) -> Snapshot:
        """Copy all that is needed to resume from here from the devices."""
        state, averaged = self.layout.from_slots((self.state, self.averaged))
        identity = self.identify()
        return Snapshot(
            identity._replace(epochs=identity.epochs[: self.number]),
            self.history(),
            self.diverged,
            self.stopped,
            state.params,
            tuple(jax.tree.leaves(state.opt_state)),
            averaged,
        )

    def history(self) -> Columns:
        """Return the metrics of all epochs so far, [E, S, C]."""
        parts = (*self.earlier, {name: values[None] for name, values in self.metrics.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.metrics}


def sweep(
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    *,
    epochs: int,
    seeds: Iterable[int | Replicate] = (0,),
    loss: str | Loss = "softmax",
    standardizer: Standardizer | None = None,
    optimizer: str | Optimizer = "sgd",
    augment: Augmentation | None = None,
    shuffle: bool = True,
    precision: str = FULL_PRECISION,
    schedule: str | Schedule = "constant",
    average: int = 1,
    init: str | Initializer = "jax",
    dtype: str = "float32",
    max_loss: float | None = None,
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
      init: initial parameters: "jax", "numpy" (see `numpy_params`), or a function of the seed, whose type is
        that of all arithmetic.
      dtype: floating-point type of all arithmetic with a named `init`, "float32" or "float64".
      max_loss: a run also counts as diverged once its mean training loss of an epoch is above this.
      devices: devices to divide the runs over; all local ones by default.
      resume_from: snapshot of an earlier sweep with the same arguments; `epochs` may be larger where the
        epochs so far do not depend on it. On the same devices the resumed sweep has the same bits. A
        snapshot identifies loss, optimizer, augmentation and init by name: each must be built in, or a
        function at the top level of a module.

    Returns:
      An iterator over the epochs that follow. Nothing is trained before it is advanced.

    Raises:
      ValueError: if there are no configurations or seeds, an argument is out of range (a batch larger than
        the training rows, for example) or of another kind, a hyperparameter would change nothing, or the
        snapshot is of another sweep. The message names the argument, and says what to give.
    """
    configs, replicates = as_configs(configs), as_replicates(seeds)
    descent = Descent(
        epochs, loss, optimizer, augment, shuffle, precision, schedule, average, init, dtype, max_loss
    ).check_options()
    weights_dtype = check_arguments(
        configs, train, evaluation_sets, replicates, standardizer, descent, resume_from, devices
    )
    standardizer, names = as_standardizer(standardizer, train.features.shape[1]), tuple(evaluation_sets)
    sets, each_epoch = {TRAINING: train, **evaluation_sets}, descent.describe_epochs(weights_dtype)

    @cache  # hashing the examples takes a while: only where a snapshot is taken or resumed
    def identify_sweep() -> Identity:
        settings = describe_settings(descent, train, names, weights_dtype)
        return identify(configs, replicates, sets, standardizer, settings, each_epoch)

    if resume_from is not None:
        check_resumed(resume_from, identify_sweep())
    prepared = prepare_sets(sets, standardizer, replicates, weights_dtype, augment)
    return train_epochs(configs, *prepared, names, descent, each_epoch, identify_sweep, devices, resume_from)


def check_resumed(snapshot: Snapshot, identity: Identity) -> None:
    """Raise ValueError if a snapshot is not of this sweep, or cannot be told from one of another sweep."""
    theirs = snapshot.identity
    difference = theirs.difference(identity)
    if difference is None and (theirs.configs, theirs.replicates) != (identity.configs, identity.replicates):
        difference = "fewer configurations or replicates, or another order of them"
    if difference is not None:
        raise ValueError(f"the snapshot is of another sweep: it has {difference}")
    check_names(identity.settings)


def describe_settings(
    method: Method, train: Examples, per_epoch: Sequence[str], dtype: np.dtype
) -> dict[str, Any]:
    """Return the settings of an identity: names of functions, shapes, types, and what is measured."""
    return {
        "loss": name_loss(method.spec.loss),
        "precision": method.spec.precision,
        "dtype": str(dtype),
        "d": train.features.shape[1],
        "K": train.K,
        "per_epoch": list(per_epoch),
        **method.describe(),
    }


def prepare_sets(
    sets: Mapping[str, Examples],
    standardizer: Standardizer | None,
    replicates: Sequence[Replicate],
    dtype: DTypeLike,
    augment: Augmentation | None = None,
) -> tuple[dict[str, Examples], Standardizer | None, Sequence[Replicate]]:
    """Return examples, standardiser and replicates for arithmetic in `dtype`, see `prepare_features`.

    Raises:
      ValueError: if `dtype` cannot hold features that stay in their own units, because there is no
        standardiser or an augmentation changes them.
    """
    stacked = stack_standardizers(replicates)
    # Folds are evaluated on the examples that others train on, of which one copy is enough.
    distinct = {id(examples): examples for examples in sets.values()}
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
    return {name: held[id(examples)] for name, examples in sets.items()}, standardizer, replicates


def train_epochs(
    configs: Sequence[Config],
    sets: Mapping[str, Examples],
    standardizer: Standardizer | None,
    replicates: Sequence[Replicate],
    per_epoch: Sequence[str],
    method: Method,
    each_epoch: Sequence[tuple[float, int]],
    identify: Callable[[], Identity],
    devices: Sequence[jax.Device] | None = None,
    resume_from: Snapshot | None = None,
    measured_later: Sequence[str] = (),
) -> Iterator[Epoch]:
    """Train epoch after epoch, from checked arguments.

    Where further epochs would change nothing, the last one follows at once.

    Args:
      sets, standardizer, replicates: as `prepare_sets` returns them; the examples to train on are called
        `TRAINING`.
      per_epoch: names of the sets to measure after every epoch.
      method: gradient descent, or the solver.
      each_epoch: what decides each epoch, see `Identity`.
      identify: returns the identity of the sweep, which snapshots hold.
      measured_later: names of sets that `evaluate_runs` will measure; the programs for it are compiled with
        those of the first epoch.
      configs, devices, resume_from: as for `sweep`.
    """
    spec, train = method.spec, sets[TRAINING]
    size, shape = (len(replicates), len(configs)), (train.K, train.features.shape[1])
    state = method.start(configs, replicates, shape, resume_from)
    done, averaged, alive = 0, state.params, list(range(len(configs)))
    earlier: tuple[Columns, ...] = ()
    diverged, stopped = np.zeros(size, np.int64), np.zeros(size, np.int64)
    if resume_from is not None:
        done, averaged, alive = resume_from.number, resume_from.averaged, resume_from.alive
        earlier, diverged, stopped = (resume_from.history,), resume_from.diverged, resume_from.stopped
    configs = [configs[c] for c in alive]
    layout = _make_run_layout(configs, averaged, devices)
    state, averaged = layout.shard(layout.to_slots((state, averaged)), BY_RUN)
    dtype = averaged.W.dtype
    in_slots = [replicates[s] for s in layout.replicates]
    keys = jnp.stack([derive_key(replicate.seed, EPOCH) for replicate in in_slots])
    per_replicate = layout.shard(
        ReplicateData(keys, stack_rows(in_slots), stack_standardizers(in_slots)), BY_REPLICATE
    )
    on_devices = {id(examples): layout.broadcast(examples) for examples in sets.values()}
    measured_on = {
        name: (on_devices[id(sets[name])], layout.shard(stack_rows(in_slots, name), BY_REPLICATE))
        for name in (*per_epoch, *measured_later)
    }
    placed = Placed(
        layout, in_slots, keys, per_replicate,
        jax.tree.map(np.asarray, stack_hyperparams([configs[c] for c in layout.configs], dtype)),
        on_devices[id(train)], layout.broadcast(standardizer), each_epoch,
    )  # fmt: skip
    evaluated_with = per_replicate.standardizer or placed.standardizer
    prepared = method.prepare(placed) if done < len(each_epoch) else None
    number = done
    while number < len(each_epoch):
        number += 1
        program, arguments = method.program(placed, prepared, number, state)
        # Optimizers and augmentations may take JAX's default type, which a user may have changed.
        with jax.enable_x64(dtype == np.float64):
            if number == done + 1:
                metrics_of = (
                    lower_metrics(averaged, examples, spec.loss, evaluated_with, spec.precision, rows)
                    for examples, rows in measured_on.values()
                )
                compile_programs(itertools.chain([program.lower(*arguments)], metrics_of))
            output = program(*arguments)
        outcome = method.read(placed, prepared, number, output, averaged)
        state, averaged, measured = outcome.state, outcome.averaged, dict(outcome.measured)
        for name in per_epoch:
            examples, rows = measured_on[name]
            metrics = compute_metrics(averaged, examples, spec.loss, evaluated_with, spec.precision, rows)
            measured |= {f"{name}_loss": metrics.loss, f"{name}_acc": metrics.accuracy}
        names = list(measured)  # JAX sorts them
        measured, finite = layout.from_slots((measured, outcome.finite))
        # A sum of losses may overflow in one epoch and not in the next: a diverged run stays diverged.
        diverged = diverged.copy()
        diverged[:, alive] = np.where((diverged[:, alive] == 0) & ~finite, number, diverged[:, alive])
        columns = {name: np.full(size, np.nan, dtype) for name in names}
        for name, values in columns.items():
            values[:, alive] = measured[name]
            values[diverged > 0] = np.nan  # the predictions of such parameters mean nothing
        same = {name: values[None] for name, values in columns.items()}
        if outcome.finished:
            earlier += (same,) * (len(each_epoch) - number)
            number = len(each_epoch)
        yield Epoch(number, columns, diverged, state, averaged, layout, identify, stopped, earlier)
        earlier = (*earlier, same)


def compile_programs(programs: Iterable[jax.stages.Lowered]) -> None:
    """Compile programs side by side; their first calls would compile them one after another."""
    with ThreadPoolExecutor() as pool:
        for compiled in [pool.submit(program.compile) for program in programs]:
            compiled.result()


def evaluate_runs(
    configs: Sequence[Config],
    params: Params,
    examples: Examples,
    *,
    seeds: Iterable[int | Replicate],
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
    seeds: Iterable[int | Replicate],
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
    rows: Integer[np.ndarray, "S m"] | None = None,
    devices: Sequence[jax.Device] | None = None,
    loss: str | Loss | None = None,
    top: int = 1,
) -> Bool[np.ndarray, "S C m"] | Float[np.ndarray, "S C m"]:
    """Mark the examples that each run of a sweep predicts right, see `mark_correct`.

    Arguments and errors are those of `evaluate_runs`; `loss` and `top` are those of `mark_correct`.
    """
    measure = partial(mark_correct, precision=precision, loss=loss, top=top)
    return _measure_runs(measure, configs, params, examples, seeds, standardizer, rows, devices)


def _measure_runs(
    measure: Callable[..., Tree],
    configs: Sequence[Config],
    params: Params,
    examples: Examples,
    seeds: Iterable[int | Replicate],
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
    sets, standardizer, prepared = prepare_sets({"": examples}, standardizer, replicates, params.W.dtype)
    in_slots = [prepared[s] for s in layout.replicates]
    per_replicate = layout.shard(stack_standardizers(in_slots), BY_REPLICATE)
    rows = None if rows is None else layout.shard(rows[list(layout.replicates)], BY_REPLICATE)
    params = layout.shard(layout.to_slots(params), BY_RUN)
    examples, standardizer = layout.broadcast((sets[""], standardizer))
    measured = measure(params, examples, standardizer=per_replicate or standardizer, rows=rows)
    return layout.from_slots(measured)


def _make_run_layout(
    configs: Sequence[Config], params: Params, devices: Sequence[jax.Device] | None
) -> Layout:
    """Divide runs with these parameters [S, C, ...] over devices."""
    S, _, K, d = params.W.shape
    nbytes = K * d * params.W.dtype.itemsize
    return make_layout(
        [config.get("batch", 0) for config in configs],
        S,
        jax.local_devices() if devices is None else list(devices),
        nbytes,
    )
