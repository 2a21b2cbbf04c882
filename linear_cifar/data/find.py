"""A data set by its name: found on this machine, downloaded or synthetic."""

import os
import textwrap
import warnings
from collections.abc import Callable
from functools import cache, partial

from linear_cifar.arguments import check_choice
from linear_cifar.data import cifar10
from linear_cifar.data.dataset import (
    DataError,
    Dataset,
    DataUnavailable,
    RawDataset,
    check_division,
    split_dataset,
)
from linear_cifar.data.download import DownloadProgress, default_data_dir, fetch
from linear_cifar.data.paths import DEPTH, AnyPath, expand_home
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.data.tfds import read_tfds

DATASETS = ("auto", "cifar10", "synthetic")
_SEARCHED = (
    f"searched there and up to {DEPTH} folders deeper for data_batch_1.bin to test_batch.bin, the same "
    "without .bin, an archive of them (cifar-10*.tar.gz, .tgz or .tar), and cifar10/*/ of tensorflow-datasets"
)


def load_dataset(
    name: str = "auto",
    data_dir: AnyPath | None = None,
    train: str = "full",
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
      ValueError: if `name` or `train` is unknown, or `val_size` is no whole number.
    """
    check_division(train, val_size)
    return split_dataset(find_dataset(name, data_dir, log, on_progress), train, val_size)


def find_dataset(
    name: str = "auto",
    data_dir: AnyPath | None = None,
    log: Callable[[str], None] = warnings.warn,
    on_progress: Callable[[DownloadProgress], None] = lambda progress: None,
) -> RawDataset:
    """Find or download a data set as its makers publish it; `split_dataset` divides it.

    Args:
      name: `cifar10`, `synthetic` or `auto`. With `auto` it is CIFAR-10 where that is on this machine or can
        be downloaded, and otherwise the synthetic images, with a banner for the log.
      data_dir: folder to find CIFAR-10 in and to download it to; None takes `default_data_dir`. It may also
        be a file of CIFAR-10, see `read_cifar10`. A ~ at the start is the home folder.
      log: gets notes for the user: that the images are synthetic, may not be the published ones, or are not
        in `data_dir` and are therefore downloaded.
      on_progress: gets the progress of a download, see `fetch`.

    Raises:
      DataUnavailable: if `cifar10` is asked for, is not on this machine and cannot be downloaded.
      DataError: if a copy on this machine is broken.
      ValueError: if `name` is unknown.
    """
    check_choice("name", name, DATASETS)
    if name == "synthetic":
        return make_synthetic()
    try:
        raw = _find_cifar10(data_dir, log, on_progress)
    except DataUnavailable as why:
        if name == "cifar10":
            raise
        log(_make_banner(str(why)))
        return make_synthetic()
    if not raw.verified:
        log(
            f"note: no checksum shows {raw.origin} to be the published CIFAR-10; results carry the "
            "fingerprint of this copy"
        )
    return raw


def _find_cifar10(
    data_dir: AnyPath | None, log: Callable[[str], None], on_progress: Callable[[DownloadProgress], None]
) -> RawDataset:
    """Return the first copy found, or else download one."""
    folder = (default_data_dir() if data_dir is None else expand_home(data_dir)).absolute()
    raw = cifar10.read_cifar10(folder) or read_tfds(folder)
    if raw is not None:
        return raw
    if not os.path.lexists(folder):
        state = f"there is no folder {folder}"
    elif not os.path.isdir(folder):
        raise DataError(f"{folder} is neither a folder nor an archive of CIFAR-10")
    else:
        listed = os.access(folder, os.R_OK | os.X_OK)
        state = f"{folder} {'does not hold CIFAR-10' if listed else 'cannot be listed by this user'}"
    searched = f"{state}: {_SEARCHED}"
    log_once = cache(log)

    def announce(progress: DownloadProgress) -> None:
        log_once(f"note: {searched}; CIFAR-10 is downloaded to {folder}")
        on_progress(progress)

    try:
        fetch(folder, announce)
    except DataUnavailable as error:
        raise DataUnavailable(f"{searched}; {error}") from error
    raw = cifar10.read_cifar10(folder)
    assert raw is not None, "the download is where it is read from"
    return raw


def _make_banner(why: str) -> str:
    """Return a banner that says why the images are synthetic, and how to supply the real ones."""
    paragraphs = (
        "SYNTHETIC DATA: these results say nothing about CIFAR-10.",
        *f"CIFAR-10 is not available: {why}".split("; "),  # a paragraph for each reason
        "To supply it, name the folder that holds it (data_dir): cifar-10-binary.tar.gz or "
        "cifar-10-python.tar.gz, or either one unpacked.",
    )
    wrap = partial(textwrap.wrap, width=88, break_long_words=False, break_on_hyphens=False)
    lines = [line for paragraph in paragraphs for line in wrap(paragraph)]
    width = max(map(len, lines))
    rule = "*" * (width + 6)
    return "\n".join([rule, *(f"** {line:<{width}} **" for line in lines), rule])
