"""Readers of a user's own arrays. A program adds one by its ending: `READERS[".csv"] = open_csv`."""

import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from linear_cifar.data.local import import_extra
from linear_cifar.devices import empty_aligned
from linear_cifar.npz import ArrayHeader, read_array, read_header

# Bytes of a column that are decoded at a time.
_PART = 8 * 1024**2
_CONVERT = (
    "pip install torch, or where it is: import numpy, torch; numpy.savez('x.npz', **torch.load('x.pt'))"
)


class Reader(NamedTuple):
    """An open file of named arrays. Reading it executes nothing that it holds; an exception becomes one line.

    No array is read before the memory for all of them is known to be there, from their headers.
    """

    names: Sequence[str]
    header: Callable[[str], ArrayHeader]  # returns the shape and type of an array, which is not read
    read: Callable[[str, ArrayHeader], np.ndarray]  # reads an array; words may be Python objects


def _open_npz(path: Path) -> Reader:
    archive = zipfile.ZipFile(path)

    def header(name: str) -> ArrayHeader:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            return read_header(member, info.filename, info.file_size)

    def read(name: str, header: ArrayHeader) -> np.ndarray:
        return read_array(archive, archive.getinfo(f"{name}.npy"), header)

    return Reader([name.removesuffix(".npy") for name in archive.namelist()], header, read)


def _open_folder(path: Path) -> Reader:
    paths = {file.stem: file for file in sorted(path.glob("*.npy")) if file.is_file()}

    def header(name: str) -> ArrayHeader:
        with paths[name].open("rb") as file:
            return read_header(file, paths[name].name, paths[name].stat().st_size)

    return Reader([*paths], header, lambda name, _: np.load(paths[name], mmap_mode="r", allow_pickle=False))


def _open_safetensors(path: Path) -> Reader:
    library = import_extra("safetensors", "pip install 'linear_cifar[safetensors]'")
    file = library.safe_open(path, framework="numpy")

    def header(name: str) -> ArrayHeader:
        tensor = file.get_slice(name)
        return ArrayHeader(tuple(tensor.get_shape()), tensor[:0].dtype)

    def read(name: str, header: ArrayHeader) -> np.ndarray:
        content, tensor = empty_aligned(header.shape, header.dtype), file.get_slice(name)
        rows = max(1, len(content) * _PART // max(header.nbytes, 1))
        for start in range(0, len(content), rows):
            end = min(start + rows, len(content))
            content[start:end] = tensor[start:end]
        return content

    return Reader(file.keys(), header, read)


def _open_torch(path: Path) -> Reader:
    torch = import_extra("torch", _CONVERT)
    try:
        tensors = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:  # its message advises to load the file all the same
        tensors = None
    if not isinstance(tensors, dict):
        raise ValueError("it is not a dictionary of tensors alone")

    def header(name: str) -> ArrayHeader:
        return ArrayHeader((*tensors[name].shape,), np.dtype(str(tensors[name].dtype).removeprefix("torch.")))

    def read(name: str, header: ArrayHeader) -> np.ndarray:
        # PyTorch makes no NumPy array of bfloat16, but one of its bytes.
        return tensors[name].detach().contiguous().view(torch.uint8).numpy().view(header.dtype)

    names = [name for name, value in tensors.items() if isinstance(name, str) and torch.is_tensor(value)]
    return Reader(names, header, read)


def _open_parquet(path: Path) -> Reader:
    library = import_extra("pyarrow.parquet", "pip install 'linear_cifar[parquet]'")
    file = library.ParquetFile(path, memory_map=True)
    n = file.metadata.num_rows

    def header(name: str) -> ArrayHeader:
        kind = file.schema_arrow.field(name).type
        dtype = np.dtype(getattr(kind, "value_type", kind).to_pandas_dtype())
        if n < 1:
            raise ValueError("it has no row")
        if not hasattr(kind, "value_field"):  # no list; words are references
            return ArrayHeader((n,), np.dtype("S8") if dtype.kind == "O" else dtype)
        # The sizes of a damaged file's columns would abort the process, but the first row shows the length.
        return ArrayHeader((n, len(next(file.iter_batches(1, columns=[name])).column(0).flatten())), dtype)

    def read(name: str, header: ArrayHeader) -> np.ndarray:
        is_text = header.dtype.kind == "S"
        content = np.empty(n, object) if is_text else empty_aligned(header.shape, header.dtype)
        filled = size = 0
        rows = max(1, min(2**16, n * _PART // max(header.nbytes, 1)))
        words = [name] if content.ndim == 1 else None
        opened = library.ParquetFile(path, memory_map=True, read_dictionary=words)
        for batch in opened.iter_batches(rows, columns=[name]):
            values: Any = batch.column(0)
            wrong: Any = np.asarray(values.is_null())
            what = "is null"
            if content.ndim == 2 and not wrong.any():
                wrong, what = np.asarray(values.value_lengths()) != header.shape[1], "is not as long as row 0"
                values = values.flatten()
            if not wrong.any() and values.null_count:
                wrong, what = np.asarray(values.is_null()).reshape(len(wrong), -1).any(axis=1), "holds a null"
            if wrong.any():
                raise ValueError(f"row {filled + np.argmax(wrong)} {what}")
            size += values.nbytes
            if size > 8 * header.nbytes + _PART:
                raise ValueError("its words take more than 64 bytes a row, and are no names of classes")
            if hasattr(values, "indices"):
                numbers = values.dictionary.to_numpy(zero_copy_only=False)[values.indices.to_numpy()]
            else:
                numbers = values.to_numpy(zero_copy_only=False)
            content[filled : filled + len(wrong)] = numbers.reshape(len(wrong), *header.shape[1:])
            filled += len(wrong)
        return content[:filled]

    return Reader(file.schema_arrow.names, header, read)


# The function that opens a file, by the ending of its name; a folder has none.
READERS: dict[str, Callable[[Path], Reader]] = {
    ".npz": _open_npz, "": _open_folder, ".safetensors": _open_safetensors, ".parquet": _open_parquet,
    ".pt": _open_torch,
}  # fmt: skip
