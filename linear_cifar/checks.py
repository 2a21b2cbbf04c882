"""The checks of a sweep's arguments, all made before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np

from linear_cifar.arguments import check_choice, check_hashable, describe, one_line
from linear_cifar.augment import Augmentation
from linear_cifar.config import Config, check_configs, get_axis, hyperparam_names
from linear_cifar.examples import LABELS, TRAINING, Examples, check_examples
from linear_cifar.losses import LOSSES, Loss, check_outputs
from linear_cifar.methods import Method
from linear_cifar.optimizers import OPTIMIZERS, Optimizer, find_dependencies
from linear_cifar.params import INITS, Params, as_params
from linear_cifar.replicates import Replicate, all_rows
from linear_cifar.snapshots import Snapshot
from linear_cifar.standardizer import Standardizer, as_standardizer

# Names under which a sweep holds other data and other measurements.
_TAKEN = (TRAINING, "standardizer", "running")


def check_arguments(
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    replicates: Sequence[Replicate],
    standardizer: Standardizer | None,
    method: Method,
    resume_from: Snapshot | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> np.dtype:
    """Check the arguments of `sweep` or `solve`, and return the type of the weights.

    Args:
      configs: configurations whose values are Python's numbers.
      replicates: checked replicates.
      method: gradient descent or the solver, whose options are checked.
      train, evaluation_sets, standardizer, resume_from, devices: as for `sweep`.

    Raises:
      ValueError: if an argument is out of range, of another kind, does not fit the training examples, or
        would change nothing. The message names the argument.
    """
    if not configs:
        raise ValueError("a sweep needs at least one configuration")
    _check_sets(train, evaluation_sets)
    check_outputs(method.spec.loss, train.K)
    for own in (standardizer, *(replicate.standardizer for replicate in replicates)):
        as_standardizer(own, train.features.shape[1])
    _check_rows(replicates, train, evaluation_sets)
    dtype = method.check(configs, train, replicates, resume_from)
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


def check_initial(
    dtype: str,
    init: Any,
    initializer: Callable[[int, int], Callable[[int], Params]],
    seed: int,
    snapshot: Snapshot | None,
    shape: tuple[int, int],
) -> np.dtype:
    """Return the type of the weights that a sweep starts from; raise ValueError if they do not fit."""
    check_choice("dtype", dtype, ("float32", "float64"))
    if snapshot is not None:
        if not isinstance(snapshot, Snapshot):
            raise ValueError(f"resume_from is {describe(snapshot)}: give a snapshot, see lc.load_snapshot")
        found = np.dtype(as_params(snapshot.params, shape).W.dtype)
        if found != jax.dtypes.canonicalize_dtype(found):
            raise ValueError(f"the snapshot is of {found}: resume it within jax.enable_x64(True)")
        return found
    if not (isinstance(init, str) or callable(init)):
        raise ValueError(
            f"init is {describe(init)}: give {' or '.join(INITS)}, or a function of the seed that returns "
            "lc.Params"
        )
    K, d = shape
    initial = as_params(initializer(d, K)(seed), shape)
    # JAX makes float64 float32, unless it is set up to keep it.
    found = np.dtype(jax.dtypes.canonicalize_dtype(initial.W.dtype))
    if isinstance(init, str) and found != dtype:
        raise ValueError(f"dtype is {dtype}: call this within jax.enable_x64(True)")
    return found


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


def check_augmentation(augment: Augmentation | None, train: Examples) -> None:
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


def check_descent_configs(
    configs: Sequence[Config],
    loss: Loss,
    optimizer: Optimizer,
    shape: tuple[int, int],
    dtype: np.dtype,
    num_rows: int,
    scheduled: bool,
) -> None:
    """Raise ValueError if a hyperparameter is missing, does not fit the data, or would change nothing."""
    check_configs(configs, num_rows, dtype)
    called, names = describe(optimizer), hyperparam_names(configs[0])
    read, read_each_step = find_dependencies(optimizer, names, *shape, dtype)
    if "eta" not in read:
        raise ValueError(
            f"eta is {configs[0].eta}: optimizer, {called}, does not use it: make it from hyperparams.eta"
        )
    if scheduled and "eta" not in read_each_step:
        raise ValueError(
            f"schedule changes eta, which optimizer, {called}, keeps from its start: use hyperparams.eta "
            "in each update"
        )
    for name, unused in find_unused(configs, loss):
        if name not in read and name != "batch":
            readers = [f"loss={loss.name!r}" for loss in LOSSES.values() if name in dict(loss.reported_at)]
            for key, known in OPTIMIZERS.items():
                with suppress(ValueError):  # it may not fit the types that a user allows
                    if name in find_dependencies(known, names, *shape, dtype)[0]:
                        readers.append(f"optimizer={key!r}")
            advice = " or ".join([*readers, f"a loss or an optimizer that reads hyperparams.{name}"])
            raise ValueError(
                f"{name} is {unused}: neither the loss {loss.name} nor optimizer, {called}, uses it: give "
                f"{advice}"
            )


def find_unused(configs: Sequence[Config], loss: Loss) -> list[tuple[str, Any]]:
    """Return the hyperparameters but λ that the loss does not read, with a value that is not the default.

    Raises:
      ValueError: if one that the loss reads is missing.
    """
    read = {name for name, _ in loss.reported_at}
    for name in sorted(read - {*configs[0]}):
        raise ValueError(f"{name} is missing, which the loss {loss.name} reads: give each Config one")
    unused = []
    for name in sorted({*configs[0]} - read - {"lam"}):
        default = get_axis(name).default
        # λ is in the gradient, unless the optimizer applies it.
        unused += [(name, config[name]) for config in configs if config[name] != default][:1]
    return unused
