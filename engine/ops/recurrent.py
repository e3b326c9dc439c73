"""RNN, LSTM and GRU: the inputs of all time steps in one matrix product, then one step through time (drivers/recurrent.c)."""
from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from .. import _native
from ..errors import ShapeError
from ..plan.memory import round_up
from ..plan.tensor import TYPES, Tensor
from .base import NotNative, attr, op
from .elementwise import emit_binary
from .epilogue import Epilogue
from .matmul import times
from .product import pack_constant, pack_step, product, vector


class Kind(NamedTuple):
    """number: in drivers/recurrent.c; gates: of a cell; functions: the default activations of a direction."""

    number: int
    gates: int
    functions: tuple[str, ...]


KINDS = {"RNN": Kind(0, 1, ("Tanh",)), "LSTM": Kind(1, 4, ("Sigmoid", "Tanh", "Tanh")), "GRU": Kind(2, 3, ("Sigmoid", "Tanh"))}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
FUNCTIONS = {  # by lower-case name: act, defaults of alpha and beta as far as it has them
    "relu": ("RELU", ()), "tanh": ("TANH", ()), "sigmoid": ("SIGMOID", ()), "softsign": ("SOFTSIGN", ()),
    "softplus": ("SOFTPLUS", ()), "affine": ("LINEAR", (1.0, 0.0)), "scaledtanh": ("SCALED_TANH", (1.0, 1.0)),
    "leakyrelu": ("LEAKY_RELU", (0.01,)), "thresholdedrelu": ("THRESHOLDED_RELU", (1.0,)), "elu": ("ELU", (1.0,)),
    "hardsigmoid": ("HARD_SIGMOID", (0.2, 0.5)),
}


@op(*KINDS)
def recurrent(ctx, node) -> None:
    kind, batch_first = KINDS[node.op_type], attr(node, "layout", 0)
    values = dict(zip(("X", "W", "R", "B", "lengths", "h", "cell", "P"), node.inputs))
    given = {key: value for key, value in values.items() if value is not None and value.name}
    directions, hidden = DIRECTIONS[attr(node, "direction", "forward").lower()], ctx.shape(given["R"].name)[-1]
    steps, batch, size = _turned(ctx.shape(given["X"].name), batch_first)
    state = (batch, directions, hidden) if batch_first else (directions, batch, hidden)
    _require(ctx, node, given, {"W": (directions, kind.gates * hidden, size), "R": (directions, kind.gates * hidden, hidden),
                                "B": (directions, 2 * kind.gates * hidden), "lengths": (batch,), "h": state, "cell": state,
                                "P": (directions, 3 * hidden)})
    if 0 in (steps, batch, size, hidden):
        raise NotNative("an empty tensor")
    acts = _functions(node, kind, directions)
    within = bool(attr(node, "linear_before_reset", 0)) and node.op_type == "GRU"
    bias, inner = _biases(ctx, given.get("B"), directions, kind.gates, hidden, within)
    x = _project(ctx, node, given, bias, directions * kind.gates * hidden)
    weights = _packed(ctx, given["R"], hidden, hidden, directions * kind.gates)
    names = [value.name for value in node.outputs] + [""] * 3
    h, cell = (_state(ctx, given.get(key), name, state) for key, name in (("h", names[1]), ("cell", names[2])))
    y = ctx.output(names[0], image=False) if names[0] else None
    y_steps = (0, 0, 0, 0) if y is None else y.strides  # (T, D, B, H), or (B, T, D, H)
    numbers = [list(column) for column in zip(*acts)]
    ctx.emit(
        "recurrent",
        {"in": x, "w": weights.tensor, "bias": inner, "h": h, "cell": cell if node.op_type == "LSTM" else None, "out": y,
         "index": _lengths(ctx, given.get("lengths")), "peephole": ctx.rows(given["P"].name) if "P" in given else None,
         "stage": ctx.temporary((directions * batch, (kind.gates + 1) * hidden))},
        flops=2 * steps * batch * directions * kind.gates * hidden * hidden,
        kind=kind.number + within, steps=steps, batch=batch, directions=directions, hidden=hidden,
        backward=attr(node, "direction", "forward").lower() == "reverse", in_step=x.strides[batch_first],
        in_batch=x.strides[1 - batch_first], out_step=y_steps[batch_first], out_batch=y_steps[0 if batch_first else 2],
        out_direction=y_steps[2 if batch_first else 1], h_batch=h.strides[1 - batch_first], h_direction=h.strides[batch_first],
        w_gate=weights.stride, bias_direction=0 if inner is None else inner.strides[0], coupled=attr(node, "input_forget", 0),
        act=numbers[0], a=numbers[1], b=numbers[2], clip=attr(node, "clip", 0.0))


def _turned(shape, batch_first: int):
    """(steps, batch, size)"""
    if len(shape) != 3:
        raise ValueError(f"an input of shape {list(shape)}")
    return (shape[1], shape[0], shape[2]) if batch_first else shape


def _require(ctx, node, given: dict, shapes: dict) -> None:
    hidden = shapes["R"][-1]
    if attr(node, "hidden_size", hidden) != hidden:
        raise ShapeError(f"node {node.name!r} ({node.op_type}): hidden_size is {attr(node, 'hidden_size')}, but the weights"
                         f" {given['R'].name!r} are for {hidden}")
    for key, shape in shapes.items():
        if key in given and (found := ctx.shape(given[key].name)) != shape:
            raise ShapeError(f"node {node.name!r} ({node.op_type}): {key} ({given[key].name!r}) has the shape {list(found)},"
                             f" {list(shape)} expected")


def _functions(node, kind: Kind, directions: int) -> list[tuple[int, float, float]]:
    """(act, a, b) of the three functions of each direction. alpha and beta go, in order, to the functions that take them."""
    names = attr(node, "activations") or list(kind.functions) * directions
    if len(names) != len(kind.functions) * directions:
        raise ValueError(f"{len(names)} activations, {len(kind.functions) * directions} expected")
    left = [list(attr(node, f"activation_{name}") or []) for name in ("alpha", "beta")]
    acts = []
    for name in names:
        if name.lower() not in FUNCTIONS:
            raise NotNative(f"activation {name!r}")
        act, defaults = FUNCTIONS[name.lower()]
        numbers = [numbers.pop(0) if numbers else default for numbers, default in zip(left, defaults)]
        acts.append((_native.ACTS[act], *numbers, *[0.0] * (2 - len(numbers))))
    each, unused = len(kind.functions), (0, 0.0, 0.0)
    acts = [a for d in range(directions) for a in (*acts[d * each:(d + 1) * each], *[unused] * (3 - each))]
    return acts + [unused] * (6 - len(acts))


def _biases(ctx, value, directions: int, gates: int, hidden: int, within: bool) -> tuple[Tensor, Tensor | None]:
    """Wb + Rb of all gates side by side, and Rb of the last gate by itself if it belongs within the reset."""
    if value is None:
        return vector(ctx, None, directions * gates * hidden), None
    both = ctx.rows(value.name)
    room = ctx.temporary((round_up(directions * gates * hidden, ctx.lanes),))

    def some(t: Tensor, stride: int, first: int, count: int) -> Tensor:
        return t.view((directions, count * hidden), (stride, 1), first * hidden)

    def of(source: int, first: int, count: int) -> Tensor:
        return some(both, 2 * gates * hidden, source * gates + first, count)

    summed = gates - within
    emit_binary(ctx, "ADD", of(0, 0, summed), of(1, 0, summed), some(room, gates * hidden, 0, summed))
    if not within:
        return room, None
    ctx.copy(of(0, summed, 1), some(room, gates * hidden, summed, 1))
    inner = ctx.temporary((directions, round_up(hidden, ctx.lanes)))
    ctx.copy(of(1, summed, 1), inner.view((directions, hidden), inner.strides))
    return room, inner


def _packed(ctx, value, k: int, columns: int, groups: int = 1):
    """Panels of `groups` matrices that lie one behind the other, each of `columns` rows of k elements."""
    layout = ((k,), (1,), columns, k, groups, columns * k)
    array = ctx.constant_value(value)
    return pack_step(ctx, ctx.rows(value.name), *layout) if array is None else pack_constant(
        ctx, ctx.key(value.name), array, *layout)


def _project(ctx, node, given: dict, bias: Tensor, columns: int) -> Tensor:
    """X times W of all gates and directions, in X's order of time and batch."""
    x = ctx.tensor(given["X"].name)
    if x.strides[-1] != 1 and x.shape[-1] != 1:
        x = ctx.rows(given["X"].name)
    out, weight = ctx.temporary((*x.shape[:2], columns)), ctx.constant_value(given["W"])
    emit = partial(product, ctx, x, bias=bias, out=out, taps=[0], pixels=[1, *x.shape[:2]], x_stride=[0, *x.strides[:2]],
                   out_stride=[0, *out.strides[:2]], k=x.shape[-1], epilogue=Epilogue(""))
    if weight is None:
        emit(_packed(ctx, given["W"], x.shape[-1], columns))
    else:
        times(ctx, node, given["W"].name, weight.reshape(columns, -1), True, x.size // x.shape[-1], emit)
    return out


def _state(ctx, value, name: str, shape) -> Tensor:
    """Memory that holds the state through all steps, from the initial one on."""
    state = ctx.output(name, image=False) if name else ctx.temporary(shape)
    if value is None:
        ctx.fill(state, 0.0)
    else:
        ctx.copy(ctx.tensor(value.name), state)
    return state


def _lengths(ctx, value) -> Tensor | None:
    if value is None:
        return None
    lengths = ctx.tensor(value.name)
    wide = ctx.temporary(lengths.shape, np.int64)
    ctx.map(f"CAST_{TYPES[lengths.dtype]}_i64", [lengths], wide)
    return wide
