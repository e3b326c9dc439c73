"""Runs one C operation on buffers that touch unmapped pages, so that one element too far is a crash and not luck."""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest

from infold import _native
from infold.plan.program import operations

OPERATIONS = _native.operations()
PAGE = mmap.PAGESIZE
_POISON = 0xA5
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """A copy of an array that ends (side="end") or starts (side="start") exactly at an unmapped page."""

    def __init__(self, data: np.ndarray, side: str) -> None:
        data = np.ascontiguousarray(data)
        inner = max(1, -(-data.nbytes // PAGE)) * PAGE
        self._memory = mmap.mmap(-1, inner + 2 * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        whole = np.frombuffer(self._memory, np.uint8, inner, PAGE)
        whole[:] = _POISON
        begin = inner - data.nbytes if side == "end" else 0
        self._slack = whole[: inner - data.nbytes] if side == "end" else whole[data.nbytes :]
        self.array = whole[begin : begin + data.nbytes].view(data.dtype).reshape(data.shape)
        self.array[...] = data
        for guard in (base, base + PAGE + inner):
            if _libc.mprotect(guard, PAGE, 0) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def intact(self) -> bool:
        """Nothing was written to the rest of the mapped pages."""
        return bool((self._slack == _POISON).all())


def pack(op: str, params: dict) -> bytes:
    """Bytes of the operation's parameter struct; fields left out are zero, unknown ones are an error."""
    return operations()[op].pack(params)


def arguments(op: str) -> list[tuple[str, bool]]:
    """(name, optional) of the operation's arguments in order."""
    return list(operations()[op].args.items())


def prepare(op: str, isa: str, params: dict, arrays: dict, side: str = "end", constants=(), offsets=None):
    """(status of `check`, program, guarded buffers, their names). `offsets`: elements from buffer start to pointer."""
    offsets = offsets or {}
    guarded = {name: Guarded(a, side) for name, a in arrays.items()}
    names = [name for name in guarded if name not in constants]
    program = _native.Program(isa, [guarded[name].array.nbytes for name in names])
    args = []
    for name, _ in arguments(op):
        if name not in guarded:
            args.append(None)
            continue
        byte = offsets.get(name, 0) * guarded[name].array.itemsize
        args.append((guarded[name].array if name in constants else names.index(name), byte))
    assert set(guarded) <= {name for name, _ in arguments(op)}, f"{op} takes {arguments(op)}, not {list(guarded)}"
    return program.append(OPERATIONS[op][0], pack(op, params), args), program, guarded, names


def run(op: str, isa: str, params: dict, *, threads: int = 1, side: str = "end", constants=(), offsets=None, **arrays):
    """Run one step on guarded copies of the arrays; the copies come back by name."""
    status, program, guarded, names = prepare(op, isa, params, arrays, side, constants, offsets)
    assert status == 0, f"{op} refused with status {status}: {params}"
    program.run([guarded[name].array for name in names], threads)
    for name, g in guarded.items():
        assert g.intact(), f"{op} wrote outside {name}"
    return {name: g.array.copy() for name, g in guarded.items()}


def refusal(op: str, isa: str, params: dict, *, constants=(), offsets=None, **arrays) -> int:
    """The status with which the operation's `check` answers."""
    return prepare(op, isa, params, arrays, "end", constants, offsets)[0]


def refused(by_status: dict[int, list[dict]]) -> pytest.MarkDecorator:
    """Parametrises a test by `change` of legal parameters and the `status` with which `check` answers it (0: legal still)."""
    return pytest.mark.parametrize(("change", "status"), [(change, status) for status, changes in by_status.items()
                                                          for change in changes])


def dims(values, count: int, fill: int) -> list[int]:
    """Left-pad a shape (fill 1) or strides (fill 0) to `count` dimensions."""
    values = [int(v) for v in values]
    return [fill] * (count - len(values)) + values


def strides(a: np.ndarray) -> list[int]:
    """Strides in elements."""
    return [s // a.itemsize for s in a.strides]


def rows(x: np.ndarray) -> dict:
    """Parameters of an operation on the rows (the last dimension) of x, whose result is laid out as x is."""
    steps = dims(strides(x)[:-1], 4, 0)
    return {"n": dims(x.shape[:-1], 4, 1), "in_stride": steps, "out_stride": steps}


def elements(out: np.ndarray, **operands: np.ndarray) -> dict:
    """Parameters of an operation on the elements of operands, which may be views, by name: `a_stride` of `a`."""
    return {"shape": dims(out.shape, 6, 1),
            **{f"{name}_stride": dims(strides(view), 6, 0) for name, view in {**operands, "out": out}.items()}}


def ulps(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Error in units of the last place of float32; 0 where both are the same infinity or both NaN, inf where one is."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    with np.errstate(all="ignore"):
        rounded = expected.astype(np.float32)
        top = np.abs(rounded) == np.inf  # the reference overflows: accept the largest finite number too
        unit = np.spacing(np.where(np.isfinite(rounded), np.abs(rounded), np.finfo(np.float32).max)).astype(np.float64)
        error = np.abs(got - expected) / unit
        error = np.where(np.isfinite(got) & np.isfinite(rounded), error, np.inf)
    same = (got == rounded) | (np.isnan(got) & np.isnan(expected))
    near = top & (np.abs(got) == np.finfo(np.float32).max) & (np.sign(got) == np.sign(rounded))
    return np.where(same | near, 0.0, error)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)
