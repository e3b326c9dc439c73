"""BatchNormalization behind operators that move, pick, join or average goes into the layers behind them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passes_harness import fold, fold_and_measure, inferred, model, normal, operators, statistics

BN = "BatchNormalization"
RNG = np.random.default_rng(0)
CONSTANTS = {
    "w": normal(RNG, 6, 4, 3, 3),
    "w1": normal(RNG, 6, 4, 1, 1),
    "v": normal(RNG, 2, 4, 3, 3),
    "b": normal(RNG, 6),
    "m4": normal(RNG, 6, 4),
    "m6": normal(RNG, 6, 6),
    "k": normal(RNG, 1, 6, 1, 1),
    "grid": normal(RNG, 4, 4),
    "const": normal(RNG, 2, 3, 4, 4),
    "zero": np.float32(0),
    "half": np.float32(0.5),
    **{f"s{'_'.join(map(str, shape))}": np.array(shape) for shape in
       [(0, 2, 3, 16), (2, 6, 16), (2, 6, 4, 4), (0, -1), (2, 12, 8), (2, 3, 2, 4, 4), (0, 96), (0, 24, 4)]},
    **{f"i{value}": np.array([value]) for value in (0, 1, 2, 3, 4, 5, 6)},
    "last": np.array([-1]),
    "spatial": np.array([2, 3]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 0, 2]),
    "deep": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
    "sizes": np.array([2, 4]),
    "thirds": np.array([2, 2, 2]),
    "twice": np.float32([1, 1, 2, 2]),
    **{
        name: array
        for count in (3, 4, 6, 8, 10, 12, 96)
        for name, array in statistics(RNG, count, f"n{count}").items()
    },
    "pscale": np.abs(normal(RNG, 6)) + 0.1,
    "zbias": np.zeros(6, np.float32),
    "zmean": np.zeros(6, np.float32),
}


def bn(x: str, count: int) -> str:
    return f"{BN}({x}, n{count}scale, n{count}bias, n{count}mean, n{count}var)"


def subject_of(body: str):
    return inferred(f"g (float[2,4,6,6] x) => (float[] y) {{ {body} }}", CONSTANTS)


FEEDS = {"x": normal(np.random.default_rng(7), 2, 4, 6, 6)}


@pytest.mark.parametrize(
    "body",
    [
        # moves
        f"c = Conv(x, w) r = Reshape(c, s2_6_16) y = {bn('r', 6)}",
        f"c = Conv(x, w1) p = MaxPool <kernel_shape = [6, 6]> (c) y = {BN}(p, pscale, zbias, n6mean, n6var)",
        f"c = Conv(x, w) g = GlobalAveragePool(c) f = Flatten(g) y = {bn('f', 6)}",
        f"c = Conv(x, w) g = ReduceMean <axes = [2, 3], keepdims = 0> (c) y = {bn('g', 6)}",
        f"c = Conv(x, w) g = ReduceMean <axes = [-1]> (c) q = Squeeze(g, last) y = {bn('q', 6)}",
        f"g = ReduceMean <axes = [2, 3], keepdims = 0> (x) h = Gemm <transB = 1> (g, m4) u = Unsqueeze(h, i2) "
        f"y = {bn('u', 6)}",
        f"c = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (c) u = Transpose <perm = [0, 3, 1, 2]> (t) "
        f"y = {bn('u', 6)}",
        f"c = Conv(x, w) r = Reshape(c, s0_2_3_16) t = Transpose <perm = [0, 2, 1, 3]> (r) u = Reshape(t, s2_6_4_4) "
        f"y = {bn('u', 6)}",  # a channel shuffle
        f"m = MatMul(x, m6) t = Transpose <perm = [0, 3, 1, 2]> (m) y = {bn('t', 6)}",
        # picks
        f"c = Conv(x, w) s = Slice(c, i1, i4, i1) y = {bn('s', 3)}",
        f"c = Conv(x, w) s = Slice(c, i4, i0, i1, last) y = {bn('s', 4)}",
        f"c = Conv(x, w) s = Slice(c, i1, i4, i2) y = {bn('s', 6)}",
        f"c = Conv(x, w) p, q = Split <axis = 1> (c, sizes) n = {bn('q', 4)} y = Concat <axis = 1> (p, n)",
        # joins
        f"c = Conv(x, w) d = Conv(x, w, b) j = Concat <axis = 1> (c, d) y = {bn('j', 12)}",
        f"c = Conv(x, w) d = Conv(x, v) j = Concat <axis = -3> (d, c) y = {bn('j', 8)}",
        f"c = Conv(x, w) d = Conv(x, w, b) j = Concat <axis = 2> (c, d) y = {bn('j', 6)}",
        f"c = Conv(x, w) d = Conv(x, v) e = Concat <axis = 1> (c, d) f = Conv(x, v) j = Concat <axis = 1> (e, f) "
        f"y = {bn('j', 10)}",
        f"n = Relu(x) c = Conv(x, w) d = Conv(n, w, b) a = Add(c, d) y = {bn('a', 6)}",
        f"n = Relu(x) c = Conv(x, w) d = Conv(n, w, b) a = Sub(c, d) y = {bn('a', 6)}",
        f"n = Relu(x) e = Exp(x) c = Conv(x, w) d = Conv(n, w, b) f = Conv(e, w) a = Sum(c, d, f) y = {bn('a', 6)}",
        # averages and the like
        f"c = Conv(x, w) p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c) y = {bn('p', 6)}",
        f"c = Conv(x, w) p = AveragePool <kernel_shape = [2, 2], count_include_pad = 1> (c) y = {bn('p', 6)}",
        f"c = Conv(x, w) p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (c) "
        f"y = {BN}(p, n6scale, zbias, zmean, n6var)",
        f"c = Conv(x, w) p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c) "
        f"y = {BN}(p, pscale, n6bias, n6mean, n6var)",
        f"c = Conv(x, w) p = GlobalMaxPool(c) y = {BN}(p, pscale, n6bias, n6mean, n6var)",
        f'c = Conv(x, w) p = Resize <mode = "linear"> (c, , twice) y = {bn("p", 6)}',
        f"c = Conv(x, w) p = Pad(c, pads) y = {BN}(p, n6scale, zbias, zmean, n6var)",
        f'c = Conv(x, w) p = Pad <mode = "reflect"> (c, pads) y = {bn("p", 6)}',
        # arithmetic on the way
        f"c = Conv(x, w) p = GlobalAveragePool(c) q = Mul(p, k) r = Add(half, q) y = {bn('r', 6)}",
    ],
)
def test_it_reaches_the_weights(body):
    result, report = fold_and_measure(subject_of(body), FEEDS)
    assert operators(result)[BN] == 0 and [item.verdict for item in report.items] == ["folded"]
    before = operators(subject_of(body))
    assert all(before[name] >= count for name, count in operators(result).items() if name != "Add")


def test_new_weights_belong_to_the_graph_alone():
    gc.disable()
    try:
        result, _ = fold(subject_of(f"c = Conv(x, w) p = GlobalAveragePool(c) y = {bn('p', 6)}"))
        held = {name: weakref.ref(value.const_value.numpy()) for name, value in result.graph.initializers.items()}
        for value in result.graph.initializers.values():
            value.const_value = None
        assert held and not [name for name, array in held.items() if array() is not None]
    finally:
        gc.enable()


def test_arithmetic_takes_the_same_ways():
    """ConvNeXt multiplies by its layer scale behind the Transpose."""
    subject = subject_of("m = MatMul(x, m6) a = Add(m, b) t = Transpose <perm = [0, 3, 1, 2]> (a) s = Mul(k, t) "
                         "y = Neg(s)")
    result, _ = fold_and_measure(subject, FEEDS)
    assert [node.op_type for node in result.graph] == ["MatMul", "Add", "Transpose"]
    names = {value.name for node in result.graph for value in node.outputs}
    assert names.isdisjoint({"m", "a", "t", "s"}), "a name means the same tensor before and after"


@pytest.mark.parametrize(
    "body, reason",
    [
        (f"c = Conv(x, w) f = Flatten(c) y = {bn('f', 96)}",
         "through Flatten 'f': its channel axis is not the one that the weights produce"),
        (f"c = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (c) y = {bn('t', 4)}",
         "through Transpose 't': its channel axis is not the one that the weights produce"),
        (f"c = Conv(x, w) p = MaxPool <kernel_shape = [3, 3]> (c) y = {bn('p', 6)}",
         "through MaxPool 'p': its scale is not positive in every channel"),
        (f"c = Conv(x, w) p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (c) "
         f"y = {bn('p', 6)}",
         "through AveragePool 'p': AveragePool 'p' counts its padding, which its shift would change"),
        (f"c = Conv(x, w) p = Pad(c, pads) y = {bn('p', 6)}",
         "through Pad 'p': Pad 'p' inserts values that its shift would change"),
        (f"c = Conv(x, w) p = Pad(c, pads, half) y = {BN}(p, n6scale, zbias, zmean, n6var)",
         "through Pad 'p': Pad 'p' inserts values that its shift would change"),
        (f"c = Conv(x, w) p = Pad(c, deep) y = {bn('p', 8)}", "through Pad 'p': Pad 'p' may pad the channels"),
        (f"c = Conv(x, w) p, q = Split <axis = 1> (c, sizes) n = {bn('q', 4)} r = Abs(c) s = ReduceMax(r) "
         f"t = Add(s, n) u = ReduceMax(p) y = Add(t, u)",
         "through Split 'p': the output of 'c' has other readers; forward, Add 't' reads it"),
        (f"c = Conv(x, w) d = Conv(x, w) r = Relu(d) j = Concat <axis = 1> (c, r) y = {bn('j', 12)}",
         "through Concat 'j': it follows Relu 'r', not a convolution or matrix product"),
        (f"c = Conv(x, w) p = ReduceMax <axes = [2, 3]> (c) a = Add(c, p) y = {bn('a', 6)}",
         "through Add 'a': the output of 'c' has other readers"),
        (f"j = Concat <axis = 1> (x, x) y = {bn('j', 8)}", "through Concat 'j': it normalises the graph input 'x'"),
    ],
)
def test_what_stays_and_why(body, reason):
    subject = subject_of(body)
    result, report = fold_and_measure(subject_of(body), FEEDS)
    assert [(item.verdict, item.reason) for item in report.items] == [("kept", reason)]
    assert operators(result) == operators(subject)


@given(st.data())
@settings(max_examples=40)
def test_random_ways(data):
    """Reshape, Transpose and Split in any order between a convolution and a normalisation."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape, body, value = [2, 12, 4, 6], "c = Conv(x, w)", "c"
    constants = {"w": normal(rng, 12, 3, 1, 1)}
    for i in range(data.draw(st.integers(1, 4))):
        match data.draw(st.sampled_from(["Reshape", "Transpose", "Split", "Mul"])):
            case "Reshape":
                size = int(np.prod(shape[1:]))
                first = data.draw(st.sampled_from([n for n in (1, 2, 3, 4, 6, 12, 24) if size % n == 0]))
                shape = [2, first, size // first]
                constants[f"k{i}"] = np.array(shape)
                body += f" v{i} = Reshape({value}, k{i})"
            case "Transpose":
                perm = [0, *data.draw(st.permutations(range(1, len(shape))))]
                shape = [shape[axis] for axis in perm]
                body += f" v{i} = Transpose <perm = {perm}> ({value})"
            case "Split":
                axis = data.draw(st.sampled_from(range(1, len(shape))))
                if shape[axis] < 2:
                    continue
                constants[f"k{i}"] = np.array([1, shape[axis] - 1])
                shape[axis] -= 1
                body += f" u{i}, v{i} = Split <axis = {axis}> ({value}, k{i})"
            case "Mul":
                constants[f"k{i}"] = normal(rng, *(size if data.draw(st.booleans()) else 1 for size in shape[1:]))
                body += f" v{i} = Mul({value}, k{i})"
        value = f"v{i}"
    constants |= statistics(rng, shape[1])
    outputs = [f"float[{','.join(map(str, shape))}] y"]
    text = f"g (float[2,3,4,6] x) => ({', '.join(outputs)}) {{ {body} y = {BN}({value}, scale, bias, mean, var) }}"
    fold_and_measure(model(text, constants), {"x": normal(rng, 2, 3, 4, 6)})
