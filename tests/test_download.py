"""Downloads over the loopback, from a server that misbehaves in all the usual ways."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tensorflow_datasets.core.constants import get_default_data_dir
from tensorflow_datasets.core.download.checksums import get_all_url_infos

from linear_cifar.data.dataset import DataError, DataUnavailable
from linear_cifar.data.download import ARCHIVE, SHA256, SIZE, URL, default_data_dir, fetch

CONTENT = bytes(range(256)) * 4096
EXPECTED = {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}


class Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the handlers, none outlives its test

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.closing = threading.Event()
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        del args

    def do_GET(self):
        self.server.ranges.append(self.headers["Range"])
        resumes = self.path in {"/resumed", "/stuck"}
        begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if resumes else 0
        if self.path == "/mute":
            self.server.closing.wait()
            return
        self.send_response(404 if self.path == "/missing" else 206 if resumes else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        try:
            if self.path == "/whole":
                self.wfile.write(CONTENT)
            elif self.path == "/dropped" or (self.path == "/stuck" and not begin):
                self.wfile.write(CONTENT[: len(CONTENT) // 2])
            elif self.path == "/resumed":
                self.wfile.write(CONTENT[begin : begin + len(CONTENT) * 2 // 5])
            elif self.path == "/dripping":
                while not self.server.closing.wait(0.02):
                    self.wfile.write(b"x")
            elif self.path == "/stalled":
                self.wfile.write(CONTENT[: len(CONTENT) // 2])
                self.server.closing.wait()
            elif self.path == "/slow":
                for start in range(0, len(CONTENT), 8192):
                    self.wfile.write(CONTENT[start : start + 8192])
                    if self.server.closing.wait(0.2):
                        break
        except ConnectionError:
            self.close_connection = True


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def test_success(server, tmp_path):
    seen: list[tuple[int, int]] = []
    data_dir = tmp_path / "made" / "for it"
    path = fetch(str(data_dir), lambda *progress: seen.append(progress), server.url + "whole", **EXPECTED)
    assert path == data_dir / ARCHIVE
    assert path.read_bytes() == CONTENT
    assert list(data_dir.iterdir()) == [path]
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"size": len(CONTENT) + 1}, {"size": len(CONTENT) - 1}], ids=str
)
def test_checksum_mismatch(server, tmp_path, wrong):
    with pytest.raises(DataError, match="size and SHA-256") as error:
        fetch(tmp_path, url=server.url + "whole", **EXPECTED | wrong)
    assert not isinstance(error.value, DataUnavailable)
    assert not list(tmp_path.iterdir())


def test_the_expected_size_and_checksum_are_those_of_tfds():
    info = get_all_url_infos()[URL]
    assert (info.filename, info.size, info.checksum) == (ARCHIVE, SIZE, SHA256)


def test_a_broken_connection_is_resumed_where_it_ended(server, tmp_path):
    path = fetch(tmp_path, url=server.url + "resumed", **EXPECTED)
    assert path.read_bytes() == CONTENT
    step = len(CONTENT) * 2 // 5
    assert server.ranges == ["bytes=0-", f"bytes={step}-", f"bytes={2 * step}-"]


def test_a_missing_package_is_named_with_its_extra(server, tmp_path, monkeypatch):
    package = tmp_path / "requests.py"
    package.write_text("raise ModuleNotFoundError('no such\\n module')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "requests", raising=False)
    words = r"a download needs requests, which cannot be imported \(no such module\): pip install"
    with pytest.raises(DataUnavailable, match=words):
        fetch(tmp_path / "data", url=server.url + "whole", **EXPECTED)


@pytest.mark.parametrize("path", ["dropped", "stuck"])
def test_dropped_connection(server, tmp_path, path):
    (tmp_path / ARCHIVE).write_text("what was there stays", encoding="utf-8")
    with pytest.raises(DataUnavailable, match="could not be downloaded") as error:
        fetch(tmp_path, url=server.url + path, **EXPECTED)
    assert len(server.ranges) == 2
    assert "\n" not in str(error.value)
    assert (tmp_path / ARCHIVE).read_text(encoding="utf-8") == "what was there stays"
    assert os.listdir(tmp_path) == [ARCHIVE]


def test_stalled_connection(server, tmp_path):
    with pytest.raises(DataUnavailable, match="sent nothing for 2 s"):
        fetch(tmp_path, url=server.url + "stalled", **EXPECTED, stall_s=2.0)
    assert not list(tmp_path.iterdir())


def test_dripping_connection(server, tmp_path):
    with pytest.raises(DataUnavailable, match=r"sent \d+ bytes in 1 s"):
        fetch(tmp_path, url=server.url + "dripping", **EXPECTED, stall_s=1.0)
    assert not list(tmp_path.iterdir())


def unreachable(data_dir: Path, url: str, match: str) -> None:
    with pytest.raises(DataUnavailable, match=match) as error:
        fetch(data_dir, url=url, **EXPECTED, probe_s=1.0)
    assert url in str(error.value)
    assert "\n" not in str(error.value)
    assert not data_dir.exists()


def test_mute_server(server, tmp_path):
    unreachable(tmp_path / "new", server.url + "mute", "no answer within 1 s|timed out")


def test_missing_file(server, tmp_path):
    unreachable(tmp_path / "new", server.url + "missing", "404")


def test_refused_port(tmp_path):
    # Bound but not listening: nobody else gets the port meanwhile.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/whole"
        unreachable(tmp_path / "new", url, "refused")


def test_unresolvable_name(tmp_path):
    unreachable(tmp_path / "new", "http://nowhere.invalid/whole", "cannot be reached|no answer")


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataUnavailable, match="cannot be written"):
        fetch(tmp_path / "file" / "data", url=server.url + "whole", **EXPECTED)


SCRIPT = """
import sys, time
from pathlib import Path
import linear_cifar.data.download as download
{before}
try:
    download.fetch(
        Path(sys.argv[1]), lambda done, total: print(done, flush=True), sys.argv[2],
        probe_s=1.0,
    )
except download.DataUnavailable as error:
    print(error)
"""


def start(data_dir: Path, url: str, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(before=before), str(data_dir), url],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_hanging_name_resolution_delays_neither_the_answer_nor_the_exit(tmp_path):
    hang = "import socket; socket.getaddrinfo = lambda *args, **options: time.sleep(600)"
    with start(tmp_path, "http://nowhere.invalid/", hang) as process:
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "no answer within 1 s" in output
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("send", "number"),
    # A terminal sends Ctrl+C to the whole group.
    [
        (os.killpg, signal.SIGINT),
        (os.kill, signal.SIGINT),
        (os.kill, signal.SIGTERM),
        (os.kill, signal.SIGKILL),
    ],
)
def test_interrupted(server, tmp_path, send, number):
    with start(tmp_path, server.url + "slow") as process:
        try:
            assert process.stdout is not None
            assert any(int(line) > 0 for line in process.stdout), "never began to download"
            send(process.pid, number)
            process.communicate(timeout=5)
        finally:
            process.kill()
    assert process.returncode == -number
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [None, "elsewhere/data"])
def test_default_data_dir_is_that_of_tfds(monkeypatch, folder):
    if folder is None:
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    else:
        monkeypatch.setenv("TFDS_DATA_DIR", folder)
    assert default_data_dir() == Path(get_default_data_dir())


def test_an_empty_variable_is_no_folder(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    assert default_data_dir() == Path.home() / "tensorflow_datasets"


def test_default_data_dir_expands_the_home_folder(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "~/data")
    assert default_data_dir() == Path.home() / "data"
