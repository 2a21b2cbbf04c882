import hashlib
import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest

from linear_cifar.npz import FileError, read_npz, write_npz

ARRAYS = {
    "W": np.random.default_rng(0).normal(size=(2, 3)),
    "float32": np.array([np.nan, -0.0, 1e-45], np.float32),
    "transposed": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    "number": np.asarray(7, np.int32),
    "finite": np.array([[True], [False]]),
    "empty": np.zeros((0, 4), np.uint8),
}
DESCRIPTION = {"name": "λ‖W‖²", "plan": [[1.0, 1], [0.5, 2]], "nothing": None}


@pytest.fixture
def path(tmp_path):
    write_npz(tmp_path / "a.npz", ARRAYS, DESCRIPTION)
    return tmp_path / "a.npz"


def npy(array=None, header=None, version=(1, 0), content=b"", allow_pickle=False):
    """Return the bytes of an .npy file: of an array, or with any header and content."""
    file = io.BytesIO()
    if header is None:
        np.lib.format.write_array(file, np.asarray(array), version, allow_pickle=allow_pickle)
    else:
        text = header.encode()
        file.write(b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + content)
    return file.getvalue()


def text(content):
    return npy(np.frombuffer(content.encode(), np.uint8))


def write_signed(path, archive):
    """Write an archive with the comment that `write_npz` appends, the digest of all before it."""
    content = archive[:-2]
    comment = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content + struct.pack("<H", len(comment)) + comment)


def zip_of(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def assert_refused(path, message=None):
    with pytest.raises(FileError, match=message) as raised:
        read_npz(path)
    assert str(raised.value).startswith(f"{path} cannot be read: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300 + len(str(path))


def test_arrays_and_description_come_back_bit_for_bit(path):
    arrays, description = read_npz(path)
    assert description == DESCRIPTION
    assert list(arrays) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (expected.dtype, expected.shape)
        assert arrays[name].tobytes() == expected.tobytes()
    assert os.listdir(path.parent) == ["a.npz"]


def test_numpy_reads_the_file_too(path):
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["W"], ARRAYS["W"])
        assert json.loads(archive["description"].tobytes()) == DESCRIPTION


def test_a_signed_file_of_arrays_is_read(tmp_path):
    # The files that the tests below build are refused for their content and not for their form.
    write_signed(tmp_path / "a.npz", zip_of({"a.npy": npy([1, 2]), "description.npy": text("{}")}))
    arrays, description = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["a"], [1, 2])
    assert description == {}


def test_a_file_cut_short_is_refused_at_every_length(path):
    write_npz(path, {"W": ARRAYS["W"]}, {})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert_refused(path)


def test_a_file_with_one_flipped_bit_is_refused_at_every_byte(path):
    write_npz(path, {"W": ARRAYS["W"]}, {})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        assert_refused(path)


@pytest.mark.parametrize("added", [b"\0", b"PK\x05\x06"])
def test_a_file_with_something_added_is_refused(path, added):
    path.write_bytes(path.read_bytes() + added)
    assert_refused(path, "it is not what was written")


def test_a_file_of_numpy_alone_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", W=np.zeros(3))
    assert_refused(tmp_path / "a.npz", "it is not what was written")


class Dangerous:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code in the file was run",)


def lying(shape, descr="<f8", fortran=False):
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"
    return npy(header=header, content=bytes(24))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.npy": npy(np.array([Dangerous()]), allow_pickle=True)}, "holds Python objects"),
        ({"a.npy": npy([1.0], version=(3, 0))}, "another version of the npy format"),
        ({"a.npy": npy(np.zeros((2, 3)).T)}, "has its axes in another order"),
        ({"a.npy": lying("(4,)")}, "not as large as its header says"),
        ({"a.npy": lying("(2,)")}, "not as large as its header says"),
        ({"a.npy": lying(f"({10**12},)")}, "not as large as its header says"),
        ({"a.npy": lying("(-3,)")}, "not as large as its header says"),
        ({"a.npy": lying("(-1, -3)")}, None),
        ({"a.npy": lying(f"(0, {10**30})")}, None),
        ({"a.npy": lying("(3,)", descr="|O")}, "holds Python objects"),
        ({"a.npy": lying("(3,)", descr="nonsense")}, None),
        ({"a.npy": npy(header="__import__('os').abort()\n")}, None),
        (
            {"a.npy": npy(header=" " * 20_000 + "\n")},
            "has a header of 20,001 bytes",
        ),
        ({"a.npy": b"not an array"}, None),
        ({"description.npy": npy([1.0])}, "its description is not text"),
        ({"description.npy": text("[]")}, "its description is not an object"),
        ({"description.npy": text("{")}, None),
        ({"description.npy": text("[" * 100_000)}, None),
        ({"description.npy": npy(np.array([255, 254], np.uint8))}, None),
    ],
)
def test_hostile_content_is_refused_in_one_line_though_its_digest_is_right(members, message, tmp_path):
    write_signed(tmp_path / "a.npz", zip_of({"description.npy": text("{}"), **members}))
    assert_refused(tmp_path / "a.npz", message)


def test_a_file_without_a_description_is_refused(tmp_path):
    write_signed(tmp_path / "a.npz", zip_of({"a.npy": npy([1.0])}))
    assert_refused(tmp_path / "a.npz", "description")


def test_compressed_arrays_are_refused(tmp_path):
    # A small file could hold an array that the memory does not.
    members = {"a.npy": npy(np.zeros(10**6)), "description.npy": text("{}")}
    write_signed(tmp_path / "a.npz", zip_of(members, zipfile.ZIP_DEFLATED))
    assert_refused(tmp_path / "a.npz", "'a.npy' is compressed")


def test_arrays_that_share_their_bytes_are_refused(tmp_path):
    # Many names for the same bytes would take many times the memory that the file has.
    archive = zip_of({"a.npy": npy(np.zeros(1_000)), "description.npy": text("{}")})
    end = archive.rindex(b"PK\x05\x06")
    signature, *_, start, _ = struct.unpack("<4s4H2LH", archive[end:])
    entry_length = 46 + len("a.npy")
    entries = archive[start : start + entry_length] * 9 + archive[start:end]
    ending = struct.pack("<4s4H2LH", signature, 0, 0, 11, 11, len(entries), start, 0)
    write_signed(tmp_path / "a.npz", archive[:start] + entries + ending)
    assert_refused(tmp_path / "a.npz", "its arrays overlap")


def test_arrays_of_objects_are_not_written(path):
    content = path.read_bytes()
    with pytest.raises(ValueError, match="the array objects holds Python objects"):
        write_npz(path, {"objects": np.array([Dangerous()])}, {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_npz(path, ARRAYS, {"loss": float("nan")})
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.npz"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_earlier_file_and_no_part_of_the_new_one(
    path, function, error, monkeypatch
):
    content, found = path.read_bytes(), []

    def fail(*args):
        found.extend(os.listdir(path.parent))
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)):
        write_npz(path, {"W": np.ones(3)}, {})
    assert len(found) == 2  # the new file was there, beside the earlier one
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.npz"]


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        write_npz(tmp_path / "missing" / "a.npz", ARRAYS, {})
