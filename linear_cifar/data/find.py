"""A data set by its name: found on this machine, downloaded or synthetic."""

import os
import textwrap
import warnings
from collections.abc import Callable
from functools import cache, partial

from linear_cifar.arguments import check_choice
from linear_cifar.data import cifar10
from linear_cifar.data.dataset import DataError, Dataset, DataUnavailable
from linear_cifar.data.download import default_data_dir, fetch
from linear_cifar.data.local import DEPTH, AnyPath, expand_home
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.data.tfds import read_tfds

DATASETS = ("auto", "cifar10", "synthetic")


def find_dataset(
    name: str = "auto",
    data_dir: AnyPath | None = None,
    log: Callable[[str], None] = warnings.warn,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Find or download a data set as its makers publish it; `prepare_data` divides it.

    Args:
      name: `cifar10`, `synthetic` or `auto`. With `auto` it is CIFAR-10 where that is on this machine or can
        be downloaded, and otherwise the synthetic images, with a banner for the log.
      data_dir: folder to find CIFAR-10 in and to download it to; None takes `default_data_dir`. It may also
        be a file of CIFAR-10, see `read_cifar10`. A ~ at the start is the home folder.
      log: gets notes for the user: that the images are synthetic, may not be the published ones, or are not
        in `data_dir` and are therefore downloaded.
      on_progress: gets the progress of a download, see `fetch`.

    Raises:
      DataUnavailable: if `cifar10` is requested, is not on this machine and cannot be downloaded.
      DataError: if a copy on this machine is broken.
      ValueError: if `name` is unknown.
    """
    check_choice("name", name, DATASETS)
    if name == "synthetic":
        return make_synthetic()
    try:
        dataset = _find_cifar10(data_dir, log, on_progress)
    except DataUnavailable as why:
        if name == "cifar10":
            raise
        log(_make_banner(str(why)))
        return make_synthetic()
    if not dataset.verified:
        log(
            f"note: no checksum shows {dataset.origin} to be the published CIFAR-10; results carry the "
            "fingerprint of this copy"
        )
    return dataset


def _find_cifar10(
    data_dir: AnyPath | None, log: Callable[[str], None], on_progress: Callable[[int, int], None]
) -> Dataset:
    """Return the first copy found, or else download one."""
    folder = (default_data_dir() if data_dir is None else expand_home(data_dir)).absolute()
    dataset = cifar10.read_cifar10(folder) or read_tfds(folder)
    if dataset is not None:
        return dataset
    if not os.path.lexists(folder):
        state = f"there is no folder {folder}"
    elif not os.path.isdir(folder):
        raise DataError(f"{folder} is neither a folder nor an archive of CIFAR-10")
    elif os.access(folder, os.R_OK | os.X_OK):
        state = f"{folder} does not hold CIFAR-10"
    else:
        state = f"{folder} cannot be listed by this user"
    searched = (
        f"{state}: searched there and up to {DEPTH} folders deeper for data_batch_1.bin to test_batch.bin, "
        "the same without .bin, an archive of them (cifar-10*.tar.gz, .tgz or .tar), and cifar10/*/ of "
        "tensorflow-datasets"
    )
    log_once = cache(log)

    def announce(done: int, total: int) -> None:
        log_once(f"note: {searched}; CIFAR-10 is downloaded to {folder}")
        on_progress(done, total)

    try:
        fetch(folder, announce)
    except DataUnavailable as error:
        raise DataUnavailable(f"{searched}; {error}") from error
    dataset = cifar10.read_cifar10(folder)
    assert dataset is not None, "the download is where it is read from"
    return dataset


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
