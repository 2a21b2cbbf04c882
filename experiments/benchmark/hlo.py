"""Reading of the text of a compiled program: its kernels, loops and the bytes they move.

The text is XLA's optimised HLO, as `jax.stages.Compiled.as_text` returns it. Bytes are those of the operands
and results of kernels, as if nothing stayed in a cache. A slice counts as what is taken of its operand.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4,
    "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
# Operations that start no kernel of their own.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id",
}  # fmt: skip
CONTROL = {"while", "conditional", "call"}
COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast",
)  # fmt: skip
SLICES = {"dynamic-slice", "slice", "gather"}


class Operation(NamedTuple):
    """One operation: its shape and attributes are HLO text."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def find(self, pattern: str) -> str | None:
        """Return the first group of a pattern in the attributes."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None

    @property
    def scope(self) -> str:
        """The JAX functions and scopes that the operation comes from."""
        return self.find(r'op_name="([^"]*)"') or ""

    @property
    def is_kernel(self) -> bool:
        """Whether the operation starts a kernel."""
        return self.opcode not in FREE and self.opcode not in CONTROL


class Program(NamedTuple):
    """The computations of a program, by name; the entry is one of them."""

    computations: Mapping[str, Sequence[Operation]]
    entry: str


class Kernel(NamedTuple):
    """A kernel, and how often a run of the program starts it."""

    operation: Operation
    computation: str
    times: int


def parse(text: str) -> Program:
    """Parse the text of an optimised program."""
    computations: dict[str, list[Operation]] = {}
    operations: list[Operation] = []
    entry = ""
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) .*->.*\{\s*$", line)
        if header and not line.startswith(" "):
            operations = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif body := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)$", line):
            operations.append(_parse_operation(body[1], body[2]))
    return Program(computations, entry)


def _parse_operation(name: str, text: str) -> Operation:
    """Parse `shape opcode(operands), attributes`."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].strip()
    start = rest.index("(")
    end = _closing(rest, start)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[start:end]))
    # A constant's or parameter's own text stands between the brackets.
    return Operation(name, shape, rest[:start], operands, rest[start:])


def _closing(text: str, start: int) -> int:
    """Return the index of the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"a bracket is not closed: {text[start : start + 80]}")


def walk(program: Program, branch: int = 0) -> Iterator[Kernel]:
    """Yield the kernels of a run of the program.

    Args:
      program: the program.
      branch: the branch of every conditional that is taken.

    Raises:
      ValueError: if a loop's number of iterations is unknown.
    """

    def visit(computation: str, times: int) -> Iterator[Kernel]:
        for operation in program.computations[computation]:
            if operation.is_kernel:
                yield Kernel(operation, computation, times)
            for called, count in _called(operation, branch):
                yield from visit(called, times * count)

    return visit(program.entry, 1)


def depth(program: Program, branch: int = 0) -> int:
    """Return the length of the longest chain of kernels each of which needs the one before it.

    The iterations of a loop follow one another. Raises as `walk` does.
    """

    def visit(computation: str) -> int:
        depths: dict[str, int] = {}
        for operation in program.computations[computation]:
            before = max((depths.get(operand, 0) for operand in operation.operands), default=0)
            inside = sum(count * visit(called) for called, count in _called(operation, branch))
            depths[operation.name] = before + operation.is_kernel + inside
        return max(depths.values(), default=0)

    return visit(program.entry)


def _called(operation: Operation, branch: int) -> list[tuple[str, int]]:
    """Return the computations that a control operation runs, and how often."""
    if operation.opcode == "while":
        iterations = operation.find(r'known_trip_count[^}]*?"n":"(\d+)"')
        body = operation.find(r"body=%?([\w.\-]+)")
        if iterations is None or body is None:
            raise ValueError(f"the number of iterations of the loop {operation.name} is unknown")
        return [(body, int(iterations))]
    if operation.opcode == "conditional":
        branches = re.findall(r"%([\w.\-]+)", operation.find(r"branch_computations=\{([^}]*)\}") or "")
        return [(branches[min(branch, len(branches) - 1)], 1)]
    if operation.opcode == "call" and (called := operation.find(r"to_apply=%?([\w.\-]+)")):
        return [(called, 1)]
    return []


def count_opcodes(program: Program, opcodes: Sequence[str]) -> int:
    """Count the operations of some kinds, also their asynchronous forms, in the whole program."""
    return sum(
        operation.opcode.removesuffix("-start") in opcodes
        for operations in program.computations.values()
        for operation in operations
    )


def fused_opcodes(program: Program, operation: Operation) -> set[str]:
    """Return the kinds of operations inside a kernel."""
    inside = program.computations.get(operation.find(r"calls=%?([\w.\-]+)") or "", ())
    return {operation.opcode}.union(*(fused_opcodes(program, inner) for inner in inside))


def is_product(program: Program, operation: Operation) -> bool:
    """Tell whether a kernel is a matrix product: a call of cuBLAS, or a fusion with a dot or convolution."""
    return "__cublas" in operation.attributes or bool(
        fused_opcodes(program, operation) & {"dot", "convolution"}
    )


def count_bytes(shape: str) -> int:
    """Return the bytes of an HLO shape, or of all shapes in a tuple."""
    total = 0
    for kind, dimensions in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", re.sub(r"/\*.*?\*/", "", shape)):
        size = BYTES.get(kind, 0)
        for dimension in filter(None, dimensions.split(",")):
            size *= int(dimension)
        total += size
    return total


def bytes_read(program: Program, kernel: Kernel) -> list[int]:
    """Return the bytes that a kernel reads of each of its operands."""
    operation = kernel.operation
    shapes = {other.name: other.shape for other in program.computations[kernel.computation]}
    sizes = [count_bytes(shapes.get(name, "")) for name in operation.operands]
    if operation.opcode in SLICES:
        return [count_bytes(operation.shape)]
    inside = program.computations.get(operation.find(r"calls=%?([\w.\-]+)") or "")
    if operation.opcode != "fusion" or inside is None:
        return sizes
    parameters = {
        int(inner.attributes[1 : inner.attributes.index(")")]): inner
        for inner in inside
        if inner.opcode == "parameter"
    }
    return [min(size, _bytes_used(parameters[i], inside)) for i, size in enumerate(sizes) if i in parameters]


def _bytes_used(value: Operation, inside: Sequence[Operation]) -> int:
    """Return the bytes that a fusion reads of one of its values."""
    total = 0
    for user in (other for other in inside if value.name in other.operands):
        if user.opcode in SLICES and user.operands[0] == value.name:
            total += count_bytes(user.shape)
        elif user.opcode in {"bitcast", "reshape"}:
            total += _bytes_used(user, inside)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != value.name:
            return count_bytes(value.shape)
    return total


def bytes_written(program: Program, operation: Operation) -> int:
    """Return the bytes that a kernel writes: of an update in place the update alone, and no workspace."""
    inside = program.computations.get(operation.find(r"calls=%?([\w.\-]+)") or "", ())
    updates = [inner for inner in inside if inner.opcode == "dynamic-update-slice"]
    if operation.opcode == "fusion" and updates:
        shapes = {inner.name: inner.shape for inner in inside}
        return count_bytes(shapes[updates[0].operands[1]])
    shape = (
        re.sub(r"s8\[\d+\]", "", operation.shape) if "__cublas" in operation.attributes else operation.shape
    )
    return count_bytes(shape)
