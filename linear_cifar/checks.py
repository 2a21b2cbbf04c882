"""The checks of a sweep's arguments, all made before anything is trained."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any

import jax
import numpy as np

from linear_cifar.arguments import as_whole, check_choice, check_hashable, describe, one_line
from linear_cifar.augment import Augmentation
from linear_cifar.config import Config, check_configs, get_axis, hyperparam_names
from linear_cifar.examples import LABELS, TRAINING, Examples, check_examples
from linear_cifar.losses import LOSSES, check_outputs
from linear_cifar.optimizers import OPTIMIZERS, find_dependencies
from linear_cifar.params import INITS, as_params
from linear_cifar.replicates import Replicate, all_rows
from linear_cifar.snapshots import Snapshot
from linear_cifar.standardizer import Standardizer, as_standardizer
from linear_cifar.training import Descent, TrainSpec

# Names under which a sweep holds other data and other measurements.
_TAKEN = (TRAINING, "standardizer", "running")


def check_arguments(
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    replicates: Sequence[Replicate],
    standardizer: Standardizer | None,
    descent: Descent,
    resume_from: Snapshot | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> np.dtype:
    """Check the arguments of `sweep`, and return the type of the weights.

    Args:
      configs: configurations whose values are Python's numbers.
      replicates: checked replicates.
      train, evaluation_sets, standardizer, descent, resume_from, devices: as for `sweep`.

    Raises:
      ValueError: if an argument is out of range, of another kind, does not fit the training examples, or
        would change nothing. The message names the argument.
    """
    if not configs:
        raise ValueError("a sweep needs at least one configuration")
    epochs = as_whole("epochs", descent.epochs, 1)
    as_whole("average", descent.average, 1, epochs)
    if descent.max_loss is not None and not (isinstance(descent.max_loss, Real) and descent.max_loss > 0):
        raise ValueError(f"max_loss is {describe(descent.max_loss)}: give a positive number, or None")
    _check_sets(train, evaluation_sets)
    d, K = train.features.shape[1], train.K
    spec = descent.spec
    check_outputs(spec.loss, K)
    dtype = _check_initial(descent, replicates[0].seed, resume_from, (K, d))
    for own in (standardizer, *(replicate.standardizer for replicate in replicates)):
        as_standardizer(own, d)
    _check_rows(replicates, train, evaluation_sets)
    num_rows = len(train) if replicates[0].rows is None else len(replicates[0].rows)
    scheduled = any(factor != 1 for factor, _ in descent.describe_epochs(dtype))
    _check_configs(configs, spec, (K, d), dtype, num_rows, scheduled)
    _check_augmentation(spec.augment, train)
    check_devices(devices)
    return dtype


def check_devices(devices: Any) -> None:
    """Raise ValueError if these are no devices of JAX."""
    if devices is None:
        return
    listed = isinstance(devices, Sequence | np.ndarray) and len(devices) > 0
    known = listed and all(isinstance(device, jax.Device) for device in devices)
    if not known or len({*devices}) < len(devices):
        raise ValueError(f"devices is {devices!r:.60}: give a list of some of jax.local_devices()")


def _check_sets(train: Examples, evaluation_sets: Mapping[str, Examples]) -> None:
    """Raise ValueError if the training and evaluation examples are of other shapes or kinds."""
    check_examples("train", train)
    if not isinstance(evaluation_sets, Mapping):
        raise ValueError(
            f'evaluation_sets is {describe(evaluation_sets)}: give examples by name, such as {{"val": val}}'
        )
    d, K = train.features.shape[1], train.K
    for name, examples in evaluation_sets.items():
        if not isinstance(name, str) or not name.isprintable():
            raise ValueError(f"an evaluation set is named {describe(name)}: give a word")
        if name in _TAKEN or name.endswith("_class"):
            raise ValueError(f"an evaluation set is named {name!r}, which means something else: rename it")
        check_examples(f"the evaluation set {name}", examples)
        shape = examples.features.shape[1], examples.K
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
    descent: Descent, seed: int, snapshot: Snapshot | None, shape: tuple[int, int]
) -> np.dtype:
    """Return the type of the weights that a sweep starts from; raise ValueError if they do not fit."""
    check_choice("dtype", descent.dtype, ("float32", "float64"))
    if snapshot is not None:
        if not isinstance(snapshot, Snapshot):
            raise ValueError(f"resume_from is {describe(snapshot)}: give a snapshot, see lc.load_snapshot")
        dtype = np.dtype(as_params(snapshot.params, shape).W.dtype)
        if dtype != jax.dtypes.canonicalize_dtype(dtype):
            raise ValueError(f"the snapshot is of {dtype}: resume it within jax.enable_x64(True)")
        return dtype
    if not (isinstance(descent.init, str) or callable(descent.init)):
        raise ValueError(
            f"init is {describe(descent.init)}: give {' or '.join(INITS)}, or a function of the seed that "
            "returns lc.Params"
        )
    K, d = shape
    initial = as_params(descent.initializer(d, K)(seed), shape)
    # JAX makes float64 float32, unless it is set up to keep it.
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(initial.W.dtype))
    if isinstance(descent.init, str) and dtype != descent.dtype:
        raise ValueError(f"dtype is {descent.dtype}: call this within jax.enable_x64(True)")
    return dtype


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
    """Raise ValueError if a hyperparameter is missing, does not fit the data, or would change nothing."""
    check_configs(configs, num_rows, dtype)
    loss, optimizer, names = spec.loss, describe(spec.optimizer), hyperparam_names(configs[0])
    read, read_each_step = find_dependencies(spec.optimizer, names, *shape, dtype)
    read_by_loss = {name for name, _ in loss.reported_at}
    if "eta" not in read:
        raise ValueError(
            f"eta is {configs[0].eta}: optimizer, {optimizer}, does not use it: make it from hyperparams.eta"
        )
    if scheduled and "eta" not in read_each_step:
        raise ValueError(
            f"schedule changes eta, which optimizer, {optimizer}, keeps from its start: use hyperparams.eta "
            "in each update"
        )
    for name in sorted(read_by_loss - {*names}):
        raise ValueError(f"{name} is missing, which the loss {loss.name} reads: give each Config one")
    # λ is in the gradient, unless the optimizer applies it.
    for name in sorted({*names} - read_by_loss - read - {"lam"}):
        default = get_axis(name).default
        unused = next((config[name] for config in configs if config[name] != default), default)
        if unused != default:
            readers = [f"loss={loss.name!r}" for loss in LOSSES.values() if name in dict(loss.reported_at)]
            for key, known in OPTIMIZERS.items():
                with suppress(ValueError):  # it may not fit the types that a user allows
                    if name in find_dependencies(known, names, *shape, dtype)[0]:
                        readers.append(f"optimizer={key!r}")
            advice = " or ".join([*readers, f"a loss or an optimizer that reads hyperparams.{name}"])
            raise ValueError(
                f"{name} is {unused}: neither the loss {loss.name} nor optimizer, {optimizer}, uses it: give "
                f"{advice}"
            )
