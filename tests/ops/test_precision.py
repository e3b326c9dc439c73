"""Precision levels end to end: every split that a level allows, on every instruction set with bf16 kernels of its own."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from session_harness import Net, compare, session

from infold import _native
from infold.ops.product import chain_of_sums
from infold.ops.splits import SPLITS, ProductSize, cycles
from infold.plan.tensor import BF16
from infold.reference import run_float64

PATHS = [n for n in _native.isa_names() if _native.isa_info(n)["bf16_macs"]] + ["scalar", *_native.isa_names(emulated=True)]
TOLERANCE = {"bf16": 2e-2, "bf16x3": 5e-5, "bf16x6": 3e-6}  # of the largest output, after two layers
LEVEL = {"bf16": "medium", "bf16x3": "high", "bf16x6": "highest"}


@pytest.fixture(params=PATHS)
def isa(request, monkeypatch) -> str:
    monkeypatch.setenv("INFOLD_ISA", request.param)
    return request.param


def kernels(subject, feeds) -> list[str]:
    return [record.kernel for record in subject.profile(feeds, runs=1)]


def convolutions() -> tuple[Net, str]:
    """Padding, stride, dilation, groups, a residual, activations, and a BatchNorm that can only be a prologue."""
    net = Net(4)
    x = net.input(2, 5, 17, 15)
    x = net("Relu", net("Conv", x, net.weight(40, 5, 3, 3), net.normal(40), pads=[1] * 4))
    y = net("Conv", x, net.weight(40, 10, 3, 3), group=4, pads=[2] * 4, dilations=[2, 2])
    x = net("HardSwish", net("Add", x, y))
    x = net("Concat", x, net("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    x = net("Relu", net("BatchNormalization", x, net.positive(80), net.normal(80), net.normal(80), net.positive(80)))
    return net, net("Conv", x, net.weight(33, 80, 1, 1), net.normal(33), strides=[2, 2])


def products() -> tuple[Net, str]:
    net = Net(5)
    x = net("MatMul", net.input(3, 7, 37), net.normal(37, 70))
    x = net("Relu", net("Add", x, net.normal(70)))
    return net, net("Gemm", net("Reshape", x, net.ints(21, 70)), net.normal(19, 70), net.normal(19), transB=1, alpha=0.5)


@pytest.mark.parametrize("split", TOLERANCE)
@pytest.mark.parametrize("make", [convolutions, products])
def test_every_split(make, split, isa):
    net, y = make()
    model = net.model(y)
    subject = session(model, precision=LEVEL[split], algorithms={"*": split})
    used = kernels(subject, net.feeds)
    assert used.count("conv_bf16") == {convolutions: 3, products: 2}[make] and "conv" not in used
    assert not subject.report.fallbacks
    (found,), expected = subject.run(None, net.feeds), run_float64(model, net.feeds)[y]
    compare(found, expected, TOLERANCE[split])
    two = session(model, 2, precision=LEVEL[split], algorithms={"*": split}).run(None, net.feeds)[0]
    np.testing.assert_array_equal(two, found)


def half_network() -> tuple[Net, str]:
    """What may be kept as bf16: residuals, a prologue, a channel Concat, a squeeze and excitation; and readers that cannot."""
    net = Net(8)
    x = net("Relu", net("Conv", net.input(2, 3, 17, 15), net.weight(24, 3, 3, 3), net.normal(24), pads=[1] * 4))
    y = net("Relu", net("Conv", x, net.weight(24, 24, 3, 3), net.normal(24), pads=[1] * 4))
    x = net("Relu", net("Add", net("Conv", y, net.weight(24, 24, 1, 1), net.normal(24)), x))
    factor = net("Sigmoid", net("Conv", net("GlobalAveragePool", x), net.weight(24, 24, 1, 1), net.normal(24)))
    y = net("HardSwish", net("Conv", net("Mul", x, factor), net.weight(16, 24, 1, 1), net.normal(16)))
    x = net("Concat", x, y, axis=1)
    x = net("Relu", net("BatchNormalization", x, net.positive(40), net.normal(40), net.normal(40), net.positive(40)))
    x = net("Conv", x, net.weight(33, 40, 1, 1), net.normal(33))
    x = net("Conv", x, net.weight(33, 33, 3, 3), net.normal(33), pads=[1] * 4, strides=[2, 2])
    return net, net("Softmax", net("Conv", x, net.weight(12, 33, 1, 1), net.normal(12)), axis=1)


def dtypes(subject) -> list:
    """Of all that the steps touch."""
    return [t.dtype for plan in subject.runner.plans for step in plan.steps for t in step.args if t is not None]


def test_activations_are_kept_in_bf16(isa):
    net, y = half_network()
    model = net.model(y)
    subject = session(model, precision="medium", algorithms={"*": "bf16"})
    (found,) = subject.run(None, net.feeds)
    assert dtypes(subject).count(BF16) > 10
    compare(found, run_float64(model, net.feeds)[y], TOLERANCE["bf16"])
    for threads in (2, 3):
        again = session(model, threads, precision="medium", algorithms={"*": "bf16"}).run(None, net.feeds)[0]
        np.testing.assert_array_equal(again, found)
    for level in ("high", "highest"):
        subject = session(model, precision=level, algorithms={"*": "bf16"})
        subject.run(None, net.feeds)
        assert BF16 not in dtypes(subject)


def mobile_network() -> tuple[Net, str, str]:
    """Depthwise convolutions, Winograd, pooling and means over pixels, each behind what writes bf16, before what reads it."""
    net = Net(9)
    x = start = net("Conv", net.input(2, 5, 17, 15), net.weight(20, 5, 3, 3), net.normal(20), pads=[1] * 4)
    x = net("Conv", x, net.weight(20, 1, 3, 3), net.normal(20), group=20, pads=[1] * 4)
    x = net("Mul", x, net("Sigmoid", x))
    x = net("Relu", net("Add", net("Conv", x, net.weight(20, 20, 3, 3), net.normal(20), pads=[1] * 4), start))
    y = net("HardSwish", net("Conv", x, net.weight(20, 20, 3, 3), net.normal(20), pads=[1] * 4))
    x = net("MaxPool", net("Concat", x, y, axis=1), kernel_shape=[3, 3], pads=[1] * 4)
    x = net("HardSwish", net("Conv", x, net.weight(40, 1, 5, 5), net.normal(40), group=40, strides=[2, 2]))
    x = net("AveragePool", x, kernel_shape=[2, 2])
    x = net("Conv", x, net.weight(40, 1, 3, 3), net.normal(40), group=40, pads=[1] * 4)
    return net, net("GlobalAveragePool", x), net("ReduceMean", x, net.ints(2, 3), keepdims=0)


def test_an_output_that_lies_in_an_image_of_bf16(isa):
    """It is handed out as float32."""
    net = Net(6)
    x = net.input(1, 16, 12, 10)
    a, b = (net("Conv", x, net.weight(16, 16, 3, 3), pads=[1] * 4) for _ in range(2))
    y = net("Conv", net("Concat", a, b, axis=1), net.weight(8, 32, 1, 1))
    model = net.model(a, y)
    found = session(model, precision="medium", algorithms={"*": "bf16"}).run([a, y], net.feeds)
    for name, array in zip((a, y), found):
        compare(array, run_float64(model, net.feeds)[name], TOLERANCE["bf16"])


def test_images_between_other_kernels(isa):
    net, *outputs = mobile_network()
    model, how = net.model(*outputs), {"precision": "medium", "algorithms": {"*": "winograd4", "nobody": "bf16"}}
    subject, exact = session(model, **how), run_float64(model, net.feeds)
    found = subject.run(outputs, net.feeds)
    used = kernels(subject, net.feeds)
    assert used.count("winograd.4x4") == 3 and used.count("depthwise") > 1 and dtypes(subject).count(BF16) > 10
    assert not subject.report.fallbacks and "map" not in used  # nothing is widened or rounded on the way
    for name, value, two in zip(outputs, found, session(model, 2, **how).run(outputs, net.feeds)):
        compare(value, exact[name], TOLERANCE["bf16"])
        np.testing.assert_array_equal(two, value)


@pytest.mark.parametrize("channels, kernel, stride, pad", [(3, 7, 2, 3), (3, 3, 2, 1), (1, 5, 1, 0), (4, 3, 1, 1)])
def test_pictures(channels, kernel, stride, pad, isa):
    """Of few channels: rounded as a whole where the kernel reads pairs from anywhere, odd rows of taps with one number more."""
    net = Net(12)
    x = net("Conv", net.input(2, channels, 18, 17), net.weight(24, channels, kernel, kernel), net.normal(24), strides=[stride] * 2,
            pads=[pad] * 4)
    model, how = net.model(net("Relu", x)), {"precision": "medium", "algorithms": {"*": "bf16"}}
    subject, exact = session(model, **how), run_float64(model, net.feeds)
    (found,) = subject.run(None, net.feeds)
    compare(found, next(iter(exact.values())), TOLERANCE["bf16"])
    assert kernels(subject, net.feeds).count("conv_bf16") == 1
    assert (BF16 in dtypes(subject)) == (_native.isa_info(isa)["bf16_depth"] == 2)
    np.testing.assert_array_equal(session(model, 2, **how).run(None, net.feeds)[0], found)


@pytest.mark.parametrize("last", [True, False])
def test_chains_of_bf16_images(last, isa, monkeypatch):
    """The windows of a chain hold bf16 numbers; if it ends in a depthwise convolution whose reader wants float32, they do not."""
    monkeypatch.setattr("infold.ops.conv_chain._band_rows", lambda links, room, dtype: 4)
    net = Net(10)
    x = net("Conv", net.input(1, 32, 21, 20), net.weight(64, 32, 1, 1), net.normal(64))
    x = net("Conv", net("HardSwish", x), net.weight(64, 1, 3, 3), net.normal(64), group=64, pads=[1] * 4)
    x = net("Conv", net("Relu", x), net.weight(32, 64, 1, 1), net.normal(32)) if last else x
    model, how = net.model(x), {"precision": "medium", "algorithms": {"*": "chain", "nobody": "bf16"}}
    subject = session(model, **how)
    (found,) = subject.run(None, net.feeds)
    compare(found, run_float64(model, net.feeds)[x], TOLERANCE["bf16"])
    assert kernels(subject, net.feeds).count("depthwise") > 2
    assert (BF16 in dtypes(subject)) == (last and _native.isa_info(isa)["bf16_macs"] > 0)
    np.testing.assert_array_equal(session(model, 2, **how).run(None, net.feeds)[0], found)


@pytest.mark.parametrize("level, split", [("highest", "bf16"), ("highest", "bf16x3"), ("high", "bf16")])
def test_a_level_forbids_the_splits_below_it(level, split, isa):
    net, y = products()
    exact = run_float64(net.model(y), net.feeds)[y]
    (found,) = session(net.model(y), precision=level, algorithms={"*": split}).run(None, net.feeds)
    compare(found, exact, 5e-5 if level == "high" else 3e-6)


def test_what_is_emulated_is_never_chosen(monkeypatch):
    monkeypatch.setenv("INFOLD_ISA", "scalar")
    net, y = convolutions()
    assert "conv_bf16" not in kernels(session(net.model(y), precision="medium"), net.feeds)


def test_the_fastest_split_is_chosen(isa):
    """A large product in bf16 wherever an instruction does it faster than float32 would."""
    net = Net(6)
    y = net("Conv", net.input(1, 128, 20, 20), net.weight(128, 128, 3, 3), net.normal(128), pads=[1] * 4)
    info = _native.isa_info(isa)
    for level in ("medium", "high", "highest"):
        gain = max(info["bf16_macs"] / s.products / (2 * info["lanes"]) for s in SPLITS.values() if s.terms and level in s.levels)
        used = kernels(session(net.model(y), precision=level, algorithms={}), net.feeds)
        assert ("conv_bf16" in used) == (gain > 1) or any(name.startswith("winograd") for name in used)


def test_estimates_for_tiles(monkeypatch):
    """As a prototype measured them on a core with AMX, against float32 kernels, for the smallest and the largest product of a
    ResNet-50; a single row, whose time is that of its weights, takes the way that reads the fewest bytes."""
    info = {"bf16_macs": 512, "bf16_depth": 32, "bf16_rows": 16}
    monkeypatch.setattr("infold.ops.splits._native.isa_info", lambda isa: info)
    ctx = SimpleNamespace(isa="amx", lanes=16)

    def gain(name: str, *size: int) -> float:
        return cycles(ctx, "direct", ProductSize(*size)) / cycles(ctx, name, ProductSize(*size))

    for name, small, large in (("bf16", 480 / 165, 1410 / 197), ("bf16x3", 310 / 165, 660 / 197), ("bf16x6", 190 / 165, 330 / 197)):
        assert 0.75 < gain(name, 3136, 64, 64) / small < 1.4 and 0.75 < gain(name, 49, 4608, 512) / large < 1.4
    assert gain("bf16", 1, 2048, 1000) == 2 and gain("bf16x6", 1, 2048, 1000) < 1


@pytest.mark.parametrize("depth", [256, 2048])
def test_sums_round_less_at_highest(depth, monkeypatch):
    """Shorter chains: the mean square of the errors grows with chain + depth / chain."""
    monkeypatch.setenv("INFOLD_ISA", "scalar")
    net = Net(11)
    model = net.model(net("MatMul", net.input(100, depth), net.normal(depth, 40)))
    exact = next(iter(run_float64(model, net.feeds).values()))
    found = [session(model, precision=level).run(None, net.feeds)[0] for level in ("highest", "high")]
    errors = [np.sqrt(np.mean((y - exact) ** 2)) for y in found]
    assert 0 < errors[0] < 0.85 * errors[1]


@pytest.mark.parametrize("level, most", [("highest", 128), ("highest", 32), ("high", 128)])
def test_chains_fit_what_lies_under_one_tap(level: str, most: int):
    """Whole taps are one chain, or a tap is several chains and no short rest; their length stays near that for the depth alone."""
    ctx = SimpleNamespace(options=SimpleNamespace(precision=level))
    for taps in (1, 3, 7, 9, 49):
        for run in range(1, 400):
            chain, alone = chain_of_sums(ctx, taps * run, run, most), chain_of_sums(ctx, taps * run, 1, most)
            assert chain % run == 0 if run <= chain else -(-run // chain) <= round(run / alone), (taps, run, chain)
            assert 2 / 3 <= chain / alone <= 1.5, (taps, run, chain, alone)
        assert chain_of_sums(ctx, 0, 0, most) >= 1
