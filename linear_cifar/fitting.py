"""Training of any number of runs to their end, in blocks that the memory holds, with a folder or without."""

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from linear_cifar.arguments import as_whole, check_choice, describe, one_line
from linear_cifar.atomic import remove_unfinished
from linear_cifar.augment import Augmentation
from linear_cifar.blocks import (
    Block,
    SavedBlock,
    describe_devices,
    describe_numerics,
    find_difference,
    plan_blocks,
    read_blocks,
    write_sweep,
)
from linear_cifar.checks import check_arguments
from linear_cifar.cluster import Cluster
from linear_cifar.config import Config, as_configs
from linear_cifar.descent import describe_settings, prepare_sets
from linear_cifar.examples import TRAINING, Examples
from linear_cifar.folders import FolderError, locked_folder
from linear_cifar.halving import Halving, split_brackets
from linear_cifar.identity import Identity, check_names, identify
from linear_cifar.legs import Progress, Trainer, count_epochs, ignore, never
from linear_cifar.losses import Loss
from linear_cifar.memory import max_runs
from linear_cifar.methods import Method
from linear_cifar.model import FULL_PRECISION
from linear_cifar.optimizers import Optimizer
from linear_cifar.replicates import Replicate, as_replicates, stack_standardizers
from linear_cifar.result import ALL, BEST, KEEP, PER_CONFIG, Result, choose_set
from linear_cifar.schedules import Schedule
from linear_cifar.solver import ROUND, Solver
from linear_cifar.standardizer import Standardizer, as_standardizer
from linear_cifar.training import Descent, Initializer

# Weights and states of all runs are kept where together they take no more bytes.
KEPT_BYTES = 1024**3


class NothingTrained(Exception):
    """Training was asked to stop before there was a result."""


def fit(
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples] | None = None,
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
    per_epoch: Sequence[str] | None = None,
    halving: Halving | None = None,
    keep: str | None = None,
    folder: str | Path | None = None,
    save_every: int | None = None,
    block_runs: int | None = None,
    memory_bytes: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    cluster: Cluster | None = None,
    on_epoch: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    subset: bool = False,
    about: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = warnings.warn,
) -> Result:
    """Train every configuration from every seed to its end, as many runs at a time as the memory holds.

    Args:
      configs, train, evaluation_sets, epochs, seeds, loss, standardizer, optimizer, augment, shuffle,
        precision, schedule, average, init, dtype, max_loss, devices: as for `sweep`.
      per_epoch: names of the evaluation sets to measure after every epoch; the others are measured at the
        end. None: all.
      halving: rule by which runs are stopped before their end; None: all train to their end.
      keep: "all" keeps the weights of every run; "per_config" those of each configuration's best replicate;
        "best" those of the best configuration's best replicate. The best is found on the first evaluation set
        whose name is not `train` and does not begin with `test`. None: the first of these that takes at most
        1 GB.
      folder: folder for checkpoints and results. The same call resumes it. More configurations,
        seeds or epochs extend it.
      save_every: epochs from one checkpoint to the next; None: as many as needed for saving to take at most
        2 % of the time.
      block_runs: largest number of runs that train at a time; None: as many as the memory holds.
      memory_bytes: memory to plan with, of each accelerator or of the process on a CPU; None: what there is.
      cluster: connection to other machines that train the blocks in place of this process, see `Cluster`.
      on_epoch: called after every epoch of a block.
      should_stop: called after every epoch; True stops the training. The block then saves its state,
        and the result is incomplete. It is so too where workers gave up a block, which `log` is told.
      subset: whether the folder may also hold configurations that this sweep leaves out.
      about: words that the result carries, for figures and tables; they change no number.
      log: gets a line about each file in the folder that cannot be used, and about other versions or devices.

    Returns:
      Measurements [S, C] and the weights that were kept.

    Raises:
      ValueError: if an argument is out of range, see `sweep`, or the memory does not hold the examples and
        one run.
      FolderError: if the folder is in use, or holds something else; nothing in it is touched.
      SaveError: if a checkpoint cannot be written; what was saved before stands.
      NothingTrained: if `should_stop` ended the training before its first epoch.
    """
    descent = Descent(
        epochs, loss, optimizer, augment, shuffle, precision, schedule, average, init, dtype, max_loss
    ).check_options()
    return _train(
        descent, configs, train, evaluation_sets, seeds, standardizer,
        per_epoch=per_epoch, halving=halving, keep=keep, folder=folder,
        save_every=save_every, block_runs=block_runs, memory_bytes=memory_bytes, devices=devices,
        cluster=cluster, on_epoch=on_epoch, should_stop=should_stop, subset=subset, about=about, log=log,
    )  # fmt: skip


def solve(
    lams: Iterable[float | Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples] | None = None,
    *,
    replicates: Iterable[int | Replicate] = (0,),
    loss: str | Loss = "softmax",
    standardizer: Standardizer | None = None,
    precision: str = FULL_PRECISION,
    dtype: str = "float32",
    tolerance: float | None = None,
    max_evaluations: int = 1_000,
    per_epoch: Sequence[str] = (),
    keep: str | None = None,
    folder: str | Path | None = None,
    save_every: int | None = None,
    block_runs: int | None = None,
    memory_bytes: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    cluster: Cluster | None = None,
    on_epoch: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    subset: bool = False,
    about: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = warnings.warn,
) -> Result:
    r"""Minimise the objective for every λ and replicate, all at once, see `linear_cifar.solver`.

    The objective is $J = \frac1n \sum_i \ell(W x_i + b, y_i) + \lambda \lVert W \rVert^2$, as in `fit`, and
    scikit-learn's for C = 1 / (2 n λ). A run has converged once its gradient is at most `tolerance` times
    that of W = 0 and b = 0, where it starts, and the objective is expected to fall by at most `tolerance` / 2
    of itself; or once that fall is far below the last digit of the objective.
    Where λ = 0 and the classes are separable, there is no minimum, and the run stops.

    Args:
      lams: the C values of λ; or configurations with further axes that the loss reads, such as
        `Config(lam=0.1, smoothing=0.1)`. A loss of your own should be convex and smooth: of one that is not
        convex the result is a point where the gradient is zero.
      train, evaluation_sets, loss, standardizer, precision, devices: as for `sweep`.
      replicates: folds and other replicates with rows and standardisers of their own. Their seeds only name
        them, since the minimum has none.
      dtype: floating-point type of all arithmetic, "float32" or "float64".
      tolerance: None: 1e-6 in float32, 1e-10 in float64.
      max_evaluations: largest number of evaluations of a run's objective, in rounds of 10. A larger one
        resumes a folder.
      per_epoch: names of the sets to measure after every 10 evaluations; the others are measured at the end.
      keep, folder, save_every, block_runs, memory_bytes, cluster, on_epoch, should_stop, subset, about, log:
        as for `fit`, with 10 evaluations in place of an epoch.

    Returns:
      The result of `fit`, whose epochs are rounds. `final` has in addition `objective`, `gradient_norm` (with
      respect to W and the bias of centred features), `evaluations`, and as 0 or 1 `converged`, `separable`
      and `stalled`: rounding keeps the gradient above the tolerance.

    Raises:
      ValueError, FolderError, SaveError, NothingTrained: as `fit`.
    """
    configs = [lam if isinstance(lam, Config) else Config(lam=lam) for lam in _as_list(lams)]
    rounds = math.ceil(as_whole("max_evaluations", max_evaluations, 1) / ROUND)
    solver = Solver(rounds, loss, precision, dtype, tolerance).check_options()
    return _train(
        solver, configs, train, evaluation_sets, replicates, standardizer,
        per_epoch=per_epoch, halving=None, keep=keep, folder=folder,
        save_every=save_every, block_runs=block_runs, memory_bytes=memory_bytes, devices=devices,
        cluster=cluster, on_epoch=on_epoch, should_stop=should_stop, subset=subset, about=about, log=log,
    )  # fmt: skip


def _as_list(lams: Any) -> list[Any]:
    """Return values as a list, or raise ValueError."""
    try:
        return list(lams)
    except TypeError:
        raise ValueError(f"lams is {describe(lams)}: give a list, such as [0.001, 0.01, 0.1]") from None


def _train(
    method: Method,
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples] | None,
    seeds: Iterable[int | Replicate],
    standardizer: Standardizer | None,
    *,
    per_epoch: Sequence[str] | None,
    halving: Halving | None,
    keep: str | None,
    folder: Any,
    save_every: int | None,
    block_runs: int | None,
    memory_bytes: int | None,
    devices: Sequence[jax.Device] | None,
    cluster: Cluster | None,
    on_epoch: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool] | None,
    subset: bool,
    about: Mapping[str, Any] | None,
    log: Callable[[str], None],
) -> Result:
    """Train all runs by a method, block after block; see `fit`."""
    sets = {} if evaluation_sets is None else evaluation_sets
    with jax.enable_x64(True) if method.dtype == "float64" else nullcontext():
        given, replicates = as_configs(configs), as_replicates(seeds)
        configs = tuple(dict.fromkeys(given))  # equal ones are trained once
        # Before the first block is trained, and not when the turn of a later one comes.
        weights_dtype = check_arguments(
            configs, train, sets, replicates, standardizer, method, devices=devices
        )
        local = jax.local_devices() if devices is None else list(devices)
        numbers = {"save_every": save_every, "block_runs": block_runs, "memory_bytes": memory_bytes}
        measured = _check_options(sets, per_epoch, keep, halving, about, numbers)
        each_epoch = method.describe_epochs(weights_dtype)
        settings = describe_settings(method, train, measured, weights_dtype)
        if halving is not None:
            halving = halving.check(method.epochs, all(factor == 1 for factor, _ in each_epoch))
            settings["halving"] = (
                f"{halving.factor} at {','.join(map(str, halving.rungs or ()))} of {method.epochs} epochs"
            )
        if folder is not None:
            if not isinstance(folder, str | Path):
                raise ValueError(f"folder is {describe(folder)}: give a path")
            check_names(settings)
        d = train.features.shape[1]
        standardizer, all_sets = as_standardizer(standardizer, d), {TRAINING: train, **sets}
        whole = identify(configs, replicates, all_sets, standardizer, settings, each_epoch)
        stopped = should_stop or never

        @cache
        def count_runs() -> int:
            """Return the largest number of runs that train at a time; with a cluster, wait for a worker."""
            needs = _describe_needs(method, whole, all_sets, memory_bytes)
            if cluster is None:
                largest = max_runs(local, **needs)
                return block_runs or largest
            num_runs = math.prod(whole.size)
            bracket = halving and min(halving.bracket, len(configs)) * len(replicates)
            return cluster.count_runs(needs, num_runs, block_runs, bracket, stopped)

        if cluster is None:
            count_runs()  # before anything takes memory
        wanted, keep = keep, keep or _choose_kept(whole, halving, bool(sets))
        # Once for all blocks.
        prepared, shared, own = prepare_sets(
            all_sets, standardizer, replicates, weights_dtype, method.augment
        )
        with locked_folder(Path(folder)) if folder is not None else nullcontext() as locked:
            saved = [] if locked is None else _read_usable(locked, whole, halving, subset, wanted)
            if locked is not None:
                write_sweep(locked, whole)
            planned = list(plan_blocks(whole, saved, count_runs, halving, keep))
            sizes = [math.prod(identity.size) for identity, _ in planned]
            lengths = [count_epochs(identity, halving) for identity, _ in planned]
            trainer = Trainer(
                method, prepared, shared, measured, halving,
                runs_at_once=0,
                num_runs=sum(sizes),
                total=float(np.dot(sizes, lengths)) / sum(sizes),
                save_every=save_every,
                about=about or {},
                folder=locked,
                devices=local,
                should_stop=stopped,
                on_epoch=on_epoch or ignore,
                log=log,
            )  # fmt: skip
            places = {replicate: s for s, replicate in enumerate(whole.replicates)}
            results, missing = [], []
            for identity, kept in planned:
                rows = [places[replicate] for replicate in identity.replicates]
                raw = stack_standardizers([replicates[s] for s in rows]) or standardizer
                raw = raw and Standardizer(*(np.asarray(leaf, np.float64) for leaf in raw))
                block = Block(identity, tuple(own[s] for s in rows), kept, raw)
                finished = trainer.read_block(block)
                if finished is None:
                    missing.append(block)
                else:
                    results.append(finished)
            if missing:
                trainer = trainer._replace(runs_at_once=count_runs())
            machines = [describe_devices(local)] if cluster is None else cluster.devices
            _compare_environments(saved, machines, log)
            train_blocks = trainer.train_here if cluster is None else partial(cluster.train, trainer)
            for block, trained in train_blocks(missing):
                result = trainer.save_block(block, trained)
                if result is not None:
                    results.append(result)
        if not results:
            raise NothingTrained("the training was stopped before there was a result")
        result = Result.join(results, whole).keep(keep)
        result = replace(result, sizes={name: result.sizes[name] for name in sets})  # in the caller's order
        columns = {config: c for c, config in enumerate(configs)}
        return result if len(given) == len(configs) else result.take([columns[config] for config in given])


def _check_options(
    sets: Mapping[str, Examples],
    per_epoch: Sequence[str] | None,
    keep: str | None,
    halving: Halving | None,
    about: Mapping[str, Any] | None,
    numbers: Mapping[str, int | None],
) -> tuple[str, ...]:
    """Return the names of the sets to measure after every epoch; raise ValueError for a wrong option."""
    check_choice("keep", keep, (*KEEP, None))
    if keep in (PER_CONFIG, BEST) and not sets:
        raise ValueError(f"keep={keep!r} needs an evaluation set")
    try:
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"about cannot be saved as JSON ({one_line(error)}): give words and numbers"
        ) from None
    for name, number in numbers.items():
        if number is not None:
            as_whole(name, number, 1)
    names = tuple(sets) if per_epoch is None else tuple(per_epoch)
    for name in names:
        if name not in sets:
            raise ValueError(f"per_epoch has {name!r}: the evaluation sets are {', '.join(sets) or 'none'}")
    if not isinstance(halving, Halving | None):
        raise ValueError(f"halving is {describe(halving)}: give lc.Halving(factor=3), or None")
    if halving is not None and choose_set(sets) not in names:
        raise ValueError("halving needs an evaluation set to choose by that is measured after every epoch")
    return tuple(name for name in sets if name in names)


def _describe_needs(
    method: Method, whole: Identity, sets: Mapping[str, Examples], memory_bytes: int | None
) -> dict[str, Any]:
    """Return the arguments of `max_runs` but for the devices."""
    settings, distinct = whole.settings, {id(examples): len(examples) for examples in sets.values()}
    return {
        "memory_bytes": memory_bytes,
        "n": sum(distinct.values()),
        "d": settings["d"],
        "K": settings["K"],
        "dtype": settings["dtype"],
        **method.describe_needs(whole.configs, settings["d"]),
        "num_configs": len(whole.configs),
        "feature_bytes": sets[TRAINING].features.dtype.itemsize,
        "target_bytes": sets[TRAINING].compact.nbytes // len(sets[TRAINING]),
    }


def _choose_kept(whole: Identity, halving: Halving | None, has_sets: bool) -> str:
    """Return which weights to keep by default: those of all runs, where weights and averages take 1 GB."""
    settings, (S, C) = whole.settings, whole.size
    nbytes = 2 * (settings["d"] + 1) * settings["K"] * np.dtype(settings["dtype"]).itemsize
    finished = C
    if halving is not None:
        finished = sum(
            halving.count_alive(part)[-1] for part in split_brackets(whole.configs, halving.bracket)
        )
    if not has_sets or S * finished * nbytes <= KEPT_BYTES:
        return ALL
    return PER_CONFIG if finished * nbytes <= KEPT_BYTES else BEST


def _read_usable(
    folder: Path, whole: Identity, halving: Halving | None, subset: bool, keep: str | None
) -> list[SavedBlock]:
    """Return the blocks in a folder, all of which the sweep can use; raise FolderError if it cannot.

    Files that a killed process has not finished are removed.
    """
    for depth in ("*/", "*/*/"):  # of blocks and of their parts
        remove_unfinished(folder, depth)
    saved = read_blocks(folder)
    for block in saved:
        difference = find_difference(block, whole, halving, subset, keep)
        if difference is not None:
            raise FolderError(
                folder, f"holds runs with {difference}: give the same, or choose another folder"
            )
    return saved


def _compare_environments(
    saved: Sequence[SavedBlock], devices: Sequence[Sequence[str]], log: Callable[[str], None]
) -> None:
    """Log a line if a block was begun with other versions or devices than those that each machine has."""
    for block in saved:
        here = [describe_numerics(block.identity, machine) for machine in devices]
        if here and block.environment not in here:
            log("note: begun with other versions or devices, see block.json: results agree up to rounding")
            return
