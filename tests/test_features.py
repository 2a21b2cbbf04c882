"""A user's own file of features: what is read, and every mistake in one line that names file and array."""

import hashlib
import io
import os
import re
import struct
import warnings
import zipfile

import numpy as np
import pytest

from linear_cifar import memory
from linear_cifar.data.dataset import DataError
from linear_cifar.data.division import divide, draw_stratified, train_size
from linear_cifar.data.formats import open_features, read_features

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
IMAGES = RNG.integers(0, 256, size=(12, 3, 5, 6), dtype=np.uint8)  # channels first


@pytest.fixture
def write(tmp_path):
    def write(**arrays):
        path = tmp_path / "own.npz"
        save = arrays.pop("save", np.savez)
        save(path, **arrays)
        return path

    return write


def read(path, image_shape=None):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_features(path, image_shape=image_shape, log=lambda line: None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", ">f4"])
def test_arrays_come_back_as_they_were_saved(write, save, dtype):
    x = (10 * np.abs(X)).astype(dtype)
    raw = read(write(x_train=x, y_train=Y, x_test=x[:5], y_test=Y[:5].astype(np.uint8), save=save))
    np.testing.assert_array_equal(raw.splits["train"].features, x)
    np.testing.assert_array_equal(raw.splits["test"].features, x[:5])
    np.testing.assert_array_equal(raw.splits["train"].labels, Y)
    assert raw.splits["train"].features.dtype == x.dtype.newbyteorder("=")
    assert raw.splits["train"].features.flags.c_contiguous
    assert (raw.name, raw.classes, raw.user_file, raw.verified) == ("own.npz", ("0", "1", "2"), True, False)
    assert [*raw.splits] == ["train", "test"]
    assert raw.image_shape is None


def test_the_fingerprint_is_that_of_labels_features_and_names(write):
    content = Y.astype(np.int32).tobytes() + X.tobytes() + b"0\n1\n2"
    assert read(write(x_train=X, y_train=Y)).fingerprint == hashlib.sha256(content).hexdigest()


def test_further_axes_are_flattened_and_labels_may_be_a_column(write):
    # Keras has MNIST as [n, 28, 28], and CIFAR-10's labels as [n, 1].
    raw = read(write(x_train=X.reshape(12, 2, 2), y_train=Y[:, None], classes=["a", "ß", "c"]))
    np.testing.assert_array_equal(raw.splits["train"].features, X)
    assert raw.splits["train"].labels.shape == (12,)
    assert raw.classes == ("a", "ß", "c")
    assert [*raw.splits] == ["train"]
    assert raw.image_shape is None


def test_the_order_of_the_axes_in_memory_does_not_matter(write):
    raw = read(write(x_train=np.asfortranarray(X), y_train=Y))
    np.testing.assert_array_equal(raw.splits["train"].features, X)


@pytest.mark.parametrize(
    ("images", "image_shape"),
    [
        (IMAGES, None),
        (IMAGES.transpose(0, 2, 3, 1), None),
        (IMAGES.reshape(12, -1), (3, 5, 6)),
        (IMAGES.transpose(0, 2, 3, 1), (3, 5, 6)),
    ],
    ids=["channels first", "channels last", "flat", "given"],
)
def test_images_become_channel_major(write, images, image_shape):
    raw = read(write(x_train=images, y_train=Y), image_shape)
    assert raw.image_shape == (3, 5, 6)
    np.testing.assert_array_equal(raw.splits["train"].features, IMAGES.reshape(12, -1))


def test_one_channel_is_grey_and_many_channels_are_features(write):
    assert read(write(x_train=X.reshape(12, 2, 2, 1), y_train=Y)).image_shape == (1, 2, 2)
    assert read(write(x_train=np.zeros((12, 7, 7, 16), np.float16), y_train=Y)).image_shape is None
    assert read(write(x_train=X.reshape(12, 2, 2), y_train=Y), (1, 2, 2)).image_shape == (1, 2, 2)


@pytest.mark.parametrize("shape", [(2048, 1, 1), (1, 1, 2048), (1, 2048, 1)])
def test_pooled_features_are_no_images(write, shape):
    raw = read(write(x_train=np.zeros((12, *shape), np.float16), y_train=Y))
    assert raw.image_shape is None
    assert raw.splits["train"].features.shape == (12, 2048)


def test_what_could_be_either_is_asked_for(write):
    path = write(x_train=np.zeros((12, 3, 4, 3), np.uint8), y_train=Y)
    with pytest.raises(DataError, match="channels may come first or last: give image_shape"):
        read(path)
    assert read(path, (3, 4, 3)).image_shape == (3, 4, 3)
    assert read(path, (3, 3, 4)).image_shape == (3, 3, 4)
    path = write(x_train=np.zeros((12, 3, 3, 3), np.uint8), y_train=Y)
    with pytest.raises(DataError, match="flatten its rows, with the channels first"):
        read(path, (3, 3, 3))


GOOD = {"x_train": X, "y_train": Y}
OBJECTS = np.array([[1], [2, 3]] * 6, dtype=object)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": None}, "has no y_train; it has 'x_train', 'other': name the arrays"),
        ({"x_train": OBJECTS}, "x_train cannot be read: .* holds Python objects"),
        ({"classes": np.array(["a", "b", None], object)}, "classes cannot be read: .* holds Python objects"),
        (
            {"x_train": X.astype(np.int64)},
            "x_train is int64: give uint8, bfloat16, float16, float32, float64",
        ),
        ({"x_train": X[:, 0]}, re.escape("x_train is [12]: give [n, ...]")),
        ({"x_train": X[:, :0]}, re.escape("x_train is [12, 0]")),
        ({"y_train": Y[:11]}, re.escape("y_train is [11], and x_train is [12, 4]")),
        ({"y_train": np.eye(3, dtype=int)[Y]}, re.escape("y_train is [12, 3]")),
        ({"y_train": Y + 0.5}, "y_train is float64: give whole numbers"),
        (
            {"y_train": Y - 1, "classes": ["a", "b", "c"]},
            "y_train holds other labels than 0 to 2, the numbers of classes",
        ),
        ({"y_train": ["a", "b"] * 6, "classes": ["a", "b"]}, "y_train holds other labels than 0 to 1"),
        ({"y_train": [b"a", b"\xff"] * 6}, "y_train cannot be read: 'utf-8' codec"),
        ({"y_train": ["a", "b\nc"] * 6}, r"y_train holds the name 'b\\nc' twice, or it is empty or cannot"),
        ({"y_train": ["a", ""] * 6}, "y_train holds the name '' twice, or it is empty"),
        ({"x_test": X, "y_test": ["a", "b", "c"] * 4}, "class a has no row to train on"),
        ({"y_train": np.arange(12)}, "12 rows and 12 classes"),
        ({"y_train": 0 * Y}, "12 rows and 1 class to train on:"),
        ({"x_train": np.where(np.arange(48).reshape(12, 4) == 21, np.nan, X)}, "row 5 of x_train holds NaN"),
        ({"x_train": np.where(np.arange(48).reshape(12, 4) == 9, -np.inf, X)}, "row 2 of x_train"),
        ({"x_train": X.astype(float) * 1e60}, "row 0 of x_train .* beyond float32"),
        ({"x_train": np.full((12, 4), np.inf, np.float16)}, "row 0 of x_train"),
        ({"x_test": X}, "has no y_test; it has"),
        ({"y_val": Y}, "has no x_val; it has"),
        ({"x_test": X[:, :3], "y_test": Y}, "only the number of rows may differ"),
        ({"x_test": X.astype(float), "y_test": Y}, "only the number of rows may differ"),
        ({"x_test": X, "y_test": Y + 1}, "class 3 has no row to train on: leave its rows out"),
        ({"classes": ["a", "b"]}, "y_train holds other labels than 0 to 1"),
        ({"classes": ["a", "b", "c", "d"]}, "class d has no row to train on"),
        ({"classes": ["a", "b", "a"]}, "classes holds the name 'a' twice"),
        ({"classes": ["a", "b\nc", "d"]}, r"classes holds the name 'b\\nc' twice"),
        ({"classes": [1, 2, 3]}, "classes is int64"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_that_names_file_and_array(write, changes, message):
    arrays = GOOD | {"other": np.zeros(2)} | changes
    path = write(**{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=message) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))
    assert len(str(raised.value).splitlines()) == 1


def test_arrays_that_are_not_used_are_named(write):
    lines = []
    read_features(write(**GOOD, paths=np.array(["a"])), log=lines.append)
    assert "'paths', which is not used" in lines[0]


def test_what_is_no_archive_is_one_line(tmp_path):
    (tmp_path / "empty.npz").touch()
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "features.npy").touch()
    for name, message in {
        "empty.npz": "cannot be read: ",
        "folder.npz": "has no x_train; it has no array",
        "pipe.npz": "is not a file",
        "missing.npz": "does not exist",
        "features.npy": "is no folder and not called .npz, ",
    }.items():
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


def test_the_memory_is_judged_from_the_headers(write, monkeypatch, tmp_path):
    path = write(
        x_train=np.zeros((2_000, 500), np.uint8), y_train=np.arange(2_000) % 2, save=np.savez_compressed
    )
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(memory, "process_memory", lambda: 1_000_000)
    with pytest.raises(
        DataError,
        match=r"\(most of it x_train, uint8\[2000, 500\]\) needs 0\.0010\d+ GB, and there are 0\.001 GB",
    ):
        read(path)
    # A header may promise anything: nothing is reserved for it.
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000000000, 1000), }"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("y_train.npy", b"")
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    (tmp_path / "bomb.npz").write_bytes(file.getvalue())
    with pytest.raises(DataError, match="is not as large as its header says"):
        read(tmp_path / "bomb.npz")


def test_a_header_is_not_read_before_its_length_is_judged(tmp_path):
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", 3 * 10**9) + bytes(10**6)
    with zipfile.ZipFile(tmp_path / "long.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", content)
        archive.writestr("y_train.npy", content)
    with pytest.raises(DataError, match=r"x_train cannot be read: .* has a header of 3,000,000,000 bytes"):
        read(tmp_path / "long.npz")


def test_a_damaged_array_is_refused(write):
    path = write(**GOOD, save=np.savez_compressed)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x_train.npy").header_offset
    content = bytearray(path.read_bytes())
    content[start + 150] ^= 255  # behind the names and the header
    path.write_bytes(content)
    with pytest.raises(DataError, match="x_train cannot be read: "):
        read(path)


def test_rows_to_train_on_are_counted_from_the_headers(write):
    sizes, _ = open_features(write(**GOOD))
    assert (sizes, train_size(sizes, "full", 5)) == ({"train": 12}, 7)
    sizes, read = open_features(write(**GOOD, x_val=X[:3], y_val=Y[:3]))
    assert (sizes, train_size(sizes, "full", 5)) == ({"train": 12, "val": 3}, 12)
    write(x_train=X[:4], y_train=Y[:4]).unlink()  # it is opened once
    assert {name: len(split.labels) for name, split in read().splits.items()} == sizes


def test_validation_rows_are_stratified_and_the_same_each_time():
    labels = np.repeat([0, 1, 2], [50, 30, 3])
    rows = draw_stratified(labels, 40)
    # 40 / 83 of the classes are 24.1, 14.5 and 1.4; the row that is left goes to the largest remainder.
    np.testing.assert_array_equal(np.bincount(labels[rows]), [24, 15, 1])
    np.testing.assert_array_equal(rows, np.unique(rows))
    np.testing.assert_array_equal(rows, draw_stratified(labels, 40))
    assert not np.array_equal(rows, draw_stratified(labels, 40, seed=1))
    # Each class keeps a row to train on.
    np.testing.assert_array_equal(np.bincount(labels[draw_stratified(labels, 80)]), [49, 29, 2])
    for size in (0, 81):
        with pytest.raises(ValueError, match="size is"):
            draw_stratified(labels, size)


def test_a_file_is_divided_without_loss(write):
    raw = read(write(**GOOD))
    splits = divide(raw, val_size=3)
    rows = np.concatenate([split.features for split in splits.values()])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(X, axis=0))
    assert list(splits) == ["train", "val"]
    with pytest.raises(DataError, match="no batch files"):
        divide(raw, train="batch1")
    with pytest.raises(DataError, match="has no x_val to validate on, and val_size is 11: give 1 to 9"):
        divide(raw, val_size=11)


def test_a_validation_split_is_kept_and_is_part_of_the_fingerprint(write):
    whole = read(write(**GOOD, x_val=X[:3], y_val=Y[:3]))
    assert len(divide(whole)["val"].labels) == 3
    other = read(write(**GOOD, x_val=X[3:6], y_val=Y[3:6]))
    plain, named = read(write(**GOOD)), read(write(**GOOD, classes=["a", "b", "c"]))
    assert len({raw.fingerprint for raw in (whole, other, plain, named)}) == 4
