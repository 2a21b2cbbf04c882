import sys

import pytest

from linear_cifar.dataset import DataError, DataUnavailable
from linear_cifar.load import load
from linear_cifar.synthetic import synthetic

module = sys.modules[load.__module__]


@pytest.fixture(autouse=True)
def small_and_offline(monkeypatch):
    """Small made-up images, and no network."""

    def unreachable(folder, report):
        raise DataUnavailable("the server is away")

    monkeypatch.setattr(module, "synthetic", lambda: synthetic(n_train=60, n_test=10))
    monkeypatch.setattr(module, "fetch", unreachable)


def test_auto_falls_back_with_a_banner_that_says_why_and_how_to_supply_the_data(tmp_path):
    told = []
    dataset = load("auto", tmp_path, val_size=20, tell=told.append)
    assert dataset.name == "synthetic"
    (banner,) = told
    for words in (
        "SYNTHETIC DATA",
        "the server is away",
        "cifar-10-binary.tar.gz",
        "--data_dir",
        str(tmp_path),
    ):
        assert words in banner
    assert len({len(line) for line in banner.splitlines()}) == 1


def test_cifar10_never_falls_back(tmp_path):
    with pytest.raises(DataUnavailable, match="the server is away"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_a_broken_copy_is_an_error_never_a_reason_to_fall_back(tmp_path, name):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(DataError, match=str(folder)) as raised:
        load(name, tmp_path)
    assert not isinstance(raised.value, DataUnavailable)


def test_synthetic_looks_for_nothing_and_tells_nothing(tmp_path):
    dataset = load("synthetic", tmp_path / "absent", val_size=20, tell=pytest.fail)
    assert len(dataset.train.labels) == 40


def test_what_was_fetched_is_read(tmp_path, monkeypatch):
    made = synthetic(n_train=60, n_test=10)._replace(name="cifar10")
    fetched = []
    monkeypatch.setattr(module, "fetch", lambda folder, report: fetched.append(folder))
    monkeypatch.setattr(module.cifar10, "read", lambda folder: made if fetched else None)
    told = []
    assert load("auto", tmp_path, val_size=20, tell=told.append).name == "cifar10"
    assert fetched == [tmp_path]
    assert "no checksum shows" in told[0]


def test_a_file_that_is_no_archive_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        load("auto", tmp_path / "file")
