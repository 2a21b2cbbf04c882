"""Download of the published CIFAR-10 archive, checked by its size and SHA-256."""

import hashlib
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from linear_cifar.arguments import one_line
from linear_cifar.data.dataset import DataError, DataUnavailable
from linear_cifar.data.local import AnyPath, expand_home, import_extra

ARCHIVE = "cifar-10-binary.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
# As tensorflow-datasets (tfds) records them.
SIZE = 170_052_171
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_PROGRESS_S = 0.5
_CHUNK = 1 << 16  # bytes
_MIN_RATE = 1024  # bytes per second


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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    url: str = URL,
    size: int = SIZE,
    sha256: str = SHA256,
    probe_s: float = 5.0,
    stall_s: float = 60.0,
) -> Path:
    """Download the CIFAR-10 archive to `data_dir/cifar-10-binary.tar.gz`, and return that path.

    No part of a file stays behind, whether a failure, Ctrl+C or the end of this process stops the download.

    Args:
      data_dir: target folder. It is made if it is missing, once the server has answered.
      on_progress: gets the bytes done and all bytes, at the start, at most twice a second, and at the end.
      url: address of the archive.
      size: expected size in bytes.
      sha256: expected SHA-256.
      probe_s: seconds within which the server must answer, including name resolution.
      stall_s: seconds without a byte, or with less than 1 kB each, after which the download is given up.

    Raises:
      DataUnavailable: if the server cannot be reached, breaks off or stalls, `data_dir` cannot be written, or
        a package is missing that downloads.
      DataError: if the download does not have the expected size and SHA-256.
    """
    data_dir = expand_home(data_dir)
    chunks = _stream(url, size, probe_s, stall_s)
    next(chunks)
    start = time.monotonic()
    done, reported = 0, 0.0
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        on_progress(0, size)
        # The file has no name: it vanishes with this process, whatever ends it.
        with tempfile.TemporaryFile(dir=data_dir) as file:
            for chunk in chunks:
                file.write(chunk)
                done += len(chunk)
                elapsed = time.monotonic() - start
                if elapsed - reported > _PROGRESS_S or done == size:
                    on_progress(done, size)
                    reported = elapsed
            file.seek(0)
            if done != size or hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise DataError(
                    f"{url} does not have the expected size and SHA-256: the download was discarded"
                )
            file.seek(0)
            # Inside data_dir, so that the move into place is atomic.
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=data_dir) as name:
                with Path(name, ARCHIVE).open("wb") as copy:
                    shutil.copyfileobj(file, copy)
                return Path(name, ARCHIVE).replace(data_dir / ARCHIVE)
    except OSError as error:
        raise DataUnavailable(f"{data_dir} cannot be written: {error}") from error


def _stream(url: str, size: int, probe_s: float, stall_s: float) -> Iterator[bytes]:
    """Yield nothing once the server has answered, then up to `size` bytes, in chunks as they arrive.

    A connection that breaks is resumed where it ended, unless it brought nothing.

    Raises:
      DataUnavailable: see `fetch`.
    """
    try:
        requests = import_extra("requests")
    except DataError as error:
        raise DataUnavailable(f"a download {error}") from None
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    get = partial(requests.get, url, stream=True, timeout=(probe_s, stall_s))
    done = resumed = measured = 0
    since = time.monotonic()
    while True:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={done}-"}
        with _answer(url, partial(get, headers=headers), probe_s) as response:
            if done == 0:
                yield b""
            elif response.status_code != requests.codes.partial_content:
                raise DataUnavailable(f"{url} could not be downloaded: it broke off, and cannot be resumed")
            try:
                # `read1` returns what there is. `iter_content` would wait for a whole chunk.
                while done < size and (chunk := response.raw.read1(min(_CHUNK, size - done))):
                    done += len(chunk)
                    yield chunk
                    if time.monotonic() - since > stall_s:
                        if done - measured < _MIN_RATE * stall_s:
                            raise DataUnavailable(f"{url} sent {done - measured} bytes in {stall_s:g} s")
                        since, measured = time.monotonic(), done
                return
            except ReadTimeoutError:
                raise DataUnavailable(f"{url} sent nothing for {stall_s:g} s") from None
            except HTTPError as error:
                if done == resumed:
                    raise DataUnavailable(f"{url} could not be downloaded: {_reason(error)}") from error
        resumed = done


def _answer(url: str, request: Callable[[], Any], limit_s: float) -> Any:
    """Return the response to a request.

    Raises:
      DataUnavailable: if there is none within the limit, or one that says no.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            response = request()
            if not response.ok:
                response.close()
            response.raise_for_status()
            answers.put(response)
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


def _reason(error: BaseException) -> str:
    """Return the cause of an error in one line."""
    # The libraries wrap the cause, on which the user can act, in several layers.
    while error.__context__ is not None:
        error = error.__context__
    return one_line(error, 200)
