"""Steps of a plan before memory is known, and their assembly into a native `Program`."""
from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from typing import NamedTuple

from .. import _native
from ..errors import NativeError
from .tensor import Buffer, Tensor

STATUS = {1: "a parameter is out of range", 2: "an address lies outside its buffer", 3: "a buffer is missing"}


class Field(NamedTuple):
    name: str
    count: int  # 0 for a single number
    code: str   # struct code: q int64, d double


@dataclass(eq=False)
class Operation:
    """One C operation: its number, parameter fields in struct order, and argument names (True: optional)."""

    index: int
    name: str
    fields: tuple[Field, ...]
    args: dict[str, bool]

    def pack(self, values: dict) -> bytes:
        """The parameter struct. Fields that are not given are zero; an unknown or wrongly sized one is an error."""
        numbers = []
        for f in self.fields:
            value = values.get(f.name, 0)
            if not f.count or not hasattr(value, "__len__"):
                numbers += [value] * (f.count or 1)
            elif len(value) == f.count:
                numbers += value
            else:
                raise NativeError(f"{self.name}.{f.name} takes {f.count} numbers, got {value!r}")
        if unknown := values.keys() - self.names:
            raise NativeError(f"{self.name} has no parameters {sorted(unknown)}")
        return self.layout.pack(*numbers)

    def unpack(self, params: bytes) -> dict[str, tuple]:
        """The numbers of each parameter; nothing if the struct has not its size."""
        if len(params) != self.layout.size:
            return {}
        numbers = iter(self.layout.unpack(params))
        return {f.name: tuple(islice(numbers, max(f.count, 1))) for f in self.fields}

    @cached_property
    def names(self) -> set[str]:
        return {f.name for f in self.fields}

    @cached_property
    def layout(self) -> struct.Struct:
        return struct.Struct("=" + "".join(f"{max(f.count, 1)}{f.code}" for f in self.fields))


@cache
def operations() -> dict[str, Operation]:
    out = {}
    for name, (index, params, args, _) in _native.operations().items():
        fields = []
        for word in params.split():
            word, _, kind = word.partition(":")
            base, _, count = word.rstrip("]").partition("[")
            fields.append(Field(base, int(count or 0), "d" if kind == "f" else "q"))
        out[name] = Operation(index, name, tuple(fields), {a.rstrip("?"): a.endswith("?") for a in args.split()})
    return out


@dataclass(eq=False)
class Step:
    """A prepared call of a C operation; `node` names the ONNX node it came from. `section` and `track`: see `Program.append`."""

    op: Operation
    params: bytes
    args: list[Tensor | None]
    node: str
    flops: int = 0
    section: int = 0
    track: int = 0

    def touch(self, index: int) -> None:
        for tensor in self.tensors():
            tensor.buffer.touch(index)

    def tensors(self) -> list[Tensor]:
        """What the step reads and writes in memory."""
        return [t for t in self.args if t is not None]


def make_step(op_name: str, args: dict[str, Tensor | None], params: dict, node: str, flops: int = 0) -> Step:
    op = operations()[op_name]
    missing = [a for a, optional in op.args.items() if not optional and args.get(a) is None]
    if missing or args.keys() - op.args.keys():
        raise NativeError(f"{op_name} at {node!r}: arguments {list(args)} do not fit {list(op.args)}")
    return Step(op, op.pack(params), [args.get(a) for a in op.args], node, flops)


def place(buffer: Buffer, offset: int) -> tuple:
    """A buffer as `Program.append` takes it."""
    if buffer.kind == "const":
        return buffer.array, offset
    return buffer.region, buffer.offset + offset


def assemble(isa: str, steps: list[Step], region_bytes: list[int]) -> _native.Program:
    """The native program of the steps. Raises NativeError if an operation refuses its parameters."""
    program = _native.Program(isa, region_bytes)
    for step in steps:
        args = [None if t is None else place(t.buffer, t.offset) for t in step.args]
        status = program.append(step.op.index, step.params, args, step.section, step.track)
        if status:
            raise NativeError(f"{step.op.name} at node {step.node!r}: {STATUS[status]}")
    return program
