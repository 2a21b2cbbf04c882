"""Files of other kinds than `.npz`: the same data set from each, and every mistake in one line."""

import csv
import re
import struct
import sys

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from sklearn.preprocessing import LabelEncoder

import linear_cifar as lc
from linear_cifar import memory
from linear_cifar.data import formats, readers
from linear_cifar.data.dataset import DataError
from linear_cifar.data.formats import open_features, read_features
from linear_cifar.data.prepare import prepare_data
from linear_cifar.npz import ArrayHeader

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
SPLIT = np.array(["train", "test", "train", "val"] * 3)
ROWS = {split: np.flatnonzero(split == SPLIT) for split in ("train", "val", "test")}
DIVIDED = {f"{axis}_{split}": a[rows] for split, rows in ROWS.items() for axis, a in (("x", X), ("y", Y))}


def write(folder, kind, **arrays):
    """Write arrays, or lists, to a file of this kind."""
    path = folder / f"own{kind}"
    if kind == ".npz":
        np.savez(path, **arrays)
    elif kind == ".safetensors":
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    elif kind == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)
    elif kind == ".parquet":
        columns = {formats.TABLE_NAMES.get(name, name): as_column(array) for name, array in arrays.items()}
        pq.write_table(pa.table(columns), path, row_group_size=5)
    else:
        path.mkdir(exist_ok=True)
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    return path


def as_column(array):
    if getattr(array, "ndim", 1) == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(array.ravel(), array.shape[1])


def read(path, **names):
    return read_features(path, log=pytest.fail, names=names)


def assert_refused(message, path, **names):
    with pytest.raises(DataError, match=message) as raised:
        read_features(path, log=lambda line: None, names=names)
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).isprintable()


def assert_same(dataset, expected):
    assert dataset.fingerprint == expected.fingerprint
    assert (dataset.classes, [*dataset.splits]) == (expected.classes, [*expected.splits])
    for split, (features, labels, _) in dataset.splits.items():
        assert features.dtype == expected.splits[split].features.dtype
        np.testing.assert_array_equal(features, expected.splits[split].features)
        np.testing.assert_array_equal(labels, expected.splits[split].labels)


@pytest.mark.parametrize("kind", ["", ".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_arrays_of_splits_are_the_same_data_set_in_every_kind_of_file(kind, dtype, tmp_path):
    arrays = DIVIDED | {n: (9 * abs(a)).astype(dtype) for n, a in DIVIDED.items() if n[0] == "x"}
    dataset = read(write(tmp_path, kind, **arrays))
    assert_same(dataset, read(write(tmp_path, ".npz", **arrays)))
    assert dataset.name == f"own{kind or '/'}"


@pytest.mark.parametrize("kind", [".npz", "", ".parquet"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_one_matrix_with_the_words_of_its_splits_is_the_same_data_set(kind, dtype, tmp_path):
    x = (9 * abs(X)).astype(dtype)
    arrays = {n: x[ROWS[n[2:]]] if n[0] == "x" else a for n, a in DIVIDED.items()}
    expected = read(write(tmp_path, ".npz", **arrays))
    path = write(tmp_path, kind, x=x, y=Y, split=SPLIT)
    assert_same(read(path), expected)
    assert open_features(path)[0] == {"train": 6, "val": 3, "test": 3}
    if kind != ".parquet":
        assert_same(read(write(tmp_path, kind, x=x, y=Y[:, None], split=SPLIT.astype("S5"))), expected)


@pytest.mark.parametrize("kind", [".npz", ""])
@pytest.mark.parametrize("name", ["split", "y", "classes"])
def test_words_with_numbers_that_are_no_characters_are_refused(kind, name, tmp_path):
    wrong = np.array([0x77620000], np.uint32).view("U1")
    words = {"split": SPLIT, "y": Y, "classes": np.array(["a", "b", "c"])}
    words[name] = np.concatenate([words[name][:-1].astype("U5"), wrong])
    assert_refused(f"{name} cannot be read: ", write(tmp_path, kind, x=X, **words))


@pytest.mark.parametrize("kind", [".npz", "", ".safetensors", ".parquet", ".pt"])
def test_one_matrix_without_splits_is_for_training(kind, tmp_path):
    path = write(tmp_path, kind, x=X, y=Y)
    assert_same(read(path), read(write(tmp_path, ".npz", x_train=X, y_train=Y)))
    assert open_features(path)[0] == {"train": 12}


@pytest.mark.parametrize("kind", [".npz", "", ".parquet", ".safetensors", ".pt"])
@pytest.mark.parametrize(
    "values",
    [
        ["dog", "cat", "ß"],
        [b"2", b"10", b"1"],
        [True, False, True],
        [-7, 5, 999],
        [1, 2, 3],
        [2**63, 2**62, 0],
    ],
    ids=str,
)
def test_labels_are_sorted_as_scikit_learn_sorts_them_and_name_the_classes(kind, values, tmp_path):
    labels = np.array(values, np.uint64 if 2**63 in values else None)[Y]
    if (kind in {".safetensors", ".pt"} and labels.dtype.kind in "US") or (kind == ".pt" and 2**63 in values):
        pytest.skip("it holds no such labels")
    dataset = read(write(tmp_path, kind, x=X, y=labels))
    encoder = LabelEncoder().fit(labels)
    np.testing.assert_array_equal(dataset.splits["train"].labels, encoder.transform(labels))
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in encoder.classes_.tolist()]
    assert dataset.classes == (*names,)


@pytest.mark.parametrize("column", [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.binary()])
def test_words_of_a_table_may_be_of_any_kind(column, tmp_path):
    words = pa.array(np.array(["dog", "cat", "ant"])[Y]).cast(column)
    table = pa.table({"features": as_column(X), "label": words})
    pq.write_table(table, tmp_path / "own.parquet", row_group_size=5, use_dictionary=False)
    dataset = read(tmp_path / "own.parquet")
    assert dataset.classes == ("ant", "cat", "dog")
    np.testing.assert_array_equal(dataset.splits["train"].labels, 2 - Y)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32())])
def test_lists_of_a_table_need_no_fixed_size(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_PART", 80)  # five rows
    path = write(tmp_path, ".parquet", x=pa.array(X.tolist(), kind), y=Y)
    assert_same(read(path), read(write(tmp_path, ".npz", x=X, y=Y)))


@pytest.mark.parametrize("kind", [".safetensors", ".pt"])
def test_bfloat16_stays_so_and_trains(kind, tmp_path):
    rounded = X.astype(ml_dtypes.bfloat16)
    path = write(tmp_path, kind, x=rounded if kind == ".safetensors" else X, y=Y)
    if kind == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({"x": torch.tensor(X).bfloat16(), "y": torch.tensor(Y)}, path)
    dataset = read(path)
    np.testing.assert_array_equal(dataset.splits["train"].features, rounded)
    for scale in ("standard", "none"):
        data = prepare_data(dataset, val_size=3, standardize=scale)
        assert data.sets["train"].features.dtype == ml_dtypes.bfloat16
    sets, config = {"val": data.sets["val"]}, lc.Config(0.1, 3, 0.0)
    result = lc.fit([config], data.sets["train"], sets, loss="softmax", epochs=1)
    assert 0 <= result.best("val").mean <= 1


def test_a_folder_stays_on_the_disk(tmp_path):
    features = read(write(tmp_path, "", x=X, y=Y)).splits["train"].features
    while isinstance(features, np.ndarray) and not isinstance(features, np.memmap):
        features = features.base
    assert isinstance(features, np.memmap)


@pytest.mark.parametrize("kind", [".npz", "", ".safetensors", ".parquet"])
def test_names_may_be_given(kind, tmp_path):
    path = write(tmp_path, kind, embedding=X, species=Y)
    dataset = read(path, x="embedding", y="species")
    np.testing.assert_array_equal(dataset.splits["train"].features, X)
    np.testing.assert_array_equal(dataset.splits["train"].labels, Y)
    assert_refused("has no emb; it has 'embedding', 'species'", path, x="emb", y="species")
    assert_refused("has no x_train; it has 'embedding', 'species': name the arrays x_train and", path)
    assert_refused("has no y_val", path, x_train="embedding", y_train="species", x_val="embedding")
    # A file with x_train has no use for x.
    assert_refused("has no embedding", path, x_train="embedding", y_train="species", x="embedding")
    assert_refused("embedding is float32: give whole numbers", path, x="embedding", y="embedding")


def test_a_file_with_arrays_of_splits_ignores_one_for_all(tmp_path):
    lines = []
    read_features(write(tmp_path, ".npz", x_train=X, y_train=Y, x=X, y=Y, features=X), log=lines.append)
    assert "also has 'x', 'y', 'features', which is not used" in lines[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"split": np.where(np.arange(12) == 5, "dev", SPLIT)},
            "row 5 of split is 'dev': give train, val, test",
        ),
        (
            {"split": np.full(12, "test")},
            r"row 0 of split is 'test': give train, val, test, or .*, and rows to train on",
        ),
        ({"split": SPLIT[:11]}, "split cannot be read: cannot reshape"),
        ({"split": Y}, "row 0 of split is '0': give"),
        ({"y": np.where(SPLIT == "test", 9, Y)}, "class 9 has no row to train on: leave its rows out"),
        ({"y": np.arange(12)}, "y has 6 rows and 12 classes to train on"),
        ({"x": np.where(np.arange(48).reshape(12, 4) == 21, np.nan, X)}, "row 5 of x holds NaN"),
        ({"y": Y.astype("M8[s]")}, r"y is datetime64\[s\]: give whole numbers, words or booleans"),
    ],
    ids=str,
)
def test_a_mistake_in_one_matrix_is_one_line(changes, message, tmp_path):
    assert_refused(message, write(tmp_path, ".npz", **({"x": X, "y": Y, "split": SPLIT} | changes)))


LISTS = X.astype(float).tolist()
WORDS = ["a", "b", "c"] * 4


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": WORDS}, "has no x_train; it has 'label'"),
        ({"features": LISTS}, "has no y; it has 'features'"),
        (
            {"features": [[1.0], *LISTS[1:]], "label": WORDS},
            "row 1 is not as long as row 0",
        ),
        ({"features": [[1.0] * 3, [1.0] * 5, *LISTS[2:]], "label": WORDS}, "row 1 is not as long as row 0"),
        (
            {"features": [*LISTS[:9], None, [1.0] * 7, *LISTS[11:]], "label": WORDS},
            "row 9 is null",
        ),
        ({"features": [*LISTS[:9], [1.0, None] * 2, *LISTS[10:]], "label": WORDS}, "row 9 holds a null"),
        (
            {"features": [*LISTS[:9], [np.nan] * 4, *LISTS[10:]], "label": WORDS},
            "row 9 of features holds NaN",
        ),
        ({"features": [[1, 2]] * 12, "label": WORDS}, "is int64"),
        ({"features": [["a", "b"]] * 12, "label": WORDS}, "features is object: give uint8"),
        ({"features": [[[1.0]]] * 12, "label": WORDS}, "features is object: give uint8"),
        ({"features": [1.0] * 12, "label": WORDS}, r"features is \[12\]: give \[n, ...\]"),
        ({"features": LISTS, "label": [*WORDS[:11], None]}, "label cannot be read: row 11 is null"),
        ({"features": LISTS, "label": [0.0] * 12}, "label is float64: give whole numbers"),
        ({"features": LISTS, "label": LISTS}, "label is float64: give whole numbers"),
        ({"features": LISTS, "label": [{"a": 1}] * 12}, "label cannot be read: "),
        (
            {"features": LISTS, "label": WORDS, "split": [*SPLIT[:11], None]},
            "split cannot be read: row 11 is null",
        ),
        ({"features": LISTS[:0], "label": WORDS[:0]}, "features cannot be read: it has no row"),
    ],
    ids=str,
)
def test_a_mistake_in_a_table_is_one_line(columns, message, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    assert_refused(message, tmp_path / "own.parquet")


def test_objects_and_false_sizes_in_a_folder_are_refused(tmp_path):
    path = write(tmp_path, "", x=X, y=Y)
    np.save(path / "y.npy", np.array([{}] * 12, object))
    assert_refused("y cannot be read: .* holds Python objects .* never unpickled", path)
    np.save(path / "y.npy", Y)
    content = (path / "x.npy").read_bytes()
    (path / "x.npy").write_bytes(content[:-1])
    assert_refused("x cannot be read: 'x.npy' is not as large as its header says", path)
    (path / "x.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 3 * 10**9))
    assert_refused("x cannot be read: 'x.npy' has a header of 3,000,000,000 bytes", path)


def test_a_pt_file_of_something_else_is_refused(tmp_path):
    torch = pytest.importorskip("torch")

    class Dangerous:
        def __reduce__(self):
            return pytest.fail, ("code in the file was run",)

    for content in (torch.tensor(X), Dangerous(), {"x": Dangerous()}):
        torch.save(content, tmp_path / "own.pt")
        assert_refused("cannot be read: it is not a dictionary of tensors alone", tmp_path / "own.pt")
    tall = torch.zeros(1, 1, dtype=torch.uint8).expand(10**7, 10**7)  # one byte in the file
    torch.save({"x": tall, "y": tall[:, 0]}, tmp_path / "own.pt")
    assert_refused(r"\(most of it x, .* needs 1e\+05 GB", tmp_path / "own.pt")


@pytest.mark.parametrize("kind", [".npz", "", ".safetensors", ".parquet", ".pt"])
def test_the_memory_is_judged_before_an_array_is_read(kind, tmp_path, monkeypatch):
    path = write(tmp_path, kind, x=np.zeros((2_000, 500), np.uint8), y=np.arange(2_000) % 2)
    monkeypatch.setattr(memory, "process_memory", lambda: 1_000_000)
    opened = readers.READERS[kind]

    def open_without_reading(path):
        return opened(path)._replace(read=lambda *arguments: pytest.fail("an array was read"))

    monkeypatch.setitem(readers.READERS, kind, open_without_reading)
    assert_refused(
        r"\(most of it (x|features), uint8\[2000, 500\]\) needs 0\.0010\d GB, and there are 0\.001 GB", path
    )


def test_a_table_may_be_tiny_beside_what_it_holds(tmp_path):
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**22, np.float64)), 2**13)
    schema = pa.schema({"features": zeros.type, "label": pa.int8()})
    path = tmp_path / "own.parquet"
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for _ in range(2):
            writer.write_table(pa.table([zeros, np.zeros(2**9, np.int8)], schema))
    assert path.stat().st_size < 200_000
    with pytest.MonkeyPatch.context() as context:
        context.setattr(memory, "process_memory", lambda: 10**7)
        assert_refused(r"most of it features, float64\[1024, 8192\]\) needs 0.0671 GB", path)


def test_words_that_are_no_names_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_PART", 1_000)
    path = write(tmp_path, ".parquet", x=X, y=[str(i) * 10_000 for i in range(12)])
    assert_refused("label cannot be read: its words take more than 64 bytes a row", path)


@pytest.mark.parametrize(
    ("kind", "module", "advice"),
    [
        (".parquet", "pyarrow.parquet", "pip install 'linear_cifar[parquet]'"),
        (".safetensors", "safetensors", "pip install 'linear_cifar[safetensors]'"),
        (".pt", "torch", "pip install torch, or where it is: import numpy, torch; numpy.savez"),
    ],
)
def test_a_missing_library_is_one_line_with_its_command(kind, module, advice, tmp_path, monkeypatch):
    (tmp_path / f"own{kind}").touch()
    monkeypatch.setitem(sys.modules, module, None)
    assert_refused(re.escape(advice), tmp_path / f"own{kind}")


@pytest.mark.parametrize("kind", [".safetensors", ".parquet", ".pt"])
@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"PAR1" * 9, struct.pack("<Q", 2**62) + b"{}"])
def test_what_is_no_such_file_is_one_line(kind, content, tmp_path):
    path = tmp_path / f"own{kind}"
    path.write_bytes(content)
    assert_refused("cannot be read: |needs torch", path)


def open_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    arrays = {"x": np.array([row[:-1] for row in rows], np.float32), "y": np.array([row[-1] for row in rows])}

    def header(name):
        return ArrayHeader(arrays[name].shape, arrays[name].dtype)

    return readers.Reader([*arrays], header, lambda name, header: arrays[name])


def test_another_reader_can_be_registered(tmp_path, monkeypatch):
    monkeypatch.setitem(readers.READERS, ".csv", open_csv)
    lines = [",".join([*map(str, x), "abc"[y]]) for x, y in zip(X.tolist(), Y, strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(lines), encoding="utf-8")
    assert_same(
        read(tmp_path / "own.csv"), read(write(tmp_path, ".npz", x=X, y=np.array(["a", "b", "c"])[Y]))
    )
