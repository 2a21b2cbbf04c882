"""The experiments: each module is a command, `python -m experiments.NAME --help`."""

import signal
import sys
from typing import Any


def _stop(number: int, frame: Any) -> None:
    print("stopped", file=sys.stderr)
    sys.exit(128 + number)


# A command imports for two seconds before `experiments.cli.launch` handles signals, and Ctrl+C would show a
# traceback. While Python looks for the module of a command, `sys.argv[0]` is "-m".
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)
