"""The serialisation format of Torch7 (`torch.save`), read as plain data: nothing in a file is ever executed.

The format is that of torch7's File.lua: each value is a type number and its content; tables, objects and functions
carry an index, by which later references (also cyclic ones) name them.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from types import GeneratorType

import numpy as np

from infold.errors import InvalidModelError

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN, _FUNCTION, _LEGACY_FUNCTION, _RECURSIVE_FUNCTION = range(9)
_MAX_DEPTH = 100_000  # nested values; the chain of nodes of a large nngraph network is some thousands deep
_MAX_DIMENSIONS = 32
_ELEMENTS = {
    "Byte": "u1",
    "Char": "i1",
    "Short": "i2",
    "Int": "i4",
    "Long": "i8",
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "": "f4",
}
_ARRAY_CLASS = re.compile(r"torch\.(?:Cuda)?(Byte|Char|Short|Int|Long|Float|Double|Half|)(Tensor|Storage)")

Parts = Generator[None, object, object]  # a value in the making: each yield asks for the next value of the file


class Table(dict):
    """A Lua table, equal only to itself. Keys are str, int (integral numbers), float, or compared by identity."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def sequence(self) -> list:
        """The values at 1, 2, 3, ... up to the first gap."""
        values = []
        while len(values) + 1 in self:
            values.append(self[len(values) + 1])
        return values

    def __repr__(self) -> str:
        return f"Table({len(self)} entries)"


@dataclass(eq=False, slots=True)
class Object:
    """An object of a Torch class, such as "nn.Linear"; `fields` is what the class wrote, nearly always a `Table`."""

    name: str
    version: int
    fields: object = None

    def __repr__(self) -> str:
        return f"Object({self.name})"


@dataclass(eq=False, slots=True)
class Function:
    """A Lua function: its bytecode, which is never run, and its upvalues."""

    bytecode: bytes
    upvalues: object = None

    def __repr__(self) -> str:
        return f"Function({len(self.bytecode)} bytes)"


@dataclass(eq=False, slots=True)
class Key:
    """A table key that Python would compare by value or refuse: a boolean or a tensor."""

    value: object


def read(data: bytes | memoryview) -> object:
    """Read the first value of a Torch7 file, binary (little-endian, 8- or 4-byte long) or ASCII.

    Returns:
        None, bool, int or float, str, `Table`, `Object`, `Function`; tensors of any rank and storages (rank 1) as
        read-only NumPy arrays that are views of `data` (of the file's own strides and offsets, which are checked).
    Raises:
        InvalidModelError: not a Torch7 file, truncated, or inconsistent; names the byte offset.
    """
    data = memoryview(data).cast("B").toreadonly()
    head = bytes(data[:4])
    if len(head) == 4 and int.from_bytes(head, "little") <= _RECURSIVE_FUNCTION:
        try:
            return _Reader(_Binary(data, "<i8")).value()
        except InvalidModelError:
            # The file may come from a machine with a 4-byte long; then it is read to its very end.
            source = _Binary(data, "<i4")
            try:
                value = _Reader(source).value()
            except InvalidModelError:
                value = None
            if value is None or source.left:
                raise
            return value
    if re.match(rb"\s*[0-8]\r?\n", head):
        return _Reader(_Ascii(data)).value()
    raise InvalidModelError("not a Torch7 file: it begins neither with a binary nor with an ASCII type number")


class _Binary:
    """Little-endian numbers, one after the other."""

    def __init__(self, data: memoryview, long: str) -> None:
        self.data, self.offset, self.long = data, 0, np.dtype(long)

    @property
    def left(self) -> int:
        return len(self.data) - self.offset

    def chars(self, count: int) -> bytes:
        return bytes(self._take(count))

    def numbers(self, dtype: np.dtype, count: int) -> np.ndarray:
        dtype = self.long if dtype == np.int64 else dtype
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def int(self) -> int:
        return int.from_bytes(self._take(4), "little", signed=True)

    def longs(self, count: int) -> list[int]:
        return self.numbers(self.long, count).tolist()

    def double(self) -> float:
        return float(np.frombuffer(self._take(8), "<f8")[0])

    def _take(self, count: int) -> memoryview:
        if not 0 <= count <= self.left:
            raise InvalidModelError(f"Torch7 file, byte {self.offset}: {count} bytes expected, {self.left} left")
        self.offset += count
        return self.data[self.offset - count : self.offset]


class _Ascii:
    """Numbers in lines, characters raw; one line break after each item belongs to it."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.offset = bytes(data), 0

    @property
    def left(self) -> int:
        return len(self.data) - self.offset

    def chars(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise InvalidModelError(f"Torch7 file, byte {self.offset}: {count} characters expected, {self.left} left")
        text = self.data[self.offset : self.offset + count]
        self.offset += count
        if count and self.data[self.offset : self.offset + 1] == b"\n":
            self.offset += 1
        return text

    def numbers(self, dtype: np.dtype, count: int) -> np.ndarray:
        if dtype.itemsize == 1:
            return np.frombuffer(self.chars(count), dtype)
        return self._parse(float if dtype.kind == "f" else int, dtype, count)

    def int(self) -> int:
        return int(self._parse(int, np.dtype("i4"), 1)[0])

    def longs(self, count: int) -> list[int]:
        return self._parse(int, np.dtype("i8"), count).tolist()

    def double(self) -> float:
        return float(self._parse(float, np.dtype("f8"), 1)[0])

    def _parse(self, kind: type, dtype: np.dtype, count: int) -> np.ndarray:
        """Read `count` numbers, which fill a line."""
        if count == 0:
            return np.zeros(0, dtype)
        end = self.data.find(b"\n", self.offset)
        end = len(self.data) if end < 0 else end
        words = self.data[self.offset : end].split()
        if len(words) != count:
            raise InvalidModelError(f"Torch7 file, byte {self.offset}: {count} numbers expected in this line, {len(words)} found")
        try:
            with np.errstate(over="ignore"):
                values = np.fromiter(map(kind, words), dtype, count)
        except (ValueError, OverflowError) as error:
            raise InvalidModelError(f"Torch7 file, byte {self.offset}: {error}") from None
        values.flags.writeable = False
        self.offset = end + 1 if end < len(self.data) else end
        return values


class _Reader:
    """Values from a source of numbers and characters. Nested values wait on a stack of their own, never on Python's."""

    def __init__(self, source: _Binary | _Ascii) -> None:
        self.source = source
        self.objects: dict[int, object] = {}

    def value(self) -> object:
        stack: list[Parts] = []
        value = self._begin()
        while True:
            if isinstance(value, GeneratorType):
                if len(stack) == _MAX_DEPTH:
                    raise self._invalid(f"values nested more than {_MAX_DEPTH} deep")
                stack.append(value)
                value = None
            elif not stack:
                return value
            try:
                stack[-1].send(value)
            except StopIteration as done:
                stack.pop()
                value = done.value
            else:
                value = self._begin()

    def _begin(self) -> object:
        """Read a value, or as much of it as comes before its parts."""
        kind = self.source.int()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            number = self.source.double()
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        if kind == _STRING:
            return self._string()
        if kind == _BOOLEAN:
            return self.source.int() == 1
        if kind == _FUNCTION:
            return self._function(None)
        if kind not in (_TABLE, _TORCH, _LEGACY_FUNCTION, _RECURSIVE_FUNCTION):
            raise self._invalid(f"unknown type number {kind}")
        index = self.source.int()
        if index in self.objects:
            return self.objects[index]
        if kind == _TABLE:
            return self._table(index)
        return self._object(index) if kind == _TORCH else self._function(index)

    def _string(self) -> str:
        return self.source.chars(self.source.int()).decode("utf-8", "backslashreplace")

    def _function(self, index: int | None) -> Parts:
        function = Function(self.source.chars(self.source.int()))
        if index is not None:
            self.objects[index] = function
        function.upvalues = yield
        return function

    def _table(self, index: int) -> Parts:
        table = self.objects[index] = Table()
        count = self.source.int()
        self._check_count(count, 4)  # a key and a value are at least two type numbers of two characters
        for _ in range(count):
            key = yield
            value = yield
            table[self._key(key)] = value
        return table

    def _object(self, index: int) -> Parts:
        name, version = self._string(), 0
        if match := re.fullmatch(r"V (\d{1,9})", name):
            name, version = self._string(), int(match[1])
        if array := _ARRAY_CLASS.fullmatch(name):
            dtype = np.dtype("<" + _ELEMENTS[array[1]])
            value = yield from (self._tensor(name, dtype) if array[2] == "Tensor" else self._storage(dtype))
            self.objects[index] = value
            return value
        result = self.objects[index] = Object(name, version)
        if name in ("tds.Hash", "tds.Vec"):
            result.fields = yield from self._tds(name)
        else:
            result.fields = yield
        return result

    def _tds(self, name: str) -> Parts:
        table, [count] = Table(), self.source.longs(1)
        self._check_count(count, 2)
        for position in range(count):
            key = (yield) if name == "tds.Hash" else position + 1
            value = yield
            table[self._key(key)] = value
        return table

    def _storage(self, dtype: np.dtype) -> Parts:
        yield from ()
        [count] = self.source.longs(1)
        self._check_count(count, 1)
        return self.source.numbers(dtype, count)

    def _tensor(self, name: str, dtype: np.dtype) -> Parts:
        start, rank = self.source.offset, self.source.int()
        if not 0 <= rank <= _MAX_DIMENSIONS:
            raise self._invalid(f"{name} of rank {rank}")
        shape, strides, [first] = self.source.longs(rank), self.source.longs(rank), self.source.longs(1)
        storage = yield
        if storage is not None and not (isinstance(storage, np.ndarray) and storage.ndim == 1 and storage.flags.c_contiguous):
            raise self._invalid(f"{name}, whose storage is none", start)
        if rank == 0:
            return np.zeros(0, dtype)
        if min(shape) < 0 or min(strides) < 0 or first < 1:
            raise self._invalid(f"{name} of shape {shape}, strides {strides}, offset {first}", start)
        if 0 in shape:
            storage, strides, first = np.zeros(1, dtype), [0] * rank, 1
        last = first + sum((size - 1) * stride for size, stride in zip(shape, strides))
        if storage is None or last > len(storage):
            raise self._invalid(
                f"{name} of shape {shape}, strides {strides}, offset {first} ends at element {last} "
                f"of a storage of {0 if storage is None else len(storage)}",
                start,
            )
        size = storage.itemsize
        try:
            return np.ndarray(shape, storage.dtype, storage, (first - 1) * size, [stride * size for stride in strides])
        except ValueError as error:
            raise self._invalid(f"{name} of shape {shape}: {error}", start) from None

    def _key(self, key: object) -> object:
        if key is None or (isinstance(key, float) and key != key):
            raise self._invalid("a table key that is nil or not a number")
        return Key(key) if isinstance(key, (bool, np.ndarray)) else key

    def _check_count(self, count: int, size: int) -> None:
        if not 0 <= count * size <= self.source.left:
            raise self._invalid(f"{count} elements, though {self.source.left} bytes are left")

    def _invalid(self, message: str, offset: int | None = None) -> InvalidModelError:
        return InvalidModelError(f"Torch7 file, byte {self.source.offset if offset is None else offset}: {message}")
