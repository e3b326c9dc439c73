"""The micro-kernels through conv, depthwise and pack: every tile size and edge, taps, groups, residual, epilogue."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import dims, normal, refusal, refused, run, strides
from test_unary import FUNCTIONS

from infold import _native

F32 = np.float32
CONSTANTS = ("w", "bias", "tap", "slope", "scale", "shift")
AFTER = {"post_lo": -1.0, "post_hi": 1.5}  # the clamp behind a map per channel


def packed(w: np.ndarray, isa: str) -> np.ndarray:
    """[rows, columns] as the micro-kernel reads it: panels of two vectors, the last of one if that is enough."""
    info = _native.isa_info(isa)
    panels = []
    for first in range(0, w.shape[1], info["nr"]):
        part = w[:, first : first + info["nr"]]
        width = info["nr"] if part.shape[1] > info["lanes"] else info["lanes"]
        panels.append(np.pad(part, ((0, 0), (0, width - part.shape[1]))).ravel())
    return np.concatenate(panels)


def whole_vectors(v: np.ndarray, isa: str) -> np.ndarray:
    return np.pad(v, (0, -len(v) % _native.isa_info(isa)["lanes"]))


def epilogue(y: np.ndarray, act: str, a: float, b: float, slope, scale=None, shift=None) -> np.ndarray:
    with np.errstate(all="ignore"):
        y = np.where(y < 0, y * slope, y) if act == "PRELU" else FUNCTIONS[act][2](y, a, b)
    return y if scale is None else np.clip(y * scale + shift, AFTER["post_lo"], AFTER["post_hi"])


def matmul(isa, m, k, columns, act="IDENTITY", residual=False, taps=1, seed=0, mapped=False, **how):
    """A product [m, taps * k] x [taps * k, columns] with its taps a fixed distance apart; returns (got, float64)."""
    rng = np.random.default_rng(seed)
    x = normal(rng, m, taps, k)
    w, bias, slope = normal(rng, taps * k, columns), normal(rng, columns), normal(rng, columns)
    res = normal(rng, m, columns)
    a, b = (0.0, 0.0) if act == "PRELU" else FUNCTIONS[act][:2]
    params = {"n": dims([m], 4, 1), "in_stride": dims([taps * k], 4, 0), "out_stride": dims([columns], 4, 0),
              "res_stride": dims([columns], 4, 0), "taps": taps, "k": k, "groups": 1, "columns": columns, "panels_per_block": 2,
              "chunk": 32, "act": _native.ACTS[act], "a": a, "b": b}
    arrays = {"in": x, "w": packed(w, isa), "bias": whole_vectors(bias, isa), "tap": np.arange(taps) * k}
    if residual:
        arrays["res"] = res
    if act == "PRELU":
        arrays["slope"] = slope
    after = {"scale": normal(rng, columns), "shift": normal(rng, columns)} if mapped else {}
    params |= AFTER if mapped else {}
    got = run("conv", isa, params, **arrays, **after, out=np.zeros((m, columns), F32), constants=CONSTANTS, **how)["out"]
    y = x.reshape(m, -1).astype(np.float64) @ w + bias + (res if residual else 0)
    return got, epilogue(y, act, a, b, slope, **after)


def close(got: np.ndarray, expected: np.ndarray, rtol: float = 2e-5) -> None:
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * scale)


def test_every_tile(isa):
    """Every row count of the micro-kernel with every column count up to two panels and one column."""
    info = _native.isa_info(isa)
    for m in range(1, info["mr"] + 2):
        for columns in range(1, 2 * info["nr"] + 2):
            close(*matmul(isa, m, 5, columns, residual=columns % 2 == 0, side="end" if m % 2 else "start", seed=m))


# a rounding difference before a step or a pole is not an error of the epilogue
SMOOTH = set(FUNCTIONS) - {"LOG", "SQRT", "RECIPROCAL", "FLOOR", "CEIL", "ROUND", "SIGN", "THRESHOLDED_RELU"}


@pytest.mark.parametrize("act", [*sorted(SMOOTH), "PRELU"])
@pytest.mark.parametrize("residual", [False, True])
def test_epilogue(act, residual, isa, side):
    close(*matmul(isa, 17, 3, 37, act, residual, side=side))


@pytest.mark.parametrize("act", ["IDENTITY", "RELU", "SILU", "PRELU"])
@pytest.mark.parametrize("columns", [1, 5, 37, 70])
def test_map_behind_the_activation(columns, act, isa, side):
    """A BatchNorm behind the activation: few columns and many, blocks of panels, threads."""
    for m in (1, 17, 60):
        close(*matmul(isa, m, 3, columns, act, mapped=True, side=side))
    one, two = (matmul(isa, 200, 9, columns, act, True, mapped=True, side=side, threads=t)[0] for t in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("taps,k", [(1, 1), (9, 4), (3, 17), (25, 1), (1, 40), (2, 96), (1, 500)])
def test_depth_and_threads(taps, k, isa, side):
    for m, columns in ((200, 40), (3, 700)):  # shared out by pixels, and by panels
        got, expected = matmul(isa, m, k, columns, taps=taps, side=side)
        close(got, expected)
        for act in ("RELU", "SILU"):
            one, two = (matmul(isa, m, k, columns, act, True, taps, side=side, threads=t)[0] for t in (1, 2))
            np.testing.assert_array_equal(one, two)


def test_many_threads_take_parts_of_both_sides(isa):
    """Enough work for a grid of rows and columns, uneven on both; more threads than this machine has."""
    one, expected = matmul(isa, 61, 501, 709)
    close(one, expected)
    for threads in (5, 21):
        np.testing.assert_array_equal(matmul(isa, 61, 501, 709, threads=threads)[0], one)


def test_empty_reduction_gives_bias(isa):
    got, expected = matmul(isa, 3, 0, 5)
    np.testing.assert_array_equal(got, expected.astype(F32))


@pytest.mark.parametrize(
    "groups,cin,cout,stride,dilation", [(1, 3, 8, 1, 1), (1, 5, 33, 2, 1), (4, 3, 7, 1, 2), (2, 16, 20, 2, 1)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_conv2d(groups, cin, cout, stride, dilation, threads, isa, side):
    """A 3x3 convolution over a padded NHWC image with pixel strides wider than its channels."""
    rng = np.random.default_rng(9)
    x = normal(rng, 2, 11, 13, groups * cin + 2)  # border included; two foreign channels at the end of each pixel
    w = normal(rng, groups, 3, 3, cin, cout)
    bias = np.stack([whole_vectors(b, isa) for b in normal(rng, groups, cout)])
    height, width = ((s - 2 * dilation - 1) // stride + 1 for s in x.shape[1:3])
    out = np.full((2, height, width, groups * cout + 1), 7, F32)
    xs, os = strides(x), strides(out)
    panels = np.stack([packed(g.reshape(-1, cout), isa) for g in w])
    taps = np.array([dilation * (y * xs[1] + z * xs[2]) for y in range(3) for z in range(3)])
    params = {"n": [2, 1, height, width], "in_stride": [xs[0], 0, stride * xs[1], stride * xs[2]],
              "out_stride": [os[0], 0, os[1], os[2]], "taps": 9, "k": cin, "groups": groups, "columns": cout, "in_group": cin,
              "out_group": cout, "w_group": panels.shape[1], "bias_group": bias.shape[1], "panels_per_block": 1, "chunk": 64,
              "act": _native.ACTS["RELU"]}
    trimmed = x.ravel()[: x.size - 2]  # the last pixel's foreign channels do not exist
    got = run("conv", isa, params, **{"in": trimmed}, w=panels, bias=bias, tap=taps, out=out, threads=threads, side=side,
              constants=CONSTANTS)["out"]
    expected = np.zeros((2, height, width, groups, cout))
    for y in range(3):
        for z in range(3):
            window = x[:, y * dilation :, z * dilation :][:, ::stride, ::stride][:, :height, :width]
            window = window[..., : groups * cin].reshape(2, height, width, groups, cin)
            expected += np.einsum("nhwgc,gco->nhwgo", window.astype(np.float64), w[:, y, z])
    close(got[..., :-1], np.maximum(expected + bias[:, :cout], 0).reshape(2, height, width, -1))
    assert (got[..., -1] == 7).all()


@pytest.mark.parametrize("k_shape", [(1, 1, 7), (3, 3, 4), (1, 5, 1)])
@pytest.mark.parametrize("order", ["columns last", "k last", "neither"])
def test_pack(k_shape, order, isa, side):
    rng = np.random.default_rng(3)
    groups, lanes = 2, _native.isa_info(isa)["lanes"]
    for columns in (1, lanes - 1, lanes, lanes + 1, 2 * lanes, 4 * lanes + 3):
        if order == "columns last":
            x = normal(rng, groups, *k_shape, columns)
        elif order == "k last":
            x = np.moveaxis(normal(rng, groups, columns, *k_shape), 1, -1)
        else:
            x = np.moveaxis(normal(rng, groups, k_shape[2], columns, *k_shape[:2]), (1, 2), (3, 4))
        expected = np.stack([packed(g.reshape(-1, columns), isa) for g in x])
        steps = strides(x)
        params = {"k": k_shape, "k_stride": steps[1:4], "columns": columns, "column_stride": steps[4], "groups": groups,
                  "in_group": steps[0], "out_group": expected.shape[1]}
        storage, out = x.base if x.base is not None else x, np.full(expected.shape, 9, F32)
        for threads in (1, 2):
            got = run("pack", isa, params, **{"in": storage}, out=out, threads=threads, side=side)["out"]
            np.testing.assert_array_equal(got, expected)


def depthwise(isa, x, w, bias, act, run_of, stride, vectors, more=(), window=0, group=1, **how):
    """Windows of three rows over x (n, h, w, channels), float32 or bf16; w: [taps * group, channels]; vectors: of a block. A
    3x3 `window` moves down as across; others by one row."""
    lanes, channels, across = _native.isa_info(isa)["lanes"], x.shape[-1], len(w) // group // 3
    w_stride = channels + -channels % lanes
    down = window or 1
    out = np.zeros((x.shape[0], (x.shape[1] - 3) // down + 1, (x.shape[2] - across) // stride + 1, channels), x.dtype)
    xs, os = strides(x), strides(out)
    a, b = (0.0, 0.0) if act == "PRELU" else FUNCTIONS[act][:2]
    params = {"n": [len(x), 1, *out.shape[1:3]], "in_stride": [xs[0], 0, down * xs[1], stride * xs[2]],
              "out_stride": [os[0], 0, os[1], os[2]], "taps": 3 * across, "window": window, "run": run_of,
              "group": group, "chunk": 16,
              "block": lanes * vectors, "channels": channels, "w_stride": w_stride, "act": _native.ACTS[act], "a": a, "b": b,
              "half": x.dtype == np.uint16, **(AFTER if "scale" in more else {})}
    arrays = {"in": x, "w": np.pad(w, ((0, 0), (0, w_stride - channels))), "bias": whole_vectors(bias, isa),
              "tap": np.array([y * xs[1] + z * xs[2] for y in range(3) for z in range(across)]), **dict(more)}
    return run("depthwise", isa, params, **arrays, out=out, constants=CONSTANTS, **how)["out"]


@pytest.mark.parametrize("act", ["IDENTITY", "RELU", "CLIP", "SILU", "PRELU", "HARD_SWISH"])
@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
@pytest.mark.parametrize("threads", [1, 2])
def test_depthwise(act, mapped, threads, isa, side):
    rng = np.random.default_rng(11)
    lanes = _native.isa_info(isa)["lanes"]
    a, b = (0.0, 0.0) if act == "PRELU" else FUNCTIONS[act][:2]
    for channels in (1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2):
        for width, run_of, window, height in (
            (1, 3, 1, 1), (2, 1, 0, 3), (3, 5, 0, 3), (4, 7, 0, 3), (5, 3, 1, 3), (6, 2, 0, 3), (7, 5, 0, 3), (8, 3, 1, 5),
            (11, 1, 0, 3), (14, 7, 0, 3), (15, 5, 0, 3), (41, 7, 0, 3), (8, 3, 0, 3), (1, 1, 2, 2), (2, 1, 2, 3),
            (8, 1, 2, 5), (2, 3, 1, 2), (67, 3, 1, 4), (66, 1, 2, 1),
        ):
            stride, down = window or 1 + (run_of == 1), window or 1
            across = 3 if window else 4 if run_of in (1, 2) else run_of  # 3 rows of as many taps
            x = normal(rng, 2, (height - 1) * down + 3, (width - 1) * stride + across, channels)
            w = normal(rng, 3 * across, channels)
            bias, slope = normal(rng, channels), normal(rng, channels)
            after = {"scale": normal(rng, channels), "shift": normal(rng, channels)} if mapped else {}
            more = {"slope": slope, **after} if act == "PRELU" else after
            got = depthwise(isa, x, w, bias, act, run_of, stride, 1 + width % 3, more, window, threads=threads, side=side)
            expected = np.zeros((2, height, width, channels))
            for t, (y, z) in enumerate(np.ndindex(3, across)):
                expected += x[:, y::down, z::stride][:, :height, :width].astype(np.float64) * w[t]
            np.testing.assert_allclose(got, epilogue(expected + bias, act, a, b, slope, **after), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_groups_of_a_vector(threads, isa, side):
    """Each channel reads its group's, of three channels' vectors and more; sums in one chain and in several."""
    rng = np.random.default_rng(12)
    lanes = _native.isa_info(isa)["lanes"]
    for group in (n for n in (2, 4, 8, 16) if n <= lanes):
        for width, run_of in ((1, 3), (3, 1), (4, 3), (7, 1), (10, 3), (12, 1), (29, 3)):
            channels, stride = group * (1 + width % 5), 1 + (run_of == 1)
            x, bias = normal(rng, 2, 5, (width - 1) * stride + 3, channels), normal(rng, channels)
            w = normal(rng, 9 // run_of, group, run_of, channels)
            taps = w.transpose(0, 2, 1, 3).reshape(9, group, channels)
            spread = x.reshape(*x.shape[:-1], channels // group, 1, group).repeat(group, -2).reshape(*x.shape, group)
            expected = np.zeros((2, 3, width, channels))
            for t, (y, z) in enumerate(np.ndindex(3, 3)):
                seen = spread[:, y : y + 3, z : z + (width - 1) * stride + 1 : stride].astype(np.float64)
                expected += (seen * taps[t].T).sum(-1)
            got = depthwise(isa, x, w.reshape(-1, channels), bias, "RELU", run_of, stride, 1 + width % 3, group=group,
                            threads=threads, side=side)
            np.testing.assert_allclose(got, np.maximum(expected + bias, 0), rtol=1e-5, atol=1e-5)


DEPTHWISE = {"n": [1, 1, 1, 4], "in_stride": [0, 0, 0, 20], "out_stride": [0, 0, 0, 20], "taps": 2, "channels": 20, "w_stride": 32,
             "run": 1, "block": 16, "group": 1, "chunk": 1}
GEMM = {"n": [1, 1, 1, 4], "in_stride": [0, 0, 0, 3], "out_stride": [0, 0, 0, 5], "res_stride": [0, 0, 0, 5], "taps": 2, "k": 3,
        "groups": 1, "columns": 5, "panels_per_block": 1, "chunk": 64}


def gemm_arrays(isa: str) -> dict:
    return {"in": np.zeros(15, F32), "w": packed(np.zeros((6, 5), F32), isa), "bias": whole_vectors(np.zeros(5, F32), isa),
            "tap": np.array([0, 3]), "out": np.zeros((4, 5), F32)}


@refused({
    0: [{}],
    1: [{"taps": 0}, {"k": -1}, {"k": 2**62}, {"columns": 0}, {"columns": 2**63 - 1}, {"groups": 0}, {"panels_per_block": 0},
        {"chunk": 0}, {"panels_per_block": 2**63 - 1}, {"act": 1000}],
    2: [{"n": [1, 1, 1, 5]}, {"n": [2**40, 2**40, 1, 1], "in_stride": [2**40, 1, 0, 3]}, {"n": [1, 1, 1, -4]},
        {"in_stride": [0, 0, 0, 4]}, {"in_stride": [0, 0, 0, -3]}, {"out_stride": [0, 0, 0, 6]}, {"res_stride": [0, 0, 0, 6]},
        {"n": [2**40, 2**40, 2**40, 4], "out_stride": [0] * 4, "in_stride": [0] * 4, "res_stride": [0] * 4}, {"k": 4},
        {"columns": 6}, {"groups": 2, "in_group": 1}, {"groups": 2, "out_group": 1}, {"groups": 2, "w_group": 1},
        {"groups": 2, "bias_group": 1}, {"groups": 2**62, "in_group": 2**62}, {"act": _native.ACTS["PRELU"]}],
    3: [{"taps": 3}]
})
def test_check_conv(change, status, isa):
    arrays = gemm_arrays(isa)
    assert refusal("conv", isa, GEMM | change, **arrays, res=arrays["out"], constants=CONSTANTS) == status


@pytest.mark.parametrize("given", [{"scale": 5}, {"shift": 5}, {"scale": 5, "shift": 4}, {"scale": 4, "shift": 5}])
def test_check_map(given, isa):
    """Scale and shift come together, one number for every column."""
    for counts, status in ((given, 2), ({"scale": 5, "shift": 5}, 0)):
        vectors = {name: np.zeros(count, F32) for name, count in counts.items()}
        assert refusal("conv", isa, GEMM, **gemm_arrays(isa), **vectors, constants=CONSTANTS) == status


def test_check_taps(isa):
    """Tap offsets are part of the address."""
    for tap, status in (([0, 3], 0), ([3, 0], 0), ([0, 4], 2), ([-1, 0], 2), ([0, 2**63 - 1], 2), ([-(2**63), 0], 2)):
        arrays = gemm_arrays(isa) | {"tap": np.array(tap)}
        assert refusal("conv", isa, GEMM, **arrays, constants=CONSTANTS) == status
        assert refusal("conv", isa, GEMM, **arrays) == 3  # must be constant: computed taps cannot be proven


@refused({
    0: [{}, {"run": 2}],
    1: [{"w_stride": 19}, {"channels": 0}, {"run": 0}, {"run": 3},
        {"run": 2, "in_stride": [0, 0, 0, 19]},  # the taps are not a step of the row apart
        {"window": -1}, {"window": 3}, {"window": 1},  # not 3x3
        {"group": 0}, {"group": 3}, {"group": 8}, {"group": 32}, {"group": 2, "run": 2}, {"chunk": 0},
        {"block": 0}, {"block": 17}, {"act": -1}],
    2: [{"group": 2}, {"w_stride": 64}, {"w_stride": 2**62}, {"channels": 2**62, "w_stride": 2**62}, {"n": [1, 1, 1, 5]},
        {"out_stride": [0, 0, 0, -20]}, {"act": _native.ACTS["PRELU"]}],
    3: [{"taps": 5}]
})
def test_check_depthwise(change, status, isa):
    arrays = {"in": np.zeros((5, 20), F32), "w": np.zeros((2, 32), F32), "bias": np.zeros(32, F32), "tap": np.array([0, 20]),
              "out": np.zeros((4, 20), F32)}
    assert refusal("depthwise", isa, DEPTHWISE | change, **arrays, constants=CONSTANTS) == status


@refused({
    0: [{}],
    1: [{"in_stride": [0, 0, 120, 40]}, {"in_stride": [0, 0, 240, 20]}, {"window": 1},
        {"moved": {1: 40}}, {"moved": {5: 180}}, {"moved": {8: 300}},  # uneven across
        {"moved": {6: 220, 7: 240, 8: 260}},  # uneven down
        {"moved": {0: -(2**63), 1: 2**62}}, {"moved": {3: 2**63 - 1, 0: -1}}],
    2: [{"n": [1, 1, 3, 2]}]
})
def test_check_depthwise_window(change, status, isa):
    """A 3x3 window moved by 2: taps that are not evenly spaced, or not as its steps say, are refused."""
    tap = np.array([120 * y + 20 * x for y in range(3) for x in range(3)])
    params = DEPTHWISE | {"n": [1, 1, 2, 2], "taps": 9, "window": 2, "in_stride": [0, 0, 240, 40], "out_stride": [0, 0, 40, 20]}
    params |= change
    moved = params.pop("moved", {})
    tap[list(moved)] = list(moved.values())
    arrays = {"in": np.zeros((5, 6, 20), F32), "w": np.zeros((9, 32), F32), "bias": np.zeros(32, F32), "tap": tap,
              "out": np.zeros((3, 2, 20), F32)}
    assert refusal("depthwise", isa, params, **arrays, constants=CONSTANTS) == status


@refused({
    0: [{}, {"groups": 2}],
    2: [{"columns": 6}, {"columns": -1}, {"columns": 2**63 - 1, "column_stride": 0}, {"k": [1, 1, 4]},
        {"k": [2**40, 2**40, 3], "k_stride": [0, 0, 5]}, {"groups": 2, "in_group": 1}, {"groups": 2, "out_group": 1},
        {"groups": -1}]
})
def test_check_pack(change, status, isa):
    w = np.zeros((3, 5), F32)
    params = {"k": [1, 1, 3], "k_stride": [0, 0, 5], "columns": 5, "column_stride": 1, "groups": 1}
    assert refusal("pack", isa, params | change, **{"in": w}, out=packed(w, isa)) == status
