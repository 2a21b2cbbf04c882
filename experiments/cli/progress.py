"""Progress bars on the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from linear_cifar.data.download import DownloadProgress

# Seconds between two updates of a bar: on a terminal, and in a file or a pipe, where each one stays.
UPDATE, LOGGED_UPDATE = 0.1, 10.0


class EpochsBar:
    """A bar of the epochs of many runs with the time left, to be opened by `with`."""

    def __init__(self, total: float, title: str) -> None:
        self._total = total
        bar_format = "{l_bar}{bar}| {n:.4g}/{total:.4g} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        self._bar = _open_bar(total=total, desc=title, unit="epoch", bar_format=bar_format)

    def __enter__(self) -> "EpochsBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self, epochs: float, remark: str) -> None:
        """Advance the bar by `epochs`, weighted by this block's share of all runs, and show the remark."""
        self._bar.set_postfix_str(remark, refresh=False)
        self._bar.update(self._at_most_left(epochs))

    def skip(self, epochs: float) -> None:
        """Advance the bar by epochs that were trained earlier and say nothing of the time left."""
        if not self._bar.disable:  # as $TQDM_DISABLE may
            epochs = self._at_most_left(epochs)
            self._bar.initial += epochs
            self._bar.n += epochs
            self._bar.refresh()

    def log(self, line: str) -> None:
        """Print a line above the bar."""
        if not self._bar.disable:
            log(line)

    def _at_most_left(self, epochs: float) -> float:
        """Limit epochs to those that are left, because rounded shares may sum to a little more than 1."""
        return min(epochs, self._total - self._bar.n)


def log(line: str) -> None:
    """Print a line to stderr, above a bar if there is one."""
    tqdm.write(line, file=sys.stderr)


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[DownloadProgress], None]]:
    """Yield a function that shows a download's progress; its first call opens the bar."""
    bars: list[tqdm] = []

    def show(progress: DownloadProgress) -> None:
        if not bars:
            bars.append(_open_bar(desc=title, unit="B", unit_scale=True))
        bars[0].total = progress.total
        bars[0].update(progress.done - bars[0].n)

    try:
        yield show
    finally:
        for bar in bars:
            bar.close()


def _open_bar(**options: Any) -> tqdm:
    """Open a bar on stderr, as wide as the terminal."""
    seconds = UPDATE if sys.stderr.isatty() else LOGGED_UPDATE
    return tqdm(dynamic_ncols=True, mininterval=seconds, maxinterval=LOGGED_UPDATE, **options)
