"""The experiments: each module is a command, `python -m experiments.NAME --help`."""

import gc
import importlib
import os
import signal
import sys
import time
from typing import Any

STARTED = time.perf_counter()

# Libraries that read environment variables as they are imported, and refuse some values.
CONFIGURED = ("jax", "tqdm")


def _stop(number: int, frame: Any) -> None:
    print("stopped", file=sys.stderr)
    sys.exit(128 + number)


# A command imports for a second before `experiments.cli.launch` handles signals and errors. In that time
# Ctrl+C or a wrong variable would show a traceback. While Python looks for the module of a command,
# `sys.argv[0]` is "-m".
if sys.argv[:1] == ["-m"]:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    gc.disable()  # until `launch`: imports leave no garbage, and searching them for it is slow
    if sys.stderr is not None and sys.stderr.isatty():
        print("loading JAX", file=sys.stderr)
    os.umask(os.umask(0) & 0o077)  # a file that its owner may not open is of no use
    for name in CONFIGURED:
        try:
            importlib.import_module(name)
        except ValueError as error:
            print(f"error: {name} refuses an environment variable: {error}", file=sys.stderr)
            sys.exit(2)
