import pytest

from linear_cifar.data import find
from linear_cifar.data.dataset import DataError, DataUnavailable
from linear_cifar.data.find import load_dataset
from linear_cifar.data.synthetic import make_synthetic


@pytest.fixture(autouse=True)
def small_and_offline(monkeypatch):
    """Small synthetic images, and no network."""

    def unreachable(folder, on_progress):
        raise DataUnavailable("the server is away")

    monkeypatch.setattr(find, "make_synthetic", lambda: make_synthetic(n_train=60, n_test=10))
    monkeypatch.setattr(find, "fetch", unreachable)


def test_auto_falls_back_with_a_banner_that_says_why_and_how_to_supply_the_data(tmp_path):
    logged = []
    dataset = load_dataset("auto", tmp_path, val_size=20, log=logged.append)
    assert dataset.name == "synthetic"
    (banner,) = logged
    texts = ("SYNTHETIC DATA", "the server is away", "cifar-10-binary.tar.gz", "data_dir", str(tmp_path))
    for text in texts:
        assert text in banner
    assert len({len(line) for line in banner.splitlines()}) == 1


def test_cifar10_never_falls_back(tmp_path):
    with pytest.raises(DataUnavailable, match="the server is away"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_a_broken_copy_is_an_error_and_not_a_reason_to_fall_back(tmp_path, name):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(DataError, match=str(folder)) as raised:
        load_dataset(name, tmp_path)
    assert not isinstance(raised.value, DataUnavailable)


def test_synthetic_reads_and_logs_nothing(tmp_path):
    dataset = load_dataset("synthetic", tmp_path / "absent", val_size=20, log=pytest.fail)
    assert len(dataset.train.labels) == 40


def test_a_download_is_read(tmp_path, monkeypatch):
    made = make_synthetic(n_train=60, n_test=10)._replace(name="cifar10")
    fetched = []
    monkeypatch.setattr(find, "fetch", lambda folder, on_progress: fetched.append(folder))
    monkeypatch.setattr(find.cifar10, "read_cifar10", lambda folder: made if fetched else None)
    logged = []
    assert load_dataset("auto", tmp_path, val_size=20, log=logged.append).name == "cifar10"
    assert fetched == [tmp_path]
    assert "no checksum shows" in logged[0]


def test_a_file_that_is_no_archive_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        load_dataset("auto", tmp_path / "file")
