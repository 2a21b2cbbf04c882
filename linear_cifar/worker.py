"""The part of a sweep that runs on a Dask worker: it describes itself, holds the data, and trains blocks.

`linear_cifar.cluster` calls these functions from another process, usually on another machine. A worker writes
nothing but checkpoints, and these only where it sees the folder of the sweep.
"""

import ctypes
import hashlib
import pickle
import platform
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from linear_cifar.blocks import NUMERICS, Block, describe_devices
from linear_cifar.devices import set_gpu_options, use_all_cores
from linear_cifar.legs import Progress, Trained, Trainer
from linear_cifar.memory import max_runs
from linear_cifar.snapshots import Snapshot

# Seconds from one message on the progress of a block to the next.
REPORT = 0.5

# Parameters of glibc's allocator, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

# The data of each command, and the names of the trainings that are to stop.
_held: dict[str, "Held"] = {}
_stopping: set[str] = set()


class Unprepared(Exception):
    """The worker does not hold the data of a training, as where it was started again."""


class Description(NamedTuple):
    """Description of a worker, which a command asks for before it sends any data."""

    code: dict[str, str]  # versions, see `describe_code`
    host: str
    devices: list[str]
    runs: int  # that its memory holds


class Held(NamedTuple):
    """Data that a command has sent."""

    task: Any  # Dask's task that has brought them; Dask forgets it when the command has left
    data: dict[str, Any]  # by digest


class Shipment(NamedTuple):
    """A trainer without its data, which a worker holds by their digests."""

    trainer: Trainer
    sets: dict[str, str]
    method: str


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
    _prepare_process()
    devices = jax.local_devices()
    return Description(
        describe_code(), socket.gethostname(), describe_devices(devices), max_runs(devices, **needs)
    )


def hold(
    command: str, needed: Sequence[str], digests: Sequence[str], marker: Path | None, *pickled: bytes
) -> bool:
    """Hold the data of a training, and tell whether this worker can write to the folder of the sweep.

    Drop the data of commands that have left.

    Args:
      command: name of the command.
      needed: digests of all that is needed; all else that this command has sent is dropped.
      digests: digests of `pickled`.
      marker: file that shows that the folder is the same one.
      pickled: objects that this worker does not hold yet.

    Raises:
      Unprepared: if an object is missing that was sent before.
    """
    from distributed import get_worker

    worker = get_worker()
    for name, held in [*_held.items()]:
        if held.task not in worker.state.tasks:
            drop(name)
    old = _held[command].data if command in _held else {}
    new = {digest: pickle.loads(content) for digest, content in zip(digests, pickled, strict=True)}
    try:
        _held[command] = Held(worker.get_current_task(), {digest: (old | new)[digest] for digest in needed})
    except KeyError:
        raise Unprepared from None
    if marker is None or not marker.exists():
        return False
    with suppress(OSError), tempfile.TemporaryFile(dir=marker.parent):
        return True
    return False


def drop(command: str) -> None:
    """Drop the data that a command has sent."""
    _held.pop(command, None)


def train(
    command: str,
    shipment: str,
    training: str,
    attempt: str,
    block: Block,
    folder: Path | None,
    resume_from: Snapshot | None,
) -> Trained:
    """Train a block.

    Args:
      command: name of the command, and topic of the messages to it.
      shipment: digest of the `Shipment`.
      training: name of the training, see `stop`.
      attempt: name of this attempt, which its messages carry.
      block: the block.
      folder: folder of the sweep, if this worker sees it.
      resume_from: state to resume from, where it does not see the folder.

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
            training in _stopping
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
            worker.log_event(command, {"attempt": attempt, "accuracy": progress.accuracy, **content})
            advance, sent_at = 0.0, time.monotonic()

    try:
        data = _held[command].data
        trainer, sets, method = data[shipment]
        trainer = trainer._replace(
            method=data[method],
            sets={name: data[digest] for name, digest in sets.items()},
            folder=folder,
            should_stop=should_stop,
            on_epoch=report,
            log=lambda line: worker.log_event(command, {"attempt": attempt, "line": line}),
        )
    except KeyError:
        raise Unprepared from None
    with jax.enable_x64(block.identity.settings["dtype"] == "float64"):
        return trainer.train_block(block, resume_from)


def stop(training: str) -> None:
    """Ask the blocks of a training to end after their epoch."""
    _stopping.add(training)


@cache
def _prepare_process() -> None:
    """Give JAX a device per CPU core, unless it has been used already, and make the allocator keep memory.

    Dask starts workers with MALLOC_TRIM_THRESHOLD_. With it, glibc returns the memory of every large array to
    the system at once, and training on a CPU takes twice as long. These are the values that glibc finds by
    itself where the variable is not set, see mallopt(3).
    """
    with suppress(RuntimeError):
        use_all_cores()
        set_gpu_options()
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 * 1024**2)
        mallopt(M_TRIM_THRESHOLD, 64 * 1024**2)
