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
from linear_cifar.data.dataset import DataError, DataUnavailable, fingerprint

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
    raw = read_cifar10(tmp_path, COUNT)
    assert raw is not None
    expected = [batch(COUNT, seed=i) for i in range(6)]
    np.testing.assert_array_equal(raw.train.features, np.concatenate([x for x, _ in expected[:5]]))
    np.testing.assert_array_equal(raw.train.labels, np.concatenate([y for _, y in expected[:5]]))
    np.testing.assert_array_equal(raw.test.features, expected[5][0])
    np.testing.assert_array_equal(raw.test.labels, expected[5][1])
    for split in (raw.train, raw.test):
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
    (tmp_path / "cifar-100-binary.tar.gz").touch()
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
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
    known = {n: hashlib.md5(c).hexdigest() for n, c in zip(NAMES, files(LAYOUTS[0]).values(), strict=True)}
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
    assert len(set(BATCHES.values())) == 6
    assert all(len(bytes.fromhex(digest)) == 16 for digest in BATCHES.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pipe_is_not_waited_for(tmp_path, layout):
    path = write(tmp_path, layout)
    victim = path if path.is_file() else next(path.iterdir())
    victim.unlink()
    os.mkfifo(victim)
    refusal(tmp_path)


@pytest.mark.parametrize("layout", ARCHIVES)
def test_a_folder_named_as_an_archive(tmp_path, layout):
    (tmp_path / layout).mkdir()
    refusal(tmp_path, "not a file")


def test_a_file_named_as_a_folder(tmp_path):
    (tmp_path / LAYOUTS[0]).touch()
    refusal(tmp_path, "missing")


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
        lambda content: gzip.decompress(content),
        lambda content: gzip.compress(b"<html>" * 1000),
        lambda content: gzip.compress(gzip.decompress(content)[:700]),
        lambda content: content[:10] + b"\xff" * 1000,
    ],
    ids=range(13),
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
    assert fingerprint(repacked) == fingerprint(plain)


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
        assert raw.train.features.shape == (50_000, 3072)
        assert raw.test.features.shape == (10_000, 3072)
        # The labels of the published data, which all copies of it share.
        assert raw.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
        assert np.bincount(raw.train.labels).tolist() == [5_000] * 10
        assert np.bincount(raw.test.labels).tolist() == [1_000] * 10
        prints[layout] = fingerprint(raw)
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
