"""Training of blocks: leg after leg, from the last checkpoint to the end, and the measurement of their runs.

A leg ends at a rung of halving or after the last epoch. Without halving there is one.
"""

import itertools
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from linear_cifar.blocks import Block, block_folder, describe_devices, split_runs, write_block
from linear_cifar.checkpoints import Checkpoints
from linear_cifar.descent import Epoch, evaluate_runs, mark_correct_of_runs, train_epochs
from linear_cifar.evaluation import mean_class_accuracy
from linear_cifar.examples import LABELS, TRAINING, Examples
from linear_cifar.halving import Halving
from linear_cifar.identity import Identity
from linear_cifar.methods import Method
from linear_cifar.replicates import stack_rows
from linear_cifar.result import ALL, TRAIN, Result, Weights, choose_set
from linear_cifar.snapshots import SOLVED, Snapshot, join_snapshots
from linear_cifar.standardizer import Standardizer

# Beginning of the names of the folders of a leg's parts, within that of their block.
PART = "part-"
# With at least this many classes, top-5 accuracies are measured too.
MANY_CLASSES, TOP = 20, 5


class Progress(NamedTuple):
    """A step of the training of a sweep: the start of a block with what it has on disk, or one epoch."""

    advance: float  # epochs trained in this step, as a mean over all runs of the sweep
    total: float  # epochs of the whole training, as such a mean
    epoch: int  # epoch that the block has reached
    resumed: bool  # whether the block starts here, from what is on disk
    block: Identity
    # Highest mean over the replicates of any configuration after this epoch, on the set that chooses.
    accuracy: float | None
    note: str = ""  # words on the workers of a cluster, or on the runs that have ended


def never() -> bool:
    """Return False: training goes on."""
    return False


def ignore(progress: Progress) -> None:
    """Do nothing with a step of the training."""


class Trained(NamedTuple):
    """Result of training a block."""

    result: Result | None  # of all its runs, after a stop up to there; None: there was no state yet
    state: Snapshot | None  # to save, where the training itself had no folder for it


class Trainer(NamedTuple):
    """The settings, data and callbacks that all blocks of a sweep share.

    All but the devices can be pickled, if the caller's own functions can; another machine has its own.
    """

    method: Method
    sets: Mapping[str, Examples]  # prepared, see `prepare_sets`; those to train on are called `TRAINING`
    standardizer: Standardizer | None  # prepared too; None: there is none, or replicates have their own
    per_epoch: Sequence[str]  # names of the sets to measure after every epoch
    halving: Halving | None  # with its rungs
    runs_at_once: int  # largest number of a bracket's runs that train at a time
    num_runs: int  # of the sweep
    total: float  # epochs of the whole training, as a mean over these runs
    save_every: int | None
    about: Mapping[str, Any]
    folder: Path | None  # of the sweep, with a folder for each block; None: nothing is saved
    devices: Sequence[jax.Device] | None = None  # None: all local ones
    should_stop: Callable[[], bool] = never
    on_epoch: Callable[[Progress], None] = ignore
    log: Callable[[str], None] = warnings.warn

    def read_block(self, block: Block) -> Result | None:
        """Return the result of a block that is finished, from its folder; None if it is not."""
        checkpoints = self.open_checkpoints(block.identity)
        finished = checkpoints.result() if checkpoints else None
        if checkpoints is None or finished is None:
            return None
        self.report(block.identity, self.count_epochs(block), len(block.identity.epochs), resumed=True)
        if not self.is_extendable(block):  # a process may have been killed before it removed them
            checkpoints.remove_states()
            _remove_parts(self.block_folder(block))
        return replace(finished, about=dict(self.about))

    def train_here(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, Trained]]:
        """Train blocks one after another in this process; after a stop only those that are begun."""
        for block in blocks:
            folder = self.block_folder(block)
            if self.should_stop() and (folder is None or not folder.exists()):
                continue
            self.begin(block, describe_devices(self.devices or jax.local_devices()))
            yield block, self.train_block(block)

    def begin(self, block: Block, devices: Sequence[str]) -> None:
        """Write the block.json of a block that is trained on these devices, unless it is there."""
        if self.folder is not None:
            write_block(self.folder, block, devices)

    def train_block(self, block: Block, resume_from: Snapshot | None = None) -> Trained:
        """Train the runs of a block to their end, resuming from its last checkpoint, and measure them.

        With a folder it saves states there, and nothing else.

        Args:
          block: runs to train; its replicates are prepared as the sets are.
          resume_from: state to resume from, where there is no folder.
        """
        identity, halving, trainer = block.identity, self.halving, self._fit_method(block.identity)
        checkpoints = trainer.open_checkpoints(identity)
        snapshot = trainer.resume(identity, checkpoints, resume_from)
        done = snapshot.number if snapshot else 0
        for end in (*(halving.rungs or () if halving else ()), len(identity.epochs)):
            if end <= done:
                continue
            if self.should_stop():
                break
            reached = trainer.train_leg(block, snapshot, end, checkpoints)
            snapshot = reached or snapshot
            if snapshot is None or snapshot.number < end:
                break
            is_last = end == len(identity.epochs)
            if halving is not None and not is_last:
                snapshot = snapshot.stop(halving.choose(snapshot, choose_set(self.per_epoch) or ""))
            if checkpoints and (self.is_extendable(block) or not is_last):
                checkpoints.save_state(snapshot)
                _remove_parts(self.block_folder(block))
        if snapshot is None:
            return Trained(None, None)
        result = trainer.measure(block, snapshot)
        needed = checkpoints is None and (self.is_extendable(block) or not result.complete)
        return Trained(result.keep(block.keep) if result.complete else result, snapshot if needed else None)

    def save_block(self, block: Block, trained: Trained) -> Result | None:
        """Save what the training of a block ended with, and return its result."""
        result, state = trained
        checkpoints = self.open_checkpoints(block.identity)
        if checkpoints and state is not None:
            checkpoints.save_state(state)
        if checkpoints and result is not None and result.complete:
            checkpoints.save_result(result, self.is_extendable(block))
            _remove_parts(self.block_folder(block))
        return result

    def read_state(self, block: Block) -> Snapshot | None:
        """Return the newest state of a block on disk that can be resumed; None if there is none."""
        checkpoints = self.open_checkpoints(block.identity)
        if checkpoints is None:
            return None
        return self._fit_method(block.identity).newest_state(block.identity, checkpoints)

    def block_folder(self, block: Block) -> Path | None:
        """Return the folder of a block; None without one."""
        return self.folder and block_folder(self.folder, block.identity)

    def count_epochs(self, block: Block) -> float:
        """Return the epochs that a block trains, as a mean over its runs."""
        return count_epochs(block.identity, self.halving)

    def is_extendable(self, block: Block) -> bool:
        """Tell whether a state after the last epoch serves to train the block for longer."""
        extends = self.method.extends(block.identity.settings["dtype"])
        return block.keep == ALL and self.halving is None and extends

    def report(
        self,
        part: Identity,
        epochs: float,
        number: int,
        resumed: bool = False,
        accuracy: float | None = None,
        note: str = "",
    ) -> None:
        """Report that the runs of a part of the sweep trained further epochs, up to epoch `number`."""
        advance = epochs * math.prod(part.size) / self.num_runs
        self.on_epoch(Progress(advance, self.total, number, resumed, part, accuracy, note))

    def _fit_method(self, identity: Identity) -> "Trainer":
        """Return the trainer with a method that has the state these configurations need."""
        return self._replace(method=self.method.fit_to(identity.configs))

    def open_checkpoints(self, identity: Identity, part: str = "") -> Checkpoints | None:
        """Return the checkpoints of a block, or of a part of it; None without a folder."""
        if self.folder is None:
            return None
        folder = block_folder(self.folder, identity) if not part else self.folder / part
        settings = identity.settings
        weights = (settings["d"] + 1) * settings["K"] * np.dtype(settings["dtype"]).itemsize
        return Checkpoints(
            folder, identity, self.log, self.save_every, 2 * math.prod(identity.size) * weights
        )

    def newest_state(self, identity: Identity, checkpoints: Checkpoints) -> Snapshot | None:
        """Return the newest state that this method can resume."""

        def accept(snapshot: Snapshot) -> Snapshot:
            shape = (identity.settings["K"], identity.settings["d"])
            self.method.start(identity.configs, (), shape, snapshot)
            return snapshot

        return checkpoints.newest_state(accept)

    def resume(
        self,
        identity: Identity,
        checkpoints: Checkpoints | None,
        resume_from: Snapshot | None = None,
        done: int = 0,
    ) -> Snapshot | None:
        """Return the newest state, or `resume_from` where there is none on disk, and report the start.

        `done` are the epochs that were reported already.
        """
        snapshot = (self.newest_state(identity, checkpoints) if checkpoints else None) or resume_from
        epochs = float(snapshot.epochs.mean() if snapshot else done)
        self.report(identity, epochs - done, snapshot.number if snapshot else done, resumed=True)
        return snapshot

    def train_leg(
        self,
        block: Block,
        snapshot: Snapshot | None,
        end: int,
        checkpoints: Checkpoints | None,
    ) -> Snapshot | None:
        """Train a block up to an epoch and return its state, after a stop that of an earlier epoch or None.

        Too many runs train in parts, one after another, with checkpoints of their own.
        """
        S, C = block.identity.size
        alive = snapshot.alive if snapshot else list(range(C))
        parts = split_runs(range(S), alive, self.runs_at_once)
        if len(parts) == 1:
            return self._train(block, snapshot, end, checkpoints, share=len(alive) / C)
        trained = []
        for rows, columns in parts:
            part = Block(block.identity.take(rows, columns), tuple(block.replicates[s] for s in rows))
            own = self.open_checkpoints(
                part.identity, f"{block.identity.hash()}/{PART}{part.identity.hash()}"
            )
            begun = snapshot and snapshot.take(rows, columns)
            state = self.resume(part.identity, own, begun, begun.number if begun else 0)
            reached = self._train(part, state, end, own, save_end=True)
            if reached is None or reached.number < end:
                return snapshot
            trained.append(reached)
        return join_parts(block.identity, snapshot, parts, trained)

    def _train(
        self,
        block: Block,
        snapshot: Snapshot | None,
        end: int,
        checkpoints: Checkpoints | None,
        share: float = 1.0,
        save_end: bool = False,
    ) -> Snapshot | None:
        """Train runs side by side up to an epoch or a stop, and return their state.

        `share` is that of the runs that train on. The state at the end is only saved with `save_end`.
        """
        identity, chosen_by = block.identity, choose_set(self.per_epoch)
        # What `measure` measures next, unless this is a part of a leg, which is joined first.
        is_last = end == len(identity.epochs) and not save_end
        later = [name for name in self.sets if name not in (TRAINING, *self.per_epoch)] if is_last else []
        epochs = train_epochs(
            identity.configs, self.sets, self.standardizer, block.replicates, self.per_epoch, self.method,
            identity.epochs, lambda: identity, self.devices, snapshot, later,
        )  # fmt: skip
        epoch: Epoch | None = None
        reported = snapshot.number if snapshot else 0
        try:
            for epoch in itertools.islice(epochs, end - reported):
                accuracy = None
                if chosen_by:
                    means = epoch.metrics[f"{chosen_by}_acc"].mean(axis=0, dtype=np.float64)
                    accuracy = float(np.max(means, where=np.isfinite(means), initial=0))
                note = ""
                if identity.is_exact:
                    ends = [epoch.metrics[name] for name in ("converged", "separable", "stalled")]
                    note = f"{np.nansum(ends):,.0f} of {ends[0].size:,} runs have ended"
                trained = share * (epoch.number - reported)
                self.report(identity, trained, epoch.number, accuracy=accuracy, note=note)
                reported = epoch.number
                if epoch.number == end or self.should_stop():
                    break
                if checkpoints and checkpoints.should_save(epoch.number):
                    checkpoints.save_state(epoch.snapshot())
        except KeyboardInterrupt:  # in a notebook
            if checkpoints and epoch:
                checkpoints.save_state(epoch.snapshot())
            raise
        if epoch is None:
            return snapshot
        reached = epoch.snapshot()
        if checkpoints and (save_end or epoch.number < end):
            checkpoints.save_state(reached)
        return reached

    def measure(self, block: Block, snapshot: Snapshot) -> Result:
        """Measure a block's runs on all evaluation sets, and return its result with all their weights.

        What was measured after the last epoch is not measured again.
        """
        identity, spec, alive = block.identity, self.method.spec, snapshot.alive
        (S, C), epochs, dtype = identity.size, len(identity.epochs), snapshot.averaged.W.dtype
        configs = [identity.configs[c] for c in alive]
        final = {name: values[-1].copy() for name, values in snapshot.history.items() if name in SOLVED}
        marks, sizes, own_rows, groups = {}, {}, [], {}

        def spread(values: Any, filler: Any) -> np.ndarray:
            """Return values [S, A, ...] of the runs that train on as [S, C, ...]."""
            whole = np.full((S, C, *values.shape[2:]), filler, values.dtype)
            whole[:, alive] = values
            return whole

        for name, examples in self.sets.items():
            if name == TRAINING:
                continue
            rows = stack_rows(block.replicates, name)
            sizes[name] = len(examples) if rows is None else rows.shape[1]
            own_rows += [name] * (rows is not None)
            options: dict[str, Any] = {
                "seeds": block.replicates, "standardizer": self.standardizer, "precision": spec.precision,
                "rows": rows, "devices": self.devices, "loss": spec.loss,
            }  # fmt: skip
            if name in self.per_epoch:
                for column in (f"{name}_loss", f"{name}_acc"):
                    last = snapshot.epochs[None] - 1
                    final[column] = np.take_along_axis(snapshot.history[column], last, axis=0)[0]
            else:
                metrics = evaluate_runs(configs, snapshot.averaged, examples, **options)
                final[f"{name}_loss"] = spread(metrics.loss, np.nan)
                final[f"{name}_acc"] = spread(metrics.accuracy, np.nan)
            if name != TRAIN:
                correct = mark_correct_of_runs(configs, snapshot.averaged, examples, **options)
                if examples.kind != LABELS:
                    labels = np.asarray(examples.classes)
                    by_class = mean_class_accuracy(correct, labels if rows is None else labels[rows])
                    final[f"{name}_class_acc"] = spread(by_class.astype(dtype), np.nan)
                    correct = np.packbits(correct, axis=-1)
                    if examples.K >= MANY_CLASSES:
                        top = mark_correct_of_runs(configs, snapshot.averaged, examples, top=TOP, **options)
                        final[f"{name}_top{TOP}"] = spread(top.mean(axis=-1).astype(dtype), np.nan)
                marks[name] = spread(correct, 0)
                if examples.groups is not None:
                    codes = np.asarray(examples.groups)
                    groups[name] = np.tile(codes, (S, 1)) if rows is None else codes[rows]
        for values in final.values():
            values[snapshot.diverged > 0] = np.nan
        history = {
            name: np.concatenate([values, np.full((epochs - len(values), S, C), np.nan, values.dtype)])
            for name, values in snapshot.history.items()
        }
        replicates, columns = (index.reshape(-1) for index in np.meshgrid(range(S), alive, indexing="ij"))
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), snapshot.averaged)
        return Result(
            identity, history, final, snapshot.epochs, snapshot.diverged, snapshot.stopped, marks, sizes,
            Weights(replicates.astype(np.int64), columns.astype(np.int64), flat),
            block.standardizer, dict(self.about), tuple(own_rows), groups,
        )  # fmt: skip


def join_parts(
    identity: Identity,
    before: Snapshot | None,
    parts: Sequence[tuple[Sequence[int], Sequence[int]]],
    trained: Sequence[Snapshot],
) -> Snapshot:
    """Join the states of parts of a block after a leg.

    Args:
      identity: identity of the block.
      before: state of the block before the leg, with the history of runs that were stopped; None: the start.
      parts: indices of each part's replicates and configurations in the block, replicates in order.
      trained: states of the parts.
    """
    by_rows = itertools.groupby(zip(parts, trained, strict=True), key=lambda pair: list(pair[0][0]))
    rows = [join_snapshots([snapshot for _, snapshot in group]) for _, group in by_rows]
    alive = join_snapshots(rows)
    if before is None or len(before.alive) == len(identity.configs):
        return alive
    size, columns = identity.size, before.alive
    diverged = before.diverged.copy()
    diverged[:, columns] = alive.diverged
    history = {}
    for name, values in alive.history.items():
        history[name] = np.full((len(values), *size), np.nan, values.dtype)
        history[name][: before.number] = before.history[name]
        history[name][:, :, columns] = values
    whole = identity._replace(epochs=alive.identity.epochs)
    return Snapshot(whole, history, diverged, before.stopped, *alive[4:])


def count_epochs(identity: Identity, halving: Halving | None) -> float:
    """Return the epochs that a block trains, as a mean over its runs."""
    epochs = len(identity.epochs)
    return float(epochs) if halving is None else halving.mean_epochs(identity.configs, epochs)


def _remove_parts(folder: Path | None) -> None:
    """Remove the checkpoints of the parts of a leg, whose joined state or result is saved."""
    for part in folder.glob(f"{PART}*") if folder else ():
        shutil.rmtree(part, ignore_errors=True)
