"""How an experiment is started, and how it ends: one line for a user's mistake, never a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from experiments.interruption import raise_on_signals
from experiments.recipes import apply_recipe
from linear_cifar.dataset import DataError


class UsageError(Exception):
    """The command can't be carried out as given; the message is one line for the user."""


class Stopped(Exception):
    """A signal ended the run, which is to be gone on with; the message says how."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


def launch(define_flags: Callable[[], None], experiment: Callable[[], None]) -> None:
    """Defines and parses the flags, and runs the experiment.

    Exits with 2 after a mistake in the command or the data, with 1 where the machine refuses
    (a full disk, say), with 130 after Ctrl+C and 143 after SIGTERM.
    """
    define_flags()
    raise_on_signals()
    try:
        app.run(lambda extra: _run(experiment, extra), flags_parser=_parse)
    except (UsageError, DataError) as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(str(error), 1)
    except Stopped as stop:
        _end(str(stop), 128 + stop.number)
    except KeyboardInterrupt as stop:
        _end("stopped", 128 + (stop.args[0] if stop.args else signal.SIGINT))


def _parse(argv: list[str]) -> list[str]:
    try:
        extra: list[str] = flags.FLAGS(argv)[1:]
        apply_recipe()
        return extra
    except flags.Error as error:
        raise UsageError(" ".join(str(error).split()) + " (--help lists the flags)") from None


def _run(experiment: Callable[[], None], extra: list[str]) -> None:
    if extra:
        raise UsageError(f"unexpected {extra[0]!r}: settings are given as --flag=value (--help lists them)")
    if flags.FLAGS["verbosity"].using_default_value or not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    _set_up_jax()
    experiment()


def _set_up_jax() -> None:
    """What the environment does not settle otherwise: a device per core, compiled programs kept on disk."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        # A core works best on configurations of its own, see `linear_cifar.layout`.
        jax.config.update("jax_num_cpu_devices", cores())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(caches / "linear_cifar"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The small programs around the large one take three seconds together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fail(message: str, code: int) -> None:
    _end(f"error: {message}", code)


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
