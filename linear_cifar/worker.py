"""The part of a sweep that runs on a Dask worker: it describes itself, holds the data, and trains blocks.

`linear_cifar.cluster` calls these functions from another process, usually on another machine. A worker writes
nothing but states, and these only where it sees the folder of the sweep.
"""

import hashlib
import pickle
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from linear_cifar.blocks import NUMERICS, Block, describe_devices
from linear_cifar.devices import use_all_cores
from linear_cifar.legs import Progress, Trained, Trainer
from linear_cifar.memory import max_runs
from linear_cifar.snapshots import Snapshot

# Seconds from one message on the progress of a block to the next.
REPORT = 0.5

# What a command has sent, by its digest, and the trainings that are to stop.
_held: dict[str, Any] = {}
_stopping: set[str] = set()


class Unprepared(Exception):
    """The worker does not hold the data of a training, as where it was started again."""


class Description(NamedTuple):
    """What a command asks a worker before it sends any data."""

    code: dict[str, str]  # versions, see `describe_code`
    host: str
    devices: list[str]
    runs: int  # that its memory holds


class Shipped(NamedTuple):
    """A trainer without its data, which a worker holds by their digests."""

    trainer: Trainer
    sets: dict[str, str]
    descent: str


@cache
def describe_code() -> dict[str, str]:
    """Return what the command and a worker must have in common: the source of this package, and versions."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    python = ".".join(platform.python_version_tuple()[:2])
    versions = {name: version(name) for name in NUMERICS}
    return {"Python": python, **versions, "linear_cifar": f"source {digest.hexdigest()[:8]}"}


def describe_worker(needs: Mapping[str, Any]) -> Description:
    """Describe this worker; `needs` are the arguments of `max_runs`."""
    _prepare_jax()
    devices = jax.local_devices()
    return Description(
        describe_code(), socket.gethostname(), describe_devices(devices), max_runs(devices, **needs)
    )


def hold(keep: Sequence[str], keys: Sequence[str], marker: Path | None, *parts: bytes) -> bool:
    """Hold what a training needs, and tell whether this worker sees the folder of the sweep.

    Args:
      keep: digests of all that is needed; everything else is dropped.
      keys: digests of `parts`.
      marker: file that shows that the folder is the same one.
      parts: pickled objects.
    """
    _held.update({key: pickle.loads(part) for key, part in zip(keys, parts, strict=True)})
    for key in _held.keys() - {*keep}:
        del _held[key]
    return marker is not None and marker.exists()


def train(
    key: str, run: str, attempt: str, topic: str, block: Block, folder: Path | None, begun: Snapshot | None
) -> Trained:
    """Train a block.

    Args:
      key: digest of the trainer.
      run: name of the training, see `stop`.
      attempt: name of this attempt, which its messages carry.
      topic: topic of the messages.
      block: the block.
      folder: folder of the sweep, if this worker sees it.
      begun: state to resume from, where it does not see it.

    Raises:
      Unprepared: if this worker does not hold the trainer or its data.
    """
    from distributed import get_worker

    worker = get_worker()
    task = worker.get_current_task()

    def should_stop() -> bool:
        """Tell whether the command asks to stop, has left, or the scheduler has."""
        state = worker.state.tasks.get(task)
        return (
            run in _stopping
            or state is None
            or state.state == "cancelled"
            or worker.status.name.startswith("clos")
        )

    advance, sent_at = 0.0, -REPORT

    def report(progress: Progress) -> None:
        nonlocal advance, sent_at
        advance += progress.advance
        if progress.resumed or time.monotonic() - sent_at >= REPORT:
            content = {"advance": advance, "epoch": progress.epoch, "resumed": progress.resumed}
            worker.log_event(topic, {"attempt": attempt, "accuracy": progress.accuracy, **content})
            advance, sent_at = 0.0, time.monotonic()

    try:
        trainer, sets, descent = _held[key]
        trainer = trainer._replace(
            descent=_held[descent],
            sets={name: _held[digest] for name, digest in sets.items()},
            folder=folder,
            should_stop=should_stop,
            on_epoch=report,
            log=lambda line: worker.log_event(topic, {"attempt": attempt, "line": line}),
        )
    except KeyError:
        raise Unprepared from None
    with jax.enable_x64(block.identity.settings["dtype"] == "float64"):
        return trainer.train_block(block, begun)


def stop(run: str) -> None:
    """Ask the blocks of a training to end after their epoch."""
    _stopping.add(run)


@cache
def _prepare_jax() -> None:
    """Give JAX a device per CPU core, unless it has been used on this worker already."""
    with suppress(RuntimeError):
        use_all_cores()
