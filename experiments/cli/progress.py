"""Progress bars on the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from experiments.cli.clock import Clock
from experiments.cli.streams import terminal_width, wrap
from linear_cifar.identity import Identity
from linear_cifar.legs import Progress

# Seconds between two updates of a bar: on a terminal, and in a file or a pipe, where each one stays.
UPDATE, LOGGED_UPDATE = 0.1, 10.0
# A training of fewer seconds gets no estimate.
TOLD = 10.0


class EpochsBar:
    """A bar of the epochs of many runs with the time left, to be opened by `with`.

    It appears when the first block starts that is not finished, and what was trained earlier is told then.
    It shows the best accuracy of the latest epoch, and at the end that of the result.
    """

    def __init__(self, name: str, title: str, clock: Clock, begin: Callable[[], None] = lambda: None) -> None:
        """Prepare a bar with this title for a sweep of this name; `begin` is called before it appears."""
        self._name, self._title, self._clock, self._begin = name, title, clock, begin
        self._bar: tqdm | None = None
        self._resumed, self._estimated = 0.0, False
        self._reused: list[str] = []

    def __enter__(self) -> "EpochsBar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: Progress) -> None:
        """Show a step of the training, and count its time."""
        total, block = len(progress.block.epochs), progress.block
        solves = block.is_exact
        phase = "training" if not progress.resumed else "evaluation" if self._bar else "data"
        seconds = self._clock.count(phase)
        if progress.resumed:
            if progress.epoch:
                self._reused.append(
                    f"reused: {self._name}, {describe_block(block)}, "
                    f"the first {progress.epoch} of {total} {'rounds' if solves else 'epochs'}"
                )
            self._skip(progress)
        if self._bar is None and progress.epoch < total:
            self._open(progress)
        if self._bar is None:
            return
        for line in self._reused:
            log(line)
        self._reused.clear()
        if not progress.resumed:
            self._show_best(progress.accuracy or 0.0, progress.note)
            # Rounded shares may sum to a little more than the whole.
            self._bar.update(min(progress.advance, progress.total - self._bar.n))
            # Workers have their own pace, and nobody knows how many rounds a minimum takes.
            if not self._estimated and progress.advance and not progress.note and not solves:
                left = (progress.total - self._bar.n) / progress.advance * seconds
                if left >= TOLD:
                    log(f"{self._name}: about {tqdm.format_interval(left)} left on this machine")
                self._estimated = True

    def finish(self, accuracy: float) -> None:
        """Show the accuracy of the best configuration of the result, if the bar is there."""
        if self._bar is not None:
            self._show_best(accuracy)
            self._bar.refresh()

    def _show_best(self, accuracy: float, note: str = "") -> None:
        words = [f"best val acc {accuracy:.2%}" * (accuracy > 0), note]
        assert self._bar is not None
        self._bar.set_postfix_str(", ".join(filter(None, words)), refresh=False)

    def _open(self, progress: Progress) -> None:
        self._begin()
        bar_format = "{desc}:{percentage:4.0f}%|{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}{postfix}]"
        if progress.block.is_exact:
            bar_format = "{desc}: to the minimum [{elapsed}{postfix}]"
        self._bar = _open_bar(total=progress.total, desc=self._title, bar_format=bar_format)
        self._skip(progress._replace(advance=self._resumed))

    def _skip(self, progress: Progress) -> None:
        """Advance the bar by epochs that were trained earlier and say nothing of the time left."""
        if self._bar is None:
            self._resumed += progress.advance
        elif not self._bar.disable:
            self._bar.initial += progress.advance
            self._bar.n += progress.advance
            self._bar.refresh()


def describe_block(block: Identity) -> str:
    """Return the size of a block in words, see `describe_size`."""
    replicates, configs = block.size
    folds = len({replicate.fold for replicate in block.replicates} - {None})
    return describe_size(configs, len(block.seeds), folds, replicates)


def describe_size(configs: int, seeds: int, folds: int, replicates: int | None = None) -> str:
    """Return the size of a sweep or a block in words, such as "48 configurations x 3 seeds x 5 folds".

    `replicates` are fewer than seeds times folds in a block of some of the folds.
    """
    words = f"{configs} configuration" + "s" * (configs > 1)
    if replicates is not None and folds and replicates < seeds * folds:
        return f"{words} x {replicates} of the folds"
    return words + f" x {seeds} seeds" * (seeds > 1) + f" x {folds} folds" * (folds > 0)


def log(line: str) -> None:
    """Print a line to stderr, above a bar if there is one."""
    tqdm.write(wrap(line, terminal_width(sys.stderr)), file=sys.stderr)


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows a download's progress; its first call opens the bar."""
    bars: list[tqdm] = []

    def show(done: int, total: int) -> None:
        if not bars:
            bars.append(_open_bar(total=total, desc=title, unit="B", unit_scale=True))
        bars[0].update(done - bars[0].n)

    try:
        yield show
    finally:
        for bar in bars:
            bar.close()


def _open_bar(**options: Any) -> tqdm:
    """Open a bar on stderr, as wide as the terminal, or as COLUMNS says."""
    is_terminal, width = sys.stderr.isatty(), terminal_width(sys.stderr)
    seconds = UPDATE if is_terminal else LOGGED_UPDATE
    return tqdm(
        ncols=width, dynamic_ncols=is_terminal, mininterval=seconds, maxinterval=LOGGED_UPDATE, **options
    )
