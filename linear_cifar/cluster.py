"""Blocks of a sweep on the workers of a Dask cluster, in place of this process.

Dask brings the transport and knows who is there. Workers may join and leave at any time. One worker per
machine trains one block at a time, on all its devices. This process alone writes results. The scheduler does
not need this package, because it unpickles nothing that it passes on.
"""

import hashlib
import math
import operator
import pickle
import queue
import secrets
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from linear_cifar.arguments import one_line
from linear_cifar.blocks import Block
from linear_cifar.folders import read_json
from linear_cifar.legs import Progress, Trained, Trainer, ignore, never
from linear_cifar.worker import (
    Description,
    Shipped,
    Unprepared,
    describe_code,
    describe_worker,
    hold,
    stop,
    train,
)

if TYPE_CHECKING:
    from distributed import Future

Tree = TypeVar("Tree")

# Blocks per worker, so that at the end no worker waits long for another.
BLOCKS_PER_WORKER = 4
# Runs of a block, however few of such blocks there are for each worker: they share the work on the examples,
# which on a CPU costs as much as four runs of CIFAR-10.
FEWEST_RUNS = 24
# Seconds to wait for the scheduler, and for the answers of the workers that are there.
CONNECT, ANSWERS = 10, 60
# Seconds from one look at who is there to the next.
LOOK = 0.5
# Workers that get data at the same time.
SENDERS = 4


class ClusterError(OSError):
    """The scheduler cannot be reached any more, or Dask is not installed."""


class _Machine:
    """A worker of the cluster, as this process knows it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.description: Description | None = None  # None: it has not answered yet
        self.refused, self.running = False, True  # Dask pauses a worker whose memory is short
        self.held: set[str] = set()  # digests of what it holds
        self.holding: Future | None = None  # as long as it is kept, the worker keeps what it holds
        self.prepared_for: str | None = None  # the training whose data it holds
        self.sees_folder = False
        self.busy = False  # with a question, with data or with a block
        self.blocks = 0  # that it has trained

    @property
    def fits(self) -> bool:
        """True if it takes part."""
        return self.description is not None and not self.refused


class _Attempt:
    """A block that trains on a worker."""

    def __init__(self, block: Block, machine: _Machine) -> None:
        self.block, self.machine = block, machine
        self.future: Future | None = None
        self.advance = 0.0  # epochs that it has reported, as a mean over all runs

    def cancel(self) -> None:
        """End it after its epoch; what it returns is of no use any more."""
        if self.future is not None:
            with suppress(Exception):  # as where the scheduler is gone
                self.future.cancel()
        self.machine.busy = False


class _Training:
    """The blocks of a sweep that are to be trained, train, and have ended."""

    def __init__(self, trainer: Trainer, blocks: Sequence[Block], allowed: int) -> None:
        from cloudpickle import dumps  # also takes functions of a notebook; Dask requires it

        self.trainer, self.name = trainer, secrets.token_hex(8)
        self.pending, self.attempts = deque(blocks), dict[str, _Attempt]()
        self.ended: list[tuple[Block, Trained]] = []
        self.failures, self.allowed = Counter[str](), allowed  # failures of each block
        self.stopping = False
        self.runs_done = trainer.num_runs - sum(math.prod(block.identity.size) for block in blocks)
        self.parts: dict[str, bytes] = {}  # what a worker has to hold, by its digest

        def pack(content: Any) -> str:
            part = dumps(content)
            digest = hashlib.sha256(part).hexdigest()
            self.parts[digest] = part
            return digest

        distinct = {id(examples): pack(_on_host(examples)) for examples in trainer.sets.values()}
        sets = {name: distinct[id(examples)] for name, examples in trainer.sets.items()}
        bare = trainer._replace(
            sets={}, devices=None, should_stop=never, on_epoch=ignore, log=warnings.warn, folder=None,
            standardizer=_on_host(trainer.standardizer),
        )  # fmt: skip
        # Apart from the trainer: the same object for all sweeps of a command compiles its programs once.
        bare = bare._replace(descent=None)  # type: ignore[arg-type]
        self.key = pack(Shipped(bare, sets, pack(trainer.descent)))

    def report(
        self, attempt: _Attempt, advance: float, epoch: int, accuracy: float | None, resumed: bool
    ) -> None:
        """Report the progress of a block, with the state of the whole training."""
        workers = len({attempt.machine.address for attempt in self.attempts.values()})
        note = f"{self.runs_done:,}/{self.trainer.num_runs:,} runs, {workers} worker" + "s" * (workers != 1)
        attempt.advance += advance
        total, identity = self.trainer.total, attempt.block.identity
        self.trainer.on_epoch(Progress(advance, total, epoch, resumed, identity, accuracy, note))

    def end(self, attempt: _Attempt, trained: Trained) -> None:
        """Take what a block ended with."""
        block, result = attempt.block, trained.result
        attempt.machine.blocks += 1
        if result is not None and result.complete:
            runs = math.prod(block.identity.size)
            self.runs_done += runs
            whole = self.trainer.count_epochs(block) * runs / self.trainer.num_runs
            self.report(attempt, whole - attempt.advance, len(block.identity.epochs), None, resumed=False)
        self.ended.append((block, trained))

    def retry(self, attempt: _Attempt, failed: bool) -> None:
        """Train a block again that a worker did not end; give it up after more than the allowed failures."""
        block, log = attempt.block, self.trainer.log
        name = block.identity.hash()
        self.report(attempt, -attempt.advance, 0, None, resumed=False)
        self.failures[name] += failed
        if self.failures[name] > self.allowed:
            replicates, configs = block.identity.size
            log(
                f"block {name} ({configs} configurations in {replicates} replicates) is given up: "
                f"{self.failures[name]} workers were lost or failed while they trained it"
            )
        elif not self.stopping:
            self.pending.appendleft(block)


class Cluster:
    """A connection to a Dask scheduler, and what is known of its workers; to be opened by `with`.

    Give it to `fit`. A Dask cluster runs any code that its clients send. So it belongs on the
    loopback interface or in a private network, or behind TLS.
    """

    def __init__(self, scheduler: str, log: Callable[[str], None] = warnings.warn) -> None:
        """Connect to a scheduler.

        Args:
          scheduler: its address, such as `tcp://host:8786`, or the path of its scheduler file.
          log: gets a line about each worker that is refused or lost.

        Raises:
          ClusterError: if Dask is not installed, or no scheduler answers.
        """
        try:
            from distributed import Client, Security
        except ModuleNotFoundError:
            raise ClusterError("Dask is not installed: pip install 'linear_cifar[cluster]'") from None
        self._scheduler, self._log = scheduler, log
        try:
            address = read_json(Path(scheduler))["address"] if Path(scheduler).is_file() else scheduler
            security = Security()  # from Dask's configuration
            if str(address).startswith("tls:") and not security.get_connection_args("client")["ssl_context"]:
                raise ValueError("Dask's configuration names no certificates for TLS")
            self._client = Client(str(address), security=security, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError, KeyError) as error:
            raise ClusterError(f"no Dask scheduler answers at {scheduler}: {one_line(error)}") from None
        self._machines: dict[str, _Machine] = {}
        self._lost: list[_Machine] = []
        self._training: _Training | None = None
        self._needs: dict[str, Any] = {}
        self._at_once = 0
        # What other threads leave for the one that trains.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._looked_at = -LOOK
        self._senders = ThreadPoolExecutor(SENDERS)
        self._command = f"linear_cifar-{secrets.token_hex(8)}"  # name, and topic of messages
        self._client.subscribe_topic(
            self._command, lambda event: self._inbox.put(partial(self._take_message, event[1]))
        )

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        self._senders.shutdown(wait=False, cancel_futures=True)
        with suppress(OSError, RuntimeError):
            self._client.close(timeout=CONNECT)

    @property
    def dashboard(self) -> str:
        """The address of Dask's dashboard."""
        return str(self._client.dashboard_link)

    @property
    def devices(self) -> list[list[str]]:
        """The devices of each worker that takes part, in words."""
        return [machine.description.devices for machine in self._fitting() if machine.description]

    def describe(self) -> list[dict[str, Any]]:
        """Return the address, host, devices and number of trained blocks of each worker that took part."""
        return [
            {
                "address": machine.address,
                "host": machine.description.host,
                "devices": machine.description.devices,
                "blocks": machine.blocks,
            }
            for machine in (*self._lost, *self._machines.values())
            if machine.description and (machine.fits or machine.blocks)
        ]

    def count_runs(
        self,
        needs: Mapping[str, Any],
        num_runs: int,
        at_once: int | None = None,
        whole_blocks: bool = False,
        should_stop: Callable[[], bool] = never,
    ) -> int:
        """Return how many runs train at a time on each worker; wait until there is one.

        By default there are `BLOCKS_PER_WORKER` blocks for each worker, but none has fewer than `FEWEST_RUNS`
        runs where each worker has as many. There are more where the memory of half of the workers would not
        hold them. Workers with less memory are refused.

        Args:
          needs: arguments of `max_runs`, which decide how many runs the memory of a worker holds.
          num_runs: runs of the sweep.
          at_once: number that the user asks for; None: none.
          whole_blocks: True if blocks have a size of their own, and the number only divides their legs.
          should_stop: True ends the wait.
        """
        self._needs, self._at_once = dict(needs), at_once or 0
        with self._notice_loss():
            for machine in self._machines.values():
                self._ask(machine)
            self._look()
            if not self._wait_for_worker(should_stop):
                return 1
        if at_once is None:
            held = sorted(machine.description.runs for machine in self._fitting() if machine.description)
            each = num_runs if whole_blocks else math.ceil(num_runs / len(held))
            share = each if whole_blocks else max(math.ceil(each / BLOCKS_PER_WORKER), min(each, FEWEST_RUNS))
            self._at_once = min(share, held[(len(held) - 1) // 2])
            for machine in self._fitting():
                self._check(machine)
        return self._at_once

    def train(self, trainer: Trainer, blocks: Sequence[Block]) -> Iterator[tuple[Block, Trained]]:
        """Yield blocks as their training ends, in any order; after a stop those that were under way.

        A block whose worker is lost is trained on another one, and is given up after more losses than the
        scheduler's `allowed-failures`.

        Raises:
          ClusterError: if the scheduler is lost.
        """
        import dask

        if not blocks:
            return
        with self._notice_loss():
            name = "distributed.scheduler.allowed-failures"
            training = _Training(trainer, blocks, int(self._client.run_on_scheduler(dask.config.get, name)))
        self._training = training
        try:
            with self._notice_loss(), _marker(trainer.folder, training.name) as marker:
                while training.pending or training.attempts:
                    if trainer.should_stop() and not training.stopping:
                        self._stop(training)
                    for machine in self._fitting():
                        if machine.running and not machine.busy and training.pending:
                            self._employ(machine, training, marker)
                    self._handle()
                    yield from training.ended
                    training.ended.clear()
        finally:
            self._training = None
            for attempt in training.attempts.values():
                attempt.cancel()

    # ---- workers

    def _wait_for_worker(self, should_stop: Callable[[], bool]) -> bool:
        """Wait for the answers of the workers, and for one that fits; return False after a stop."""
        until, told = time.monotonic() + ANSWERS, False
        while not should_stop():
            asked = any(machine.busy for machine in self._machines.values())
            if self._fitting() and not (asked and time.monotonic() < until):
                return True
            if not asked and not told:
                self._log(f"waiting for a worker at {self._scheduler}")
                told = True
            self._handle()
        return False

    def _fitting(self) -> list[_Machine]:
        return [machine for machine in self._machines.values() if machine.fits]

    def _handle(self) -> None:
        """Look who is there, and act on what has come, after at most `LOOK` seconds."""
        if time.monotonic() - self._looked_at >= LOOK:
            self._look()
        with suppress(queue.Empty):
            self._inbox.get(timeout=LOOK)()
            while True:
                self._inbox.get_nowait()()

    def _look(self) -> None:
        """Ask workers that have joined to describe themselves, and retry the blocks of those that left."""
        present = self._client.scheduler_info(n_workers=-1).get("workers")
        if present is None or self._client.status != "running":
            raise self._loss()
        for address in self._machines.keys() - present.keys():
            machine = self._machines.pop(address)
            self._lost.append(machine)
            self._log(f"worker {_name(machine)} has left")
            for key, attempt in [*self._training.attempts.items()] if self._training else ():
                if attempt.machine is machine:
                    self._fail(key)
        for address in present.keys() - self._machines.keys():
            self._machines[address] = _Machine(address)
            self._ask(self._machines[address])
        for address, machine in self._machines.items():
            machine.running = present[address]["status"] == "running"
        self._looked_at = time.monotonic()

    def _loss(self) -> ClusterError:
        return ClusterError(f"the Dask scheduler at {self._scheduler} does not answer any more")

    @contextmanager
    def _notice_loss(self) -> Iterator[None]:
        """Raise ClusterError for any error that comes of the loss of the scheduler."""
        try:
            yield
        except Exception:
            if self._client.status == "running":
                raise
            raise self._loss() from None

    def _call(self, machine: _Machine, function: Callable[..., Any], *futures: "Future") -> "Future":
        """Call a function on a worker, with the values of futures."""
        # The scheduler unpickles the functions of tasks. So the task is one of the standard library, and the
        # worker alone unpickles ours, from bytes.
        where: dict[str, Any] = {"workers": [machine.address], "pure": False}
        loaded = self._client.submit(pickle.loads, pickle.dumps(function), **where)
        return self._client.submit(operator.call, loaded, *futures, **where)

    def _when_done(self, future: "Future", act: Callable[["Future"], None]) -> None:
        """Act in the thread that trains once a future is done."""
        future.add_done_callback(lambda done: self._inbox.put(partial(act, done)))

    def _ask(self, machine: _Machine) -> None:
        """Ask a worker to describe itself."""

        def answer(future: "Future") -> None:
            machine.busy = False
            machine.description, error = _outcome(future)
            if machine.description is not None:
                self._check(machine)
            elif error is not None:
                self._refuse(machine, one_line(error))

        machine.description, machine.refused, machine.busy = None, False, True
        self._when_done(self._call(machine, partial(describe_worker, self._needs)), answer)

    def _check(self, machine: _Machine) -> None:
        """Refuse a worker with other code, or without the memory for a block."""
        description, reason = machine.description, None
        assert description is not None, "only workers that have answered are checked"
        for name, ours in describe_code().items():
            theirs = description.code.get(name)
            if theirs != ours:
                reason = reason or f"it has {name} {theirs}, not {ours}"
        if description.runs < self._at_once:
            reason = reason or (
                f"its memory holds {description.runs:,} runs at a time, not {self._at_once:,}: give smaller "
                "blocks (block_runs)"
            )
        if reason:
            self._refuse(machine, reason)

    def _refuse(self, machine: _Machine, reason: str) -> None:
        machine.refused = True
        self._log(f"worker {_name(machine)} is left out: {reason}")

    # ---- blocks

    def _employ(self, machine: _Machine, training: _Training, marker: Path | None) -> None:
        """Give an idle worker its next block, or first the data."""
        machine.busy = True
        if machine.prepared_for != training.name:
            self._senders.submit(self._send, machine, training, marker)
            return
        trainer, block = training.trainer, training.pending.popleft()
        trainer.begin(block, machine.description.devices if machine.description else [])
        folder = trainer.folder.resolve() if trainer.folder and machine.sees_folder else None
        begun = None if folder else trainer.read_state(block)
        key = secrets.token_hex(8)
        block = block._replace(replicates=_on_host(block.replicates))
        attempt = training.attempts[key] = _Attempt(block, machine)
        attempt.future = self._call(
            machine, partial(train, self._command, training.key, training.name, key, block, folder, begun)
        )
        self._when_done(attempt.future, partial(self._end, key))

    def _send(self, machine: _Machine, training: _Training, marker: Path | None) -> None:
        """Send what a worker does not hold yet; this runs in a thread of its own."""
        missing = [digest for digest in training.parts if digest not in machine.held]

        def prepared(future: "Future") -> None:
            machine.busy = False  # if this was lost, it is sent again for as long as the worker is there
            sees_folder, error = _outcome(future)
            if sees_folder is not None:
                machine.held, machine.prepared_for = {*training.parts}, training.name
                machine.sees_folder, machine.holding = sees_folder, future
            elif isinstance(error, Unprepared):
                machine.held = set()
            elif error is not None:
                self._refuse(machine, one_line(error))

        def failed() -> None:
            machine.busy = False

        try:
            parts = [training.parts[digest] for digest in missing]
            sent = self._client.scatter(parts, workers=[machine.address], hash=False) if parts else []
            future = self._call(
                machine, partial(hold, self._command, [*training.parts], missing, marker), *sent
            )
        except Exception:  # Dask raises errors of many types where the worker has left meanwhile
            time.sleep(LOOK)
            self._inbox.put(failed)
        else:
            self._when_done(future, prepared)

    def _end(self, key: str, future: "Future") -> None:
        """Take the end of an attempt, unless it was given up already."""
        training = self._training
        attempt = training.attempts.get(key) if training else None
        if training is None or attempt is None:
            return
        trained, error = _outcome(future)
        if trained is not None:
            del training.attempts[key]
            attempt.machine.busy = False
            training.end(attempt, trained)
            return
        unprepared = isinstance(error, Unprepared)
        if unprepared:
            attempt.machine.held, attempt.machine.prepared_for = set(), None
        elif isinstance(error, MemoryError | RuntimeError):  # JAX's errors are RuntimeErrors
            self._refuse(attempt.machine, f"it failed on a block: {one_line(error)}")
        elif error is not None:
            raise error
        self._fail(key, failed=not unprepared)

    def _fail(self, key: str, failed: bool = True) -> None:
        """Retry a block whose worker has not ended it."""
        assert self._training is not None
        attempt = self._training.attempts.pop(key)
        attempt.cancel()
        self._training.retry(attempt, failed)

    def _stop(self, training: _Training) -> None:
        """Let the blocks under way end after their epoch, and begin no others."""
        training.stopping = True
        training.pending.clear()
        addresses = [attempt.machine.address for attempt in training.attempts.values()]
        if addresses:
            self._client.run(stop, training.name, workers=addresses, on_error="ignore")

    def _take_message(self, message: Mapping[str, Any]) -> None:
        """Report the progress of a block, or a line about it."""
        training = self._training
        attempt = training.attempts.get(message["attempt"]) if training else None
        if training is None or attempt is None:
            return
        if "line" in message:
            self._log(f"{_name(attempt.machine)}: {message['line']}")
        else:
            progress = (message[name] for name in ("advance", "epoch", "accuracy", "resumed"))
            training.report(attempt, *progress)


def _outcome(future: "Future") -> tuple[Any, BaseException | None]:
    """Return the value of a future or its error; neither, if its worker has left before it was fetched."""
    try:
        if future.status == "finished":
            return future.result(), None
        if future.status == "error":
            return None, future.exception()
    except Exception:  # Dask has many types for this
        pass
    return None, None


def _on_host(tree: Tree) -> Tree:
    """Return a tree with NumPy arrays in place of JAX's, whose float64 another process may not hold."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def _name(machine: _Machine) -> str:
    """Return the address of a worker, and its host if that is known."""
    return machine.address + (f" ({machine.description.host})" if machine.description else "")


@contextmanager
def _marker(folder: Path | None, name: str) -> Iterator[Path | None]:
    """Yield a file in the folder by which a worker knows that it sees it; None without a folder."""
    if folder is None:
        yield None
        return
    marker = folder.resolve() / f".seen-{name}"
    marker.touch()
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)
