"""A leg of training: runs that train side by side up to some epoch, resumed from their last checkpoint."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from experiments.runner.checkpoints import BlockState, Checkpoints
from experiments.runner.data import PreparedData
from experiments.runner.sweeps import HELD_OUT, Sweep, SweepResult
from linear_cifar.engine import (
    Epoch,
    EpochMetrics,
    evaluate_runs,
    mark_correct_of_runs,
    mask_diverged,
    mask_metrics,
    sweep,
)
from linear_cifar.evaluation import mean_class_accuracy
from linear_cifar.fitting import SavedParams, select_all
from linear_cifar.params import Params
from linear_cifar.snapshots import Snapshot
from linear_cifar.training import TrainSpec
from linear_cifar.uncertainty import pack_correct

T = TypeVar("T")


class Leg(NamedTuple):
    """Runs R x C, trained up to an epoch E."""

    history: EpochMetrics  # [E, R, C] from the first epoch, as measured
    params: Params  # those that count: W [R, C, K, d] and b [R, C, K]
    state: BlockState | None  # the last one that was read or saved


def train_leg(
    block: Sweep,
    data: PreparedData,
    spec: TrainSpec,
    *,
    until: int,
    keep_state: bool,
    resume_from: BlockState | None = None,
    checkpoints: Checkpoints | None = None,
    stopped: Callable[[], bool] = lambda: False,
    on_resume: Callable[[int], None] = lambda epochs: None,
    on_epoch: Callable[[str], None] = lambda remark: None,
) -> Leg:
    """Train a block's configurations from its seeds.

    Args:
      block: sweep or part of one.
      data: its data.
      spec: training spec of the sweep.
      until: epoch after which the leg ends; it ends earlier after a stop.
      keep_state: whether to return the state after the last epoch, and to save it.
      resume_from: state to start from, if there is no checkpoint; None: the initial parameters.
      checkpoints: where to resume from and to save to.
      stopped: asked after every epoch whether to end with it.
      on_resume: gets the number of epochs that a checkpoint spared.
      on_epoch: gets a remark on the best accuracy after every epoch.
    """
    settings = block.settings

    def start(snapshot: Snapshot | None) -> Iterator[Epoch]:
        return sweep(
            block.configs,
            data.splits["train"],
            {name: data.splits[name] for name in settings.evaluate},
            epochs=settings.epochs,
            seeds=data.replicates(block.replicates, settings.evaluate),
            standardizer=data.standardizer,
            schedule=settings.eta_schedule(),
            average=settings.average,
            init=settings.initializer(data.d, data.K),
            resume_from=snapshot,
            **spec._asdict(),
        )

    def resume(state: BlockState) -> tuple[BlockState, Iterator[Epoch]]:
        return state, start(state.snapshot)

    found = checkpoints.newest_state(resume) if checkpoints else None
    if found:
        on_resume(found[0].snapshot.number)
    elif resume_from:
        found = resume(resume_from)
    measured: list[EpochMetrics] = []
    params: Params | None = None
    state, epochs = found or (None, start(None))
    if state:
        measured, params = [state.history], state.snapshot.averaged
    remaining = until - (state.snapshot.number if state else 0)
    best = max(map(_best_accuracy, measured), default=0.0)
    epoch = None
    for epoch in itertools.islice(epochs, 0 if state and stopped() else remaining):
        measured.append(jax.tree.map(lambda values: values[None], epoch.metrics))
        best = max(best, _best_accuracy(epoch.metrics))
        on_epoch(f"best val acc {best:.2%}" if "val" in epoch.metrics.evaluated else "")
        stop = stopped()
        if epoch.number == until:
            due = keep_state
        else:
            due = checkpoints is not None and (stop or checkpoints.should_save(epoch.number))
        if due:
            state = BlockState(epoch.snapshot(), _stack(measured))
            if checkpoints:
                checkpoints.save_state(state)
        if stop:
            break
    params = epoch.params() if epoch else params
    assert params is not None, "an epoch is trained before the first stop"
    return Leg(_stack(measured), params, state)


def measure_leg(block: Sweep, data: PreparedData, spec: TrainSpec, leg: Leg) -> SweepResult:
    """Measure runs on all splits after their last epoch."""
    settings = block.settings
    history = mask_diverged(leg.history, settings.max_loss)
    replicates = data.replicates(block.replicates, ())

    def measure(evaluate: Callable[..., T], name: str, **options: Any) -> T:
        return evaluate(
            block.configs,
            leg.params,
            data.splits[name],
            seeds=replicates,
            standardizer=data.standardizer,
            precision=spec.precision,
            rows=data.rows(name, block.replicates),
            **options,
        )

    final = {
        # After the last epoch these were measured already.
        name: jax.tree.map(lambda values: values[-1], leg.history.evaluated[name])
        if name in settings.evaluate
        else measure(evaluate_runs, name, loss=spec.loss)
        for name in data.splits
    }
    held_out = [name for name in HELD_OUT if name in data.splits]
    by_class, correct = {}, {}
    for name in held_out:
        marks = measure(mark_correct_of_runs, name)
        accuracy = mean_class_accuracy(marks, data.labels(name, block.replicates))
        by_class[name], correct[name] = accuracy.astype(settings.dtype), pack_correct(marks)
    final, by_class = mask_metrics((final, by_class), history.finite[-1])
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), leg.params)
    saved = SavedParams(*select_all(*block.size), flat)
    stopped = np.zeros(block.size, np.int64)
    return SweepResult(block, data, history, final, by_class, correct, stopped, saved)


def _stack(measured: Sequence[EpochMetrics]) -> EpochMetrics:
    """Join measurements [E, R, C] along the epochs."""
    return jax.tree.map(lambda *values: np.concatenate(values), *measured)


def _best_accuracy(metrics: EpochMetrics) -> float:
    if "val" not in metrics.evaluated:
        return 0.0
    return float(np.max(metrics.evaluated["val"].accuracy, where=metrics.finite, initial=0))
