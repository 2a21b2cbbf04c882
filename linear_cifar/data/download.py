"""Download of the published CIFAR-10 archive, by the downloader and the checksums of tensorflow-datasets."""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from linear_cifar.data.dataset import DataError, DataUnavailable
from linear_cifar.data.extras import import_extra
from linear_cifar.data.paths import AnyPath, expand_home

ARCHIVE = "cifar-10-binary.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"

_POLL_S = 0.5
_MISMATCH = 3  # exit status of the child process


class Checksum(NamedTuple):
    """Expected size and SHA-256 of a download."""

    size: int
    sha256: str


class DownloadProgress(NamedTuple):
    """Progress of a download."""

    done: int  # bytes
    total: int | None  # bytes, where the server says
    rate: float  # bytes per second since the start


def default_data_dir() -> Path:
    """Return the folder that tfds uses by default: $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      DataUnavailable: if there is no home folder.
    """
    try:
        return expand_home(os.environ.get("TFDS_DATA_DIR") or Path("~", "tensorflow_datasets"))
    except DataError as error:
        raise DataUnavailable(str(error)) from None


def fetch(
    data_dir: AnyPath,
    on_progress: Callable[[DownloadProgress], None] = lambda progress: None,
    url: str = URL,
    checksum: Checksum | None = None,
    probe_s: float = 5.0,
    stall_s: float = 60.0,
) -> Path:
    """Download the CIFAR-10 archive to `data_dir/cifar-10-binary.tar.gz`, and return that path.

    No part of a file stays behind, whether a failure, Ctrl+C or the end of this process stops the download.

    Args:
      data_dir: target folder. It is made if it is missing, once the server has answered.
      on_progress: gets the progress about twice a second, and once at the end.
      url: address of the archive.
      checksum: expected checksum; None takes the one that tfds ships for the address.
      probe_s: seconds within which the server must answer at first, including name resolution.
      stall_s: seconds without a byte after which the download is given up.

    Raises:
      DataUnavailable: if the server cannot be reached, breaks off or stalls, `data_dir` cannot be written, or
        a package is missing that downloads.
      DataError: if the download does not have the expected size and SHA-256.
    """
    data_dir = expand_home(data_dir)
    total = _probe(url, probe_s)
    target = data_dir / ARCHIVE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # Inside data_dir, so that the move into place is atomic.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=data_dir) as name:
            work = Path(name)
            _download(url, checksum, work, total, on_progress, stall_s)
            (work / "archive").replace(target)
    except OSError as error:
        raise DataUnavailable(f"{data_dir} cannot be written: {error}") from error
    return target


def _probe(url: str, limit_s: float) -> int | None:
    """Return the size that the server names, if it names one.

    The downloader of tfds sets no time-outs and retries ten times, so without a network it takes minutes.

    Raises:
      DataUnavailable: if the server does not answer within the limit.
    """
    try:
        requests = import_extra("requests")
    except DataError as error:
        raise DataUnavailable(f"a download {error}") from None
    answers: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with requests.head(url, allow_redirects=True, timeout=limit_s) as response:
                response.raise_for_status()
                size = response.headers.get("Content-Length")
                answers.put(None if size is None else int(size))
        except Exception as error:
            answers.put(error)

    # Name resolution has no time-out, hence a thread. A daemon does not delay the exit.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=limit_s)
    except queue.Empty:
        raise DataUnavailable(f"{url} gave no answer within {limit_s:g} s") from None
    if isinstance(answer, Exception):
        raise DataUnavailable(f"{url} cannot be reached: {_reason(answer)}") from answer
    return answer


def _download(
    url: str,
    checksum: Checksum | None,
    work: Path,
    total: int | None,
    on_progress: Callable[[DownloadProgress], None],
    stall_s: float,
) -> None:
    """Download the archive to `work/archive`, and check it.

    A child process does it, because tfds downloads in a thread that cannot be stopped: Ctrl+C would wait for
    its end.
    """
    command = [sys.executable, "-c", "from linear_cifar.data.download import _child; _child()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    arguments = [url, str(work), *map(str, checksum or ())]
    log = work / "log"
    start = grown = time.monotonic()
    done = 0
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command + arguments, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
        ) as child,
    ):
        try:
            while child.poll() is None:
                if (size := _size(work)) > done:
                    done, grown = size, time.monotonic()
                on_progress(DownloadProgress(done, total, done / (time.monotonic() - start)))
                if time.monotonic() - grown > stall_s:
                    raise DataUnavailable(f"{url} sent nothing for {stall_s:g} s")
                try:
                    child.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            child.kill()
            child.wait()
    if child.returncode == _MISMATCH:
        raise DataError(f"{url} does not have the expected size and SHA-256: the download was discarded")
    if child.returncode != 0:
        lines = log.read_text(errors="replace").split("\n")
        reason = next((line for line in reversed(lines) if line.strip()), f"exit {child.returncode}")
        raise DataUnavailable(f"{url} could not be downloaded: {reason}")
    done = (work / "archive").stat().st_size
    on_progress(DownloadProgress(done, total, done / (time.monotonic() - start)))


def _size(work: Path) -> int:
    try:
        return sum(path.stat().st_size for path in work.glob("*/*"))
    except FileNotFoundError:  # the file was renamed: the download is finished
        return 0


def _child() -> None:
    """Download, check and rename the archive, in the child process."""
    url, work, *expected = sys.argv[1:]
    threading.Thread(target=_follow_parent, args=(work,), daemon=True).start()
    try:
        tfds = import_extra("tensorflow_datasets")
    except DataError as error:
        sys.exit(f"a download {error}")
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    tfds.disable_progress_bar()
    infos = {url: UrlInfo(tfds.core.utils.Size(expected[0]), expected[1], None)} if expected else None
    manager = tfds.download.DownloadManager(
        download_dir=work, url_infos=infos, force_checksums_validation=True
    )
    try:
        path = manager.download(url)
    except NonMatchingChecksumError:
        sys.exit(_MISMATCH)
    except Exception as error:
        sys.exit(_reason(error))
    path.replace(Path(work, "archive"))


def _follow_parent(work: str) -> None:
    # The pipe closes when the parent ends, whatever ends it. The lock of sys.stdin would outlive the thread.
    os.read(0, 1)
    shutil.rmtree(work, ignore_errors=True)
    os._exit(1)


def _reason(error: BaseException) -> str:
    """Return the cause of an error in one line."""
    # The libraries wrap the cause, on which the user can act, in several layers.
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(f"{error}".split()) or type(error).__name__
