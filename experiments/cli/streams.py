"""The standard streams of a command: text that cannot be written is lost, and never ends the work."""

import io
import os
import select
import sys
import textwrap
from typing import Any, TextIO

# Seconds to wait for a reader of stderr, which has progress and notes; its pipe may be full for ever.
PATIENCE = 0.1
# Smaller widths are ignored: absl cannot wrap its help to them.
NARROWEST = 40


class Output(io.FileIO):
    """A descriptor to write to; `error` is the reason why something was lost."""

    error: OSError | None = None

    def __init__(self, descriptor: int, patience: float | None = None) -> None:
        """Write to a descriptor, and wait for its reader for some seconds, or without `patience` for ever."""
        super().__init__(descriptor, "w", closefd=False)
        self._patience = patience

    def write(self, content: Any) -> int:
        """Write the bytes, or lose those that cannot be written."""
        rest = bytes(content)
        try:
            # A pipe that is ready takes this many bytes at once.
            while rest and select.select([], [self], [], self._patience)[1]:
                rest = rest[os.write(self.fileno(), rest[: select.PIPE_BUF]) :]
        except OSError as error:
            self.error = self.error or error
        return len(content)


def open_streams() -> Output:
    """Make the standard streams safe to use, whatever they are, and return stdout's descriptor.

    A stream that is closed leads to /dev/null. Characters that a stream's encoding lacks become "?".
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # `os.open` takes the lowest free descriptor: this one. Otherwise a results file would take it,
            # and native code that logs to stderr would write into that file.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    output = Output(1)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = _wrap(output, sys.stdout), _wrap(Output(2, PATIENCE), sys.stderr)
    # absl and tqdm read the width from here where the terminal does not know it.
    width = os.environ.get("COLUMNS", "")
    if not (width.isdecimal() and int(width) >= NARROWEST):
        os.environ.pop("COLUMNS", None)
    return output


def terminal_width(stream: TextIO) -> int | None:
    """Return the columns of a terminal, or those that COLUMNS says; None: unlimited, as in a pipe."""
    width = os.environ.get("COLUMNS", "")
    if width.isdecimal():
        return int(width) or None
    return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None


def wrap(text: str, width: int | None) -> str:
    """Break the lines of a text at spaces where they are longer than a width; None: nowhere."""
    if width is None:
        return text
    # A word that is too long, such as a path, stays whole, so that it can be copied.
    kept: dict[str, Any] = dict.fromkeys(
        ("break_long_words", "break_on_hyphens", "expand_tabs", "replace_whitespace"), False
    )
    return "\n".join("\n".join(textwrap.wrap(line, width, **kept)) for line in text.split("\n"))


def _wrap(output: Output, stream: TextIO | None) -> TextIO:
    """Return a text stream in the encoding of `stream`, or in UTF-8 if that is None (closed)."""
    # Each text is written at once, so that nothing is left to be written when Python ends.
    encoding = stream.encoding if stream else "utf-8"
    return io.TextIOWrapper(output, encoding, errors="replace", write_through=True)
