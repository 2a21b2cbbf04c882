import errno
import io
import os
from contextlib import suppress

import pytest

from experiments.cli.streams import Output


@pytest.fixture
def pipe():
    """The two ends of a pipe, as descriptors."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # the test may have closed it
            os.close(end)


def fill(writer):
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"\0")


def test_text_is_written_at_once_and_in_full(pipe):
    reader, writer = pipe
    stream = io.TextIOWrapper(Output(writer), "utf-8", write_through=True)
    print("η " * 10_000, file=stream)
    assert os.read(reader, 100_000).decode("utf-8") == "η " * 10_000 + "\n"
    assert stream.buffer.error is None
    stream.close()
    os.fstat(writer)  # the descriptor stays open


def test_a_reader_that_has_left_is_no_error_but_a_reason(pipe):
    reader, writer = pipe
    os.close(reader)
    output = Output(writer)
    assert output.write(b"lost") == 4
    assert isinstance(output.error, BrokenPipeError)


def test_a_full_disk_is_no_error_but_a_reason():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "wb", buffering=0) as full:
        output = Output(full.fileno())
        output.write(b"lost")
        assert output.error.errno == errno.ENOSPC


@pytest.mark.parametrize("blocking", [True, False])
def test_nobody_waits_for_long_for_a_reader_that_does_not_read(pipe, blocking):
    reader, writer = pipe
    fill(writer)
    os.set_blocking(writer, blocking)
    output = Output(writer, patience=0.001)
    assert output.write(b"lost" * 10_000) == 40_000
    assert output.error is None
    os.read(reader, 10_000)
    output.write(b"read")
    os.set_blocking(reader, False)
    content = b""
    while part := read_some(reader):
        content += part
    assert content.strip(b"\0") == b"read"


def read_some(reader):
    try:
        return os.read(reader, 65_536)
    except BlockingIOError:
        return b""
