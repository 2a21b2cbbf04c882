"""A bracket of a search with halving: leg after leg, each with the best configurations of the one before.

A leg's configurations move together into a narrower program. Each leg has checkpoints of its own, in folders
within the block's. They stay until the bracket is finished, so that it can be resumed in any leg.
"""

import itertools
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.runner.blocks import hash_sweep, join_results
from experiments.runner.checkpoints import BlockState, Checkpoints
from experiments.runner.data import PreparedData
from experiments.runner.legs import Leg, measure_leg, train_leg
from experiments.runner.sweeps import HELD_OUT, Sweep, SweepResult
from linear_cifar.engine import EpochMetrics, mask_diverged
from linear_cifar.evaluation import Metrics
from linear_cifar.fitting import SavedParams
from linear_cifar.halving import choose_survivors, count_slots, fill_slots, split_brackets
from linear_cifar.params import Params
from linear_cifar.planning import join_blocks, plan_blocks
from linear_cifar.snapshots import Snapshot, join_snapshots

# The folders of a bracket's legs within its own.
LEGS = "leg-*"

# Opens the checkpoints of a block of a leg, in the folder of this name within the bracket's.
OpenCheckpoints = Callable[[str, Sweep], Checkpoints | None]


class _LegBlock(NamedTuple):
    """Runs of a leg that train together, with idle ones in the slots that are left over.

    `rows` are the places of its replicates in the bracket, and `columns` those of its configurations among
    the leg's. `slots` are the places of the same configurations in the sweep.
    """

    sweep: Sweep
    rows: list[int]
    columns: list[int]
    slots: list[int]


def count_finished(whole: Sweep) -> int:
    """Return the largest number of runs of a search with halving that may reach the end."""
    brackets = split_brackets(whole.configs, whole.settings.bracket)
    last_slots = (_count_slots(whole._replace(configs=tuple(bracket)))[-1] for bracket in brackets)
    return len(whole.replicates) * sum(sum(slots.values()) for slots in last_slots)


def average_epochs(bracket: Sweep) -> float:
    """Return the epochs that a bracket trains, idle runs included, divided by its number of runs."""
    lengths = np.diff([0, *_leg_ends(bracket)])
    slots = [sum(by_size.values()) for by_size in _count_slots(bracket)]
    return float(np.dot(lengths, slots)) / len(bracket.configs)


def remove_legs(folder: Path) -> None:
    """Remove the legs of a finished bracket from its folder."""
    for leg in folder.glob(LEGS):
        shutil.rmtree(leg, ignore_errors=True)


def train_bracket(
    bracket: Sweep,
    data: PreparedData,
    *,
    max_runs: Callable[[int], int],
    open_checkpoints: OpenCheckpoints = lambda name, block: None,
    stopped: Callable[[], bool] = lambda: False,
    on_resume: Callable[[float, int], None] = lambda epochs, epoch: None,
    on_epoch: Callable[[float, str], None] = lambda epochs, remark: None,
) -> SweepResult | None:
    """Train a bracket to its end; return None if it was stopped before.

    Args:
      bracket: configurations to choose among, in all replicates.
      data: its data.
      max_runs: maps a number of configurations to the largest number of their runs that train at a time.
      open_checkpoints: opens the checkpoints of a block of a leg; by default nothing is saved.
      stopped: asked after every epoch whether to end with it.
      on_resume: gets the epochs that a checkpoint spared, weighted by the share of the bracket's runs, and
        the epoch that it is of.
      on_epoch: gets each epoch, weighted in the same way, and a remark on the best accuracy.
    """
    settings = bracket.settings
    spec = settings.train_spec(bracket.configs, data.dataset.image_shape)
    alive = sorted(range(len(bracket.configs)), key=lambda c: bracket.configs[c].batch)
    state: BlockState | None = None  # of all that are alive, where their leg begins
    results: list[SweepResult] = []
    ends = _leg_ends(bracket)
    for number, (first, end) in enumerate(itertools.pairwise((0, *ends))):
        blocks = _plan_leg(bracket, alive, _count_slots(bracket)[number], max_runs)
        legs: list[Leg] = []
        for block in blocks:
            share = block.sweep.num_runs / bracket.num_runs
            name = f"leg-{number + 1}-{hash_sweep(block.sweep, data.dataset.fingerprint)}"
            leg = train_leg(
                block.sweep,
                data,
                spec,
                until=end,
                keep_state=True,
                resume_from=state and _begin_block(state, block),
                checkpoints=open_checkpoints(name, block.sweep),
                stopped=stopped,
                on_resume=partial(_weigh_resumed, on_resume, share, first),
                on_epoch=partial(on_epoch, share),
            )
            if len(leg.history.finite) < end:
                return None
            legs.append(leg)
        if end == settings.epochs:
            pairs = zip(blocks, legs, strict=True)
            results += [measure_leg(block.sweep, data, spec, leg).take(block.slots) for block, leg in pairs]
            break
        state = _join_states(bracket, len(alive), blocks, legs)
        history = mask_diverged(state.history, settings.max_loss)
        loss, accuracy = (values[-1] for values in history.evaluated["val"])
        batches = [bracket.configs[c].batch for c in alive]
        survivors = choose_survivors(loss, accuracy, batches, settings.halving)
        dropped = sorted({*range(len(alive))} - {*survivors})
        if dropped:
            configs = tuple(bracket.configs[alive[i]] for i in dropped)
            results.append(_stop(bracket._replace(configs=configs), data, _take(history, dropped)))
        state = BlockState(state.snapshot.take(configs=survivors), _take(state.history, survivors))
        alive = [alive[i] for i in survivors]
    return join_results(bracket, results)


def _weigh_resumed(on_resume: Callable[[float, int], None], share: float, first: int, epoch: int) -> None:
    """Report the epochs of a leg that a checkpoint spared."""
    on_resume(share * (epoch - first), epoch)


def _leg_ends(bracket: Sweep) -> tuple[int, ...]:
    """Return the epoch after which each leg ends."""
    return (*bracket.settings.rungs, bracket.settings.epochs)


def _count_slots(bracket: Sweep) -> list[dict[int, int]]:
    """Return the slots of each leg, see `count_slots`."""
    settings, batches = bracket.settings, [config.batch for config in bracket.configs]
    # A smaller bracket is the only one.
    fixed = len(batches) == settings.bracket
    return count_slots(batches, settings.halving, len(settings.rungs), fixed)


def _plan_leg(
    bracket: Sweep, alive: Sequence[int], slots: dict[int, int], max_runs: Callable[[int], int]
) -> list[_LegBlock]:
    """Divide a leg of the configurations that are alive into blocks that the memory holds."""
    filled, places = fill_slots([bracket.configs[c] for c in alive], slots)
    column_of = {place: column for column, place in enumerate(places)}
    blocks = []
    most = max_runs(len(filled))
    for rows, chosen in plan_blocks(range(len(bracket.replicates)), range(len(filled)), most):
        sweep = bracket._replace(
            replicates=tuple(bracket.replicates[r] for r in rows), configs=tuple(filled[i] for i in chosen)
        )
        used = [slot for slot, i in enumerate(chosen) if i in column_of]
        if used:
            blocks.append(_LegBlock(sweep, list(rows), [column_of[chosen[slot]] for slot in used], used))
    return blocks


def _begin_block(state: BlockState, block: _LegBlock) -> BlockState:
    """Return the state that a block of a leg begins with; idle runs begin as the first one alive."""
    sources = [0] * len(block.sweep.configs)
    for slot, column in zip(block.slots, block.columns, strict=True):
        sources[slot] = column
    taken = state.snapshot.take(block.rows, sources)
    identity = taken.identity._replace(configs=block.sweep.configs)
    history = _take(jax.tree.map(lambda leaf: leaf[:, block.rows], state.history), sources)
    return BlockState(taken._replace(identity=identity), history)


def _join_states(
    bracket: Sweep, num_alive: int, blocks: Sequence[_LegBlock], legs: Sequence[Leg]
) -> BlockState:
    """Join the states after a leg, without the idle runs."""
    snapshots: list[tuple[list[int], Snapshot]] = []
    histories: list[EpochMetrics] = []
    for block, leg in zip(blocks, legs, strict=True):
        assert leg.state is not None, "a leg keeps its last state"
        snapshots.append((block.rows, leg.state.snapshot.take(configs=block.slots)))
        histories.append(_take(leg.history, block.slots))
    by_rows = itertools.groupby(snapshots, key=lambda pair: pair[0])
    joined = [join_snapshots([snapshot for _, snapshot in group]) for _, group in by_rows]
    places = [(block.rows, block.columns) for block in blocks]
    return BlockState(
        join_snapshots(joined),
        join_blocks((len(bracket.replicates), num_alive), places, histories, leading=1),
    )


def _take(history: EpochMetrics, configs: Sequence[int]) -> EpochMetrics:
    """Return the history [E, R, C] of some configurations, by their indices."""
    return jax.tree.map(lambda leaf: leaf[:, :, configs], history)


def _stop(dropped: Sweep, data: PreparedData, history: EpochMetrics) -> SweepResult:
    """Return the results of configurations that are stopped after the epochs of their history [E, R, C]."""
    settings, size = dropped.settings, dropped.size
    epochs = len(history.finite)
    rest = (settings.epochs - epochs, *size)

    def lengthen(leaf: np.ndarray) -> np.ndarray:
        # What is measured is NaN from then on; a run that was finite stays finite.
        filler = leaf[-1] if leaf.dtype == bool else np.nan
        return np.concatenate([leaf, np.broadcast_to(np.asarray(filler, leaf.dtype), rest)])

    unknown = np.full(size, np.nan, settings.dtype)
    final = {
        name: jax.tree.map(lambda values: values[-1], history.evaluated[name])
        if name in settings.evaluate
        else Metrics(unknown, unknown)
        for name in data.splits
    }
    held_out = [name for name in HELD_OUT if name in data.splits]
    shape = (0, data.K, data.d)
    nothing = Params(np.zeros(shape, settings.dtype), np.zeros(shape[:2], settings.dtype))
    no_index = np.zeros(0, np.int64)
    return SweepResult(
        dropped,
        data,
        jax.tree.map(lengthen, history),
        final,
        dict.fromkeys(held_out, unknown),
        {name: np.zeros((*size, -(-data.size(name) // 8)), np.uint8) for name in held_out},
        np.full(size, epochs, np.int64),
        SavedParams(no_index, no_index, nothing),
    )
