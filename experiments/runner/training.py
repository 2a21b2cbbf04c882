"""Training of a run's blocks, one after another, each resumed from its last checkpoint."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from experiments.runner.blocks import (
    ALL,
    BEST,
    Block,
    BlockManifest,
    block_folder,
    plan_sweep,
    read_manifest,
    restore_block,
)
from experiments.runner.checkpoints import BlockResult, BlockState, Checkpoints, epochs_on_disk
from experiments.runner.data import PreparedData
from experiments.runner.settings import Settings
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
from linear_cifar.memory import device_memory, max_runs
from linear_cifar.params import Params
from linear_cifar.snapshots import Snapshot
from linear_cifar.uncertainty import pack_correct

T = TypeVar("T")

# The final states of a run are kept where together they take no more bytes.
KEPT_BYTES = 1024**3


class Progress(Protocol):
    """A bar of the epochs of many runs."""

    def advance(self, epochs: float, remark: str) -> None:
        """Advance the bar by `epochs`, and show the remark beside it."""

    def skip(self, epochs: float) -> None:
        """Advance the bar by epochs that were trained earlier and say nothing of the time left."""

    def log(self, line: str) -> None:
        """Print a line above the bar."""


# Opens a bar with this number of epochs and this title.
OpenProgress = Callable[[int, str], AbstractContextManager[Progress]]


class Task(NamedTuple):
    """A block to train, its data and its folder; `sweep` is the whole sweep that it is a part of."""

    sweep: Sweep
    data: PreparedData
    block: Block
    folder: Path

    @property
    def epochs_done(self) -> int:
        """Epochs of the newest checkpoint on disk."""
        return max(epochs_on_disk(self.folder), default=0)

    @property
    def finished(self) -> bool:
        """True if the block is trained to its end."""
        return self.block.sweep.settings.epochs in epochs_on_disk(self.folder, "metrics")


def plan_tasks(
    run: Path,
    sweep: Sweep,
    data: PreparedData,
    manifests: Sequence[BlockManifest],
    *,
    block_runs: int | None,
    processes: int,
    keep_all: bool,
) -> list[Task]:
    """Return all blocks of a sweep, those on disk and new ones.

    Args:
      run: the run's folder.
      sweep: sweep to train.
      data: its data.
      manifests: blocks on disk.
      block_runs: largest number of runs in a new block; None: as many as the memory holds.
      processes: number of processes that share the new blocks evenly.
      keep_all: whether finished blocks keep the weights of all runs.
    """
    blocks = plan_sweep(sweep, manifests, block_runs or _max_runs(sweep, data), processes, keep_all)
    fingerprint = data.dataset.fingerprint
    return [Task(sweep, data, block, block_folder(run, block.sweep, fingerprint)) for block in blocks]


def restore_task(folder: Path, prepare: Callable[[Settings], PreparedData]) -> Task:
    """Return the task of a block that another process has planned, from its manifest.

    Args:
      folder: the block's folder.
      prepare: returns the data of a sweep with these settings.

    Raises:
      BlockError: if the manifest cannot be read.
    """
    block = restore_block(read_manifest(folder))
    return Task(block.sweep, prepare(block.sweep.settings), block, folder)


def states_are_few(sweeps: Sequence[tuple[Sweep, PreparedData]]) -> bool:
    """Tell whether the final states of all runs, weights and averaged weights, are few enough to be kept."""
    nbytes = 0
    for whole, data in sweeps:
        itemsize = np.dtype(whole.settings.dtype).itemsize
        nbytes += 2 * whole.num_runs * (data.d + 1) * data.K * itemsize
    return nbytes <= KEPT_BYTES


def assign_tasks(tasks: Sequence[Task], processes: int) -> list[list[Task]]:
    """Divide tasks among processes; the first gets the finished ones too, which it only has to read."""
    shares: list[list[Task]] = [[] for _ in range(processes)]
    unfinished = 0
    for task in tasks:
        shares[0 if task.finished else unfinished % processes].append(task)
        unfinished += not task.finished
    return shares


def train_tasks(
    tasks: Sequence[Task],
    stopped: Callable[[], bool],
    open_progress: OpenProgress,
    save_every: int | None = None,
) -> dict[Path, SweepResult]:
    """Train blocks, and return their results by folder.

    After a stop, the results are those of the blocks that have a checkpoint, as far as they are trained.

    Args:
      tasks: blocks to train, or to read where they are finished.
      stopped: asked after every epoch whether to end with it.
      open_progress: opens a bar for each sweep.
      save_every: epochs from one checkpoint to the next; None: as often as saving takes little time.
    """
    results: dict[Path, SweepResult] = {}
    for name, group in itertools.groupby(tasks, lambda task: task.sweep.name):
        members = list(group)
        whole, data = members[0].sweep, members[0].data
        num_runs = sum(task.block.sweep.num_runs for task in members)
        title = f"{data.dataset.name}, {name}: {whole.describe_size()}"
        with open_progress(whole.settings.epochs, title) as progress:
            for task in members:
                if not stopped() or task.epochs_done:
                    share = task.block.sweep.num_runs / num_runs
                    with jax.enable_x64(task.block.sweep.settings.dtype == "float64"):
                        results[task.folder] = _train_block(task, stopped, progress, share, save_every)
    return results


def train_sweep(
    block: Sweep,
    data: PreparedData,
    checkpoints: Checkpoints | None = None,
    stopped: Callable[[], bool] = lambda: False,
    on_resume: Callable[[int], None] = lambda epochs: None,
    on_epoch: Callable[[str], None] = lambda remark: None,
) -> SweepResult:
    """Train a block's configurations from its seeds, and measure them on all splits.

    Args:
      block: sweep or part of one.
      data: its data.
      checkpoints: where to resume from and to save to.
      stopped: asked after every epoch whether to end with it.
      on_resume: gets the number of epochs that a checkpoint spared.
      on_epoch: gets a remark on the best accuracy after every epoch.
    """
    settings, configs = block.settings, block.configs
    spec = settings.train_spec(configs, data.dataset.image_shape)

    def start(snapshot: Snapshot | None) -> Iterator[Epoch]:
        return sweep(
            configs,
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
    measured: list[EpochMetrics] = []
    params: Params | None = None
    if found:
        state, epochs = found
        measured, params = [state.history], state.snapshot.averaged
        on_resume(state.snapshot.number)
    else:
        epochs = start(None)
    best = max(map(_best_accuracy, measured), default=0.0)
    epoch = None
    for epoch in iter(()) if found and stopped() else epochs:
        measured.append(jax.tree.map(lambda values: values[None], epoch.metrics))
        best = max(best, _best_accuracy(epoch.metrics))
        on_epoch(f"best val acc {best:.2%}" if "val" in epoch.metrics.evaluated else "")
        stop = stopped()
        if epoch.number == settings.epochs:
            # After the last epoch the state serves only to train the block for longer.
            due = settings.extendable
        else:
            due = stop or (checkpoints is not None and checkpoints.should_save(epoch.number))
        if checkpoints and due:
            checkpoints.save_state(BlockState(epoch.snapshot(), _stack(measured)))
        if stop:
            break
    params = epoch.params() if epoch else params
    assert params is not None, "an epoch is trained before the first stop"
    history = _stack(measured)
    masked = mask_diverged(history, settings.max_loss)

    replicates = data.replicates(block.replicates, ())

    def measure(evaluate: Callable[..., T], name: str, **options: Any) -> T:
        return evaluate(
            configs,
            params,
            data.splits[name],
            seeds=replicates,
            standardizer=data.standardizer,
            precision=spec.precision,
            rows=data.rows(name, block.replicates),
            **options,
        )

    final = {
        # After the last epoch these were measured already.
        name: jax.tree.map(lambda values: values[-1], history.evaluated[name])
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
    final, by_class = mask_metrics((final, by_class), masked.finite[-1])
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), params)
    saved = SavedParams(*select_all(*block.size), flat)
    return SweepResult(block, data, masked, final, by_class, correct, saved)


def keep_best(result: SweepResult, count: int) -> SweepResult:
    """Keep only the parameters of the best replicate of each of the `count` best configurations."""
    configs = result.ranking[:count]
    replicates = [result.best_replicate(c) for c in configs]
    chosen = [result.params_of(r, c) for r, c in zip(replicates, configs, strict=True)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)
    return result._replace(saved=SavedParams(np.asarray(replicates), np.asarray(configs), params))


def _train_block(
    task: Task, stopped: Callable[[], bool], progress: Progress, share: float, save_every: int | None
) -> SweepResult:
    """Train a block, or read it if it is finished; `share` is its part of the bar."""
    data, (block, retention) = task.data, task.block
    sizes = {name: data.size(name) for name in data.splits}
    checkpoints = Checkpoints(task.folder, block, data.d, data.K, sizes, progress.log, save_every)

    def log_reused(epochs: int) -> None:
        progress.skip(epochs * share)
        if not stopped():
            total = block.settings.epochs
            progress.log(
                f"reused: {block.name}, {block.describe_size()}, the first {epochs} of {total} epochs"
            )

    extendable = retention == ALL and block.settings.extendable
    finished = checkpoints.result()
    if finished:
        log_reused(len(finished.history.finite))
        if not extendable:  # a process may have been killed before it removed them
            checkpoints.remove_states()
        return SweepResult(block, data, *finished)
    result = train_sweep(block, data, checkpoints, stopped, log_reused, partial(progress.advance, share))
    if retention != ALL and result.complete:
        result = keep_best(result, 1 if retention == BEST else len(block.configs))
    if result.complete:
        finished = BlockResult(
            result.history, result.final, result.class_accuracy, result.correct, result.saved
        )
        checkpoints.save_result(finished, extendable)
    return result


def _max_runs(sweep: Sweep, data: PreparedData) -> int:
    """Return how many runs the memory of all local devices holds."""
    devices = jax.local_devices()
    return max_runs(
        devices,
        device_memory(devices),
        n=data.num_examples,
        d=data.d,
        K=data.K,
        dtype=sweep.settings.dtype,
        largest_batch=max(config.batch for config in sweep.configs),
        num_configs=len(sweep.configs),
        feature_bytes=data.splits["train"].features.dtype.itemsize,
    )


def _stack(measured: Sequence[EpochMetrics]) -> EpochMetrics:
    """Join measurements [E, R, C] along the epochs."""
    return jax.tree.map(lambda *values: np.concatenate(values), *measured)


def _best_accuracy(metrics: EpochMetrics) -> float:
    if "val" not in metrics.evaluated:
        return 0.0
    return float(np.max(metrics.evaluated["val"].accuracy, where=metrics.finite, initial=0))
