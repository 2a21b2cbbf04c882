"""The start and the end of every command; a user's mistake ends in one line, never in a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from experiments.cli.recipes import apply_recipe
from experiments.cli.signals import raise_on_signals
from experiments.runner.errors import FolderError, Stopped, UsageError
from linear_cifar.data.dataset import DataError
from linear_cifar.devices import use_all_cores


def launch(define_flags: Callable[[], None], main: Callable[[], None]) -> None:
    """Define and parse the flags, set up JAX, and run the command.

    | exit code | meaning |
    |---|---|
    | 1 | the machine refused something, for example because the disk is full |
    | 2 | the command, its folder or its data cannot be used |
    | 130 | stopped by Ctrl+C |
    | 143 | stopped by SIGTERM |

    Args:
      define_flags: defines the flags of this command.
      main: the command; it reads `absl.flags.FLAGS`.
    """
    define_flags()
    raise_on_signals()
    try:
        app.run(lambda extra: _run(main, extra), flags_parser=parse_flags)
    except FolderError as error:
        _fail(f"--out={error.folder}: {error.reason}", 2)
    except (UsageError, DataError) as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("the memory does not suffice: give this process more of it, or less data", 1)
    except Stopped as stop:
        _end(str(stop), 128 + stop.number)
    except KeyboardInterrupt as stop:
        _end("stopped", 128 + (stop.args[0] if stop.args else signal.SIGINT))


def parse_flags(argv: list[str]) -> list[str]:
    """Parse a command line, apply its recipe, and return the words that are not flags.

    Raises:
      UsageError: if a flag is unknown or its value is wrong.
    """
    try:
        extra: list[str] = flags.FLAGS(argv)[1:]
        apply_recipe()
        return extra
    except flags.Error as error:
        raise UsageError(" ".join(str(error).split()) + " (--help lists the flags)") from None


def _run(main: Callable[[], None], extra: list[str]) -> None:
    if extra:
        raise UsageError(f"unexpected {extra[0]!r}: settings are given as --flag=value (--help lists them)")
    if flags.FLAGS["verbosity"].using_default_value or not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    set_up_jax()
    main()


def set_up_jax() -> None:
    """Use a device per CPU core and keep compiled programs on disk, unless the environment says otherwise."""
    use_all_cores()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(caches / "linear_cifar"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The small programs around the large one take three seconds together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _fail(message: str, code: int) -> None:
    _end(f"error: {message}", code)


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
