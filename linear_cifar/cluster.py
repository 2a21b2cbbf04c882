"""Blocks of a sweep on the workers of a Dask cluster, in place of this process.

Dask brings the transport and knows which workers are there; they may join and leave at any time. One worker
per machine trains one block at a time, on all its devices. This process alone writes results. The scheduler
does not need this package, because it unpickles nothing that it passes on.
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
    Shipment,
    Unprepared,
    describe_code,
    describe_worker,
    drop,
    hold,
    stop,
    train,
)

if TYPE_CHECKING:
    from distributed import Future

Tree = TypeVar("Tree")

# Blocks per worker, so that at the end no worker waits long for another. Workers may join, so this counts at
# least `EXPECTED_WORKERS`.
BLOCKS_PER_WORKER, EXPECTED_WORKERS = 4, 16
# Smallest number of runs of a block. They share the work on the examples, which on a CPU costs as much as
# four runs of CIFAR-10.
FEWEST_RUNS = 24
# Seconds to wait for the scheduler; for the answers of workers; before saying that there is no worker; for
# workers to drop their data at the end.
CONNECT_TIMEOUT, ANSWER_TIMEOUT, PATIENCE, DROP_TIMEOUT = 10.0, 60.0, 5.0, 2.0
# Seconds from one look at the workers that are there to the next.
POLL = 0.5
# Calls to the cluster that wait at the same time, and failures to send data after which a worker is refused.
CALLS, MOST_FAILURES = 16, 3


class ClusterError(OSError):
    """Dask is not installed, the scheduler does not answer, or workers gave up a block."""


class _Worker:
    """A worker of the cluster, as this process knows it."""

    def __init__(self, address: str, directory: str) -> None:
        self.address = address
        self.directory = directory  # Dask's; a worker that is started again at this address has another one
        self.running = True  # False: Dask has paused it, because its memory is short
        self.description: Description | None = None  # None: it has not answered yet
        self.refused: str | None = None  # the reason
        self.held: set[str] = set()  # digests of the data that it holds
        self.prepared_for: str | None = None  # name of the training whose data it holds
        self.lease: Future | None = None  # while this is kept, the worker keeps its data
        self.sees_folder = False
        self.call: _Call | None = None  # what it is busy with
        self.blocks = 0  # number of blocks that it has trained
        self.failures = 0  # number of times that it could not be sent data

    @property
    def fits(self) -> bool:
        """True if it takes part."""
        return self.description is not None and self.refused is None

    def __str__(self) -> str:
        return self.address + (f" ({self.description.host})" if self.description else "")


class _Call:
    """A function that is called on a worker; with a block, an attempt to train it."""

    def __init__(self, worker: _Worker, block: Block | None = None) -> None:
        self.worker, self.block = worker, block
        self.future: Future | None = None
        self.advance = 0.0  # epochs of the block that it has reported, as a mean over all runs
        worker.call = self

    def end(self) -> bool:
        """Free the worker; return False if it was freed already, and does something else."""
        if self.worker.call is not self:
            return False
        self.worker.call = None
        return True

    def cancel(self) -> None:
        """Free the worker, ask Dask to stop the call, and ignore its value."""
        self.end()
        if self.future is not None:
            with suppress(Exception):  # as where the scheduler is gone
                self.future.cancel()


class _Training:
    """The blocks of a sweep that are to be trained, train, and have ended."""

    def __init__(self, trainer: Trainer, blocks: Sequence[Block], allowed_failures: int) -> None:
        from cloudpickle import dumps  # also takes functions of a notebook; Dask requires it

        self.trainer, self.name = trainer, secrets.token_hex(8)
        self.pending, self.attempts = deque(blocks), dict[str, _Call]()
        self.ended: list[tuple[Block, Trained]] = []
        self.failures, self.allowed_failures = Counter[str](), allowed_failures  # of each block
        self.stopping = False
        self.runs_done = trainer.num_runs - sum(math.prod(block.identity.size) for block in blocks)
        self.data: dict[str, bytes] = {}  # what a worker has to hold, by its digest

        def pack(content: Any) -> str:
            pickled = dumps(content)
            digest = hashlib.sha256(pickled).hexdigest()
            self.data[digest] = pickled
            return digest

        distinct = {id(examples): pack(_on_host(examples)) for examples in trainer.sets.values()}
        bare = trainer._replace(
            sets={}, devices=None, should_stop=never, on_epoch=ignore, log=warnings.warn, folder=None,
            standardizer=_on_host(trainer.standardizer),
            # Apart from the trainer: one object for all sweeps of a command compiles its programs once.
            method=None,  # type: ignore[arg-type]
        )  # fmt: skip
        sets = {name: distinct[id(examples)] for name, examples in trainer.sets.items()}
        self.shipment = pack(Shipment(bare, sets, pack(trainer.method)))

    def report(
        self, attempt: _Call, advance: float, epoch: int, accuracy: float | None, resumed: bool = False
    ) -> None:
        """Report the progress of a block, with the state of the whole training."""
        assert attempt.block is not None
        workers, total = len(self.attempts), self.trainer.total
        note = f"{self.runs_done:,}/{self.trainer.num_runs:,} runs, {workers} worker" + "s" * (workers != 1)
        attempt.advance += advance
        identity = attempt.block.identity
        self.trainer.on_epoch(Progress(advance, total, epoch, resumed, identity, accuracy, note))

    def end(self, attempt: _Call, trained: Trained) -> None:
        """Take the result of a block."""
        block, result = attempt.block, trained.result
        assert block is not None
        attempt.worker.blocks += 1
        if result is not None and result.complete:
            runs = math.prod(block.identity.size)
            self.runs_done += runs
            whole = self.trainer.count_epochs(block) * runs / self.trainer.num_runs
            self.report(attempt, whole - attempt.advance, len(block.identity.epochs), None)
        self.ended.append((block, trained))

    def retry(self, attempt: _Call, failed: bool) -> None:
        """Train a block again that a worker did not end; give it up after more than the allowed failures."""
        block = attempt.block
        assert block is not None
        name = block.identity.hash()
        self.report(attempt, -attempt.advance, 0, None)
        self.failures[name] += failed
        if self.failures[name] > self.allowed_failures:
            count = self.failures[name]
            self.trainer.log(
                f"block {name} ({math.prod(block.identity.size)} runs) is given up: {count} "
                f"worker{'s' * (count > 1)} died or failed in training it"
            )
        elif not self.stopping:
            self.pending.append(block)  # last, so that it cannot keep others from being trained


class Cluster:
    """A connection to a Dask scheduler, and what is known of its workers; to be opened by `with`.

    Give it to `fit`. A Dask cluster runs any code that its clients send. So it belongs on the loopback
    interface or in a private network, or behind TLS.
    """

    def __init__(self, scheduler: str, log: Callable[[str], None] = warnings.warn) -> None:
        """Connect to a scheduler.

        Args:
          scheduler: its address, such as `tcp://host:8786`, or the path of its scheduler file.
          log: gets a line about each worker that is refused or has left.

        Raises:
          ClusterError: if Dask is not installed, or no scheduler answers.
        """
        try:
            from distributed import Client, Security
        except ModuleNotFoundError:
            raise ClusterError("Dask is not installed: pip install 'linear_cifar[cluster]'") from None
        self._log = log
        try:
            address = read_json(Path(scheduler))["address"] if Path(scheduler).is_file() else scheduler
            self.address = str(address)
            security = Security()  # from Dask's configuration
            if self.address.startswith("tls:") and not security.get_connection_args("client")["ssl_context"]:
                raise ValueError("Dask's configuration names no certificates for TLS")
            self._client = Client(
                self.address, security=security, timeout=CONNECT_TIMEOUT, set_as_default=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ClusterError(f"no Dask scheduler answers at {scheduler}: {one_line(error)}") from None
        self._workers: dict[str, _Worker] = {}
        self._former: list[_Worker] = []
        self._training: _Training | None = None
        self._needs: dict[str, Any] = {}
        self._at_once = 0
        # Functions that other threads want called in the thread that trains.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._polled_at = -math.inf
        self._idle_since, self._told = math.inf, False
        self._calls = ThreadPoolExecutor(CALLS)
        self._name = f"linear_cifar-{secrets.token_hex(8)}"  # of this command, and the topic of its messages
        self._client.subscribe_topic(
            self._name, lambda event: self._inbox.put(partial(self._take_message, event[1]))
        )

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):  # whatever it is, the command is at its end
            addresses = [worker.address for worker in self._fitting()]
            if addresses and self._client.status == "running":
                dropping = partial(self._client.run, drop, self._name, workers=addresses, on_error="ignore")
                self._calls.submit(dropping).result(DROP_TIMEOUT)
        self._calls.shutdown(wait=False, cancel_futures=True)
        with suppress(Exception):
            self._client.close(timeout=CONNECT_TIMEOUT)

    @property
    def dashboard(self) -> str:
        """The address of Dask's dashboard."""
        return str(self._client.dashboard_link)

    @property
    def devices(self) -> list[list[str]]:
        """The devices of each worker that takes part, in words."""
        return [worker.description.devices for worker in self._fitting() if worker.description]

    def describe(self) -> list[dict[str, Any]]:
        """Return the address, host, devices and number of trained blocks of each worker that took part."""
        return [
            {
                "address": worker.address,
                "host": worker.description.host,
                "devices": worker.description.devices,
                "blocks": worker.blocks,
            }
            for worker in (*self._former, *self._workers.values())
            if worker.description and (worker.fits or worker.blocks)
        ]

    def count_runs(
        self,
        needs: Mapping[str, Any],
        num_runs: int,
        at_once: int | None = None,
        largest_block: int | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> int:
        """Return how many runs train at a time on each worker; wait until there is one.

        By default there are `BLOCKS_PER_WORKER` blocks for each worker, but none has fewer than `FEWEST_RUNS`
        runs. There are more blocks where the memory of half of the workers would not hold them. Workers with
        less memory are refused.

        Args:
          needs: arguments of `max_runs`, which decide how many runs the memory of a worker holds.
          num_runs: runs of the sweep.
          at_once: number that the user asks for; None: none.
          largest_block: runs of the largest block, where blocks have a size of their own, and the returned
            number only divides their legs.
          should_stop: True ends the wait.
        """
        self._needs, self._at_once = dict(needs), at_once or 0
        with self._notice_loss():
            for worker in self._workers.values():
                self._ask(worker)
            until = time.monotonic() + ANSWER_TIMEOUT
            self._poll()
            while not should_stop():
                asked = any(worker.description is None and worker.call for worker in self._workers.values())
                if self._fitting() and not (asked and time.monotonic() < until):
                    break
                self._handle()
            else:
                return 1
        if at_once is None:
            memory = sorted(worker.description.runs for worker in self._fitting() if worker.description)
            share = math.ceil(num_runs / (BLOCKS_PER_WORKER * max(len(memory), EXPECTED_WORKERS)))
            self._at_once = min(largest_block or max(share, FEWEST_RUNS), memory[(len(memory) - 1) // 2])
            for worker in self._fitting():
                self._check(worker)
        return self._at_once

    def train(self, trainer: Trainer, blocks: Sequence[Block]) -> Iterator[tuple[Block, Trained]]:
        """Yield blocks as their training ends, in any order; after a stop those that were under way.

        A block whose worker dies is trained on another one, and is given up after more failures than the
        scheduler's `allowed-failures`.

        Raises:
          ClusterError: if the scheduler is lost.
        """
        import dask

        with self._notice_loss():
            setting = "distributed.scheduler.allowed-failures"
            allowed = int(self._client.run_on_scheduler(dask.config.get, setting))
        training = self._training = _Training(trainer, blocks, allowed)
        try:
            with self._notice_loss(), _marker(trainer.folder, training.name) as marker:
                while training.pending or training.attempts:
                    if trainer.should_stop() and not training.stopping:
                        self._stop(training)
                    for worker in self._fitting():
                        if worker.running and worker.call is None and training.pending:
                            self._employ(worker, training, marker)
                    self._handle()
                    yield from training.ended
                    training.ended.clear()
        finally:
            self._training = None
            for attempt in training.attempts.values():
                attempt.cancel()

    # ---- workers

    def _fitting(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if worker.fits]

    def _handle(self) -> None:
        """Look at the workers that are there, and act on what has come, after at most `POLL` seconds."""
        if time.monotonic() - self._polled_at >= POLL:
            self._poll()
        with suppress(queue.Empty):
            self._inbox.get(timeout=POLL)()
            while True:
                self._inbox.get_nowait()()

    def _poll(self) -> None:
        """Ask workers that have joined to describe themselves, and retry the blocks of those that left."""
        present = self._client.scheduler_info(n_workers=-1).get("workers")
        if present is None or self._client.status != "running":
            raise self._loss()
        for address, worker in [*self._workers.items()]:
            if worker.directory != present.get(address, {}).get("local_directory"):
                self._log(f"worker {worker} has left")
                self._former.append(self._workers.pop(address))
                call = worker.call
                if call is not None:
                    call.cancel()
                    self._retry(call)
            else:
                worker.running = present[address]["status"] == "running"
        for address in present.keys() - self._workers.keys():
            worker = self._workers[address] = _Worker(address, present[address]["local_directory"])
            self._ask(worker)
        self._polled_at = time.monotonic()
        if self._fitting():
            self._idle_since, self._told = math.inf, False
        self._idle_since = min(self._idle_since, self._polled_at)
        if not (self._fitting() or self._told) and self._polled_at - self._idle_since >= PATIENCE:
            reason = "each that is there is busy, has not answered, or is left out"
            self._log(f"waiting for a worker at {self.address}" + (f": {reason}" if present else ""))
            self._told = True

    def _loss(self) -> ClusterError:
        return ClusterError(f"the Dask scheduler at {self.address} does not answer any more")

    @contextmanager
    def _notice_loss(self) -> Iterator[None]:
        """Raise ClusterError for any error that comes of the loss of the scheduler."""
        try:
            yield
        except Exception:
            if self._client.status == "running":
                raise
            raise self._loss() from None

    def _submit(
        self,
        call: _Call,
        function: Callable[..., Any],
        act: Callable[[Any, BaseException | None], None],
        *futures: "Future",
    ) -> None:
        """Call a function on a worker, with the values of futures, and `act` on its value or its error.

        `act` is called in the thread that trains. It is not called if the call is cancelled before.
        """
        where: dict[str, Any] = {"workers": [call.worker.address], "pure": False}
        # The scheduler unpickles the functions of tasks. So the task is one of the standard library, and the
        # worker alone unpickles ours, from bytes.
        loaded = self._client.submit(pickle.loads, pickle.dumps(function), **where)
        future = call.future = self._client.submit(operator.call, loaded, *futures, **where)

        def fetch() -> None:
            """Fetch the value, which waits if the worker dies meanwhile: until the call is cancelled."""
            value, error = None, None
            try:
                value = future.result()
            except BaseException as raised:  # asyncio's errors among them
                error = raised

            def take() -> None:
                if call.end():
                    act(value, error)

            self._inbox.put(take)

        def submit_fetch(done: "Future") -> None:
            with suppress(RuntimeError):  # the pool is shut down: nobody waits
                self._calls.submit(fetch)

        future.add_done_callback(submit_fetch)

    def _ask(self, worker: _Worker) -> None:
        """Ask a worker to describe itself."""

        def answer(description: Description | None, error: BaseException | None) -> None:
            worker.description = description
            if error is not None:
                self._refuse(worker, one_line(error))
            else:
                self._check(worker)

        if worker.call is not None:
            worker.call.cancel()
        worker.description = None
        self._submit(_Call(worker), partial(describe_worker, self._needs), answer)

    def _check(self, worker: _Worker) -> None:
        """Refuse a worker with other code, or without the memory for a block; take any other one."""
        description, ours = worker.description, describe_code()
        assert description is not None, "only workers that have answered are checked"
        for name in ours:
            if description.code.get(name) != ours[name]:
                theirs = description.code.get(name, "unknown")
                self._refuse(worker, f"it has {name} {theirs}, not {ours[name]}")
                return
        if description.runs < self._at_once:
            count = f"{description.runs:,} run" + "s" * (description.runs > 1)
            advice = "give smaller blocks (block_runs)"
            self._refuse(worker, f"its memory holds {count} at a time, not {self._at_once:,}: {advice}")
        else:
            worker.refused = None

    def _refuse(self, worker: _Worker, reason: str) -> None:
        if worker.refused != reason:
            self._log(f"worker {worker} is left out: {reason}")
        worker.refused = reason

    # ---- blocks

    def _employ(self, worker: _Worker, training: _Training, marker: Path | None) -> None:
        """Give an idle worker its next block, or first the data."""
        if worker.prepared_for != training.name:
            self._calls.submit(self._send, _Call(worker), training, marker)
            return
        trainer, block = training.trainer, training.pending.popleft()
        trainer.begin(block, worker.description.devices if worker.description else [])
        folder = trainer.folder.resolve() if trainer.folder and worker.sees_folder else None
        resume_from = None if folder else trainer.read_state(block)
        name = secrets.token_hex(8)
        block = block._replace(replicates=_on_host(block.replicates))
        attempt = training.attempts[name] = _Call(worker, block)
        words = (self._name, training.shipment, training.name, name)
        self._submit(
            attempt, partial(train, *words, block, folder, resume_from), partial(self._take_end, attempt)
        )

    def _send(self, call: _Call, training: _Training, marker: Path | None) -> None:
        """Send a worker the data that it does not hold; this runs in a thread of its own."""
        worker = call.worker
        missing = [digest for digest in training.data if digest not in worker.held]

        def prepared(sees_folder: bool, error: BaseException | None) -> None:
            if error is None:
                worker.held, worker.prepared_for = {*training.data}, training.name
                worker.sees_folder, worker.lease = sees_folder, call.future
            elif isinstance(error, Unprepared):
                worker.held = set()
            else:
                failed(error)

        def failed(error: BaseException) -> None:
            call.end()
            worker.failures += 1  # the worker may just have left
            if worker.failures >= MOST_FAILURES:
                self._refuse(worker, f"it cannot be sent the data: {one_line(error)}")

        try:
            data = [training.data[digest] for digest in missing]
            sent = self._client.scatter(data, workers=[worker.address], hash=False) if data else []
            function = partial(hold, self._name, [*training.data], missing, marker)
            self._submit(call, function, prepared, *sent)
        except Exception as error:  # Dask raises errors of many types
            time.sleep(POLL)
            self._inbox.put(partial(failed, error))

    def _take_end(self, attempt: _Call, trained: Trained | None, error: BaseException | None) -> None:
        """Take the end of an attempt to train a block."""
        from distributed import KilledWorker

        worker = attempt.worker
        if self._training is None:
            return
        if trained is not None:
            self._forget(attempt)
            self._training.end(attempt, trained)
            return
        unprepared = isinstance(error, Unprepared)
        if unprepared:
            worker.held, worker.prepared_for = set(), None
        # An OSError: it cannot write to the folder that it sees.
        elif isinstance(error, MemoryError | OSError | jax.errors.JaxRuntimeError):
            self._refuse(worker, f"it failed in training a block: {one_line(error)}")
        elif isinstance(error, KilledWorker):
            worker.running = False  # so that it gets no other block before it is known to have left
        elif error is not None:
            raise error
        self._retry(attempt, failed=not unprepared)

    def _retry(self, call: _Call, failed: bool = True) -> None:
        """Train the block of a call again that did not end, if it has one."""
        if self._training is not None and self._forget(call):
            self._training.retry(call, failed)

    def _forget(self, attempt: _Call) -> bool:
        """Take an attempt from those under way; return False if it is not among them."""
        attempts = self._training.attempts if self._training else {}
        names = [name for name, other in attempts.items() if other is attempt]
        for name in names:
            del attempts[name]
        return bool(names)

    def _stop(self, training: _Training) -> None:
        """Let the blocks under way end after their epoch, and begin no others."""
        training.stopping = True
        training.pending.clear()
        addresses = [attempt.worker.address for attempt in training.attempts.values()]
        if addresses:  # in a thread, because a worker may be silent
            stopping = partial(self._client.run, stop, training.name, workers=addresses, on_error="ignore")
            self._calls.submit(stopping)

    def _take_message(self, message: Mapping[str, Any]) -> None:
        """Report the progress of a block, or a line about it."""
        training = self._training
        attempt = training.attempts.get(message["attempt"]) if training else None
        if training is None or attempt is None:
            return
        if "line" in message:
            self._log(f"{attempt.worker}: {message['line']}")
        else:
            progress = (message[name] for name in ("advance", "epoch", "accuracy", "resumed"))
            training.report(attempt, *progress)


def _on_host(tree: Tree) -> Tree:
    """Return a tree with NumPy arrays in place of JAX's, whose float64 another process may not hold."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


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
