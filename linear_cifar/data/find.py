"""A data set by its name: found on this machine, downloaded or synthetic."""

import textwrap
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from linear_cifar.data import cifar10
from linear_cifar.data.dataset import (
    DataError,
    Dataset,
    DataUnavailable,
    RawDataset,
    TrainSplit,
    split_dataset,
)
from linear_cifar.data.download import DownloadProgress, default_data_dir, fetch
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.data.tfds import read_tfds

Name = Literal["auto", "cifar10", "synthetic"]


def load_dataset(
    name: Name = "auto",
    data_dir: Path | None = None,
    train: TrainSplit = "full",
    val_size: int = 1_000,
    log: Callable[[str], None] = warnings.warn,
    on_progress: Callable[[DownloadProgress], None] = lambda progress: None,
) -> Dataset:
    """Load training, validation and test splits of uint8 images [n, 3072] with labels [n].

    Args:
      name, data_dir, log, on_progress: as for `find_dataset`.
      train: images to train and validate on, see `split_dataset`.
      val_size: number of validation images with `full`.

    Raises:
      DataUnavailable: if `cifar10` is asked for, is not on this machine and cannot be downloaded.
      DataError: if a copy on this machine is broken, or there are too few images for the splits.
    """
    return split_dataset(find_dataset(name, data_dir, log, on_progress), train, val_size)


def find_dataset(
    name: Name = "auto",
    data_dir: Path | None = None,
    log: Callable[[str], None] = warnings.warn,
    on_progress: Callable[[DownloadProgress], None] = lambda progress: None,
) -> RawDataset:
    """Find or download a data set as its makers publish it; `split_dataset` divides it.

    Args:
      name: `cifar10`, `synthetic` or `auto`. With `auto` it is CIFAR-10 where that is on this machine or can
        be downloaded, and otherwise the synthetic images, with a banner for the log.
      data_dir: folder to find CIFAR-10 in and to download it to; None takes `default_data_dir`.
      log: gets notes for the user: that the images are synthetic, or may not be the published ones.
      on_progress: gets the progress of a download, see `fetch`.

    Raises:
      DataUnavailable: if `cifar10` is asked for, is not on this machine and cannot be downloaded.
      DataError: if a copy on this machine is broken.
    """
    folder = default_data_dir() if data_dir is None else data_dir
    if name == "synthetic":
        raw = make_synthetic()
    else:
        try:
            raw = _find_cifar10(folder, on_progress)
        except DataUnavailable as why:
            if name == "cifar10":
                raise
            log(_make_banner(str(why), folder))
            raw = make_synthetic()
    if raw.name == "cifar10" and not raw.verified:
        log(
            f"note: no checksum shows {raw.origin} to be the published CIFAR-10; results carry the "
            "fingerprint of this copy"
        )
    return raw


def _find_cifar10(folder: Path, on_progress: Callable[[DownloadProgress], None]) -> RawDataset:
    """Return the first copy found, or else download one."""
    raw = cifar10.read_cifar10(folder) or read_tfds(folder)
    if raw is None and folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is neither a folder nor an archive of CIFAR-10")
    if raw is None:
        fetch(folder, on_progress)
        raw = cifar10.read_cifar10(folder)
    assert raw is not None, "the download is where it is read from"
    return raw


def _make_banner(why: str, folder: Path) -> str:
    """Return a banner that says why the images are synthetic, and how to supply the real ones."""
    paragraphs = (
        "SYNTHETIC DATA: these results say nothing about CIFAR-10.",
        f"CIFAR-10 is not available: {why}",
        "To supply it, put cifar-10-binary.tar.gz or cifar-10-python.tar.gz (or either one unpacked) into "
        f"{folder}, or name the folder that holds it (data_dir).",
    )
    wrap = partial(textwrap.wrap, width=88, break_long_words=False, break_on_hyphens=False)
    lines = [line for paragraph in paragraphs for line in wrap(paragraph)]
    width = max(map(len, lines))
    rule = "*" * (width + 6)
    return "\n".join([rule, *(f"** {line:<{width}} **" for line in lines), rule])
