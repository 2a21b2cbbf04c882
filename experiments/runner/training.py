"""Training of a run's blocks, one after another, each resumed from its last checkpoint."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import numpy as np

from experiments.runner.blocks import ALL, BEST, Block, BlockManifest, block_folder, plan_sweep
from experiments.runner.brackets import average_epochs, count_finished, remove_legs, train_bracket
from experiments.runner.checkpoints import BlockResult, Checkpoints, epochs_on_disk
from experiments.runner.data import PreparedData
from experiments.runner.legs import measure_leg, train_leg
from experiments.runner.sweeps import Sweep, SweepResult
from linear_cifar.fitting import SavedParams
from linear_cifar.memory import device_memory, max_runs

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
OpenProgress = Callable[[float, str], AbstractContextManager[Progress]]


class Task(NamedTuple):
    """A block to train, its data and its folder; `sweep` is the whole sweep that it is a part of."""

    sweep: Sweep
    data: PreparedData
    block: Block
    folder: Path

    @property
    def epochs_done(self) -> int:
        """Epochs of the newest checkpoint on disk; 0 for a bracket that is not finished."""
        return max(epochs_on_disk(self.folder), default=0)


def plan_tasks(
    run: Path,
    sweep: Sweep,
    data: PreparedData,
    manifests: Sequence[BlockManifest],
    *,
    block_runs: int | None,
    keep_all: bool,
) -> list[Task]:
    """Return all blocks of a sweep, those on disk and new ones.

    Args:
      run: the run's folder.
      sweep: sweep to train.
      data: its data.
      manifests: blocks on disk.
      block_runs: largest number of runs in a new block; None: as many as the memory holds.
      keep_all: whether finished blocks keep the weights of all runs.
    """
    at_once = block_runs or _max_runs(sweep, data, len(sweep.configs))
    blocks = plan_sweep(sweep, manifests, at_once, keep_all)
    fingerprint = data.dataset.fingerprint
    return [Task(sweep, data, block, block_folder(run, block.sweep, fingerprint)) for block in blocks]


def states_are_few(sweeps: Sequence[tuple[Sweep, PreparedData]]) -> bool:
    """Tell whether the final states of all runs, weights and averaged weights, are few enough to be kept."""
    nbytes = 0
    for whole, data in sweeps:
        itemsize = np.dtype(whole.settings.dtype).itemsize
        num_runs = count_finished(whole) if whole.settings.halving else whole.num_runs
        nbytes += 2 * num_runs * (data.d + 1) * data.K * itemsize
    return nbytes <= KEPT_BYTES


def train_tasks(
    tasks: Sequence[Task],
    stopped: Callable[[], bool],
    open_progress: OpenProgress,
    save_every: int | None = None,
    block_runs: int | None = None,
) -> dict[Path, SweepResult]:
    """Train blocks, and return their results by folder.

    After a stop, the results are those of the blocks that have a checkpoint, as far as they are trained. A
    bracket of a search with halving has results only at its end.

    Args:
      tasks: blocks to train, or to read where they are finished.
      stopped: asked after every epoch whether to end with it.
      open_progress: opens a bar for each sweep.
      save_every: epochs from one checkpoint to the next; None: as often as saving takes little time.
      block_runs: largest number of runs of a bracket that train at a time; None: as many as the memory holds.
    """
    results: dict[Path, SweepResult] = {}
    for name, group in itertools.groupby(tasks, lambda task: task.sweep.name):
        members = list(group)
        whole, data = members[0].sweep, members[0].data
        num_runs = sum(task.block.sweep.num_runs for task in members)
        title = f"{data.dataset.name}, {name}: {whole.describe_size()}"
        shares = [task.block.sweep.num_runs / num_runs for task in members]
        total = sum(
            share * block_epochs(task.block.sweep) for share, task in zip(shares, members, strict=True)
        )
        with open_progress(total, title) as progress:
            for task, share in zip(members, shares, strict=True):
                if not stopped() or task.epochs_done:
                    with jax.enable_x64(task.block.sweep.settings.dtype == "float64"):
                        result = _train_block(task, stopped, progress, share, save_every, block_runs)
                    if result:
                        results[task.folder] = result
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
      checkpoints, stopped, on_resume, on_epoch: as for `train_leg`.
    """
    settings = block.settings
    spec = settings.train_spec(block.configs, data.dataset.image_shape)
    # After the last epoch the state serves only to train the block for longer.
    leg = train_leg(
        block,
        data,
        spec,
        until=settings.epochs,
        keep_state=settings.extendable and checkpoints is not None,
        checkpoints=checkpoints,
        stopped=stopped,
        on_resume=on_resume,
        on_epoch=on_epoch,
    )
    return measure_leg(block, data, spec, leg._replace(state=None))


def keep_best(result: SweepResult, count: int) -> SweepResult:
    """Keep only the parameters of the best replicate of each of the `count` best configurations."""
    configs = result.ranking[:count]
    replicates = [result.best_replicate(c) for c in configs]
    chosen = [result.params_of(r, c) for r, c in zip(replicates, configs, strict=True)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)
    return result._replace(saved=SavedParams(np.asarray(replicates), np.asarray(configs), params))


def _train_block(
    task: Task,
    stopped: Callable[[], bool],
    progress: Progress,
    share: float,
    save_every: int | None,
    block_runs: int | None,
) -> SweepResult | None:
    """Train a block, or read it if it is finished; return None if a bracket was stopped before its end.

    `share` is the block's part of the bar.
    """
    data, (block, retention) = task.data, task.block
    sizes = {name: data.size(name) for name in data.splits}

    def open_checkpoints(name: str, sweep: Sweep) -> Checkpoints:
        folder = task.folder / name
        folder.mkdir(exist_ok=True)
        return Checkpoints(folder, sweep, data.d, data.K, sizes, progress.log, save_every)

    def log_reused(epoch: int) -> None:
        if not stopped():
            total = block.settings.epochs
            progress.log(
                f"reused: {block.name}, {block.describe_size()}, the first {epoch} of {total} epochs"
            )

    checkpoints = open_checkpoints(".", block)
    extendable = retention == ALL and block.settings.extendable
    finished = checkpoints.result()
    if finished:
        progress.skip(block_epochs(block) * share)
        log_reused(len(finished.history.finite))
        if not extendable:  # a process may have been killed before it removed them
            checkpoints.remove_states()
            remove_legs(task.folder)
        return SweepResult(block, data, *finished)
    if block.settings.halving:
        resumed: list[int] = []  # epochs of the legs on disk, until the first one is trained on

        def skip_epochs(epochs: float, epoch: int) -> None:
            progress.skip(epochs * share)
            resumed.append(epoch)

        def advance(epochs: float, remark: str) -> None:
            if resumed:
                log_reused(max(resumed))
                resumed.clear()
            progress.advance(epochs * share, remark)

        trained = train_bracket(
            block,
            data,
            max_runs=lambda num_configs: block_runs or _max_runs(block, data, num_configs),
            open_checkpoints=open_checkpoints,
            stopped=stopped,
            on_resume=skip_epochs,
            on_epoch=advance,
        )
        if trained is None:
            return None
        result = trained
    else:

        def skip(epochs: int) -> None:
            progress.skip(epochs * share)
            log_reused(epochs)

        result = train_sweep(block, data, checkpoints, stopped, skip, partial(progress.advance, share))
    if retention != ALL and result.complete:
        result = keep_best(result, 1 if retention == BEST else len(block.configs))
    if result.complete:
        kept = BlockResult(
            result.history, result.final, result.class_accuracy, result.correct, result.stopped, result.saved
        )
        checkpoints.save_result(kept, extendable)
        remove_legs(task.folder)
    return result


def block_epochs(block: Sweep) -> float:
    """Return the epochs that a block trains, as a mean over its runs."""
    return average_epochs(block) if block.settings.halving else block.settings.epochs


def _max_runs(sweep: Sweep, data: PreparedData, num_configs: int) -> int:
    """Return how many runs the memory of all local devices holds, of that many configurations at a time."""
    devices = jax.local_devices()
    return max_runs(
        devices,
        device_memory(devices),
        n=data.num_examples,
        d=data.d,
        K=data.K,
        dtype=sweep.settings.dtype,
        largest_batch=max(config.batch for config in sweep.configs),
        num_configs=num_configs,
        feature_bytes=data.splits["train"].features.dtype.itemsize,
    )
