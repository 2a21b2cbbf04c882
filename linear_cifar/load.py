"""A data set by its name: found on this machine, fetched or made up."""

import textwrap
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from linear_cifar import cifar10
from linear_cifar.dataset import DataError, Dataset, DataUnavailable, Source, TrainSplit, divide
from linear_cifar.download import Progress, default_data_dir, fetch
from linear_cifar.prepared import read_prepared
from linear_cifar.synthetic import synthetic

Name = Literal["auto", "cifar10", "synthetic"]


def load(
    name: Name = "auto",
    data_dir: Path | None = None,
    train: TrainSplit = "full",
    val_size: int = 1_000,
    tell: Callable[[str], None] = warnings.warn,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Dataset:
    """Train, validation and test splits of uint8 images [n, 3072] with labels [n].

    Args:
      name, data_dir, tell, report: as for `find`.
      train: which images to train and validate on, see `divide`.
      val_size: number of validation images with `full`.

    Raises:
      DataUnavailable: if `cifar10` is asked for and neither here nor to be fetched.
      DataError: if a copy on this machine is broken, or the splits don't fit.
    """
    return divide(find(name, data_dir, tell, report), train, val_size)


def find(
    name: Name = "auto",
    data_dir: Path | None = None,
    tell: Callable[[str], None] = warnings.warn,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Source:
    """A data set as its makers publish it, to be divided by `divide`.

    Args:
      name: `cifar10`; `synthetic`; or `auto`: CIFAR-10 where it is here or can be fetched, else
        the synthetic images, after telling so.
      data_dir: where CIFAR-10 is looked for and fetched to, see `default_data_dir`.
      tell: gets what the user must know: that the images are made up, or not the published ones.
      report: gets the progress of a download, see `fetch`.

    Raises:
      DataUnavailable: if `cifar10` is asked for and neither here nor to be fetched.
      DataError: if a copy on this machine is broken.
    """
    folder = default_data_dir() if data_dir is None else data_dir
    if name == "synthetic":
        source = synthetic()
    else:
        try:
            source = _cifar10(folder, report)
        except DataUnavailable as why:
            if name == "cifar10":
                raise
            tell(_stand_in(str(why), folder))
            source = synthetic()
    if source.name == "cifar10" and not source.published:
        tell(
            f"note: no checksum shows {source.origin} to be the published CIFAR-10; results carry the "
            "fingerprint of what it holds"
        )
    return source


def _cifar10(folder: Path, report: Callable[[Progress], None]) -> Source:
    """The copy that is found first, or else a fetched one."""
    source = cifar10.read(folder) or read_prepared(folder)
    if source is None and folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is neither a folder nor an archive of CIFAR-10")
    if source is None:
        fetch(folder, report)
        source = cifar10.read(folder)
    assert source is not None, "what was fetched is not where it is read"
    return source


def _stand_in(why: str, folder: Path) -> str:
    """The banner: why the images are made up, and how to supply the real ones."""
    paragraphs = (
        "SYNTHETIC DATA: these results say nothing about CIFAR-10.",
        f"CIFAR-10 could not be had: {why}",
        "To supply it, put cifar-10-binary.tar.gz or cifar-10-python.tar.gz (or either one unpacked) into "
        f"{folder}, or name its folder with --data_dir.",
    )
    wrap = partial(textwrap.wrap, width=88, break_long_words=False, break_on_hyphens=False)
    lines = [line for paragraph in paragraphs for line in wrap(paragraph)]
    width = max(map(len, lines))
    rule = "*" * (width + 6)
    return "\n".join([rule, *(f"** {line:<{width}} **" for line in lines), rule])
