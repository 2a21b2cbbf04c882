import pwd

import pytest
import test_cifar10

from linear_cifar.data import find
from linear_cifar.data.dataset import DataError, DataUnavailable
from linear_cifar.data.find import find_dataset
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
    dataset = find_dataset("auto", tmp_path, log=logged.append)
    assert dataset.name == "synthetic"
    (banner,) = logged
    texts = ("SYNTHETIC DATA", "the server is away", "cifar-10-binary.tar.gz", "data_dir", str(tmp_path))
    for text in texts:
        assert text in banner
    assert len({len(line) for line in banner.splitlines()}) == 1


@pytest.mark.parametrize(
    ("folder", "state"), [("", "{} does not hold CIFAR-10"), ("new", "there is no folder {}")]
)
def test_what_was_looked_for_and_where_comes_before_the_network(tmp_path, folder, state):
    logged = []
    with pytest.raises(DataUnavailable) as error:
        find_dataset("cifar10", str(tmp_path / folder))
    find_dataset("auto", tmp_path / folder, log=logged.append)
    banner = " ".join(line.strip("* ") for line in logged[0].splitlines())
    assert str(error.value).startswith(state.format(tmp_path / folder))
    for message in (str(error.value), banner):
        sought = (
            str(tmp_path / folder),
            "data_batch_1.bin",
            "cifar-10*.tar.gz",
            "cifar10/*/",
            "the server is away",
        )
        places = [message.index(text) for text in sought]
        assert places == sorted(places)


def test_a_download_is_announced_once_before_it_begins(tmp_path, monkeypatch):
    made = make_synthetic(n_train=60, n_test=10)._replace(name="cifar10", verified=True)
    events = []

    def download(folder, on_progress):
        for done in (0, 1):
            on_progress(done, 1)

    monkeypatch.setattr(find, "fetch", download)
    monkeypatch.setattr(find.cifar10, "read_cifar10", lambda folder: made if events else None)
    mistyped = tmp_path / "mistyped"
    find_dataset("auto", mistyped, log=events.append, on_progress=lambda *sizes: events.append(sizes))
    note, *progress = events
    assert note.startswith(f"note: there is no folder {tmp_path / 'mistyped'}: searched there")
    assert note.endswith(f"CIFAR-10 is downloaded to {tmp_path / 'mistyped'}")
    assert progress == [(0, 1), (1, 1)]


def test_a_relative_folder_is_recorded_in_full(tmp_path, monkeypatch):
    read = find.cifar10.read_cifar10
    monkeypatch.setattr(find.cifar10, "read_cifar10", lambda folder: read(folder, test_cifar10.COUNT))
    contents = test_cifar10.files(test_cifar10.LAYOUTS[0])
    test_cifar10.write(tmp_path, test_cifar10.LAYOUTS[0], test_cifar10.moved(contents, ""))
    monkeypatch.chdir(tmp_path)
    assert find_dataset("cifar10", ".", log=lambda note: None).origin == str(tmp_path)


@pytest.mark.parametrize("folder", [None, "~/data"])
def test_without_a_home_folder_the_user_is_told_to_name_one(monkeypatch, folder):
    for name in ("HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # as for a user without an entry
    with pytest.raises(DataError, match=r"no home folder for ~/.*data_dir") as error:
        find_dataset("cifar10", folder)
    assert "\n" not in str(error.value)
    logged = []
    if folder is not None:  # what a user names is not replaced by something else
        with pytest.raises(DataError, match="no home folder for ~/data"):
            find_dataset("auto", folder)
        return
    assert find_dataset("auto", folder, log=logged.append).name == "synthetic"
    assert "no home folder for ~/" in logged[0]
    assert find_dataset("synthetic", folder, log=pytest.fail).name == "synthetic"


def test_unknown_names_are_refused_before_any_data_is_read(monkeypatch):
    monkeypatch.setattr(find, "make_synthetic", pytest.fail)
    with pytest.raises(ValueError, match="name is 'mnist': choose one of auto, cifar10, synthetic") as error:
        find_dataset("mnist")
    assert "\n" not in str(error.value)


def test_cifar10_never_falls_back(tmp_path):
    with pytest.raises(DataUnavailable, match="the server is away"):
        find_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_a_broken_copy_is_an_error_and_not_a_reason_to_fall_back(tmp_path, name):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(DataError, match=str(folder)) as raised:
        find_dataset(name, tmp_path)
    assert not isinstance(raised.value, DataUnavailable)


def test_synthetic_reads_and_logs_nothing(tmp_path):
    dataset = find_dataset("synthetic", tmp_path / "absent", log=pytest.fail)
    assert len(dataset.splits["train"].labels) == 60


def test_a_download_is_read(tmp_path, monkeypatch):
    made = make_synthetic(n_train=60, n_test=10)._replace(name="cifar10")
    fetched = []
    monkeypatch.setattr(find, "fetch", lambda folder, on_progress: fetched.append(folder))
    monkeypatch.setattr(find.cifar10, "read_cifar10", lambda folder: made if fetched else None)
    logged = []
    assert find_dataset("auto", tmp_path, log=logged.append).name == "cifar10"
    assert fetched == [tmp_path]
    assert "no checksum shows" in logged[0]


def test_a_file_that_is_no_archive_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        find_dataset("auto", tmp_path / "file")
