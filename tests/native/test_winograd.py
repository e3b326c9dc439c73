"""The Winograd operation between unmapped pages: tiles over every edge, channel tails, strides, epilogues, threads."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import normal, refusal, refused, run, strides
from test_conv import close, epilogue, packed, whole_vectors
from test_unary import FUNCTIONS

from infold import _native
from infold.ops.conv_winograd import POINTS, filter_transform

F32 = np.float32
CONSTANTS = ("w", "bias", "slope")


def transformed(w: np.ndarray, side: int, isa: str) -> np.ndarray:
    """G w G^T in float64, rounded once: for each position the panels of its matrix, channels x filters."""
    g = np.array(filter_transform(side), np.float64)
    matrices = np.einsum("ai,bj,mcij->abcm", g, g, w.astype(np.float64)).astype(F32)
    return np.concatenate([packed(matrix, isa) for row in matrices for matrix in row])


@pytest.mark.parametrize("sides", [2, 4])
@pytest.mark.parametrize("channels", [1, 7, 19])
def test_filters_are_transformed_and_packed(sides, channels, isa, side):
    rng, lanes = np.random.default_rng(5), _native.isa_info(isa)["lanes"]
    g = [float(x) for row in filter_transform(sides) for x in row]
    for columns in (1, 3, lanes, lanes + 1, 4 * lanes + 3):
        w = normal(rng, columns, channels, 3, 3)
        expected = transformed(w, sides, isa)
        params = {"side": sides, "k": channels, "columns": columns, "out_group": expected.size // (sides + 2) ** 2,
                  "g": g + [0.0] * (18 - len(g))}  # fmt: skip
        for threads in (1, 2):
            out = np.full(expected.shape, 9, F32)
            got = run("pack_winograd", isa, params, **{"in": w}, out=out, threads=threads, side=side)["out"]
            np.testing.assert_array_max_ulp(got, expected, 1)
            assert (got == expected).mean() > 0.99  # another order of a float64 sum hardly ever rounds otherwise


@refused({
    0: [{}],
    1: [{"side": 3}, {"k": -1}, {"columns": -1}, {"columns": 2**62, "k": 0}, {"k": 2**60}],
    2: [{"side": 4}, {"k": 4}, {"columns": 6}, {"out_group": 2**40}, {"out_group": -1}]
})
def test_check_of_packing(change, status, isa):
    lanes = _native.isa_info(isa)["lanes"]
    w, each = np.zeros((5, 3, 3, 3), F32), 3 * -(-5 // lanes) * lanes
    params = {"side": 2, "k": 3, "columns": 5, "out_group": each, "g": [0.0] * 18}
    assert refusal("pack_winograd", isa, params | change, **{"in": w}, out=np.zeros(16 * each, F32)) == status


def problem(isa, side, shape, columns, pads=((1, 1), (1, 1)), act="IDENTITY", residual=False, slots=1, tiles=3, seed=0,
            dilation=(1, 1)):  # fmt: skip
    """(params, arrays, float64 result): images NHWC whose pixels lie a little apart, the foreign channels of the last not there."""
    rng = np.random.default_rng(seed)
    images, height, width, channels = shape
    x, w = normal(rng, images, height, width, channels + 2), normal(rng, columns, channels, 3, 3)
    bias, slope = normal(rng, columns), normal(rng, columns)
    inner = np.pad(x[..., :channels].astype(np.float64), ((0, 0), *pads, (0, 0)))
    size = [n + sum(pad) - 2 * d for n, pad, d in zip((height, width), pads, dilation)]
    y = bias + sum(inner[:, i * dilation[0] :, j * dilation[1] :][:, : size[0], : size[1]] @ w[:, :, i, j].T
                   for i in range(3) for j in range(3))  # fmt: skip
    a, b = (0.0, 0.0) if act == "PRELU" else FUNCTIONS[act][:2]
    out, res = np.full((images, *size, columns + 1), 7, F32), normal(rng, images, *size, columns)
    panels = transformed(w, side, isa)
    positions, v_position, m_position = (side + 2) ** 2, tiles * channels + 3, tiles * columns + 5
    params = {
        "side": side,
        "n": [images, *size],
        "in_size": [height, width],
        "pad": [pads[0][0], pads[1][0]],
        "dilation": list(dilation),
        "in_stride": strides(x)[:3],
        "out_stride": strides(out)[:3],
        "res_stride": strides(res)[:3],
        "k": channels,
        "columns": columns,
        "slots": slots,
        "tiles": tiles,
        "v_position": v_position,
        "m_position": m_position,
        "chunk": 16,
        "act": _native.ACTS[act],
        "a": a,
        "b": b,
        "point": [float(p) for p in (*POINTS[side], 0)[:2]],
    }
    arrays = {"in": x.ravel()[: x.size - 2], "w": panels, "bias": whole_vectors(bias, isa), "out": out,
              "scratch": np.full(slots * positions * (v_position + m_position), np.nan, F32)}  # fmt: skip
    if residual:
        arrays["res"] = res
    if act == "PRELU":
        arrays["slope"] = slope
    return params, arrays, epilogue(y + (res if residual else 0), act, a, b, slope)


def both(isa, side, *args, threads=1, guard="end", **how):
    """The operation against float64; the memory between output pixels stays as it was. Returns the result."""
    params, arrays, expected = problem(isa, side, *args, **how)
    got = run("winograd", isa, params, threads=threads, side=guard, constants=CONSTANTS, **arrays)["out"]
    assert (got[..., -1] == 7).all()
    close(got[..., :-1], expected)
    return got


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (4, 4), (5, 7), (8, 6)])
def test_tiles_over_every_edge(tile, size, isa, side):
    for pads in (((1, 1), (1, 1)), ((2, 0), (0, 3)), ((6, 5), (7, 1))):
        both(isa, tile, (2, *size, 5), 3, pads, guard=side)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("dilation", [(2, 3), (1, 2), (4, 4)])
def test_dilation(tile, dilation, isa, side):
    """Phases of unequal size, some without a pixel of the input, padding that is no multiple of the dilation."""
    for size, pads in (((9, 8), ((2, 2), (3, 3))), ((3, 11), ((7, 4), (1, 6))), ((14, 12), ((0, 0), (0, 0)))):
        both(isa, tile, (2, *size, 5), 3, pads, guard=side, dilation=dilation, residual=True)


@pytest.mark.parametrize("tile", [2, 4])
def test_channel_tails(tile, isa, side):
    lanes = _native.isa_info(isa)["lanes"]
    for channels, columns in ((1, 1), (lanes, 2 * lanes), (lanes + 1, 2 * lanes + 1), (2 * lanes - 1, 5 * lanes - 1), (70, 3)):
        both(isa, tile, (1, 9, 6, channels), columns, guard=side)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("act", ["RELU", "SILU", "PRELU"])
@pytest.mark.parametrize("residual", [False, True])
def test_epilogue_and_threads(tile, act, residual, isa, side):
    """Tiles shared out among threads, and one block for all of them whose filters are: the same bits."""
    shape, columns = (1, 9, 14, 40), 2 * _native.isa_info(isa)["nr"] + 3
    one = both(isa, tile, shape, columns, act=act, residual=residual, tiles=4, guard=side)
    for threads, slots, tiles in ((2, 2, 2), (3, 3, 50), (3, 2, 40), (1, 1, 50)):
        other = both(isa, tile, shape, columns, act=act, residual=residual, threads=threads, slots=slots, tiles=tiles, guard=side)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tile", [2, 4])
def test_what_does_not_fit_is_refused(tile, isa):
    params, arrays, _ = problem(isa, tile, (1, 5, 6, 7), 9)
    assert refusal("winograd", isa, params, constants=CONSTANTS, **arrays) == 0
    for name in ("in", "w", "bias", "out", "scratch"):
        short = {**arrays, name: arrays[name].ravel()[: arrays[name].size - (9 if name == "out" else 1)]}
        assert refusal("winograd", isa, params, constants=CONSTANTS, **short) == 2, name
    for bent in ({"side": 3}, {"pad": [-1, 1]}, {"slots": 0}, {"tiles": 0}, {"chunk": 0}, {"n": [1, -5, 6]}, {"k": 0},
                 {"dilation": [0, 1]}, {"dilation": [1, 7]}):  # fmt: skip
        assert refusal("winograd", isa, {**params, **bent}, constants=CONSTANTS, **arrays) == 1, bent
    for bent in ({"slots": 2}, {"tiles": 4}, {"v_position": 20}, {"in_size": [6, 6]}, {"n": [1, 6, 6]}):
        assert refusal("winograd", isa, {**params, **bent}, constants=CONSTANTS, **arrays) == 2, bent
