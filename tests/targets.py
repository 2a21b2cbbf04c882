"""Everything that reads files, to be fed with arbitrary bytes: each is read or refused in one clear line.

`tests/test_hostile.py` tries some thousand inputs, `tests/fuzz.py` as many as asked for.
"""

import gzip
import hashlib
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import test_checkpoints
import test_cifar10
import test_tfds
from safetensors.numpy import save as pack_tensors

from experiments.artifacts.reader import ExperimentFolder, ReadError
from experiments.runner.folder import BLOCKS, SCHEMA
from linear_cifar.blocks import (
    MANIFEST,
    SWEEP,
    Block,
    block_folder,
    find_difference,
    plan_blocks,
    read_blocks,
    write_block,
)
from linear_cifar.data.cifar10 import read_cifar10
from linear_cifar.data.dataset import DataError
from linear_cifar.data.division import divide, train_size
from linear_cifar.data.formats import open_features
from linear_cifar.data.tfds import read_tfds
from linear_cifar.folders import FolderError, write_json
from linear_cifar.replicates import Replicate
from linear_cifar.snapshots import load_snapshot

# Genuine inputs, and a function that tries an input and tells whether it was accepted.
Target = tuple[list[bytes], Callable[[bytes], bool]]
COUNT = 2  # images in a batch
# Audit events of running a program, of opening a connection, and of unpickling.
FORBIDDEN = {
    "os.exec", "os.fork", "os.posix_spawn", "os.startfile", "os.system", "pickle.find_class", "pty.spawn",
    "socket.connect", "subprocess.Popen",
}  # fmt: skip
MEMORY = 512 * 1024**2

_forbidding = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _forbidding and event in FORBIDDEN:
        os.write(2, f"a hostile input caused {event}{arguments}\n".encode())
        os._exit(99)


sys.addaudithook(_audit)


class SetAside(Exception):
    """A state cannot be used and was set aside with a note."""


def accepted(errors: type[Exception] | tuple[type[Exception], ...], read: Callable[[], object]) -> bool:
    """Tell whether `read` succeeds; it may raise only `errors`, with a message of one line."""
    global _forbidding
    _forbidding = True
    try:
        read()
    except errors as error:
        assert str(error), "no message"
        assert len(str(error).splitlines()) == 1, str(error)
        return False
    finally:
        _forbidding = False
    return True


@contextmanager
def bounded() -> Iterator[None]:
    """Check that the memory does not grow by more than `MEMORY` in the block."""

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = peak()
    yield
    assert peak() - before < MEMORY, f"{peak() - before:,} bytes more"


def _files(folder: Path, names: list[str], read: Callable[[], object], errors: type[Exception]) -> Target:
    """Make a target of a folder: the first byte of an input selects the file that gets the rest."""
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
    return _files(folder, names, lambda: read_cifar10(folder, COUNT), DataError)


def binary(folder: Path) -> Target:
    """Read the files of cifar-10-batches-bin."""
    return _unpacked(folder, test_cifar10.LAYOUTS[0])


def python(folder: Path) -> Target:
    """Read the pickles of cifar-10-batches-py."""
    return _unpacked(folder, test_cifar10.LAYOUTS[1])


def _archive(folder: Path, layout: str, packed: Callable[[bytes], bytes]) -> Target:
    test_cifar10.COUNT = COUNT
    path = test_cifar10.write(folder, layout)
    genuine = path.read_bytes()

    def attempt(content: bytes) -> bool:
        path.write_bytes(packed(content))
        return accepted(DataError, lambda: read_cifar10(folder, COUNT))

    return [genuine if packed(b"") == b"" else gzip.decompress(genuine)], attempt


def gzipped(folder: Path) -> Target:
    """Read cifar-10-binary.tar.gz as it is."""
    return _archive(folder, test_cifar10.ARCHIVES[0], lambda content: content)


def tar(folder: Path) -> Target:
    """Read cifar-10-python.tar.gz, whose gzip checksum is valid."""
    return _archive(folder, test_cifar10.ARCHIVES[1], lambda content: gzip.compress(content, 1))


def tfds(folder: Path) -> Target:
    """Read what tensorflow-datasets has prepared."""
    version = test_tfds.prepare(folder, test_tfds.records("train", test_tfds.COUNTS[0]))
    names = sorted(str(path.relative_to(folder)) for path in version.iterdir())
    return _files(folder, names, lambda: read_tfds(folder, test_tfds.COUNTS), DataError)


def features(folder: Path) -> Target:
    """Read a user's own file, compressed or not, as it is."""
    path, x, y = folder / "own.npz", np.ones((8, 1, 2, 2), np.float16), np.arange(8) % 2
    genuine = []
    for save, split in ((np.savez, "test"), (np.savez_compressed, "val")):
        save(path, x_train=x, y_train=y, classes=["a", "b"], **{f"x_{split}": x[:1], f"y_{split}": y[:1]})
        genuine.append(path.read_bytes())

    return _own(path, genuine)


def _read_own(path: Path) -> None:
    sizes, read_dataset = open_features(path, log=lambda line: None)
    divide(read_dataset(), val_size=min(2, train_size(sizes, "full", 2)))


def _own(path: Path, genuine: list[bytes]) -> Target:
    def attempt(content: bytes) -> bool:
        path.write_bytes(content)
        return accepted(DataError, lambda: _read_own(path))

    return genuine, attempt


# One matrix, and the words of its labels and splits.
OWN = {
    "x": np.ones((8, 3), np.float32),
    "y": np.array(["a", "b"])[np.arange(8) % 2],
    "split": np.array(["train", "test", "train", "train"] * 2),
}


def npy(folder: Path) -> Target:
    """Read a user's folder of `.npy` files."""
    for name, array in OWN.items():
        np.save(folder / f"{name}.npy", array)
    return _files(folder, [f"{name}.npy" for name in OWN], lambda: _read_own(folder), DataError)


def safetensors(folder: Path) -> Target:
    """Read a user's `.safetensors` file."""
    y = np.arange(8) % 2 > 0
    return _own(
        folder / "own.safetensors", [pack_tensors({"x": OWN["x"].astype(ml_dtypes.bfloat16), "y": y})]
    )


def parquet(folder: Path) -> Target:
    """Read a user's `.parquet` file: compressed or not, lists of a fixed size or of any, words or numbers."""
    path, genuine, rows = folder / "own.parquet", [], OWN["x"].tolist()
    for kind, compression in ((pa.list_(pa.float64(), 3), "none"), (pa.list_(pa.float32()), "snappy")):
        labels = OWN["y"] if compression == "none" else np.arange(8) % 2
        table = pa.table({"features": pa.array(rows, kind), "label": labels, "split": OWN["split"]})
        pq.write_table(table, path, compression=compression, row_group_size=5)
        genuine.append(path.read_bytes())
    return _own(path, genuine)


def pt(folder: Path) -> Target:
    """Read a user's `.pt` file."""
    import torch

    path = folder / "own.pt"
    torch.save({"x": torch.ones(8, 3), "y": torch.arange(8) % 2}, path)
    return _own(path, [path.read_bytes()])


def _sign(content: bytes) -> bytes:
    """Append a valid digest, so that an input gets past it; see `linear_cifar.npz`."""
    return content + struct.pack("<H64s", 64, hashlib.sha256(content).hexdigest().encode())


def _unsign(path: Path) -> bytes:
    """Return a file's bytes without its digest."""
    return path.read_bytes()[: -len(_sign(b""))]


def snapshot(folder: Path) -> Target:
    """Read a snapshot whose digest is valid."""
    path = folder / "snapshot.npz"
    test_checkpoints.make_state(3).save(path)
    genuine = _unsign(path)

    def attempt(content: bytes) -> bool:
        path.write_bytes(_sign(content))
        return accepted((ValueError, OSError), lambda: load_snapshot(path))

    return [genuine], attempt


def checkpoint(folder: Path) -> Target:
    """Resume from a state, or read a result, whose digest is valid."""
    checkpoints = test_checkpoints.open_checkpoints(folder)
    checkpoints.save_state(test_checkpoints.make_state(1))
    checkpoints.save_result(test_checkpoints.make_result(), keep_state=True)
    names = sorted(path.name for path in folder.iterdir())
    genuine = {name: _unsign(folder / name) for name in names}

    def attempt(content: bytes) -> bool:
        name = names[content[0] % len(names)] if content else names[0]
        (folder / name).write_bytes(_sign(content[1:]))
        lines: list[str] = []

        def read() -> None:
            opened = test_checkpoints.open_checkpoints(folder, lines.append)
            found = test_checkpoints.newest(opened) if name.startswith("state") else opened.result()
            if found is None:
                raise SetAside(lines[0])

        try:
            return accepted(SetAside, read)
        finally:
            (folder / name).write_bytes(_sign(genuine[name]))

    return [bytes([i]) + genuine[name] for i, name in enumerate(names)], attempt


def manifest(folder: Path) -> Target:
    """Read block.json, compare it with a sweep, and plan its blocks."""
    whole = test_checkpoints.make_identity()
    replicates = tuple(Replicate(replicate.seed) for replicate in whole.replicates)
    write_block(folder, Block(whole, replicates), ["cpu: cpu"])
    path = block_folder(folder, whole) / MANIFEST

    def read() -> None:
        blocks = read_blocks(folder)
        if all(find_difference(block, whole) is None for block in blocks):
            assert list(plan_blocks(whole, blocks, lambda: 2))

    return _files(folder, [str(path.relative_to(folder))], read, FolderError)


def results(folder: Path) -> Target:
    """Read config.json, tables.json and the results of a sweep by the public reader."""
    result = test_checkpoints.make_result()
    sweep = folder / BLOCKS / "small"
    block = sweep / result.identity.hash()
    block.mkdir(parents=True)
    result.save(block / "result-2.npz")
    write_json(sweep / SWEEP, {"identity": result.identity.to_json()})
    (folder / "config.json").write_text(
        f'{{"schema": {SCHEMA}, "experiment": "grid", "complete": true, "command": "", "written": "",\n'
        f' "settings": {{}}, "sweeps": {{"small": {{"identity": "{result.identity.hash()}"}}}},\n'
        ' "dataset": {"name": "synthetic", "fingerprint": "", "user_file": false}}',
        encoding="utf-8",
    )
    (folder / "tables.json").write_text(
        '{"tables": [{"name": "a", "title": "", "columns": [], "rows": []}]}', encoding="utf-8"
    )
    names = ["config.json", "tables.json", str((sweep / SWEEP).relative_to(folder))]

    def read() -> None:
        experiment = ExperimentFolder(folder)
        for name in experiment.sweeps:
            assert experiment.result(name).final

    return _files(folder, names, read, ReadError)


_READERS = (
    binary, python, gzipped, tar, tfds, features, npy, safetensors, parquet, snapshot, checkpoint, manifest,
    results, *([pt] if find_spec("torch") else []),
)  # fmt: skip
TARGETS = {target.__name__: target for target in _READERS}
