"""Matrix products in bf16: packing, every tile and edge, the instructions bit for bit, and the error of each split."""
from __future__ import annotations

import os

import numpy as np
import pytest
from native_harness import dims, normal, refusal, refused, run, strides
from test_conv import close, epilogue, matmul, whole_vectors
from test_unary import FUNCTIONS

from infold import _native

F32, U16 = np.float32, np.uint16
COLUMNS, DEPTH, ROWS, GAP, TERMS = 32, 32, 32, 32, 3
CONSTANTS = ("w", "bias", "tap", "slope", "in_scale", "in_shift")
INSTRUCTIONS = [n for n in _native.isa_names() if _native.isa_info(n)["bf16_macs"]]
EMULATED = ["scalar", *_native.isa_names(emulated=True)]
TOLERANCE = {1: 2e-2, 2: 5e-5, 3: 2e-6}


@pytest.fixture(params=[*INSTRUCTIONS, *EMULATED])
def isa(request: pytest.FixtureRequest) -> str:
    """Every bf16 kernel, on the instruction that this CPU may have and emulated."""
    return request.param


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Nearest bf16, ties to even, as uint16; denormals are zero."""
    x = np.where(np.abs(x) < np.finfo(F32).tiny, np.copysign(F32(0), x), x).astype(F32)
    bits = x.view(np.uint32)
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    return (np.where(np.isnan(x), bits | 0x400000, rounded) >> 16).astype(U16)


def from_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(F32)


def split(x: np.ndarray, terms: int) -> np.ndarray:
    """[terms, *x.shape]: x as a sum of bf16 numbers."""
    parts, rest = [], x.astype(F32)
    for _ in range(terms):
        parts.append(to_bf16(rest))
        rest = rest - from_bf16(parts[-1])
    return np.stack(parts)


def packed(w: np.ndarray, terms: int) -> np.ndarray:
    """[k, columns] as panels [panel][term][k / 2][column][2]."""
    k, columns = w.shape
    wide = np.pad(w, ((0, -k % DEPTH), (0, -columns % COLUMNS)))
    parts = split(wide, terms).reshape(terms, wide.shape[0] // 2, 2, -1, COLUMNS)
    return np.ascontiguousarray(parts.transpose(3, 0, 1, 4, 2)).reshape(-1)


def plane(depth: int) -> int:
    return depth + -depth % DEPTH + GAP


def stage(depth: int, terms: int, threads: int = 1, block: int = ROWS, panels: int = 0) -> np.ndarray:
    """panels: whose sums are kept from block to block of the depth."""
    own = (block + -block % ROWS) * terms * plane(depth) + panels * 2 * ROWS * COLUMNS
    return np.full(threads * own, 0x7FC0, U16)  # NaN: what is not staged must not be used


def product(isa, x, w, terms, *, bias=None, res=None, taps=1, act="IDENTITY", slope=None, threads=1, side="end", block=ROWS,
            dtype=F32, span=2**40, **more):
    """x [m, taps * k] times w [taps * k, columns] and the epilogue, by conv_bf16; span: numbers of a block of depth."""
    (m, depth), columns = x.shape, w.shape[1]
    a, b = (0.0, 0.0) if act == "PRELU" else FUNCTIONS[act][:2]
    params = {"n": dims([m], 4, 1), "in_stride": dims([depth], 4, 0), "out_stride": dims([columns], 4, 0),
              "res_stride": dims([columns], 4, 0), "taps": taps, "k": depth // taps, "groups": 1, "columns": columns,
              "panels_per_block": 2, "act": _native.ACTS[act], "a": a, "b": b, "terms": terms, "block_rows": block,
              "stage_threads": threads, "depth": span, "plane": plane(depth),
              **{k: v for k, v in more.items() if k in ("in_lo", "in_hi")},
              "in_half": x.dtype == U16, "res_half": res is not None and res.dtype == U16, "out_half": dtype == U16}
    arrays = {"in": x, "w": packed(w, terms), "bias": whole_vectors(np.zeros(columns, F32) if bias is None else bias, "scalar"),
              "tap": np.arange(taps) * (depth // taps), "res": res, "slope": slope,
              "stage": stage(depth, terms, threads, block, 2 if span < depth else 0),
              "in_scale": more.get("scale"), "in_shift": more.get("shift")}
    lanes = _native.isa_info(isa)["lanes"]
    arrays["bias"] = np.pad(arrays["bias"], (0, -arrays["bias"].size % lanes))
    arrays = {name: array for name, array in arrays.items() if array is not None}
    out = np.zeros((m, columns), dtype)
    return run("conv_bf16", isa, params, **arrays, out=out, threads=threads, side=side, constants=CONSTANTS)["out"]


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_every_tile(terms, isa):
    """Every row count of the micro-kernels, with column counts around every edge of a panel."""
    rng = np.random.default_rng(1)
    for m in range(1, ROWS + 2):
        for columns in (1, 3, 16, 17, 31, 32, 33, 64, 65):
            x, w, res = normal(rng, m, 5), normal(rng, 5, columns), normal(rng, m, columns)
            got = product(isa, x, w, terms, res=res, side="end" if m % 2 else "start")
            close(got, x.astype(np.float64) @ w + res, TOLERANCE[terms])


@pytest.mark.parametrize("act", ["IDENTITY", "RELU", "CLIP", "SILU", "PRELU", "HARD_SWISH"])
@pytest.mark.parametrize("residual", [False, True])
def test_epilogue(act, residual, isa, side):
    rng = np.random.default_rng(2)
    m, k, columns = 35, 40, 37
    x, w, bias, slope = normal(rng, m, k), normal(rng, k, columns), normal(rng, columns), normal(rng, columns)
    res = normal(rng, m, columns)
    got = product(isa, x, w, 3, bias=bias, res=res if residual else None, act=act, slope=slope if act == "PRELU" else None,
                  side=side)
    a, b = (0.0, 0.0) if act == "PRELU" else FUNCTIONS[act][:2]
    close(got, epilogue(x.astype(np.float64) @ w + bias + (res if residual else 0), act, a, b, slope), 5e-6)


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("act", ["CLIP", "SILU", "PRELU"])
@pytest.mark.parametrize("taps,k", [(1, 64), (9, 4), (3, 17), (1, 700)])
def test_images_of_bf16_numbers(taps, k, act, terms, isa, side):
    """Read, added and stored as bf16: the numbers of the same product in float32, rounded once at the end, bit for bit, but for
    activations, which are only as accurate as what they are rounded to."""
    rng = np.random.default_rng(9)
    m, columns = 37, 45
    x, res = to_bf16(normal(rng, m, taps * k)), to_bf16(normal(rng, m, columns))
    w, bias, slope = normal(rng, taps * k, columns), normal(rng, columns), normal(rng, columns)
    given = {"bias": bias, "taps": taps, "act": act, "slope": slope if act == "PRELU" else None, "side": side, "block": 16}
    if taps == 1 and act != "CLIP":
        given |= {"scale": normal(rng, k), "shift": normal(rng, k), "in_lo": 0.0, "in_hi": np.inf}
    expected = product(isa, from_bf16(x), w, terms, res=from_bf16(res), **given)
    for a, r in ((x, res), (x, from_bf16(res)), (from_bf16(x), res)):
        np.testing.assert_array_equal(product(isa, a, w, terms, res=r, **given), expected)
        got = product(isa, a, w, terms, res=r, dtype=U16, threads=2, **given)
        np.testing.assert_allclose(from_bf16(got), expected if act == "SILU" else from_bf16(to_bf16(expected)),
                                   **({"rtol": 1.1 * 2**-8, "atol": 1e-36} if act == "SILU" else {"rtol": 0}))
    assert np.abs(expected).max() > 0.5


@pytest.mark.parametrize("terms", [1, 2, 3])
@pytest.mark.parametrize("taps,k", [(9, 4), (3, 17), (1, 33), (1, 300)])
def test_depth_and_threads(taps, k, terms, isa, side):
    """Shared out by pixels and by panels, staged in one block and in several: the same numbers."""
    rng = np.random.default_rng(3)
    for m, columns in ((150, 40), (3, 500)):
        x, w = normal(rng, m, taps * k), normal(rng, taps * k, columns)
        one = product(isa, x, w, terms, taps=taps, side=side, block=160)
        close(one, x.astype(np.float64) @ w, TOLERANCE[terms])
        for threads, block in ((2, 33), (1, 1)):
            np.testing.assert_array_equal(product(isa, x, w, terms, taps=taps, side=side, threads=threads, block=block), one)


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("m,columns", [(49, 100), (7, 17), (33, 8)])
def test_blocks_of_depth(m, columns, terms, isa, side):
    """Sums that go on from block to block are those of the whole depth, bit for bit, also where a sweep follows."""
    rng = np.random.default_rng(11)
    x, w, bias, res = normal(rng, m, 290), normal(rng, 290, columns), normal(rng, columns), normal(rng, m, columns)
    for given in ({"act": "RELU"}, {"act": "SILU", "dtype": U16, "threads": 2}):
        expected = product(isa, x, w, terms, bias=bias, res=res, block=64, **given)
        assert np.abs(expected).max() > 0.5
        for span in (64, 128, 256):
            got = product(isa, x, w, terms, bias=bias, res=res, block=64, span=span, side=side, **given)
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("k,step", [(9, 6), (21, 6), (9, 3), (500, 100), (16, 15)])
def test_windows_that_overlap(k, step, isa, side):
    """What neighbouring pixels share is rounded once: the same numbers as from windows that lie apart."""
    rng = np.random.default_rng(10)
    taps, rows, m, columns = 3, 2, 1500 // step + 5, 33
    x, w = normal(rng, rows, taps, (m - 1) * step + k), normal(rng, taps * k, columns)
    windows = np.lib.stride_tricks.sliding_window_view(x, k, axis=2)[:, :, ::step]  # [row, tap, pixel, k]
    dense = np.ascontiguousarray(windows.transpose(0, 2, 1, 3).reshape(rows * m, taps * k))
    expected = product(isa, dense, w, 1, taps=taps, block=64)
    xs, out = strides(x), np.zeros((rows, m, columns), F32)
    params = {"n": [1, 1, rows, m], "in_stride": [0, 0, xs[0], step], "out_stride": [0, 0, m * columns, columns], "taps": taps,
              "k": k, "groups": 1, "columns": columns, "panels_per_block": 2, "terms": 1, "block_rows": 640, "stage_threads": 2,
              "depth": 2**40, "plane": plane(taps * k)}
    got = run("conv_bf16", isa, params, **{"in": x}, w=packed(w, 1), bias=np.zeros(48, F32), tap=np.arange(taps) * xs[1],
              stage=stage(taps * k, 1, 2, 640), out=out, side=side, threads=2, constants=CONSTANTS)["out"]
    np.testing.assert_array_equal(got.reshape(expected.shape), expected)


def test_prologue(isa, side):
    rng = np.random.default_rng(4)
    for k in (7, 512, 700):
        x, w, scale, shift = normal(rng, 20, k), normal(rng, k, 19), normal(rng, k), normal(rng, k)
        got = product(isa, x, w, 3, scale=scale, shift=shift, in_lo=0.0, in_hi=np.inf, side=side)
        close(got, np.maximum(x.astype(np.float64) * scale + shift, 0) @ w, 2e-6)


def test_groups_and_strides(isa, side):
    """Two groups of an image with wider pixels; foreign numbers between them stay out of it."""
    rng = np.random.default_rng(5)
    x, w, bias = normal(rng, 6, 7, 2 * 5 + 1), normal(rng, 2, 5, 3), normal(rng, 2, 16)
    out = np.full((3, 4, 2 * 3 + 1), 7, F32)
    xs, os = strides(x), strides(out)
    panels = np.stack([packed(g, 2) for g in w])
    params = {"n": [1, 1, 3, 4], "in_stride": [0, 0, 2 * xs[0], 2 * xs[1]], "out_stride": [0, 0, os[0], os[1]], "taps": 1, "k": 5,
              "groups": 2, "columns": 3, "in_group": 5, "out_group": 3, "w_group": panels.shape[1], "bias_group": 16,
              "panels_per_block": 1, "terms": 2, "block_rows": 4, "stage_threads": 1, "depth": 64, "plane": plane(5)}
    got = run("conv_bf16", isa, params, **{"in": x.ravel()[:-1]}, w=panels, bias=bias, tap=np.array([0]), stage=stage(5, 2),
              out=out, side=side, constants=CONSTANTS)["out"]
    window = x[::2, ::2, :10].reshape(3, 4, 2, 5)
    expected = np.einsum("hwgk,gkc->hwgc", window.astype(np.float64), w) + bias[:, :3]
    close(got[..., :-1], expected.reshape(3, 4, 6), 5e-5)
    assert (got[..., -1] == 7).all()


def flush(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < np.finfo(F32).tiny, np.copysign(F32(0), x), x).astype(F32)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 a * b + c rounded once: a product of two bf16 numbers is exact in float64, and so, nearly always, is the sum."""
    return flush((a.astype(np.float64) * b + c).astype(F32))


def dot_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """VDPBF16PS over the whole depth: odd element first, then even, into one float32 sum (Intel SDM)."""
    total = np.zeros((a.shape[0], b.shape[1]), F32)
    for k in range(0, a.shape[1], 2):
        for i in (k + 1, k):
            total = fma(a[:, i : i + 1], b[i], total)
    return total


def dot_tiles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """TDPBF16PS: in each 32 of the depth even and odd elements are summed apart, then together, then onto the tile (Intel SDM). A
    panel of 16 columns or fewer has two tiles, which take turns."""
    columns = np.arange(b.shape[1])
    narrow = (columns // COLUMNS == columns[-1] // COLUMNS) & (columns[-1] % COLUMNS < COLUMNS // 2)
    total = np.zeros((2, a.shape[0], b.shape[1]), F32)
    for turn, k in enumerate(range(0, a.shape[1], DEPTH)):
        part = np.zeros_like(total)
        for i in range(k, k + DEPTH):
            part[i % 2] = fma(a[:, i : i + 1], b[i], part[i % 2])
        for tile in range(2):
            live = narrow & (turn % 2 == tile) | ~narrow & (tile == 0)
            total[tile] = np.where(live, flush(total[tile] + flush(part[0] + part[1])), total[tile])
    return np.where(narrow, total[0] + total[1], total[0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_instruction_bit_for_bit(isa):
    """Plain bf16 against a model of the instruction in NumPy: normal numbers, both ends of the range, infinity, NaN."""
    rng = np.random.default_rng(6)
    x, w = normal(rng, 40, 96), normal(rng, 96, 40)
    tiny = x * F32(1e-20), w * F32(1e-18)  # products below the smallest normal number
    huge = x * F32(1e19), w * F32(3e18)    # sums that overflow
    odd = x.copy()
    odd[3, 5], odd[4, 6], odd[5, 7], odd[6, 8] = np.inf, -np.inf, np.nan, 1e-40
    model = dot_tiles if isa.startswith("amx") else dot_pairs
    for a, b in ((x, w), tiny, huge, (odd, w)):
        expected = model(flush(from_bf16(to_bf16(a))), flush(from_bf16(to_bf16(b))))
        got = product(isa, a, b, 1)
        if isa == "amx" and "AMX_TRAP_SITES" not in os.environ:  # silicon, on which nobody has tried the manual's order of sums
            scale = np.abs(a).astype(np.float64) @ np.abs(b)
            ok = np.abs(got - expected.astype(np.float64)) <= 1e-6 * scale
            assert (ok | ~np.isfinite(expected)).all()
        else:  # emulated, a product below the normal numbers is rounded before it is added
            np.testing.assert_allclose(got, expected, rtol=0, atol=2.0**-140 if a is tiny[0] and isa in EMULATED else 0)
    several = product(isa, odd, w, 3)  # infinity times the parts of a weight, which differ in sign, is not a number
    assert np.isnan(several[5]).all() and not np.isfinite(several[3:5]).any() and np.isfinite(several[6:]).all()


def rms(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("k", [64, 576, 2304])
def test_error_levels(k, isa):
    """2e-3, 4e-6, and no more than the float32 kernel's."""
    rng = np.random.default_rng(7)
    x, w = normal(rng, 40, k), normal(rng, k, 40)
    expected = x.astype(np.float64) @ w
    one, two, three = (rms(product(isa, x, w, terms), expected) for terms in (1, 2, 3))
    assert 1e-3 < one < 3e-3 and 1e-6 < two < 6e-6
    kernels = _native.isa_info(isa)["kernels"]
    float32 = rms(*matmul(kernels, 40, k, 40, seed=8))
    assert three <= 1.05 * float32, f"{three:.2e} against {float32:.2e}"


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_the_largest_numbers_stay_finite(terms, isa):
    """A float32 above the largest bf16 number: plain bf16 rounds it to infinity, splits do not."""
    x = np.full((1, 1), np.finfo(F32).max)
    got = product(isa, x, np.full((1, 1), 0.5, F32), terms)[0, 0]
    assert np.isinf(got) if terms == 1 else abs(got / (x[0, 0] / 2) - 1) < 2.0 ** -7


@pytest.mark.parametrize("order", ["columns last", "k last"])
@pytest.mark.parametrize("terms", [1, 2, 3])
def test_pack(terms, order, isa, side):
    rng = np.random.default_rng(8)
    for k_shape in ((1, 1, 7), (3, 3, 4), (1, 5, 13)):
        for columns in (1, 31, 32, 33, 70):
            x = normal(rng, 2, *k_shape, columns)
            if order == "k last":
                x = np.moveaxis(normal(rng, 2, columns, *k_shape), 1, -1)
            expected = np.stack([packed(g.reshape(-1, columns), terms) for g in x])
            steps = strides(x)
            params = {"k": k_shape, "k_stride": steps[1:4], "columns": columns, "column_stride": steps[4], "groups": 2,
                      "in_group": steps[0], "out_group": expected.shape[1], "terms": terms}
            got = run("pack_bf16", isa, params, **{"in": x.base if x.base is not None else x}, out=np.full(expected.shape, 9, U16),
                      threads=1 + columns % 2, side=side)["out"]
            np.testing.assert_array_equal(got, expected)


PRODUCT = {"n": [1, 1, 1, 4], "in_stride": [0, 0, 0, 3], "out_stride": [0, 0, 0, 5], "taps": 2, "k": 3, "groups": 1, "columns": 5,
           "panels_per_block": 1, "terms": 2, "block_rows": 4, "stage_threads": 1, "depth": 64, "plane": 64}


@refused({
    0: [{}, {"depth": 32}, {"depth": 2**63 - 1}, {"in_half": 1, "in_stride": [0, 0, 0, 8]},
        {"out_half": 1, "out_stride": [0, 0, 0, 11]}],
    1: [{"k": -1}, {"k": 2**62}, {"plane": 47}, {"plane": 2**63 - 1}, {"plane": 2**60}, {"depth": 31}, {"depth": -64},
        {"columns": 2**63 - 1}, {"terms": 0}, {"terms": 4}, {"block_rows": 0}, {"block_rows": 2**63 - 1}, {"block_rows": 2**61},
        {"in_half": 2}, {"out_half": -1}, {"res_half": 2}, {"stage_threads": 0}, {"panels_per_block": 0}],
    2: [{"n": [1, 1, 1, 5]}, {"in_stride": [0, 0, 0, 4]}, {"out_stride": [0, 0, 0, 6]}, {"k": 4},
        {"k": 2**55, "in_stride": [0] * 4}, {"columns": 6}, {"plane": 65}, {"columns": 33}, {"groups": 2, "w_group": 1},
        {"groups": 2**62}, {"terms": 3}, {"block_rows": 33}, {"in_half": 1, "in_stride": [0, 0, 0, 9]},
        {"out_half": 1, "out_stride": [0, 0, 0, 12]}, {"stage_threads": 2}, {"stage_threads": 2**62}],
    3: [{"taps": 3}]
})
def test_check_conv(change, status, isa):
    x, w, out = np.zeros(15, F32), np.zeros((6, 5), F32), np.zeros((4, 5), F32)
    arrays = {"in": x, "w": packed(w, 2), "bias": whole_vectors(np.zeros(5, F32), isa), "tap": np.array([0, 3]), "out": out,
              "stage": stage(6, 2)}
    assert refusal("conv_bf16", isa, PRODUCT | change, **arrays, constants=CONSTANTS) == status


@refused({
    0: [{}],
    1: [{"terms": 0}, {"terms": 4}],
    2: [{"columns": 6}, {"columns": 2**63 - 1, "column_stride": 0}, {"k": [1, 1, 4]}, {"k": [1, 1, -3]},
        {"k": [2**40, 2**40, 3], "k_stride": [0, 0, 5]}, {"groups": 2, "out_group": 1}, {"terms": 3}]
})
def test_check_pack(change, status, isa):
    w = np.zeros((3, 5), F32)
    params = {"k": [1, 1, 3], "k_stride": [0, 0, 5], "columns": 5, "column_stride": 1, "groups": 1, "terms": 2}
    assert refusal("pack_bf16", isa, params | change, **{"in": w}, out=packed(w, 2)) == status


@pytest.mark.parametrize("isa", INSTRUCTIONS)
def test_peak(isa):
    """Measured where the instruction exists. How fast it is, is no matter for a test."""
    assert 0 < _native.peak_flops(isa, bf16=True) < 1e15
