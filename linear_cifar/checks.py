"""The checks of a sweep's arguments, all made before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from linear_cifar.arguments import as_whole, check_hashable, describe, one_line
from linear_cifar.augment import Augmentation
from linear_cifar.config import Config, check_config
from linear_cifar.examples import LABELS, Examples, check_examples
from linear_cifar.losses import Loss, check_outputs
from linear_cifar.optimizers import Optimizer, find_dependencies
from linear_cifar.params import Params, as_params
from linear_cifar.replicates import Replicate, all_rows
from linear_cifar.schedules import Schedule, constant, epoch_factors
from linear_cifar.snapshots import Snapshot
from linear_cifar.standardizer import Standardizer, as_standardizer
from linear_cifar.training import TrainSpec

# Initial W [K, d] and b [K] of a seed.
Initializer = Callable[[int], Params]


class SweepOptions(TypedDict, total=False):
    """The keyword arguments of `sweep` that all its callers pass on."""

    loss: str | Loss
    standardizer: Standardizer | None
    optimizer: str | Optimizer
    augment: Augmentation | None
    shuffle: bool
    precision: str
    schedule: str | Schedule
    average: int
    init: Initializer | None


class Setup(NamedTuple):
    """Facts that follow from the arguments of a sweep."""

    spec: TrainSpec
    plan: tuple[tuple[float, int], ...]  # factor of η, and number of epochs averaged, of every epoch
    dtype: np.dtype  # of the weights


def check_arguments(
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    replicates: Sequence[Replicate],
    epochs: int,
    options: SweepOptions,
    resume_from: Snapshot | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Setup:
    """Check the arguments of `sweep`.

    Args:
      configs: configurations whose values are Python's numbers.
      replicates: checked replicates.
      options: the other options, of which some may be missing.
      train, evaluation_sets, epochs, resume_from, devices: as for `sweep`.

    Raises:
      ValueError: if an argument is out of range, of another kind, does not fit the training examples, or
        would change nothing. The message names the argument.
    """
    if not configs:
        raise ValueError("a sweep needs at least one configuration")
    epochs = as_whole("epochs", epochs, 1)
    average = as_whole("average", options.get("average", 1), 1, epochs)
    _check_sets(train, evaluation_sets)
    d, K = train.features.shape[1], train.targets.shape[1]
    spec_options: dict[str, Any] = {name: options[name] for name in TrainSpec._fields if name in options}  # type: ignore[literal-required]
    spec = TrainSpec(**spec_options)
    check_outputs(spec.loss, K)
    dtype = _check_initial(options.get("init"), replicates[0].seed, resume_from, (K, d))
    standardizers = [options.get("standardizer"), *(replicate.standardizer for replicate in replicates)]
    for standardizer in standardizers:
        as_standardizer(standardizer, d)
    _check_rows(replicates, train, evaluation_sets)
    factors = epoch_factors(options.get("schedule", constant), epochs, dtype)
    num_rows = len(train) if replicates[0].rows is None else len(replicates[0].rows)
    _check_configs(configs, spec, (K, d), dtype, num_rows, any(factor != 1 for factor in factors))
    _check_augmentation(spec.augment, train)
    check_devices(devices)
    counts = (max(1, done + 1 - epochs + average) for done in range(epochs))
    return Setup(spec, tuple(zip(factors, counts, strict=True)), dtype)


def check_devices(devices: Any) -> None:
    """Raise ValueError if these are no devices of JAX."""
    if devices is None:
        return
    listed = isinstance(devices, Sequence | np.ndarray) and len(devices) > 0
    if (
        not listed
        or not all(isinstance(device, jax.Device) for device in devices)
        or len({*devices}) < len(devices)
    ):
        raise ValueError(f"devices is {devices!r:.60}: give a list of some of jax.local_devices()")


def _check_sets(train: Examples, evaluation_sets: Mapping[str, Examples]) -> None:
    """Raise ValueError if the training and evaluation examples are of other shapes or kinds."""
    check_examples("train", train)
    if not isinstance(evaluation_sets, Mapping):
        raise ValueError(
            f'evaluation_sets is {describe(evaluation_sets)}: give examples by name, such as {{"val": val}}'
        )
    d, K = train.features.shape[1], train.targets.shape[1]
    for name, examples in evaluation_sets.items():
        if not isinstance(name, str):
            raise ValueError(f"an evaluation set is named {describe(name)}: give a string")
        check_examples(f"the evaluation set {name}", examples)
        shape = examples.features.shape[1], examples.targets.shape[1]
        if shape != (d, K):
            raise ValueError(
                f"{name} has {shape[0]} features and {shape[1]} classes, the training set {d} and {K}: give "
                "both the same"
            )
        if (examples.kind == LABELS) != (train.kind == LABELS):
            raise ValueError(
                f"the targets of {name} are {examples.kind}, those of the training set {train.kind}: give "
                "both the same kind, see lc.Examples"
            )


def _check_initial(
    init: Initializer | None, seed: int, snapshot: Snapshot | None, shape: tuple[int, int]
) -> np.dtype:
    """Return the type of the weights that a sweep starts from; raise ValueError if they do not fit."""
    if snapshot is not None:
        if not isinstance(snapshot, Snapshot):
            raise ValueError(f"resume_from is {describe(snapshot)}: give a snapshot, see lc.load_snapshot")
        dtype = np.dtype(as_params(snapshot.params, shape).W.dtype)
        if dtype != jax.dtypes.canonicalize_dtype(dtype):
            raise ValueError(f"the snapshot is of {dtype}: resume it within jax.enable_x64(True)")
        return dtype
    if init is None:
        return np.dtype(np.float32)
    if not callable(init):
        raise ValueError(f"init is {describe(init)}: give a function of the seed that returns lc.Params")
    # JAX makes float64 float32, unless it is set up to keep it.
    return np.dtype(jax.dtypes.canonicalize_dtype(as_params(init(seed), shape).W.dtype))


def _check_rows(
    replicates: Sequence[Replicate], train: Examples, evaluation_sets: Mapping[str, Examples]
) -> None:
    """Raise ValueError if a replicate has rows that its examples do not have."""
    sizes: dict[str | None, int] = {name: len(examples) for name, examples in evaluation_sets.items()}
    sizes[None] = len(train)
    for replicate in replicates:
        for evaluation_set, rows in all_rows(replicate).items():
            if evaluation_set not in sizes:
                raise ValueError(
                    f"seed {replicate.seed} has rows of {evaluation_set!r}: the evaluation sets are "
                    f"{', '.join(evaluation_sets)}"
                )
            last = sizes[evaluation_set] - 1
            wrong = np.asarray(rows)[(np.asarray(rows) < 0) | (np.asarray(rows) > last)]
            if len(wrong):
                raise ValueError(f"seed {replicate.seed} has row {wrong[0]}: give rows from 0 to {last}")


def _check_augmentation(augment: Augmentation | None, train: Examples) -> None:
    """Raise ValueError if an augmentation does not turn an example [d] into another."""
    if augment is None:
        return
    advice = "give a function of a random key and an example [d] that returns an example [d]"
    if not callable(augment):
        raise ValueError(f"augment is {describe(augment)}: {advice}")
    check_hashable("augment", augment)
    example = jax.ShapeDtypeStruct(train.features.shape[1:], train.features.dtype)
    try:
        changed = jax.eval_shape(lambda features: augment(jax.random.key(0), features), example)
    # It is the user's function, which may raise anything.
    except Exception as error:
        raise ValueError(
            f"augment is {describe(augment)}, which fails ({one_line(error)}): {advice}"
        ) from error
    if getattr(changed, "shape", None) != example.shape:
        raise ValueError(f"augment returns {describe(changed)} for an example {example.shape}: {advice}")


def _check_configs(
    configs: Sequence[Config],
    spec: TrainSpec,
    shape: tuple[int, int],
    dtype: np.dtype,
    num_rows: int,
    scheduled: bool,
) -> None:
    """Raise ValueError if a hyperparameter is out of its range, or would change nothing."""
    loss, optimizer = spec.loss, describe(spec.optimizer)
    dependencies = find_dependencies(spec.optimizer, *shape, dtype)
    if "eta" not in dependencies.any_step:
        raise ValueError(
            f"eta is {configs[0].eta}: optimizer, {optimizer}, does not use it: make it from hyperparams.eta"
        )
    if scheduled and "eta" not in dependencies.each_step:
        raise ValueError(
            f"schedule changes eta, which optimizer, {optimizer}, keeps from its start: use hyperparams.eta "
            "in each update"
        )
    for config in configs:
        check_config(config, num_rows, dtype)
        if config.q and not loss.takes_q:
            raise ValueError(
                f"q is {config.q}: the loss {loss.name} has no power q: give q=0, or a built-in loss"
            )
        if config.momentum and "momentum" not in dependencies.any_step:
            raise ValueError(
                f"momentum is {config.momentum}: optimizer, {optimizer}, does not use it; give "
                "optimizer='heavy_ball', or make an optimizer from hyperparams.momentum"
            )
