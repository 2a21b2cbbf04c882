"""Reader of the published CIFAR-10 pickles that runs no code from them."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from linear_cifar.data.dataset import BATCH_FILE_SIZE, DataError

FEATURES = 3072
# Short names of the globals that such a file names, by their spelling there. They are never looked up.
_GLOBALS = {
    "numpy.core.multiarray\n_reconstruct\n": "reconstruct",
    "numpy\nndarray\n": "ndarray",
    "numpy\ndtype\n": "dtype",
}


@dataclass
class _Call:
    """A record of a call of a global, and of the state that the pickle sets on its result."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def unpickle(
    content: bytes, count: int = BATCH_FILE_SIZE
) -> tuple[UInt8[np.ndarray, "n 3072"], UInt8[np.ndarray, " n"], bytes]:
    """Read a batch of the published "python version" (protocol 2, written by Python 2).

    A pickle is a program for a stack machine. The machine here knows only the instructions that the published
    files hold, and records calls instead of making them. Its memory is bounded by a small multiple of the
    content's length, and its time by `count`.

    `pickle.Unpickler` with a `find_class` would be bounded in neither. Ten bytes make it allocate 2 GiB for a
    memo, and a few hundred make it hash a key for ever.

    Args:
      content: the whole file.
      count: number of images that the file must have.

    Returns:
      Images [count, 3072]; labels [count], which need not be below 10; and the title, such as
      b"training batch 1 of 5". The arrays are read-only.

    Raises:
      DataError: if the content is anything else. The message continues a sentence that starts with the
        name of the file.
    """
    stream = io.BytesIO(content)
    try:
        # An image takes a label, a file name and its memo. The limit matters because a nested container takes
        # far more memory than its byte in the file.
        loaded = _interpret(stream, max_instructions=256 + 8 * count)
    # Wrong operands for an instruction, too few of them, or a memo that was never set.
    except (AttributeError, LookupError, TypeError, ValueError):
        raise DataError(f"is not a valid pickle near byte {stream.tell()}") from None
    match loaded:
        case {
            b"batch_label": bytes() as title,
            b"labels": list() as numbers,
            b"data": _Call(
                name="reconstruct",
                state=(_, shape, _Call(name="dtype", arguments=(dtype, *_)), order, bytes() as pixels),
            ),
        }:
            pass
        case _:
            raise DataError("does not hold batch_label, labels and a NumPy array as data")
    if dtype != b"u1" or shape != (count, FEATURES) or len(pixels) != count * FEATURES:
        raise DataError(f"does not hold {count} x {FEATURES} values of 8 bits")
    if order not in (False, True):
        raise DataError("does not say in which order its values are")
    try:
        labels = bytes(numbers)
    except (TypeError, ValueError):
        raise DataError("has labels that are not small numbers") from None
    if len(labels) != count:
        raise DataError(f"has {len(labels)} labels for {count} images")
    images = np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if order else "C")
    return images, np.frombuffer(labels, np.uint8), title


def _interpret(stream: io.BytesIO, max_instructions: int) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # stacks below the marks
    memo: dict[int, Any] = {}  # not a list, because the indices come from the file
    for _ in range(max_instructions):
        # A read may be short, and a negative size reads to the end. STOP is then missing.
        match stream.read(1):
            case b"\x80":  # PROTO
                if _number(stream, 1) != 2:
                    raise DataError("is not a pickle of protocol 2")
            case b".":  # STOP
                if stream.read(1):
                    raise DataError("has bytes after its end")
                (result,) = stack
                return result
            case b"(":  # MARK
                below.append(stack)
                stack = []
            case b"N":  # NONE
                stack.append(None)
            case b"\x88":  # NEWTRUE
                stack.append(True)
            case b"\x89":  # NEWFALSE
                stack.append(False)
            case b"K":  # BININT1
                stack.append(_number(stream, 1))
            case b"M":  # BININT2
                stack.append(_number(stream, 2))
            case b"J":  # BININT
                stack.append(_number(stream, 4, signed=True))
            case b"\x8a":  # LONG1, for the shape on some machines
                stack.append(_number(stream, _number(stream, 1), signed=True))
            case b"U":  # SHORT_BINSTRING
                stack.append(stream.read(_number(stream, 1)))
            case b"T":  # BINSTRING
                stack.append(stream.read(_number(stream, 4, signed=True)))
            case b"}":  # EMPTY_DICT
                stack.append({})
            case b"]":  # EMPTY_LIST
                stack.append([])
            case b")":  # EMPTY_TUPLE
                stack.append(())
            case b"t":  # TUPLE
                items, stack = stack, below.pop()
                stack.append(tuple(items))
            case b"\x85" | b"\x86" | b"\x87" as code:  # TUPLE1, TUPLE2, TUPLE3
                size = code[0] - 0x84
                if len(stack) < size:
                    raise IndexError
                stack[-size:] = [tuple(stack[-size:])]
            case b"a":  # APPEND
                item = stack.pop()
                stack[-1].append(item)
            case b"e":  # APPENDS
                items, stack = stack, below.pop()
                stack[-1].extend(items)
            case b"s":  # SETITEM
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case b"u":  # SETITEMS
                items, stack = stack, below.pop()
                _set_items(stack[-1], items)
            case b"q":  # BINPUT
                memo[_number(stream, 1)] = stack[-1]
            case b"r":  # LONG_BINPUT
                memo[_number(stream, 4)] = stack[-1]
            case b"h":  # BINGET
                stack.append(memo[_number(stream, 1)])
            case b"j":  # LONG_BINGET
                stack.append(memo[_number(stream, 4)])
            case b"c":  # GLOBAL
                lines = (stream.readline(80) + stream.readline(80)).decode("ascii", "replace")
                if lines not in _GLOBALS:
                    name = ".".join(lines.split())
                    raise DataError(f"names {name!r}, which no published file does: it may be hostile")
                stack.append(_GLOBALS[lines])
            case b"R":  # REDUCE; only the name of a global is a str
                arguments, name = stack.pop(), stack.pop()
                if not (isinstance(name, str) and isinstance(arguments, tuple)):
                    raise TypeError
                stack.append(_Call(name, arguments))
            case b"b":  # BUILD
                state = stack.pop()
                if not isinstance(stack[-1], _Call):
                    raise TypeError
                stack[-1].state = state
            case b"":
                raise DataError("ends in the middle of a pickle")
            case code:
                raise DataError(f"holds the pickle instruction {code!r}, which no published file has")
    raise DataError("holds more pickle instructions than any published file")


def _number(stream: io.BytesIO, size: int, signed: bool = False) -> int:
    return int.from_bytes(stream.read(size), "little", signed=signed)


def _set_items(target: Any, pairs: list[Any]) -> None:
    keys, values = pairs[::2], pairs[1::2]
    # Hashing nested tuples from the file could take very long, or overflow the C stack.
    if not all(isinstance(key, bytes) for key in keys):
        raise TypeError
    target.update(zip(keys, values, strict=True))
