"""Genuine, broken and hostile pickles; what is genuine is checked against Python's own reader."""

import os
import pickle
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from linear_cifar.data.dataset import DataError
from linear_cifar.data.unpickle import unpickle

COUNT = 3
TITLE = b"training batch 1 of 5"


def string(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + packed(len(value)) + value


def packed(number: int) -> bytes:
    return struct.pack("<i", number)


def array(
    pixels: bytes, rows: int, columns: int = 3072, dtype: bytes = b"u1", order: bytes = b"\x89"
) -> bytes:
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t(K\x01"
        + (b"J" + packed(rows) + b"J" + packed(columns) + b"\x86cnumpy\ndtype\nq\n")
        + string(dtype)
        + b"K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (order + string(pixels) + b"tb")
    )


def pickled(
    images: np.ndarray,
    labels: np.ndarray,
    title: bytes = TITLE,
    data: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    """Pickle a batch as Python 2 wrote the published files."""
    data = array(images.tobytes(), len(images)) if data is None else data
    return (
        b"\x80\x02}q\x01("
        + (string(b"batch_label") + b"q\x02" + string(title) + b"q\x03")
        + (string(b"labels") + b"q\x04]q\x05(" + b"".join(b"K" + bytes([x]) for x in labels) + b"e")
        + (string(b"data") + b"q\x06" + data)
        + (string(b"filenames") + b"q\x0c]q\r(")
        + b"".join(string(b"cat_s_%06d.png" % i) + b"r" + packed(256 + i) for i in range(len(labels)))
        + (b"e" + extra + b"u.")
    )


def batch(count: int = COUNT, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(count, 3072), dtype=np.uint8), rng.integers(10, size=count, dtype=np.uint8)


IMAGES, LABELS = batch()


def refusal(content: bytes, count: int = COUNT) -> str:
    with pytest.raises(DataError) as error:
        unpickle(content, count)
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_python_reads(order):
    flag = b"\x88" if order == "F" else b"\x89"
    content = pickled(IMAGES, LABELS, data=array(IMAGES.tobytes(order), COUNT, order=flag))
    # One label by itself, the others at once: long lists are written in parts.
    numbers = b"".join(b"K" + bytes([x]) for x in LABELS)
    assert content.count(b"(" + numbers) == 1
    content = content.replace(b"(" + numbers, numbers[:2] + b"a(" + numbers[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's own module has moved since
        expected = pickle.loads(content, encoding="bytes")
    images, labels, title = unpickle(content, COUNT)
    np.testing.assert_array_equal(images, expected[b"data"])
    np.testing.assert_array_equal(images, IMAGES)
    assert labels.tolist() == expected[b"labels"] == LABELS.tolist()
    assert title == expected[b"batch_label"] == TITLE
    assert images.dtype == labels.dtype == np.uint8


def test_a_shape_of_long_integers():
    shape = b"J" + packed(COUNT) + b"J" + packed(3072)
    content = pickled(IMAGES, LABELS).replace(shape, b"\x8a\x01\x03\x8a\x02\x00\x0c")
    np.testing.assert_array_equal(unpickle(content, COUNT)[0], IMAGES)


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval])
def test_hostile_pickle_runs_nothing(tmp_path, function, protocol):
    marker = tmp_path / "ran"
    code = f"touch '{marker}'" if function is os.system else f"open({str(marker)!r}, 'w').close()"
    content = pickle.dumps(Call(function, code), protocol)
    refusal(content)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists(), "harmless all along"


@pytest.mark.parametrize("place", ["data", "extra"])
@pytest.mark.parametrize("name", [b"posix\nsystem\n", b"builtins\neval\n", b"numpy\nload\n", b"x" * 10_000])
def test_a_hostile_call_inside_a_genuine_file(tmp_path, place, name):
    call = b"c" + name + string(b"touch '" + os.fsencode(tmp_path / "ran") + b"'") + b"\x85R"
    extra = string(b"more") + call if place == "extra" else b""
    message = refusal(pickled(IMAGES, LABELS, data=call if place == "data" else None, extra=extra))
    assert "no published file does" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array(IMAGES.tobytes(), 2**31 - 1, 2**31 - 1), "3 x 3072"),
        (array(IMAGES.tobytes(), 3072, COUNT), "3 x 3072"),
        (array(IMAGES.tobytes(), -1), "3 x 3072"),
        (array(IMAGES.tobytes()[:-1], COUNT), "3 x 3072"),
        (array(IMAGES.tobytes() + b"\0", COUNT), "3 x 3072"),
        (array(b"", COUNT), "3 x 3072"),
        (array(IMAGES.tobytes(), COUNT, dtype=b"i1"), "8 bits"),
        (array(IMAGES.tobytes(), COUNT, dtype=b"O8"), "8 bits"),
        (array(IMAGES.tobytes(), COUNT, order=b"K\x07"), "order"),
        (string(IMAGES.tobytes()), "NumPy array"),
        (b"N", "NumPy array"),
        (b"cnumpy\nndarray\nJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86\x85R", "NumPy array"),
        (b"cnumpy\nndarray\n", "NumPy array"),
        (array(IMAGES.tobytes(), COUNT).replace(b"numpy\ndtype", b"numpy\nndarray"), "NumPy array"),
        (
            array(IMAGES.tobytes(), COUNT).replace(b"numpy.core.multiarray\n_reconstruct", b"numpy\nndarray"),
            "NumPy array",
        ),
    ],
)
def test_hostile_array(data, message):
    assert message in refusal(pickled(IMAGES, LABELS, data=data))


def test_number_of_labels():
    assert "2 labels for 3 images" in refusal(pickled(IMAGES, LABELS[:2]))
    assert "4 labels for 3 images" in refusal(pickled(IMAGES, np.append(LABELS, LABELS[:1])))


@pytest.mark.parametrize(
    "label", [b"J\xff\xff\xff\xff", b"M\x00\x01", b"N", b"U\x011", b"]", b"\x8a\x7f" + b"\x7f" * 127]
)
def test_a_label_that_is_no_small_number(label):
    first = b"K" + bytes([LABELS[0]])
    assert "labels" in refusal(pickled(IMAGES, LABELS).replace(b"(" + first, b"(" + label, 1))


def test_a_number_for_the_labels():
    # bytes(n) would make n zeros.
    extra = string(b"labels") + b"J\xff\xff\xff\x7f"
    assert "batch_label, labels" in refusal(pickled(IMAGES, LABELS, extra=extra))


@pytest.mark.parametrize("key", [b"batch_label", b"labels", b"data"])
def test_absent_entry(key):
    other = b"x" * len(key)
    assert "batch_label, labels" in refusal(pickled(IMAGES, LABELS).replace(string(key), string(other)))


MALFORMED = {
    "empty": b"",
    "not a pickle": b"<html></html>",
    "another protocol": b"\x80\x04" + pickled(IMAGES, LABELS)[2:],
    "STOP on an empty stack": b"\x80\x02.",
    "two results": b"\x80\x02}}.",
    "a mark never set": b"\x80\x02}u.",
    "a memo never set": b"\x80\x02h\x07.",
    "a memo far away": b"\x80\x02}r\xff\xff\xff\xff.",
    # Python's own reader makes a table of 2 GiB for it.
    "a memo at 2^27": b"\x80\x02}r\x00\x00\x00\x08.",
    "a tuple of too few": b"\x80\x02N\x87.",
    "a call of a string": b"\x80\x02U\x01x)R.",
    "a call without tuple": b"\x80\x02cnumpy\ndtype\nNR.",
    "a state for a name": b"\x80\x02cnumpy\ndtype\n}b.",
    "a state for a dictionary": b"\x80\x02}}b.",
    "append to a tuple": b"\x80\x02)Na.",
    "append to nothing": b"\x80\x02N" + b"a.",
    "entries of a list": b"\x80\x02](U\x01xNu.",
    "an odd entry": b"\x80\x02}(U\x01xu.",
    "an index into a list": b"\x80\x02]K\x00Ns.",
    "a negative size": b"\x80\x02T\xff\xff\xff\xff.",
    "a size past the end": b"\x80\x02T\xff\xff\xff\x7f.",
    "BYTEARRAY8": b"\x80\x02\x96" + struct.pack("<Q", 2**62),
    "BINBYTES8": b"\x80\x02\x8e" + struct.pack("<Q", 2**62),
    "FRAME": b"\x80\x02\x95" + struct.pack("<Q", 2**62),
    "LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "INST": b"\x80\x02(ios\nsystem\n.",
    "OBJ": b"\x80\x02(cnumpy\ndtype\no.",
    "NEWOBJ": b"\x80\x02cnumpy\ndtype\n)\x81.",
    "PERSID": b"\x80\x02Px\n.",
    "EXT1": b"\x80\x02\x82\x01.",
    "a name cut off": b"\x80\x02cnumpy",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    # Hashing this takes 2^200 steps.
    "a key that doubles": b"\x80\x02})" + b"q\x00h\x00\x86" * 50 + b"Ns.",
    # Hashing this overflows the C stack.
    "a deep key": b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
    "a deep result": b"\x80\x02)" + b"\x85" * 50_000 + b".",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed(content):
    refusal(content)
    refusal(content, count=10_000)


@pytest.mark.parametrize(
    "name",
    [
        "a tuple of too few",
        "two results",
        "a call of a string",
        "a call without tuple",
        "a state for a name",
        "a state for a dictionary",
    ],
)
def test_wrong_operands(name):
    assert "not a valid pickle" in refusal(MALFORMED[name])


@pytest.mark.parametrize("instruction", [b"]", b"(", b"}", b"N)\x86", b"]q\x01h\x01a"])
def test_memory_is_bounded(instruction):
    content = b"\x80\x02" + instruction * (2**21 // len(instruction))
    tracemalloc.start()
    try:
        assert "more pickle instructions" in refusal(content, count=100)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(content)
    finally:
        tracemalloc.stop()


def test_memory_of_a_genuine_file():
    images, labels = batch(1_000)
    content = pickled(images, labels)
    tracemalloc.start()
    try:
        unpickle(content, 1_000)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(content)
    finally:
        tracemalloc.stop()


def test_every_cut_is_refused():
    content = pickled(IMAGES, LABELS)
    data = content.index(IMAGES.tobytes())
    cuts = [*range(data + 1), *range(data + IMAGES.size, len(content))]
    for cut in cuts:
        refusal(content[:cut])


def test_one_byte_more_is_refused():
    assert "bytes after its end" in refusal(pickled(IMAGES, LABELS) + b"\0")


def test_no_flipped_byte_raises_anything_else():
    images, labels = batch(1)
    content = pickled(images, labels)
    pixels = content.index(images.tobytes())
    places = [i for i in range(len(content)) if not pixels <= i < pixels + images.size]
    refused = 0
    for place in places:
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            try:
                read, labels, _ = unpickle(bytes(flipped), 1)
            except DataError:
                refused += 1
            else:
                assert read.shape == (1, 3072)
                assert labels.shape == (1,)
    assert refused > 4 * len(places)


def test_real_file(cifar10_dir: Path):
    file = cifar10_dir / "cifar-10-batches-py" / "test_batch"
    if not file.exists():
        pytest.skip(f"{file} does not exist")
    content = file.read_bytes()
    images, labels, title = unpickle(content)
    assert title == b"testing batch 1 of 1"
    assert content.count(images.tobytes()) == 1
    assert np.bincount(labels).tolist() == [1_000] * 10
