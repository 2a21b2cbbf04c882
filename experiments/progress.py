"""Progress bars on the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from linear_cifar.download import Progress


class EpochsBar:
    """A bar of the epochs of many runs with the time left, to be opened by `with`."""

    def __init__(self, total: int, title: str, quiet: bool = False) -> None:
        """Shows it, unless it is to be quiet."""
        self._total = total
        shown = "{l_bar}{bar}| {n:.4g}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        self._bar = tqdm(
            total=total, desc=title, unit="epoch", dynamic_ncols=True, bar_format=shown, disable=quiet
        )

    def __enter__(self) -> "EpochsBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self, epochs: float, remark: str) -> None:
        """So many were done; of a part of the runs they count as that part."""
        self._bar.set_postfix_str(remark, refresh=False)
        self._bar.update(self._at_most(epochs))

    def tell(self, line: str) -> None:
        """Prints a line above it."""
        if not self._bar.disable:
            tell(line)

    def skip(self, epochs: float) -> None:
        """So many had been done before, which says nothing of the time that the others take."""
        if not self._bar.disable:
            epochs = self._at_most(epochs)
            self._bar.initial += epochs
            self._bar.n += epochs
            self._bar.refresh()

    def _at_most(self, epochs: float) -> float:
        """Not more than are left, as parts may sum to a little more than their whole."""
        return min(epochs, self._total - self._bar.n)


def tell(line: str) -> None:
    """Prints a line to stderr, above a bar if there is one."""
    tqdm.write(line, file=sys.stderr)


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """A bar of bytes with the rate; there is none before the function that it gives is first called."""
    bars: list[tqdm] = []

    def show(progress: Progress) -> None:
        if not bars:
            bars.append(tqdm(desc=title, unit="B", unit_scale=True, dynamic_ncols=True))
        bars[0].total = progress.total
        bars[0].update(progress.done - bars[0].n)

    try:
        yield show
    finally:
        for bar in bars:
            bar.close()
