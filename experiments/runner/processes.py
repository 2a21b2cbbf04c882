"""Several processes, on one host or many, that share the blocks of one run.

`jax.distributed` assigns the ranks and notices deaths. All other messages are small files under the run's
folder, which are written whole and polled. Processes exchange nothing while they train.
"""

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from experiments.runner.errors import FolderError, ProcessError, UsageError
from experiments.runner.files import PROCESSES, first_missing, read_json, remove_empty, write_json
from linear_cifar.arguments import one_line

# Seconds after which a silent process counts as dead, whereupon JAX ends the others.
HEARTBEAT = 60
# Seconds to wait for the others at the start.
START = 300
# Seconds for which rank 0 waits at its end until the others have read its last message.
LEAVING = 10
# Seconds between two looks at a file.
POLL = 0.1
# Environment variables that say which devices JAX uses.
DEVICE_VARIABLES = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")


class Processes:
    """This process among those that share a run; alone, it is rank 0 of 1."""

    def __init__(
        self,
        coordinator: str | None = None,
        count: int | None = None,
        rank: int | None = None,
        cluster: bool = False,
    ) -> None:
        """Join the others, before any other use of JAX.

        Args:
          coordinator: host:port of rank 0.
          count: number of processes.
          rank: rank of this process, from 0.
          cluster: whether SLURM, Cloud TPU, Kubernetes or MPI says the three, instead of the arguments.

        Raises:
          UsageError: if the arguments do not go together, the others do not come, or JAX has no devices.
        """
        present = [value is not None for value in (coordinator, count, rank)]
        if any(present) and (cluster or not all(present)):
            raise UsageError("coordinator, processes, process: give all three, or --cluster, or none of them")
        self._folder: Path | None = None
        if cluster or all(present):
            self._join(coordinator, count, rank, cluster)
        check_devices()
        self.rank, self.count = jax.process_index(), jax.process_count()  # waits for all others

    def _join(self, coordinator: str | None, count: int | None, rank: int | None, cluster: bool) -> None:
        # JAX's own reaction to SIGTERM would disturb that of `experiments.cli.signals`.
        jax.config.update("jax_enable_preemption_service", False)
        jax.config.update("jax_cpu_collectives_implementation", None)  # CPUs need not connect either
        try:
            jax.distributed.initialize(
                coordinator,
                count,
                rank,
                cluster_detection_method=None if cluster else "deactivate",
                initialization_timeout=START,
                heartbeat_timeout_seconds=HEARTBEAT,
            )
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"the processes did not find one another: {one_line(error, 200)}") from None

    def __str__(self) -> str:
        return f"process {self.rank} of {self.count}"

    @contextmanager
    def meet(self, folder: Path) -> Iterator[None]:
        """Agree with the others on a place for messages under the run's folder, and leave it together.

        The others learn of an exception in the block. Rank 0 removes the messages at the end, once all
        others have left.

        Raises:
          FolderError: if the others do not answer in time, as where they do not see the same folder.
        """
        if self.count == 1:
            yield
            return
        meeting, topmost = folder / PROCESSES, None
        if self.rank == 0:
            try:
                topmost = first_missing(meeting)
                meeting.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FolderError(folder, f"cannot be written to: {error.strerror}") from None
        try:
            self._find_messages(meeting)
            yield
        except BaseException as error:
            # At its exit JAX waits for the others' exit, so they must learn of it.
            reason = "stopped" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            self.say(f"failed-{self.rank}", {"message": f"{self}: {reason}"})
            raise
        finally:
            self.say(f"left-{self.rank}", {"left": True})
            if self.rank == 0 and self._wait_for_others():
                shutil.rmtree(meeting, ignore_errors=True)
                remove_empty(folder, topmost)

    def _find_messages(self, meeting: Path) -> None:
        """Agree on the folder of this attempt's messages; messages of an earlier attempt may lie beside it.

        Rank 0 calls with a new name for this attempt. Each other rank answers with a new token, and rank 0
        confirms the tokens.
        """
        token, end = uuid.uuid4().hex, time.monotonic() + START
        if self.rank == 0:
            self._folder = meeting / token
            self._folder.mkdir()
            write_json(meeting / "call.json", {"attempt": token})
        answered = None
        while time.monotonic() < end:
            if self.rank == 0:
                answers = [_read(meeting / f"answer-{rank}.json") for rank in range(1, self.count)]
                if all(answer.get("attempt") == token for answer in answers):
                    self.say("members", {"tokens": [token, *(answer["token"] for answer in answers)]})
                    return
            else:
                attempt = str(_read(meeting / "call.json").get("attempt", ""))
                if attempt and attempt != answered and (meeting / attempt).is_dir():
                    write_json(meeting / f"answer-{self.rank}.json", {"attempt": attempt, "token": token})
                    answered = attempt
                tokens = _read(meeting / attempt / "members.json").get("tokens", []) if attempt else []
                if self.rank < len(tokens) and tokens[self.rank] == token:
                    self._folder = meeting / attempt
                    return
            time.sleep(POLL)
        raise FolderError(
            meeting.parent, f"{self} met no others there: name a folder that all processes share"
        )

    def _wait_for_others(self) -> bool:
        """Wait until all others have left; return whether they did."""
        end = time.monotonic() + LEAVING
        while time.monotonic() < end:
            if all(self.has_heard(f"left-{rank}") for rank in range(1, self.count)):
                return True
            time.sleep(POLL)
        return False

    def say(self, name: str, content: dict[str, Any]) -> None:
        """Tell all processes something by its name, once; alone, do nothing."""
        # Rank 0 removes the folder at the end, also from those that it has waited for in vain.
        with suppress(FileNotFoundError):
            if self._folder is not None:
                write_json(self._folder / f"{name}.json", content)

    def hear(self, name: str, stopped: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """Wait for what some process says by that name; return None once `stopped` says so.

        Raises:
          ProcessError: if another process fails meanwhile.
        """
        assert self._folder is not None, "a single process has nobody to hear"
        while not stopped():
            self.check()
            if content := _read(self._folder / f"{name}.json"):
                return content
            time.sleep(POLL)
        return None

    def has_heard(self, name: str) -> bool:
        """Tell whether some process has said something by that name."""
        return self._folder is not None and (self._folder / f"{name}.json").exists()

    @property
    def failure(self) -> str | None:
        """The message of another process that failed, if one did."""
        if self._folder is None:
            return None
        for path in sorted(self._folder.glob("failed-*.json")):
            if path.name != f"failed-{self.rank}.json" and (content := _read(path)):
                return str(content["message"])
        return None

    def check(self) -> None:
        """Raise ProcessError if another process failed."""
        if failure := self.failure:
            raise ProcessError(f"{self} stops, since another one failed: {failure}")


def check_devices() -> None:
    """Raise UsageError if JAX has no devices, as where the environment names others than there are."""
    try:
        jax.local_devices()
    # JAX raises errors of several types, an AssertionError without a text among them.
    except Exception as error:
        named = [f"{name}={os.environ[name]}" for name in DEVICE_VARIABLES if name in os.environ]
        reason = " ".join(str(error).split()) or "there are no such devices"
        raise UsageError(f"{', '.join(named) or 'JAX'}: no device can be used: {reason:.300}") from None


def _read(path: Path) -> dict[str, Any]:
    """Return what a message holds; nothing if it is not there yet."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}
