"""The start and the end of every command; a user's mistake ends in one line, never in a traceback."""

import errno
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from experiments.cli.recipes import apply_recipe
from experiments.cli.signals import raise_on_signals
from experiments.cli.streams import open_streams, terminal_width, wrap
from experiments.runner.errors import Stopped, UsageError
from linear_cifar.data.dataset import DataError
from linear_cifar.devices import set_gpu_options, use_all_cores
from linear_cifar.folders import FolderError

# Environment variable that names a folder for compiled programs.
JAX_CACHE = "JAX_COMPILATION_CACHE_DIR"
# Environment variables that say which devices JAX uses.
DEVICE_VARIABLES = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")


def launch(define_flags: Callable[[], None], main: Callable[[], None]) -> None:
    """Define and parse the flags, set up JAX, and run the command.

    experiments/README.md lists the exit codes.

    Args:
      define_flags: defines the flags of this command.
      main: the command; it reads `absl.flags.FLAGS`.
    """
    gc.freeze()  # leave what was imported out of every search for garbage
    gc.enable()
    output = open_streams()
    logging.get_absl_handler().python_handler.setStream(sys.stderr)  # in place of the earlier one
    # Python's warnings are for developers; the tests turn them into errors.
    warnings.simplefilter("ignore")
    define_flags()
    raise_on_signals()
    try:
        _run_app(main)
    except SystemExit as end:
        if end.code or output.error is None:
            raise
        if isinstance(output.error, BrokenPipeError):  # as where `head` has read enough
            sys.exit(128 + signal.SIGPIPE)
        _fail(f"the output cannot be written: {output.error.strerror}", 1)
    finally:
        gc.freeze()  # skip the search for garbage as Python ends


def _run_app(main: Callable[[], None]) -> None:
    """Parse the flags, run the command and exit; an expected error ends in one line."""
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
    """Use all cores, or a GPU well, and keep compiled programs on disk; the environment can override each."""
    use_all_cores()
    set_gpu_options()
    if (folder := find_cache()) is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The small programs around the large one take three seconds together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def check_devices() -> None:
    """Raise UsageError if JAX has no devices, as where the environment names others than there are."""
    try:
        jax.local_devices()
    # JAX raises errors of several types, an AssertionError without a text among them.
    except Exception as error:
        named = [f"{name}={os.environ[name]}" for name in DEVICE_VARIABLES if name in os.environ]
        reason = " ".join(str(error).split()) or "there are no such devices"
        raise UsageError(f"{', '.join(named) or 'JAX'}: no device can be used: {reason:.300}") from None


def find_cache() -> Path | None:
    """Return the folder for compiled programs; None if JAX chooses it or there is no home folder.

    Raises:
      UsageError: if an environment variable names a folder that cannot be made or read.
    """
    name, value = JAX_CACHE, os.environ.get(JAX_CACHE)
    if value is None:
        name, value = "XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME")
    elif not value or "://" in value:  # no cache, or a store that JAX reaches by itself
        return None
    try:
        folder = Path(value or "~/.cache").expanduser() / ("" if name == JAX_CACHE else "linear_cifar")
        folder.mkdir(parents=True, exist_ok=True)
        # A folder that is only readable still supplies programs that other users compiled.
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it cannot be read")
        return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        if not value:
            return None
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{name}={value}: compiled programs cannot be kept there: {reason}; name another folder"
        ) from None


def _fail(message: str, code: int) -> None:
    _end(f"error: {message}", code)


def _end(message: str, code: int) -> None:
    # In a file or a pipe an error is one line, for the programs that read it.
    width = terminal_width(sys.stderr) if sys.stderr.isatty() else None
    print(wrap(message, width), file=sys.stderr)
    sys.exit(code)
