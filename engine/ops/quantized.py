"""Quantised operators, as compositions: float32 computes with their integers without rounding as long as sums stay below 2^24."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .base import NotNative, attr, counted
from .composed import Body, composed

EXACT, LARGEST = 1 << 24, 255  # below this float32 has all integers; difference of two numbers of 8 bits
BYTES = (np.int8, np.uint8)


def _along(b: Body, index: int) -> ir.Value | None:
    """The scale or zero point, float32, shaped to be broadcast along its axis, or repeated for each block."""
    if not b.given(index):
        return None
    value, shape, x_shape = b.cast(b.inputs[index], np.float32), b.facts[index].shape, b.facts[0].shape
    block, axis = attr(b.node, "block_size", 0), attr(b.node, "axis", 1)
    if not block and int(np.prod(shape)) == 1:
        return b("Reshape", value, b.ints())
    axis = counted(axis, len(x_shape))
    if not block:
        return b("Reshape", value, b.ints(*(-1 if d == axis else 1 for d in range(len(x_shape)))))
    if len(shape) != len(x_shape) or any((-(-n // block) if d == axis else n) != m for d, (n, m) in enumerate(zip(x_shape, shape))):
        raise ValueError(f"scales of shape {list(shape)} for {list(x_shape)} in blocks of {block}")
    lead, behind = shape[:axis + 1], shape[axis + 1:]
    value = b("Expand", b("Reshape", value, b.ints(*lead, 1, *behind)), b.ints(*lead, block, *behind))
    value = b("Reshape", value, b.ints(*lead[:-1], lead[-1] * block, *behind))
    return b("Slice", value, b.ints(0), b.ints(x_shape[axis]), b.ints(axis))


def _rounded(b: Body, x: ir.Value, zero: ir.Value | None, to: np.dtype) -> ir.Value:
    """x, float32, plus the zero point, as the nearest integer that `to` has."""
    if to not in (*BYTES, np.int16, np.uint16):
        raise NotNative(f"numbers of {to}")
    x = b("Round", x)
    x = x if zero is None else b("Add", x, zero)
    return b.cast(b("Clip", x, *(b.constant(np.float32(n)) for n in (np.iinfo(to).min, np.iinfo(to).max))), to)


@composed("QuantizeLinear")
def quantize(b: Body) -> ir.Value:
    scale, zero = _along(b, 1), _along(b, 2)
    to = b.facts[2].dtype if b.given(2) else ir.DataType(attr(b.node, "output_dtype") or ir.DataType.UINT8).numpy()
    if b.facts[0].dtype != np.float32:
        raise NotNative(f"numbers of {to} from {b.facts[0].dtype}")
    return _rounded(b, b("Div", b.inputs[0], scale), zero, to)


@composed("DequantizeLinear")
def dequantize(b: Body) -> ir.Value:
    scale, zero = _along(b, 1), _along(b, 2)
    if b.facts[1].dtype != np.float32:
        raise NotNative(f"scales of {b.facts[1].dtype}")
    x = b.cast(b.inputs[0], np.float32)
    return b("Mul", x if zero is None else b("Sub", x, zero), scale)


def _shifted(b: Body, index: int, zero: int, shape: tuple[int, ...]) -> ir.Value:
    """The input less its zero point, one for all or as many as the shape says, float32; a constant if both are."""
    if b.facts[index].dtype not in BYTES:
        raise NotNative(f"numbers of {b.facts[index].dtype}")
    x = b.facts[index].value
    if x is not None and (not b.given(zero) or b.facts[zero].value is not None):
        z = b.facts[zero].value.astype(np.float32) if b.given(zero) else np.zeros(1, np.float32)
        return b.constant(x.astype(np.float32) - z.reshape(shape if z.size > 1 else ()))
    x = b.cast(b.inputs[index], np.float32)
    if not b.given(zero):
        return x
    size = int(np.prod(b.facts[zero].shape))
    return b("Sub", x, b("Reshape", b.cast(b.inputs[zero], np.float32), b.ints(*(shape if size > 1 else ()))))


def _sum_of_products(b: Body, x: ir.Value, w: ir.Value, axes: tuple[int, ...], terms: int,
                     product: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
    """The product, int32. x is taken apart into as many digits as it takes for float32 to hold the sums.

    axes: of w, those summed over; terms: how many numbers there are along these.
    """
    known = w.producer().attributes.get("value") if w.producer() is not None else None
    most = LARGEST * terms if known is None else int(np.abs(known.value.numpy()).sum(axes).max(initial=0))
    bits = next((bits for bits in (8, 4, 2, 1) if most << bits <= EXACT), None)
    if bits is None:
        raise NotNative(f"sums of {terms} products")
    total, rest = None, x
    for shift in range(0, 8, bits):
        digit = rest
        if shift + bits < 8:  # the last digit has the sign
            rest = b("Floor", b("Mul", rest, b.constant(np.float32(2.0 ** -bits))))
            digit = b("Sub", digit, b("Mul", rest, b.constant(np.float32(1 << bits))))
        made = product(digit, w)
        made.producer().meta["exact"] = True
        made = b.cast(made, np.int32)
        made = b("Mul", made, b.constant(np.int32(1 << shift))) if shift else made
        total = made if total is None else b("Add", total, made)
    return total


def _matmul(b: Body, x: int, x_zero: int, w: int, w_zero: int) -> ir.Value:
    rank = len(b.facts[w].shape)
    if rank < 2 or len(b.facts[x].shape) < 2:
        raise NotNative("a vector operand")
    left, right = _shifted(b, x, x_zero, (-1, 1)), _shifted(b, w, w_zero, (1, -1))
    return _sum_of_products(b, left, right, (rank - 2,), b.facts[w].shape[-2], lambda x, w: b("MatMul", x, w))


def _conv(b: Body, x: int, x_zero: int, w: int, w_zero: int) -> ir.Value:
    shape = b.facts[w].shape
    attributes = {name: attr(b.node, name) for name in b.node.attributes}
    left, right = _shifted(b, x, x_zero, ()), _shifted(b, w, w_zero, (-1, *[1] * (len(shape) - 1)))
    return _sum_of_products(b, left, right, tuple(range(1, len(shape))), int(np.prod(shape[1:])),
                            lambda x, w: b("Conv", x, w, **{"kernel_shape": shape[2:], **attributes}))


@composed("MatMulInteger")
def matmul_integer(b: Body) -> ir.Value:
    return _matmul(b, 0, 2, 1, 3)


@composed("ConvInteger")
def conv_integer(b: Body) -> ir.Value:
    return _conv(b, 0, 2, 1, 3)


@composed("QLinearMatMul")
def qlinear_matmul(b: Body) -> ir.Value:
    return _requantized(b, _matmul(b, 0, 2, 3, 5), (1, -1))


@composed("QLinearConv")
def qlinear_conv(b: Body) -> ir.Value:
    by_filter = (-1, *[1] * (len(b.facts[0].shape) - 2))
    total = _conv(b, 0, 2, 3, 5)
    if b.given(8):
        total = b("Add", total, b("Reshape", b.inputs[8], b.ints(*by_filter)))
    return _requantized(b, total, by_filter)


def _requantized(b: Body, total: ir.Value, by_filter: tuple[int, ...]) -> ir.Value:
    """The sums times the scales of both factors (inputs 1 and 4) over that of the result (6), which input 7 shifts."""
    if any(b.facts[i].dtype != np.float32 or (i != 4 and int(np.prod(b.facts[i].shape)) != 1) for i in (1, 4, 6)):
        raise NotNative("scales by row")
    one, other, result = (b("Reshape", b.inputs[i], b.ints(*(by_filter if int(np.prod(b.facts[i].shape)) > 1 else ())))
                          for i in (1, 4, 6))
    scaled = b("Mul", b.cast(total, np.float32), b("Div", b("Mul", one, other), result))
    return _rounded(b, scaled, b("Reshape", b.cast(b.inputs[7], np.float32), b.ints()), b.facts[7].dtype)
