"""Reads small data sets that tfds itself has prepared, here and without TensorFlow."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from linear_cifar.data.dataset import DataError
from linear_cifar.data.tfds import read_tfds

CLASSES = tuple("abcdefghij")
COUNTS = (12, 5)


class EpochMetrics(NamedTuple):
    id: str
    label: int
    image: np.ndarray


def records(name: str, count: int) -> list[EpochMetrics]:
    rng = np.random.default_rng(count)
    images = rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    return [EpochMetrics(f"{name}_{i:05d}", i * 7 % 10, images[i]) for i in range(count)]


def prepare(folder: Path, train: list[EpochMetrics], classes: tuple[str, ...] = CLASSES) -> Path:
    """Prepares version 3.0.2 in array_record; returns its folder."""

    def encode(index: int, record: EpochMetrics) -> tuple[int, dict[str, Any]]:
        # Encoded here: tfds takes TensorFlow to make a PNG of an array.
        png = io.BytesIO()
        Image.fromarray(record.image).save(png, "PNG")
        png.seek(0)
        return index, {"id": record.id, "label": record.label, "image": png}

    class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Named as the original."""

        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(names=classes),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            del dl_manager
            return {
                "train": self._generate_examples(train),
                "test": self._generate_examples(records("test", COUNTS[1])),
            }

        def _generate_examples(self, of):
            yield from (encode(index, record) for index, record in enumerate(of))

    builder = Cifar10(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder / "cifar10" / "3.0.2"


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    tfds.disable_progress_bar()
    yield
    tfds.enable_progress_bar()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"), records("train", COUNTS[0]))


@pytest.fixture
def version(prepared, tmp_path):
    """The folder of a version, to break; tmp_path is its data_dir."""
    return Path(shutil.copytree(prepared, tmp_path / "cifar10" / "3.0.2"))


def shard(version: Path, name: str = "train") -> Path:
    (path,) = version.glob(f"cifar10-{name}.array_record*")
    return path


def refusal(data_dir: Path, counts: tuple[int, int] = COUNTS) -> str:
    """The error's message, which must be one line and name the folder."""
    with pytest.raises(DataError) as error:
        read_tfds(data_dir, counts)
    message = str(error.value)
    assert "\n" not in message
    assert str(data_dir / "cifar10" / "3.0.2") in message
    return message


def test_reads_the_published_order(version, tmp_path):
    raw = read_tfds(tmp_path, COUNTS)
    assert raw is not None
    for split, name, count in (
        (raw.splits["train"], "train", COUNTS[0]),
        (raw.splits["test"], "test", COUNTS[1]),
    ):
        expected = records(name, count)
        assert split.features.dtype == split.labels.dtype == np.uint8
        assert split.labels.tolist() == [record.label for record in expected]
        rows = split.features.reshape(count, 3, 32, 32)
        for row, record in zip(rows, expected, strict=True):
            for channel in range(3):
                np.testing.assert_array_equal(row[channel], record.image[:, :, channel])
    assert (raw.name, raw.classes, raw.verified) == ("cifar10", CLASSES, False)
    assert raw.origin == str(version)


def test_the_fixture_is_shuffled(version):
    stored = [
        r["id"]
        for r in tfds.builder_from_directory(version).as_data_source(
            "train", decoders={"image": tfds.decode.SkipDecoding()}
        )
    ]
    assert stored != sorted(stored)


def test_takes_the_newest_version(version, tmp_path):
    # As text, 3.0.10 comes before 3.0.2.
    newest = version.with_name("3.0.10")
    shutil.copytree(version, newest)
    info = newest / "dataset_info.json"
    info.write_text(info.read_text(encoding="utf-8").replace("3.0.2", "3.0.10"), encoding="utf-8")
    shutil.copytree(version, version.with_name("incomplete.ABC_3.0.11"))
    raw = read_tfds(tmp_path, COUNTS)
    assert raw is not None
    assert raw.origin == str(newest)


@pytest.mark.parametrize("folder", [".", "cifar10", "cifar10/3.0.2"])
def test_its_folders_may_be_named_themselves(version, tmp_path, folder):
    raw = read_tfds(str(tmp_path / folder), COUNTS)
    assert raw is not None
    assert Path(raw.origin).resolve() == version


def test_its_files_identify_a_renamed_copy(version, tmp_path):
    renamed = version.parent.rename(tmp_path / "images") / version.name
    other = shutil.copytree(renamed, tmp_path / "mnist" / "4.0.0")
    for path in other.glob("cifar10-*"):
        path.rename(other / path.name.replace("cifar10", "mnist"))
    renamed = renamed.rename(renamed.with_name("of-tfds"))
    raw = read_tfds(tmp_path, COUNTS)
    assert raw is not None
    assert raw.origin == str(renamed)


@pytest.mark.parametrize(
    "folder", ["", "cifar10", "cifar10/3.0.2", "cifar10/cifar-10-batches-bin", "cifar10/incomplete.A_3.0.2"]
)
def test_none_where_nothing_is_prepared(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert read_tfds(tmp_path) is None


def test_counts_are_those_of_cifar10_by_default(version, tmp_path):
    with pytest.raises(DataError, match="12 train images instead of 50000"):
        read_tfds(tmp_path)


def test_wrong_count_in_the_test_split(version, tmp_path):
    assert "5 test images instead of 6" in refusal(tmp_path, (COUNTS[0], 6))


@pytest.mark.parametrize("file_format", ["tfrecord", "riegeli", "parquet"])
def test_another_format(version, tmp_path, file_format):
    for path in version.glob("*array_record*"):
        path.rename(version / path.name.replace("array_record", file_format))
    info = version / "dataset_info.json"
    info.write_text(
        json.dumps(json.loads(info.read_text(encoding="utf-8")) | {"fileFormat": file_format}),
        encoding="utf-8",
    )
    message = refusal(tmp_path)
    assert f"in the format {file_format}" in message
    assert "array_record" in message
    assert "cifar-10-binary.tar.gz" in message


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _empty, _flip, Path.unlink])
@pytest.mark.parametrize("pattern", ["*test*", "*train*"])
def test_damaged_shard(version, tmp_path, damage, pattern):
    (path,) = version.glob(pattern)
    damage(path)
    refusal(tmp_path)


@pytest.mark.parametrize("damage", [_truncate, _empty, Path.unlink])
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_description(version, tmp_path, name, damage):
    damage(version / name)
    refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "train_00004"}, "the id b'train_00004' twice"),
        ({"id": "train_00012"}, "the id b'train_00012'"),
        ({"id": "test_00003"}, "the id b'test_00003'"),
        ({"label": 10}, "b'train_00003' 10: not one of 10"),
        ({"image": np.zeros((16, 48, 3), np.uint8)}, "no 32 x 32 image"),
        ({"image": np.zeros((32, 32, 4), np.uint8)}, "no 32 x 32 image"),
    ],
)
def test_wrong_record(version, tmp_path, change, message):
    train = records("train", COUNTS[0])
    train[3] = train[3]._replace(**change)
    # tfds refuses to write the label 10 for ten classes: written with more, described as ten.
    wrong = prepare(tmp_path / "wrong", train, classes=(*CLASSES, "k"))
    shutil.copy(shard(wrong), shard(version))
    assert message in refusal(tmp_path)


def test_without_class_names_the_classes_are_numbered(version, tmp_path):
    (version / "label.labels.txt").unlink()
    raw = read_tfds(tmp_path, COUNTS)
    assert raw is not None
    assert raw.classes == tuple("0123456789")


def test_wrong_number_of_classes(tmp_path):
    prepare(tmp_path, records("train", COUNTS[0]), classes=(*CLASSES, "k"))
    assert "11 classes instead of 10" in refusal(tmp_path)


def test_tensorflow_is_never_imported(version, tmp_path):
    trap = tmp_path / "trap" / "tensorflow"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("import os; os._exit(7)", encoding="utf-8")
    script = (
        "import pathlib, sys; from linear_cifar.data.tfds import read_tfds; "
        "sys.exit(0 if read_tfds(pathlib.Path(sys.argv[1]), (12, 5)) else 1)"
    )
    paths = [str(trap.parent), *(path or os.getcwd() for path in sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
