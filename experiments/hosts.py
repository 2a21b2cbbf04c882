"""Several processes, on one host or many, that share the blocks of one run through `jax.distributed`.

They have nothing to tell one another while they train. What is said here, a few words each time, goes through
the key-value store of JAX's coordination service, whose client is JAX's own but not public: the public
collectives would have the accelerators of all hosts connect to one another.
"""

from collections.abc import Callable
from typing import Any

import jax
from absl import flags

from experiments.shell import UsageError

FLAGS = flags.FLAGS
flags.disclaim_key_flags()

# Seconds after which a silent process counts as gone, whereupon JAX ends the others; and for which the others
# are waited for at the start.
HEARTBEAT, START = 60, 300
_FAILED = "failed"


class HostError(OSError):
    """Another process failed; the message is one line for the user."""


def define_hosts() -> None:
    """Defines the flags that say which process of how many this is."""
    flags.DEFINE_string("coordinator", None, "host:port of process 0, where several processes share the run")
    flags.DEFINE_integer("processes", None, "how many processes share the run", lower_bound=1)
    flags.DEFINE_integer("process", None, "which of them this is, from 0", lower_bound=0)
    flags.DEFINE_bool(
        "cluster", False, "several processes share the run, as SLURM, Cloud TPU, Kubernetes or MPI says"
    )


class Hosts:
    """This process among those that share a run; alone, it is process 0 of 1."""

    def __init__(self) -> None:
        """Joins the others as the flags say; before any other use of JAX.

        Raises:
          UsageError: if the flags don't go together, or the others don't come.
        """
        given = [FLAGS[name].value is not None for name in ("coordinator", "processes", "process")]
        if any(given) and (FLAGS.cluster or not all(given)):
            raise UsageError("coordinator, processes, process: give all three, or --cluster, or none of them")
        self.index, self.count = 0, 1
        self._client: Any = None
        self._words: dict[str, str] = {}
        if FLAGS.cluster or all(given):
            self._join()

    def _join(self) -> None:
        # What JAX does on SIGTERM is in the way of what `interruption` does.
        jax.config.update("jax_enable_preemption_service", False)
        jax.config.update("jax_cpu_collectives_implementation", None)  # CPUs need not connect either
        try:
            jax.distributed.initialize(
                FLAGS.coordinator,
                FLAGS.processes,
                FLAGS.process,
                cluster_detection_method=None if FLAGS.cluster else "deactivate",
                initialization_timeout=START,
                heartbeat_timeout_seconds=HEARTBEAT,
            )
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"the processes did not find one another: {_line(error)}") from None
        jax.local_devices()  # for which each process waits for all others
        # Here, since it is not public.
        from jax._src.distributed import global_state

        self.index, self.count = global_state.process_id, global_state.num_processes
        self._client = global_state.client

    def __str__(self) -> str:
        return f"process {self.index} of {self.count}"

    def say(self, name: str, words: str) -> None:
        """Tells all processes something by its name, once."""
        if self._client is None:
            self._words[name] = words
        else:
            self._client.key_value_set(name, words)

    def hear(self, name: str, stopped: Callable[[], bool] = lambda: False) -> str | None:
        """Waits for what some process says by that name; None once it is stopped.

        Raises:
          HostError: if one of them fails meanwhile.
        """
        if self._client is None:
            return self._words[name]
        while not stopped():
            self.check()
            try:
                return str(self._client.blocking_key_value_get(name, 500))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise HostError(f"{self} lost the others: {_line(error)}") from None
        return None

    def fail(self, words: str) -> None:
        """Tells the others that this process failed; at its end it waits for theirs."""
        if self._client is not None:
            self._client.key_value_set(_FAILED, f"{self}: {words}", allow_overwrite=True)

    @property
    def failed(self) -> str | None:
        """What another process said when it failed, if one did."""
        if self._client is None:
            return None
        try:
            return str(self._client.key_value_try_get(_FAILED))
        except RuntimeError:
            return None

    def check(self) -> None:
        """Raises HostError if another process failed."""
        if self.failed:
            raise HostError(f"{self} stops, since another one did: {self.failed}")


def _line(error: object) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else words[:199] + "…"
