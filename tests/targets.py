"""Everything that reads files, fed with any bytes: what may come of it is a result or one clear line.

`tests/test_hostile.py` tries some thousand inputs, `tests/fuzz.py` as many as one likes.
"""

import gzip
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import test_cifar10
import test_prepared
from test_results import SETTINGS

from experiments import archive, blocks
from experiments.archive import ArchiveError
from experiments.blocks import BlockError
from experiments.checkpoints import DIGEST, Checkpoints, _digest
from experiments.measures import Measures
from experiments.results import HISTORY, KEYS, RESULTS
from experiments.run import standing_of
from experiments.settings import Variant
from linear_cifar import cifar10
from linear_cifar.config import Config
from linear_cifar.dataset import DataError, Dataset, Split
from linear_cifar.prepared import read_prepared

# Bytes to begin with, and what is done with them and with what becomes of them.
Target = tuple[list[bytes], Callable[[bytes], bool]]
COUNT = 2  # images in a batch
# What would be needed to run something, or to talk to someone.
FORBIDDEN = {
    "os.exec", "os.fork", "os.posix_spawn", "os.startfile", "os.system", "pickle.find_class", "pty.spawn",
    "socket.connect", "subprocess.Popen",
}  # fmt: skip
MEMORY = 512 * 1024**2

_watched = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event in FORBIDDEN:
        os.write(2, f"a hostile input brought about {event}{arguments}\n".encode())
        os._exit(99)


sys.addaudithook(_audit)


class Lost(Exception):
    """A state that is unusable, and was told of."""


def accepted(errors: type[Exception], read: Callable[[], object]) -> bool:
    """Whether it is read; of what may be raised, only these are, with a message of one line."""
    global _watched
    _watched = True
    try:
        read()
    except errors as error:
        assert str(error), "no message"
        assert len(str(error).splitlines()) == 1, str(error)
        return False
    finally:
        _watched = False
    return True


@contextmanager
def bounded() -> Iterator[None]:
    """The block's memory must not grow by more than a little."""

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = peak()
    yield
    assert peak() - before < MEMORY, f"{peak() - before:,} bytes more"


def _files(folder: Path, names: list[str], read: Callable[[], object], errors: type[Exception]) -> Target:
    """The first byte says in place of which file, of those there, the others are written."""
    genuine = {name: (folder / name).read_bytes() for name in names}

    def attempt(content: bytes) -> bool:
        name = names[content[0] % len(names)] if content else names[0]
        (folder / name).write_bytes(content[1:])
        try:
            return accepted(errors, read)
        finally:
            (folder / name).write_bytes(genuine[name])

    return [bytes([i]) + genuine[name] for i, name in enumerate(names)], attempt


def _unpacked(folder: Path, layout: str) -> Target:
    test_cifar10.COUNT = COUNT
    test_cifar10.write(folder, layout)
    names = sorted(str(path.relative_to(folder)) for path in (folder / layout).iterdir())
    return _files(folder, names, lambda: cifar10.read(folder, COUNT), DataError)


def binary(folder: Path) -> Target:
    """cifar-10-batches-bin."""
    return _unpacked(folder, test_cifar10.LAYOUTS[0])


def python(folder: Path) -> Target:
    """cifar-10-batches-py: pickles."""
    return _unpacked(folder, test_cifar10.LAYOUTS[1])


def _archive(folder: Path, layout: str, packed: Callable[[bytes], bytes]) -> Target:
    test_cifar10.COUNT = COUNT
    path = test_cifar10.write(folder, layout)
    genuine = path.read_bytes()

    def attempt(content: bytes) -> bool:
        path.write_bytes(packed(content))
        return accepted(DataError, lambda: cifar10.read(folder, COUNT))

    return [genuine if packed(b"") == b"" else gzip.decompress(genuine)], attempt


def gzipped(folder: Path) -> Target:
    """cifar-10-binary.tar.gz as it is."""
    return _archive(folder, test_cifar10.ARCHIVES[0], lambda content: content)


def tar(folder: Path) -> Target:
    """cifar-10-python.tar.gz, of which gzip's checksum is right."""
    return _archive(folder, test_cifar10.ARCHIVES[1], lambda content: gzip.compress(content, 1))


def prepared(folder: Path) -> Target:
    """What tfds prepared."""
    version = test_prepared.prepare(folder, test_prepared.records("train", test_prepared.COUNTS[0]))
    names = sorted(str(path.relative_to(folder)) for path in version.iterdir())
    return _files(folder, names, lambda: read_prepared(folder, test_prepared.COUNTS), DataError)


def checkpoint(folder: Path) -> Target:
    """A state whose digest is right: it gets as far as it can."""
    rng = np.random.default_rng(0)
    state = {"W": rng.normal(size=(2, 3)), "finite": np.ones((5, 2), np.bool_)}
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    Checkpoints(folder, lambda epoch: template, print).save(5, state)
    names = sorted(str(path.relative_to(folder)) for path in (folder / "5").rglob("*") if path.is_file())
    names.remove(f"5/{DIGEST}")

    def read() -> None:
        (folder / "5" / DIGEST).write_text(_digest(folder / "5"))
        lines: list[str] = []
        states = Checkpoints(folder, lambda epoch: template, lines.append)
        found = states.newest()
        states.close()
        assert all(len(line.splitlines()) == 1 for line in lines)
        if found is None:
            assert lines, "lost without a word"
            (folder / "broken-5").rename(folder / "5")
            raise Lost(lines[0])
        assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(found)] == [
            (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(template)
        ]

    return _files(folder, names, read, Lost)


def block(folder: Path) -> Target:
    """block.json, and whether it is believed."""
    own = Variant("one", SETTINGS, (Config(0.1, 20, 0.0), Config(0.01, 20, 0.0)))
    empty = Split(np.empty((0, 3072), np.uint8), np.empty(0, np.uint8))
    dataset = Dataset("synthetic", (), empty, empty, empty, "", False, "0" * 64)
    path = blocks.write(folder, blocks.Block(own), dataset, {"devices": ["cpu: cpu"]}) / blocks.BLOCK

    def read() -> None:
        for held in blocks.read(folder):
            if blocks.disagreement(held, {"one": own}, dataset) is None:
                for planned in blocks.plan(own, [held], 2):
                    standing_of(planned.part, 4, 3)(1)

    return _files(folder, [str(path.relative_to(folder))], read, BlockError)


def results(folder: Path) -> Target:
    """config.json, tables.json and the CSV files, by the public reader."""
    row = ["one", "synthetic", "0.1", "20", "0.0", "0.0", "0.0", "3"]
    for name, columns in (
        ("results.csv", RESULTS),
        ("history.csv", HISTORY),
        ("measures.csv", (*KEYS, *Measures._fields)),
    ):
        cells = [*row, *["1"] * (len(columns) - len(row))]
        (folder / name).write_text(f"{','.join(columns)}\n{','.join(cells)}\n")
    (folder / "config.json").write_text(
        '{"schema": 3, "experiment": "grid", "complete": true, "command": "", "written": "",\n'
        ' "settings": {}, "dataset": {"name": "synthetic", "fingerprint": ""}, "variants": {}}'
    )
    (folder / "tables.json").write_text('{"tables": [{"name": "a", "title": "", "columns": [], "rows": []}]}')
    names = ["config.json", "history.csv", "measures.csv", "results.csv", "tables.json"]

    def read() -> None:
        one = archive.read(folder)
        assert len(one.results) + len(one.history) + len(one.measures) >= 0

    return _files(folder, names, read, ArchiveError)


TARGETS = {
    target.__name__: target for target in (binary, python, gzipped, tar, prepared, checkpoint, block, results)
}
