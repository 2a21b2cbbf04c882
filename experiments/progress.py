"""Progress bars on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from linear_cifar.download import Progress


@contextmanager
def epochs_bar(total: int, title: str, done: int = 0) -> Iterator[Callable[[str], None]]:
    """A bar of epochs, some done, with the time left; the function that it gives ends one with a remark."""
    with tqdm(total=total, initial=done, desc=title, unit="epoch", dynamic_ncols=True) as bar:

        def advance(remark: str) -> None:
            bar.set_postfix_str(remark, refresh=False)
            bar.update()

        yield advance


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
