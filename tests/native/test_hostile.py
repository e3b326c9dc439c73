"""Parameters bent at random: `check` refuses them, or the run stays inside its buffers, which touch unmapped pages."""

from __future__ import annotations

import re
from math import prod

import numpy as np
import pytest
import test_bf16
import test_counted
import test_index
import test_order
import test_sample
from native_harness import OPERATIONS, Guarded, arguments, dims, elements, pack, refusal, rows, run
from test_conv import AFTER, DEPTHWISE, GEMM, packed, whole_vectors

from infold import _native

F32 = np.float32
EDGES = [-1, 0, 1, 2, 3, 5, 17, 2**31 - 1, 2**31, 2**32 - 1, 2**32 + 1, 2**62, 2**63 - 1, -(2**31), -(2**63)]
STEP = re.compile(r"stride|_position|^in_|^out_|^res_").search
WORK = 10**6  # elements: a legal operation may be as large as it likes where its strides are 0, but not in a test


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, F32)


def wave(*shape: int) -> np.ndarray:
    """Numbers that depend on the place alone: a narrower array holds the first ones of a wider one."""
    return np.sin(1 + sum(axis * place for axis, place in zip((3, 7, 11, 13), np.indices(shape)))).astype(F32)


def cases(isa: str, width: int = 19) -> dict[str, tuple[dict, dict, tuple]]:
    """op: (parameters, arrays, names of constants), all legal; width: channels, columns or elements in a row."""
    lanes = _native.isa_info(isa)["lanes"]
    padded, line, image = -(-width // lanes) * lanes, 6 * width, 30 * width
    x = wave(2, 5, 6, width)
    each = elements(x, a=x)
    by_channel = {**each, "b_stride": dims([1], 6, 0)}
    channel, table, index = wave(width), np.array([[0, 1], [2, 3], [3, 4]]), np.array([0, 29, -1, 5])
    weight, bias = wave(6, width), whole_vectors(channel, isa)
    conv = GEMM | {"in_stride": [0, 0, 0, 6], "columns": width, "out_stride": [0, 0, 0, width], "res_stride": [0, 0, 0, width]}
    product = {name: value for name, value in conv.items() if name != "chunk"}  # conv_bf16 sums as its kernels do
    pool = {
        "n": [2, 1, 3, 3],
        "in_stride": [image, image, line, width],
        "out_stride": [9 * width, 9 * width, 3 * width, width],
        "in_size": [1, 5, 6],
        "kernel": [1, 3, 2],
        "stride": [1, 2, 2],
        "pad": [0, 1, 0],
        "pad_end": [0, 1, 0],
        "dilation": [1, 1, 1],
        "channels": width,
    }
    reduce = {
        "kept": [1, 1, 2, width],
        "reduced": [1, 1, 5, 6],
        "in_kept": [0, 0, image, 1],
        "in_reduced": [0, 0, line, width],
        "out_stride": [0, 0, width, 1],
    }
    norm = {
        "n": [1, 1, 1, 2],
        "in_stride": [0, 0, 0, image],
        "out_stride": [0, 0, 0, image],
        "pixels": [1, 1, 5, 6],
        "in_pixel": [0, 0, line, width],
        "out_pixel": [0, 0, line, width],
        "stat_stride": [0, 0, 0, width],
        "channels": width,
        "group": 1,
        "affine_channel": 1,
        "stat_group": 1,
        "divisor": 30,
        "epsilon": 1e-5,
    }
    resize = {
        "n": [2, 3, 3],
        "in_stride": [image, line, width],
        "out_stride": [9 * width, 3 * width, width],
        "in_size": [5, 6],
        "taps": [2, 2],
        "channels": width,
    }
    winograd = {
        "side": 2,
        "n": [1, 3, 4],
        "in_size": [3, 4],
        "dilation": [1, 1],
        "pad": [1, 1],
        "in_stride": [36, 12, 3],
        "out_stride": [12 * width, 4 * width, width],
        "k": 3,
        "columns": width,
        "slots": 2,
        "tiles": 2,
        "v_position": 6,
        "m_position": 2 * width,
        "chunk": 16,
        "point": [1.0, 0.0],
    }
    recurrent = {
        "kind": 1,
        "steps": 3,
        "batch": 2,
        "directions": 2,
        "hidden": width,
        "in_step": 16 * width,
        "in_batch": 8 * width,
        "out_step": 4 * width,
        "out_batch": width,
        "out_direction": 2 * width,
        "h_batch": width,
        "h_direction": 2 * width,
        "w_gate": width * padded,
        "act": [1, 1, 2, 1, 1, 1],
    }
    depthwise = DEPTHWISE | AFTER | {"channels": width, "w_stride": padded}
    depthwise |= {"in_stride": [0, 0, 0, width], "out_stride": [0, 0, 0, width]}
    taps = np.stack([whole_vectors(row, isa) for row in wave(2, width)])
    gates = np.concatenate([packed(wave(width, width), isa)] * 8)
    return {
        "recurrent": (recurrent, {"in": wave(3, 2, 8 * width), "w": gates, "bias": zeros(2, padded), "h": zeros(2, 2, width),
                                  "cell": zeros(2, 2, width), "out": zeros(3, 2, 2, width), "index": np.array([3, 1]),
                                  "peephole": zeros(2, 3 * width), "stage": zeros(4, 5 * width)}, ("w", "bias", "peephole")),
        "winograd": (winograd, {"in": wave(3, 4, 3), "w": np.concatenate([packed(wave(3, width), isa)] * 16), "bias": bias,
                                "out": zeros(3, 4, width), "scratch": zeros(2 * 16 * (6 + 2 * width))}, ("w", "bias")),
        "conv": (conv | AFTER, {"in": wave(24), "w": packed(weight, isa), "bias": bias, "tap": np.array([0, 3]),
                        "out": zeros(4, width), "slope": channel, "scale": channel, "shift": channel},
                 ("w", "bias", "tap", "slope", "scale", "shift")),
        "conv_bf16": ({**product, "terms": 3, "block_rows": 20, "stage_threads": 2, "depth": 64,
                       "plane": test_bf16.plane(6)},
                      {"in": wave(24), "w": test_bf16.packed(weight, 3), "bias": bias, "tap": np.array([0, 3]),
                       "out": zeros(4, width), "stage": test_bf16.stage(6, 3, 2, 20)}, ("w", "bias", "tap")),
        "pack_bf16": ({"k": [1, 2, 3], "k_stride": [0, 3 * width, width], "columns": width, "column_stride": 1, "groups": 1,
                       "terms": 2}, {"in": weight, "out": test_bf16.packed(weight, 2)}, ()),
        "pack": ({"k": [1, 2, 3], "k_stride": [0, 3 * width, width], "columns": width, "column_stride": 1, "groups": 1},
                 {"in": weight, "out": packed(weight, isa)}, ()),
        "pack_winograd": ({"side": 2, "k": 3, "columns": width, "out_group": 3 * padded, "g": [0.5] * 18},
                          {"in": wave(width, 3, 3, 3), "out": zeros(16, 3 * padded)}, ()),
        "depthwise": (depthwise, {"in": wave(5, width), "w": taps, "bias": bias,
                                  "tap": np.array([0, width]), "out": zeros(4, width), "scale": channel, "shift": channel},
                      ("w", "bias", "tap", "scale", "shift")),
        "unary": (each, {"in": x, "out": x}, ()),
        "binary": (by_channel, {"a": x, "b": channel, "out": x}, ()),
        "affine": (by_channel, {"x": x, "scale": channel, "shift": channel, "out": x}, ()),
        "fill": ({**elements(x), "item": 4}, {"out": x}, ()),
        "pool": (pool, {"in": x, "out": zeros(2, 3, 3, width)}, ()),
        "reduce": (reduce, {"in": x, "out": zeros(2, width)}, ()),
        "softmax": ({**rows(x), "length": width}, {"in": x, "out": x}, ()),
        "norm": (norm, {"in": x, "gamma": channel, "beta": channel, "v": channel, "floor": channel, "out": x,
                        "mean": zeros(2, width), "spread": zeros(2, width)}, ()),
        "lrn": ({**rows(x), "channels": width, "before": 2, "after": 2, "bias": 1.0}, {"in": x, "out": x}, ()),
        "resize": (resize, {"in": x, "row": table, "row_weight": wave(3, 2), "column": table,
                            "column_weight": wave(3, 2), "out": zeros(2, 3, 3, width)},
                   ("row", "row_weight", "column", "column_weight")),
        "map": ({**by_channel, "c_stride": each["a_stride"], "loop": _native.LOOPS["WHERE_4"]},
                {"a": x > 0, "b": channel, "c": x, "out": x}, ()),
        "gather": (test_index.rows_params(zeros(2, 30, width), index), {"in": x, "index": index, "out": zeros(2, 4, width)}, ()),
        "scatter": (test_index.rows_params(zeros(2, 30, width), index, "ADD_f32"),
                    {"in": wave(2, 4, width), "index": index, "out": x}, ()),
        "nonzero": ({"shape": each["shape"], "dims": 4}, {"in": x > 0, "out": np.zeros((4, x.size), np.int64),
                                                         "count": np.zeros(1, np.int64)}, ()),
        "nms": (*test_counted.boxes_call(2, 3, max(width, 4), 4), ()),
        "roi_align": (*test_sample.regions_call(x, np.full((3, 4), 2.5)), ()),
        "grid_sample": (*test_sample.grid_call(x, np.full((2, 3, 4, 2), 0.3)), ()),
        "order": (test_order.call(x, min(width, 3)), {"in": x, "out": np.zeros((60, min(width, 3)), np.int64)}, ()),
    }  # fmt: skip


def test_every_operation_is_covered():
    assert set(cases("scalar")) == set(OPERATIONS)


ONE_BY_ONE = {"conv", "conv_bf16", "winograd", "depthwise", "unary", "binary", "affine", "pool", "reduce", "norm", "resize", "map",
              "gather", "scatter", "roi_align", "grid_sample"}  # whose channels have nothing to do with one another


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_tail(op: str, isa: str, side: str):
    """Rows of 1 to twice a vector's elements and one: inside their buffers, and with the numbers that a wide row begins with."""
    most = 2 * _native.isa_info(isa)["lanes"] + 1
    found = {}
    for width in range(1, most + 1):
        params, arrays, constants = cases(isa, width)[op]
        found[width] = run(op, isa, params, side=side, constants=constants, **arrays)["out"]
    for width in range(1, most) if op in ONE_BY_ONE else ():
        expected = found[most].reshape(-1, most)[:, :width]
        assert np.ptp(expected.astype(np.float64)) > 0
        np.testing.assert_allclose(found[width].reshape(-1, width), expected, rtol=1e-5, atol=1e-5)


def bend(params: dict, fields: list[str], rng: np.random.Generator) -> dict:
    """One to three numbers become an edge case, or move by a little."""
    bent = {name: [int(e) for e in v] if np.iterable(v) else v for name, v in params.items()}
    for _ in range(rng.integers(1, 4)):
        name = fields[rng.integers(len(fields))]
        old = bent.get(name, 0)
        at = int(rng.integers(len(old))) if isinstance(old, list) else None
        value = old if at is None else old[at]
        value = EDGES[rng.integers(len(EDGES))] if rng.random() < 0.6 else int(value) + int(rng.integers(-2, 3))
        value = max(-(2**63), min(2**63 - 1, value))
        if at is None:
            bent[name] = value
        else:
            old[at] = value
    return bent


def integers(op: str) -> dict[str, int]:
    """The operation's parameters that are integers, or as many as that."""
    described = [f.partition(":") for f in OPERATIONS[op][1].split()]
    parts = [name.partition("[") for name, _, kind in described if kind != "f"]
    return {name: int(count[:-1]) if count else 0 for name, _, count in parts}


@pytest.mark.parametrize("op", OPERATIONS)
def test_bent_parameters(op: str, isa: str, side: str):
    params, arrays, constants = cases(isa)[op]
    rng = np.random.default_rng(hash_of(op, isa, side))
    lengths = integers(op)
    full = {name: params.get(name, [0] * count if count else 0) for name, count in lengths.items()}
    full |= {name: v for name, v in params.items() if name not in full}
    steps = [name for name in lengths if STEP(name) or name in ("scale", "loop", "depth", "plane")]
    guarded = {name: Guarded(a, side) for name, a in arrays.items()}
    regions = [name for name in guarded if name not in constants]
    args = [
        None if name not in guarded else (guarded[name].array if name in constants else regions.index(name), 0)
        for name, _ in arguments(op)
    ]
    accepted = refused = 0
    for trial in range(400):
        bent = full if trial == 0 else bend(full, list(lengths), rng)
        program = _native.Program(isa, [guarded[name].array.nbytes for name in regions])
        status = program.append(OPERATIONS[op][0], pack(op, bent), args)
        refused += status != 0
        extents = [v for name in lengths if name not in steps for v in np.ravel(bent[name]).tolist()]
        if status == 0 and prod(max(1, abs(int(v))) for v in extents) <= WORK:
            accepted += 1
            program.run([guarded[name].array for name in regions], 1 + trial % 2)
    assert all(g.intact() for g in guarded.values())
    assert accepted and refused, f"{accepted} accepted, {refused} refused: the test tests nothing"


@pytest.mark.parametrize("op", [op for op in OPERATIONS if not op.startswith("pack")])  # which run when plans are made
def test_no_step_is_endless(op: str, isa: str):
    """Strides of zero go over the same memory for ever: a step that would is refused, though no address is outside."""
    params, arrays, constants = cases(isa)[op]
    lengths = integers(op)
    still = {name: [0] * count if count else 0 for name, count in lengths.items() if STEP(name) and name != "in_size"}
    extent = next(name for name in ("n", "shape", "kept", "steps", "rois", "batch") if name in lengths)
    for times in [1 << 47, 1 << 59]:
        params = {**params, **still, extent: dims([times], lengths[extent], 1) if lengths[extent] else times}
        assert refusal(op, isa, params, constants=constants, **arrays) != 0


@pytest.mark.parametrize(("kernel", "status"), [(1, 0), (16, 2)])
def test_a_step_does_more_than_its_results_say(kernel, status, isa):
    params, arrays, _ = cases(isa)["pool"]
    params = params | {"n": [1 << 40, 1, 1, 1], "in_stride": [0] * 4, "out_stride": [0] * 4, "kernel": [1, kernel, kernel],
                       "pad": [0, 8, 8], "pad_end": [0, 8, 8], "channels": 1}  # fmt: skip
    assert refusal("pool", isa, params, **arrays) == status


def hash_of(*words: str) -> int:
    return sum(31**i * ord(c) for i, c in enumerate(" ".join(words))) % 2**32
