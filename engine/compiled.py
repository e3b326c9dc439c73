"""Compiled models, `.infold`, read: packed weights and plans, mapped and ready, and the folded model itself for all other cases.

The file is a preamble (magic, length of the header, SHA-256 of the header), the header (JSON) and a body of arrays, each on a cache
line. Nothing in it is executed or trusted: a step enters a Program only through the `check` of its operation, which proves that it
stays inside its buffers, results are never directed at constants or inputs, and tables whose contents are addresses are copied
before they are checked, since a mapped file may still change. docs/compile.md describes the format.
"""
from __future__ import annotations

import base64
import json
import mmap
import os
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import __version__, _native
from .errors import Error, InvalidModelError, MemoryLimitError, NativeError, UnsupportedError
from .files import sha256
from .plan.plan import Plan, deliver, execute, plan_key
from .plan.program import Step, assemble, operations
from .plan.tensor import Buffer, Tensor
from .ports import Port
from .report.fold import FoldItem, FoldReport

MAGIC, FORMAT = b"INFOLD\r\n", 2
PREAMBLE = struct.Struct("<8sQ32s")  # magic, bytes of the header, its SHA-256
LINE, PAGE = 64, 4096
MAX_HEADER = 1 << 28
SMALL = 1 << 16  # bytes of an array that is copied rather than mapped
# Arguments that an operation only reads; all others must lie in the arena or in an output.
READ = frozenset(("in", "w", "bias", "tap", "res", "slope", "scale", "shift", "in_scale", "in_shift", "a", "b", "c", "x", "gamma",
                  "beta", "v", "floor", "row", "row_weight", "column", "column_weight", "index", "peephole",
                  "boxes", "scores", "rois", "grid"))

BYTES = frozenset(("map", "gather", "scatter", "fill"))  # operations on elements of any size
IMAGES = frozenset(("in", "out", "res"))  # arguments of 2-byte numbers in steps on images of bf16 numbers
TABLES = frozenset(("tap", "row", "column", "index"))  # arguments of 8-byte numbers


def is_compiled(source: object) -> bool:
    """Whether the source is the path of a compiled model, by its suffix."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).lower().endswith(".infold")


def machine(isa: str) -> dict:
    """What must be equal where a file was compiled and where it runs."""
    numbers = [_native.ACTS, _native.BINARIES, _native.REDUCTIONS, _native.LOOPS]  # that parameters name functions by
    interface = repr([(name, *facts[1:]) for name, facts in sorted(_native.operations().items())] + numbers)
    return {"infold": __version__, "isa": isa, "kernels": _native.isa_info(isa), "byteorder": sys.byteorder,
            "operations": sha256(interface.encode()).hexdigest()}


class CompiledFile:
    """A checked header over a mapped body.

    Raises:
        InvalidModelError: not a compiled model, truncated, or its contents contradict one another.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < PREAMBLE.size:
                    raise InvalidModelError(f"{self.path}: not a compiled model, or truncated")
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InvalidModelError(f"{self.path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        try:
            self._read(size)
        except Error as error:
            raise type(error)(f"{self.path}: {error}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise InvalidModelError(f"{self.path}: malformed: {error!r}") from error

    def _read(self, size: int) -> None:
        magic, length, digest = PREAMBLE.unpack_from(self._file)
        if magic != MAGIC:
            raise InvalidModelError("not a compiled model")
        if length > min(size - PREAMBLE.size, MAX_HEADER):
            raise InvalidModelError(f"truncated: a header of {length} bytes in a file of {size}")
        text = self._file[PREAMBLE.size:PREAMBLE.size + length]
        if sha256(text).digest() != digest:
            raise InvalidModelError("the header does not fit its checksum")
        self.header = header = json.loads(text)
        if header["format"] != FORMAT:
            raise UnsupportedError(f"format {header['format']!r}; this version reads {FORMAT}")
        self.arrays = self._arrays(header["arrays"], PREAMBLE.size + length, size)
        self.inputs, self.outputs = ({port.name: port for port in map(_port_of, header[key])} for key in ("inputs", "outputs"))
        self.output_names = [str(entry["name"]) for entry in header["outputs"]]
        self.isa = str(header["machine"]["isa"])
        self.precision = str(header["precision"])
        self.folds = FoldReport([FoldItem(*(item[key] for key in ("name", "verdict", "into", "reason")))
                                 for item in header["folds"]["items"]], _number(header["folds"]["remaining"], 1 << 31))
        model = header["model"]
        self.model = None if model is None else self.arrays[_number(model, len(self.arrays))].data

    def _arrays(self, places: list, start: int, size: int) -> list[np.ndarray]:
        whole, end, out = np.frombuffer(self._file, np.uint8), start, []
        for first, count in places:
            first = _number(first, size) + start
            if start % LINE or first % LINE or first < end or _number(count, size + 1) > size - first:
                raise InvalidModelError(f"truncated, or an array of {count} bytes at {first} overlaps another")
            end = first + count
            out.append(whole[first:end])
        return out

    def misfit(self, isa: str) -> str | None:
        """Why the plans cannot run here; None if they can."""
        here, there = machine(isa), self.header["machine"]
        differing = [key for key in here if here[key] != there.get(key)]
        if not differing:
            return None
        return f"compiled for {there.get(differing[0])!r} ({differing[0]}), this is {here[differing[0]]!r}"

    def plans(self) -> dict[tuple, Plan]:
        """The plans by the keys of their feeds. Raises InvalidModelError if one of them is not sound."""
        copies: dict[int, np.ndarray] = {}
        try:
            return dict(self._plan(plan, copies) for plan in self.header["plans"])
        except NativeError as error:
            raise InvalidModelError(f"{self.path}: {error}") from error
        except (ArithmeticError, LookupError, AttributeError, TypeError, ValueError, MemoryError) as error:
            raise InvalidModelError(f"{self.path}: malformed: {error!r}") from error

    def _plan(self, plan: dict, copies: dict[int, np.ndarray]) -> tuple[tuple, Plan]:
        feeds = {name: np.broadcast_to(np.zeros((), port.dtype), _shape(plan["feeds"][name]))
                 for name, port in self.inputs.items()}
        outputs = {str(name): (_shape(shape), _dtype(dtype)) for name, shape, dtype in plan["outputs"]}
        inputs = [name for name in plan["inputs"] if feeds[name] is not None]
        constants = {str(name): _array(self.arrays[_number(at, len(self.arrays))], shape, dtype)
                     for name, shape, dtype, at in plan["constants"]}
        if missing := set(self.outputs) - outputs.keys() - constants.keys():
            raise InvalidModelError(f"the output {sorted(missing)[0]!r} is missing")
        regions = [_number(plan["arena"], 1 << 46), *(feeds[name].nbytes for name in inputs)]
        writable = {0, *range(len(regions), len(regions) + len(outputs))}
        regions += [_bytes(shape, dtype) for shape, dtype in outputs.values()]
        buffers: dict[int, Buffer] = {i: Buffer("region", n, region=i) for i, n in enumerate(regions)}

        def argument(name: str, place: list | None, unit: int) -> Tensor | None:
            if place is None:
                return None
            at, offset = place
            if at not in buffers or type(at) is not int:
                number = _number(-1 - at, len(self.arrays))
                buffers[at] = Buffer("const", self.arrays[number].nbytes, self._constant(number, copies))
            if name not in READ and at not in writable:
                raise InvalidModelError(f"a step writes its {name!r} where it must not")
            if _number(offset, 1 << 46) % (8 if name in TABLES else unit):
                raise InvalidModelError(f"a step has its {name!r} at the odd offset {offset}")
            return Tensor(buffers[at], (), (), np.dtype(np.float32), offset)

        steps = []
        for name, params, args, node, flops, section, track in plan["steps"]:
            op = operations()[name]
            if section and "index" in op.args:  # an index from memory must not change between its test and its use
                raise InvalidModelError(f"a step of {name} beside others")
            params = base64.b64decode(params, validate=True)
            half = any(any(numbers) for field, numbers in op.unpack(params).items() if field.endswith("half"))
            tensors = [argument(arg, place, 1 if name in BYTES else 2 if half and arg in IMAGES else 4)
                       for arg, place in zip(op.args, args, strict=True)]
            if any(t is None and not optional for t, optional in zip(tensors, op.args.values())):
                raise InvalidModelError(f"a step of {name} lacks an argument")
            steps.append(Step(op, params, tensors, str(node), _number(flops, 1 << 62),
                              _number(section, 1 << 31), _number(track, 1 << 31)))
        program = assemble(self.isa, steps, regions)
        return plan_key(feeds), Plan(program, steps, inputs, outputs, [], constants, regions[0], {})

    def _constant(self, number: int, copies: dict[int, np.ndarray]) -> np.ndarray:
        """The array as a step takes it: small ones are copied, and only of those may a check read the contents."""
        array = self.arrays[number]
        if array.nbytes > SMALL:
            return array
        if number not in copies:
            copies[number] = np.frombuffer(_native.Arena(max(array.nbytes, 1)), np.uint8)[:array.nbytes]
            copies[number][:] = array
        return copies[number]


def _number(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise InvalidModelError(f"{value!r} where a number from 0 to {limit - 1} must be")
    return value


def _shape(dims: list) -> tuple[int, ...]:
    return tuple(_number(dim, 1 << 46) for dim in dims)


def _dtype(name: str) -> np.dtype:
    dtype = np.dtype(name if isinstance(name, str) else "?!")
    if dtype.kind not in "fiub":
        raise InvalidModelError(f"data type {name!r}")
    return dtype


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    size = dtype.itemsize
    for dim in shape:
        size = _number(size * dim, 1 << 46)
    return size


def _array(raw: np.ndarray, shape: list, dtype: str) -> np.ndarray:
    if raw.nbytes != _bytes(_shape(shape), _dtype(dtype)):
        raise InvalidModelError(f"a constant of {raw.nbytes} bytes does not fit its shape {shape}")
    return raw.view(_dtype(dtype)).reshape(shape)


def _port_of(port: dict) -> Port:
    dims = port["dims"]
    if dims is not None:
        dims = tuple(_number(d, 1 << 46) if isinstance(d, int) else None if d is None else str(d) for d in dims)
    return Port(str(port["name"]), str(port["type"]), True, _dtype(port["dtype"]), dims)


class CompiledRunner:
    """Runs the plans of a file; for other shapes, what `rebuild` makes of the model in it."""

    def __init__(self, file: CompiledFile, rebuild: Callable[[str], Any], max_memory: int | None) -> None:
        self._plans, self._rebuild = file.plans(), rebuild
        most = max((plan.arena_bytes for plan in self.plans), default=0)
        if max_memory is not None and most + self.weight_bytes > max_memory:
            raise MemoryLimitError(f"{file.path}: needs {most} bytes of arena and {self.weight_bytes} bytes of weights; "
                                   f"max_memory is {max_memory}")

    @property
    def plans(self) -> list[Plan]:
        return list(self._plans.values())

    @property
    def weight_bytes(self) -> int:
        """Bytes of the constants that the plans use."""
        buffers = {id(t.buffer.array): t.buffer.nbytes for p in self.plans for s in p.steps for t in s.args
                   if t is not None and t.buffer.kind == "const"}
        return sum(buffers.values())

    def has_plan(self, feeds: dict[str, object]) -> bool:
        """Whether the file has a plan for the shapes of these feeds."""
        return plan_key(feeds) in self._plans

    def run(self, feeds: dict[str, object], threads: int, seconds: dict | None = None,
            out: Mapping[str, np.ndarray] | None = None) -> dict[str, object]:
        plan = self._plans.get(plan_key(feeds))
        if plan is None:
            return self._rebuild(f"no plan for the shapes {[np.shape(v) for v in feeds.values()]}").run(
                feeds, threads, seconds, out)
        return deliver(execute(plan, feeds, {}, threads, seconds, out), out)
