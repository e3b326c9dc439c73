"""Random graphs with shared weights, several readers and inner outputs compute the same after folding."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from passes_harness import fold_and_compare, model, normal, run, statistics

from infold import passes

CHANNELS = 4
STEPS = [
    "{y} = Conv <pads = [1, 1, 1, 1]> ({a}, w{i})",
    "{y} = Conv <pads = [1, 1, 1, 1]> ({a}, w{i}, b{j})",
    "{y} = Conv <pads = [1, 1, 1, 1], group = 4> ({a}, d{i})",
    "{y} = ConvTranspose <pads = [1, 1, 1, 1], group = 2> ({a}, t{i}, b{j})",
    "{y}_p = Pad({a}, pads) {y} = Conv({y}_p, w{i})",
    "{y} = MatMul({a}, m{i})",
    *["{y} = BatchNormalization({a}, n{i}scale, n{i}bias, n{i}mean, n{i}var)"] * 4,
    "{y} = Mul({a}, k{i})",
    "{y} = Add(k{i}, {a})",
    "{y} = Sub(k{i}, {a})",
    "{y} = Div({a}, k{i})",
    "{y} = Neg({a})",
    "{y} = Identity({a})",
    "{y} = Dropout({a})",
    "{y} = LeakyRelu <alpha = 0.25> ({a})",
    "{y} = Max({a}, {b})",
    "{y} = Add({a}, {b})",
    "{y} = Sum({a}, x, {b})",
    "{y} = Conv({a}, p{i}, b{j})",
    "{y} = Conv({a}, dead)",
    "{y} = Relu({a})",
    "{y} = BatchNormalization({a}, zero_or_one, n{i}bias, n{i}mean, n{i}var)",
    "{y}_c = Concat <axis = 1> ({a}, {b}) {y}_u, {y} = Split <axis = 1> ({y}_c, halves)",
    "{y}_s = Slice({a}, two, four, one) {y} = Concat <axis = 1> ({y}_s, {y}_s)",
    "{y} = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = {count}> ({a})",
    "{y} = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({a})",
    "{y}_t = Transpose <perm = [0, 2, 3, 1]> ({a}) {y} = Transpose <perm = [0, 3, 1, 2]> ({y}_t)",
    "{y}_r = Reshape({a}, split) {y}_t = Transpose <perm = [0, 2, 1, 3]> ({y}_r) {y} = Reshape({y}_t, whole)",
    "{y}_g = GlobalAveragePool({a}) {y} = Add({a}, {y}_g)",
    "{y}_s = Sigmoid({a}) {y} = Mul({y}_s, {a})",
    "{y}_a = Add({a}, three) {y}_c = Clip({y}_a, zero, six) {y}_m = Mul({y}_c, {a}) {y} = Div({y}_m, six)",
]
RNG = np.random.default_rng(0)
CONSTANTS = {
    **{f"w{i}": normal(RNG, CHANNELS, CHANNELS, 3, 3) / 6 for i in range(3)},
    **{f"d{i}": normal(RNG, CHANNELS, 1, 3, 3) / 3 for i in range(3)},
    **{f"t{i}": normal(RNG, CHANNELS, CHANNELS // 2, 3, 3) / 4 for i in range(3)},
    **{f"m{i}": normal(RNG, 5, 5) / 2 for i in range(3)},
    **{f"b{i}": normal(RNG, CHANNELS) for i in range(3)},
    **{f"k{i}": 1 + np.abs(normal(RNG, *shape)) for i, shape in enumerate([(), (CHANNELS, 1, 1), (1, CHANNELS, 1, 1)])},
    **{name: array for i in range(3) for name, array in statistics(RNG, CHANNELS, f"n{i}").items()},
    **{f"p{i}": normal(RNG, CHANNELS, CHANNELS, 1, 1) / 2 for i in range(3)},
    "dead": normal(RNG, CHANNELS, CHANNELS, 1, 1) * np.float32([1, 0, 1, 0]).reshape(-1, 1, 1, 1),
    "zero_or_one": np.float32([1, 0, 1, 1]),
    "halves": np.array([CHANNELS, CHANNELS]),
    "one": np.array([1]),
    "two": np.array([2]),
    "four": np.array([4]),
    "split": np.array([0, 2, CHANNELS // 2, 25]),
    "whole": np.array([0, CHANNELS, 5, 5]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "three": np.float32(3),
    "zero": np.float32(0),
    "six": np.float32(6),
}


@given(st.data())
@settings(max_examples=60)
def test_random_graphs(data):
    names, body = ["x"], []
    for count in range(data.draw(st.integers(1, 12))):
        recent = st.sampled_from(names[-2:] if data.draw(st.booleans()) else names)
        places = {
            "a": data.draw(recent),
            "b": data.draw(recent),
            "i": data.draw(st.integers(0, 2)),
            "count": data.draw(st.integers(0, 1)),
            "j": data.draw(st.integers(0, 2)),
        }
        body.append(data.draw(st.sampled_from(STEPS)).format(y=f"v{count}", **places))
        names.append(f"v{count}")
    outputs = {names[-1], *data.draw(st.lists(st.sampled_from(names[1:]), max_size=2))}
    signature = ", ".join(f"float[N,{CHANNELS},5,5] {name}" for name in sorted(outputs))
    subject = model(f"g (float[N,{CHANNELS},5,5] x) => ({signature}) {{ {' '.join(body)} }}", CONSTANTS)
    feeds = {"x": normal(np.random.default_rng(1), 2, CHANNELS, 5, 5)}
    assume(all(output.any() for output in run(subject, feeds).values()))  # v0 + (-v0)
    for rule in (passes.fold, passes.prepare):
        fold_and_compare(subject, feeds, rule=rule, tolerance=1e-4)
