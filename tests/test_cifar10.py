"""The four layouts, small and made here, whole and broken in all the usual ways."""

import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core.download.checksums import get_all_url_infos
from tensorflow_datasets.core.download.resource import get_dl_fname
from test_unpickle import batch, pickled

from linear_cifar.data import cifar10
from linear_cifar.data.cifar10 import BATCHES, CLASSES, read_cifar10
from linear_cifar.data.dataset import DataError, Dataset, DataUnavailable

COUNT = 20
NAMES = tuple(BATCHES)
LAYOUTS = (
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
    "cifar-10-binary.tar.gz",
    "cifar-10-python.tar.gz",
)
ARCHIVES = LAYOUTS[2:]

Files = dict[str, bytes]


def files(layout: str) -> Files:
    """The files of a layout by their paths in the archive."""
    made = {}
    for i, name in enumerate(NAMES):
        images, labels = batch(COUNT, seed=i)
        if layout in (LAYOUTS[0], LAYOUTS[2]):
            made[f"cifar-10-batches-bin/{name}.bin"] = np.column_stack((labels, images)).tobytes()
        else:
            title = b"training batch %d of 5" % (i + 1) if i < 5 else b"testing batch 1 of 1"
            made[f"cifar-10-batches-py/{name}"] = pickled(images, labels, title)
    return made


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def archive(contents: Files, *more: tuple[tarfile.TarInfo, bytes], first: bool = True) -> bytes:
    """A gzipped tar, with more members before or after the files."""
    plain = [(member(name, len(content)), content) for name, content in contents.items()]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
        for info, content in [*more, *plain] if first else [*plain, *more]:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def write(folder: Path, layout: str, contents: Files | None = None) -> Path:
    contents = files(layout) if contents is None else contents
    if layout in ARCHIVES:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / layout).write_bytes(archive(contents))
    else:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder / layout


def moved(contents: Files, folder: str) -> Files:
    """The same files in another folder."""
    return {f"{folder}/{Path(name).name}".lstrip("/"): content for name, content in contents.items()}


def read_whole(data_dir: Path | str) -> Dataset:
    """Read a copy, which must have the published order."""
    raw = read_cifar10(data_dir, COUNT)
    assert raw is not None
    images, labels = zip(*(batch(COUNT, seed=i) for i in range(6)), strict=True)
    np.testing.assert_array_equal(
        [*raw.splits["train"].features, *raw.splits["test"].features], np.concatenate(images)
    )
    np.testing.assert_array_equal(
        [*raw.splits["train"].labels, *raw.splits["test"].labels], np.concatenate(labels)
    )
    return raw


def refusal(data_dir: Path, *words: str) -> None:
    """The error must be one line that names the copy, says what is wrong and what to do."""
    with pytest.raises(DataError) as error:
        read_cifar10(data_dir, COUNT)
    message = str(error.value)
    assert not isinstance(error.value, DataUnavailable)
    assert "\n" not in message
    assert "delete it" in message
    for word in (str(data_dir), *words):
        assert word in message


@pytest.mark.parametrize("folder", [".", "below", "downloads/cifar10"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_the_published_order(tmp_path, layout, folder):
    path = write(tmp_path / folder, layout)
    raw = read_whole(tmp_path)
    assert (len(raw.splits["train"].labels), len(raw.splits["test"].labels)) == (5 * COUNT, COUNT)
    for split in (raw.splits["train"], raw.splits["test"]):
        assert split.features.dtype == split.labels.dtype == np.uint8
        assert split.features.flags.c_contiguous
    assert (raw.name, raw.classes, raw.verified) == ("cifar10", CLASSES, False)
    assert raw.origin == str(path)


def test_classes():
    assert " ".join(CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"


def test_layouts_are_looked_for_in_turn(tmp_path):
    for layout in reversed(LAYOUTS):
        path = write(tmp_path / "below", layout)
        raw = read_cifar10(tmp_path, COUNT)
        assert raw is not None
        assert raw.origin == str(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_may_be_named_itself(tmp_path, layout):
    path = write(tmp_path, layout)
    raw = read_cifar10(path, COUNT)
    assert raw is not None
    assert raw.origin == str(path)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("folder", ["", "CIFAR10", "cifar-10-batches-py/cifar-10-batches-py", "a/b/c"])
def test_files_identify_a_copy_and_the_names_of_its_folders_do_not(tmp_path, layout, folder):
    write(tmp_path, layout, moved(files(layout), folder))
    raw = read_whole(tmp_path)
    assert raw.origin == str(tmp_path / folder)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_a_batch_file_may_be_named_itself(tmp_path, layout):
    for other in LAYOUTS[:2]:
        write(tmp_path, other, moved(files(other), ""))
    name = Path(next(iter(files(layout)))).name
    (tmp_path / ("test_batch" if layout == LAYOUTS[0] else "test_batch.bin")).unlink()  # of the other layout
    assert read_whole(str(tmp_path / name)).origin == str(tmp_path)


@pytest.mark.parametrize("layout", ARCHIVES)
@pytest.mark.parametrize(
    ("name", "folder", "packed"),
    [
        ("cifar-10-python.tar", "cifar-10-batches-py", False),
        ("cifar-10-batches-py.tar.gz", "cifar-10-batches-py", True),
        ("CIFAR_10.TGZ", "", True),
        ("cifar10.tgz", "renamed", False),
        ("two/levels/My CIFAR-10 (1).tar.gz", "a/b", True),
    ],
)
def test_archives_are_recognised_by_the_files_in_them(tmp_path, layout, name, folder, packed):
    content = archive(moved(files(layout), folder))
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if packed else gzip.decompress(content))
    assert read_whole(tmp_path).origin == str(path)
    anything = path.rename(tmp_path / "anything")
    assert read_cifar10(tmp_path, COUNT) is None
    assert read_whole(str(anything)).origin == str(anything)


def test_an_archive_of_both_layouts_is_read_in_the_first(tmp_path):
    (tmp_path / "cifar10.tgz").write_bytes(archive(files(LAYOUTS[1]) | files(LAYOUTS[0])))
    read_whole(tmp_path)


@pytest.mark.parametrize(("name", "size"), [("CIFAR-10-C.tar", 9), ("cifar10-png.tgz", 2**40)])
def test_archives_of_other_data_sets_are_passed_over(tmp_path, name, size):
    path = tmp_path / name
    path.write_bytes(bare("CIFAR-10-C/fog.npy", size) + bytes(2**11))
    assert read_cifar10(tmp_path, COUNT) is None
    with pytest.raises(DataError) as error:
        read_cifar10(path, COUNT)
    assert "delete" not in str(error.value)
    write(tmp_path / "deeper", ARCHIVES[1])
    assert read_whole(tmp_path).origin == str(tmp_path / "deeper" / ARCHIVES[1])


@pytest.mark.parametrize(
    "path",
    [
        "a/b/c/d/test_batch",
        "._cifar-10-python.tar.gz",
        ".fetch-a/cifar10.tgz",
        "x.tmp.1/cifar10.tgz",
        "incomplete.A_1/test_batch",
    ],
)
def test_neither_deeper_folders_nor_unfinished_work_are_searched(tmp_path, path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"broken")
    assert read_cifar10(tmp_path, COUNT) is None


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_an_incomplete_copy_comes_last_and_other_files_are_never_to_be_deleted(tmp_path, layout):
    whole = files(layout)
    folder = tmp_path / "CIFAR10"
    write(tmp_path, layout, moved(dict(list(whole.items())[1:]), folder.name))
    refusal(tmp_path, str(folder), "data_batch_1", "is missing")
    (folder / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"data_batch_1.* is missing") as error:
        read_cifar10(tmp_path, COUNT)
    assert "delete" not in str(error.value)
    assert "name another folder" in str(error.value)
    write(tmp_path / "deeper", ARCHIVES[0])
    read_whole(tmp_path)


@pytest.mark.parametrize("size", [0, 500])
def test_an_unreadable_archive_of_another_name_is_not_passed_over(tmp_path, size):
    (tmp_path / "cifar10.tgz").write_bytes(archive(files(ARCHIVES[0]))[:size])
    with pytest.raises(DataError, match=r"cifar10\.tgz.*put a whole copy in its place"):
        read_cifar10(tmp_path, COUNT)


def test_a_test_batch_alone_is_no_copy(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "test_batch").write_bytes(b"something else")
    assert read_cifar10(tmp_path) is None


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", LAYOUTS[0])
    read_whole("~/data")
    with pytest.raises(DataError, match=r"no home folder for ~nobody_of_this_name/x: name the folder"):
        read_cifar10("~nobody_of_this_name/x")
    with pytest.raises(DataError, match="data_dir is empty"):
        read_cifar10("")


@pytest.mark.parametrize("layout", ARCHIVES)
def test_finds_what_tfds_has_downloaded(tmp_path, layout):
    url = f"https://www.cs.toronto.edu/~kriz/{layout}"
    info = get_all_url_infos().get(url)
    name = get_dl_fname(url, info.checksum if info else None)
    path = tmp_path / "downloads" / "cifar10" / name
    write(path.parent, layout).rename(path)
    path.with_name(f"{name}.INFO").write_text("{}", encoding="utf-8")
    raw = read_cifar10(tmp_path, COUNT)
    assert raw is not None
    assert raw.origin == str(path)


def test_none_where_nothing_is(tmp_path):
    assert read_cifar10(tmp_path) is None
    assert read_cifar10(tmp_path / "absent") is None
    for name in ("cifar-100-binary.tar.gz", "cifar-10-and-cifar-100.tar"):
        (tmp_path / name).touch()
    for folder in ("cifar10/3.0.2", *LAYOUTS):  # an empty folder is no copy, whatever its name
        (tmp_path / folder).mkdir(parents=True)
    assert read_cifar10(tmp_path) is None


def change(contents: Files, name: str, by: Callable[[bytes], bytes]) -> Files:
    (path,) = (path for path in contents if path.split("/")[1].split(".")[0] == name)
    return contents | {path: by(contents[path])}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content * 2,
    ],
    ids=["empty", "one byte less", "half", "twice"],
)
def test_wrong_size(tmp_path, layout, name, damage):
    write(tmp_path, layout, change(files(layout), name, damage))
    refusal(tmp_path, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_byte_more(tmp_path, layout):
    write(tmp_path, layout, change(files(layout), "data_batch_3", lambda content: content + b"\0"))
    refusal(tmp_path, "data_batch_3")


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_a_huge_file_is_not_read(tmp_path, layout):
    path = write(tmp_path, layout)
    victim = next(path.glob("data_batch_1*"))
    os.truncate(victim, 2**28)
    tracemalloc.start()
    try:
        refusal(tmp_path, str(victim), "more than")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_broken_copy_is_not_passed_over(tmp_path, layout):
    for other in LAYOUTS[LAYOUTS.index(layout) + 1 :]:
        write(tmp_path, other)
    write(tmp_path, layout, change(files(layout), "data_batch_1", lambda content: b""))
    refusal(tmp_path, str(tmp_path / layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_missing_file(tmp_path, layout, name):
    whole = files(layout)
    write(tmp_path, layout, {path: whole[path] for path in whole if name not in path})
    refusal(tmp_path, name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("label", [10, 255])
def test_label_that_is_no_class(tmp_path, layout, label):
    images, labels = batch(COUNT)
    labels[7] = label
    content = (
        np.column_stack((labels, images)).tobytes()
        if layout in (LAYOUTS[0], LAYOUTS[2])
        else pickled(images, labels, b"training batch 2 of 5")
    )
    write(tmp_path, layout, change(files(layout), "data_batch_2", lambda _: content))
    refusal(tmp_path, "data_batch_2", f"labels image 7 with {label}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("one", "other"), [(0, 3), (4, 5)])
def test_a_batch_copied_over_another(tmp_path, layout, one, other):
    whole = files(layout)
    paths = list(whole)
    write(tmp_path, layout, whole | {paths[other]: whole[paths[one]]})
    refusal(tmp_path, NAMES[other])


@pytest.mark.parametrize("layout", [LAYOUTS[1], LAYOUTS[3]])
@pytest.mark.parametrize(("one", "other"), [(0, 3), (0, 5)])
def test_swapped_pickles(tmp_path, layout, one, other):
    whole = files(layout)
    paths = list(whole)
    write(tmp_path, layout, whole | {paths[one]: whole[paths[other]], paths[other]: whole[paths[one]]})
    refusal(tmp_path, NAMES[one], "calls itself")


@pytest.fixture
def declared_published(monkeypatch):
    """Declare the small files to be the published ones."""
    contents = zip(NAMES, files(LAYOUTS[0]).values(), strict=True)
    known = {name: (hashlib.md5(content).hexdigest(), "") for name, content in contents}
    monkeypatch.setattr(cifar10, "BATCHES", known)


@pytest.mark.usefixtures("declared_published")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_published(tmp_path, layout):
    write(tmp_path, layout)
    raw = read_cifar10(tmp_path, COUNT)
    assert raw is not None
    assert raw.verified


@pytest.mark.usefixtures("declared_published")
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[2]])
def test_one_other_pixel_is_not_published(tmp_path, layout):
    flip = lambda content: content[:-1] + bytes([content[-1] ^ 1])  # noqa: E731
    write(tmp_path, layout, change(files(layout), "test_batch", flip))
    raw = read_cifar10(tmp_path, COUNT)
    assert raw is not None
    assert not raw.verified


@pytest.mark.usefixtures("declared_published")
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[2]])
@pytest.mark.parametrize(("one", "other"), [(0, 3), (1, 5)])
def test_swapped_published_batches(tmp_path, layout, one, other):
    whole = files(layout)
    paths = list(whole)
    write(tmp_path, layout, whole | {paths[one]: whole[paths[other]], paths[other]: whole[paths[one]]})
    refusal(tmp_path, NAMES[one], "has the content of", NAMES[other])


def test_checksums_are_md5s():
    checksums = [digest for digests in BATCHES.values() for digest in digests]
    assert len(set(checksums)) == 12
    assert all(len(bytes.fromhex(digest)) == 16 for digest in checksums)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pipe_is_not_waited_for(tmp_path, layout):
    path = write(tmp_path, layout)
    victim = path if path.is_file() else next(path.iterdir())
    victim.unlink()
    os.mkfifo(victim)
    refusal(tmp_path)


def put(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ARCHIVES[0]).write_bytes(content)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("info", "words"),
    [
        (member("../evil"), "points outside"),
        (member("cifar-10-batches-bin/../../evil"), "points outside"),
        (member("/etc/evil"), "points outside"),
        (member("./../evil"), "points outside"),
        (member("cifar-10-batches-bin/evil", kind=tarfile.SYMTYPE, link="/etc/passwd"), "not a plain file"),
        (member("cifar-10-batches-bin/test_batch.bin", kind=tarfile.SYMTYPE, link="x"), "not a plain file"),
        (member("cifar-10-batches-bin/evil", kind=tarfile.LNKTYPE, link="/etc/passwd"), "not a plain file"),
        (member("cifar-10-batches-bin/evil", kind=tarfile.CHRTYPE), "not a plain file"),
        (member("cifar-10-batches-bin/evil", kind=tarfile.BLKTYPE), "not a plain file"),
        (member("cifar-10-batches-bin/evil", kind=tarfile.FIFOTYPE), "not a plain file"),
        (member("evil\nline", kind=tarfile.FIFOTYPE), "not a plain file"),
    ],
)
def test_hostile_member(tmp_path, info, words, first):
    put(tmp_path, archive(files(ARCHIVES[0]), (info, b""), first=first))
    refusal(tmp_path, ARCHIVES[0], words)
    assert os.listdir(tmp_path) == [ARCHIVES[0]]


def test_duplicate_member(tmp_path):
    whole = files(ARCHIVES[0])
    name, content = list(whole.items())[2]
    put(tmp_path, archive(whole, (member(name, len(content)), content)))
    refusal(tmp_path, "data_batch_3", "twice")


def raw(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT)


def bare(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header with nothing after it."""
    return raw(member(name, size, kind))


SPARSE = member("cifar-10-batches-bin/data_batch_1.bin", 0, tarfile.GNUTYPE_SPARSE)
WANTED = "cifar-10-batches-bin/data_batch_1.bin"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (bare(WANTED, 2**40), "at most"),
        (bare(WANTED, COUNT * 3073 + 1), "at most"),
        (bare(WANTED, -(2**40)), "at most"),
        (bare("cifar-10-batches-bin/other", 2**40), "larger than"),
        (bare("cifar-10-batches-bin/other", -512), "larger than"),
        (bare("././@LongLink", 2**40, tarfile.GNUTYPE_LONGNAME), "not a plain file"),
        (bare("x", 2**40, tarfile.XHDTYPE), "larger than"),
        (bare("x", -512, tarfile.XGLTYPE), "larger than"),
        (raw(SPARSE), "not a plain file"),
    ],
)
def test_header_with_a_hostile_size(tmp_path, header, words):
    # Zeros a thousandfold compressed: 8 MB of them are here in case they are read.
    put(tmp_path, gzip.compress(header + bytes(2**23)))
    tracemalloc.start()
    try:
        refusal(tmp_path, ARCHIVES[0], words)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("after", [True, False])
def test_decompression_bomb(tmp_path, after):
    bomb = gzip.compress(bytes(2**26))
    put(tmp_path, archive(files(ARCHIVES[0])) + bomb if after else bomb)
    tracemalloc.start()
    try:
        refusal(tmp_path, ARCHIVES[0], "larger than" if after else "l")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_bomb_of_many_members(tmp_path):
    put(tmp_path, gzip.compress(raw(member("cifar-10-batches-bin/other")) * 20_000))
    refusal(tmp_path, ARCHIVES[0], "larger than")


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-8],
        lambda content: content[:-1],
        lambda content: content[:-8] + bytes(4) + content[-4:],
        _flip,
        lambda content: content + b"more",
        lambda content: b"<html>" + content,
        lambda content: gzip.compress(b"<html>" * 1000),
        lambda content: gzip.compress(gzip.decompress(content)[:700]),
        lambda content: content[:10] + b"\xff" * 1000,
    ],
    ids=range(12),
)
@pytest.mark.parametrize("layout", ARCHIVES)
def test_damaged_archive(tmp_path, layout, damage):
    path = write(tmp_path, layout)
    path.write_bytes(damage(path.read_bytes()))
    refusal(tmp_path, layout)


@pytest.mark.parametrize("layout", ARCHIVES)
def test_an_archive_packed_anew(tmp_path, layout):
    """With folders, dates in extended headers, other files, `./` and another order."""
    folder = Path(next(iter(files(layout)))).parent.name
    extra = [
        (member(f"./{folder}/", kind=tarfile.DIRTYPE), b""),
        (member(f"./{folder}/readme.html", 4), b"read"),
    ]
    for info, _ in extra:
        info.mtime = 1.5  # type: ignore[assignment]
    contents = {f"./{name}": content for name, content in reversed(files(layout).items())}
    (tmp_path / layout).write_bytes(archive(contents, *extra))
    assert b"mtime=1.5" in gzip.decompress((tmp_path / layout).read_bytes())
    repacked = read_cifar10(tmp_path, COUNT)
    plain = read_cifar10(write(tmp_path / "plain", layout).parent, COUNT)
    assert repacked is not None
    assert plain is not None
    assert repacked.fingerprint == plain.fingerprint


def test_hostile_pickle(tmp_path):
    evil = b"cposix\nsystem\n(S'touch " + os.fsencode(tmp_path / "ran") + b"'\ntR."
    for layout in (LAYOUTS[1], LAYOUTS[3]):
        data_dir = tmp_path / layout[:-3]
        write(data_dir, layout, change(files(layout), "data_batch_1", lambda _: evil))
        refusal(data_dir, "data_batch_1", "posix.system")
        assert not (tmp_path / "ran").exists()


def test_real_layouts_agree(cifar10_dir, tmp_path):
    unpacked = dict(zip(ARCHIVES, LAYOUTS[:2], strict=True))
    prints = {}
    for layout in LAYOUTS:
        folder = tmp_path / layout.replace(".", "_")
        folder.mkdir()
        if layout in unpacked and not (cifar10_dir / layout).exists():
            # Level 0 is quick to write: the content is stored as it is.
            with tarfile.open(folder / layout, "w:gz", compresslevel=0) as archive:
                archive.add((cifar10_dir / unpacked[layout]).resolve(), unpacked[layout])
        else:
            (folder / layout).symlink_to((cifar10_dir / layout).absolute())
        raw = read_cifar10(folder)
        assert raw is not None
        assert raw.origin == str(folder / layout)
        assert raw.splits["train"].features.shape == (50_000, 3072)
        assert raw.splits["test"].features.shape == (10_000, 3072)
        # The labels of the published data, which all copies of it share.
        assert raw.splits["train"].labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
        assert np.bincount(raw.splits["train"].labels).tolist() == [5_000] * 10
        assert np.bincount(raw.splits["test"].labels).tolist() == [1_000] * 10
        prints[layout] = raw.fingerprint
    assert len(prints) == 4
    assert len(set(prints.values())) == 1, prints


def test_real_files_exchanged_are_found_out_though_their_images_are_not_the_published(tmp_path, cifar10_dir):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    exchanged = {"data_batch_2": "test_batch", "test_batch": "data_batch_2"}
    for name in BATCHES:
        original = cifar10_dir / folder.name / f"{exchanged.get(name, name)}.bin"
        (folder / f"{name}.bin").symlink_to(original.absolute())
    with pytest.raises(DataError, match=r"data_batch_2\.bin has the content of test_batch"):
        read_cifar10(tmp_path)
