"""Reading of the text of a compiled program: its kernels, loops and the bytes they move.

The text is XLA's optimised HLO, as `jax.stages.Compiled.as_text` returns it. Bytes are those of the operands
and results of kernels, as if nothing stayed in a cache. A slice counts only the bytes that it takes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4,
    "s64": 8, "u64": 8, "f64": 8, "token": 0, "opaque": 0,
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
        """Return the JAX functions and scopes that the operation comes from."""
        return self.find(r'op_name="([^"]*)"') or ""

    @property
    def is_kernel(self) -> bool:
        """Tell whether the operation starts a kernel; the end of an asynchronous one does not."""
        return self.opcode not in FREE | CONTROL and not self.opcode.endswith(("-done", "-update"))


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
    end = _find_closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].strip()
    start = rest.index("(")
    end = _find_closing(rest, start)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[start:end]))
    # A constant's or parameter's own text stands between the brackets.
    return Operation(name, shape, rest[:start], operands, rest[start:])


def _find_closing(text: str, start: int) -> int:
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
            for called, count in _find_called(program, operation, branch):
                yield from visit(called, times * count)

    return visit(program.entry, 1)


def measure_depth(program: Program, branch: int = 0) -> int:
    """Return the length of the longest chain of kernels each of which needs the one before it.

    All iterations of a loop are taken to follow one another, so it is an upper bound. Raises as `walk` does.
    """

    def visit(computation: str) -> int:
        depths: dict[str, int] = {}
        for operation in program.computations[computation]:
            longest_input = max((depths.get(operand, 0) for operand in operation.operands), default=0)
            inside = sum(count * visit(called) for called, count in _find_called(program, operation, branch))
            depths[operation.name] = longest_input + operation.is_kernel + inside
        return max(depths.values(), default=0)

    return visit(program.entry)


def _find_called(program: Program, operation: Operation, branch: int) -> list[tuple[str, int]]:
    """Return the computations that a control operation runs, and how often."""
    if operation.opcode == "while":
        body = operation.find(r"body=%?([\w.\-]+)")
        return [(body, _count_iterations(program, operation))] if body else []
    if operation.opcode == "conditional":
        branches = re.findall(r"%([\w.\-]+)", operation.find(r"branch_computations=\{([^}]*)\}") or "")
        if not branches:
            raise ValueError(f"the branches of {operation.name} are unknown")
        return [(branches[min(branch, len(branches) - 1)], 1)]
    if operation.opcode == "call" and (called := operation.find(r"to_apply=%?([\w.\-]+)")):
        return [(called, 1)]
    return []


def _count_iterations(program: Program, loop: Operation) -> int:
    """Return how often the body of a loop runs.

    A TPU's program does not say. Then the loop is one of `jax.lax.scan`, which counts from 0 and runs while
    its count is less than a constant.
    """
    if known := loop.find(r'known_trip_count[^}]*?"n":"(\d+)"'):
        return int(known)
    condition = program.computations[loop.find(r"condition=%?([\w.\-]+)") or ""]
    constants = {
        operation.name: operation.find(r"^\((\d+)\)")
        for operation in condition
        if operation.opcode == "constant" and operation.shape.startswith("s32[]")
    }
    comparisons = [operation for operation in condition if operation.opcode == "compare"]
    for comparison in comparisons:
        limit = constants.get(comparison.operands[-1])
        if len(comparisons) == 1 and limit and "direction=LT" in comparison.attributes:
            return int(limit)
    raise ValueError(f"the number of iterations of the loop {loop.name} is unknown")


def count_opcodes(program: Program, opcodes: Sequence[str]) -> int:
    """Count the operations of some kinds, also their asynchronous forms, in the whole program."""
    return sum(
        operation.opcode.removesuffix("-start") in opcodes
        for operations in program.computations.values()
        for operation in operations
    )


def collect_opcodes(program: Program, operation: Operation) -> set[str]:
    """Return the kinds of operations inside a kernel."""
    inside = program.computations.get(operation.find(r"calls=%?([\w.\-]+)") or "", ())
    return {operation.opcode}.union(*(collect_opcodes(program, inner) for inner in inside))


def is_product(program: Program, operation: Operation) -> bool:
    """Tell whether a kernel is a matrix product: a call of cuBLAS, or a fusion with a dot or convolution."""
    return "__cublas" in operation.attributes or bool(
        collect_opcodes(program, operation) & {"dot", "convolution"}
    )


def count_bytes(shape: str) -> int:
    """Return the bytes of an HLO shape, or of all shapes in a tuple.

    Raises:
      ValueError: if the size of a type is unknown.
    """
    total = 0
    for kind, dimensions in re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", re.sub(r"/\*.*?\*/", "", shape)):
        if kind not in BYTES:
            raise ValueError(f"the size of {kind} in {shape} is unknown")
        size = BYTES[kind]
        for dimension in filter(None, dimensions.split(",")):
            size *= int(dimension)
        total += size
    return total


def list_bytes_read(program: Program, kernel: Kernel) -> list[int]:
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
    return [
        min(size, _count_bytes_used(parameters[i], inside)) for i, size in enumerate(sizes) if i in parameters
    ]


def _count_bytes_used(value: Operation, inside: Sequence[Operation]) -> int:
    """Return the bytes that a fusion reads of one of its values."""
    total = 0
    for user in (other for other in inside if value.name in other.operands):
        if user.opcode in SLICES and user.operands[0] == value.name:
            total += count_bytes(user.shape)
        elif user.opcode in {"bitcast", "reshape"}:
            total += _count_bytes_used(user, inside)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != value.name:
            return count_bytes(value.shape)
    return total


def count_bytes_written(program: Program, kernel: Kernel) -> int:
    """Count the bytes that a kernel writes.

    An update in place counts only the updated part. A workspace does not count.
    """
    operation = kernel.operation
    if operation.opcode.endswith("-start"):
        # A tuple of the result, the operand and a state.
        first = re.match(r"\((.*?\})", operation.shape)
        return count_bytes(first[1] if first else operation.shape)
    if "__cublas" in operation.attributes:
        return count_bytes(re.sub(r"s8\[\d+\]", "", operation.shape))
    around = program.computations[kernel.computation]
    inside = program.computations.get(operation.find(r"calls=%?([\w.\-]+)") or "")
    if operation.opcode != "fusion" or not inside:
        return _count_output(operation, around)
    *_, root = inside
    named = {inner.name: inner for inner in inside}
    outputs = [named[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return sum(_count_output(output, inside) for output in outputs)


def _count_output(operation: Operation, around: Sequence[Operation]) -> int:
    """Count the bytes that one operation of a computation writes."""
    if operation.opcode != "dynamic-update-slice":
        return count_bytes(operation.shape)
    return sum(count_bytes(other.shape) for other in around if other.name == operation.operands[1])
