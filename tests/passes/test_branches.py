"""Parallel branches over one input become one convolution, and only where the taps fit on one grid and cost no more."""

from __future__ import annotations

import numpy as np
import pytest
from exports import export
from hypothesis import given, settings
from hypothesis import strategies as st
from passes_harness import constant, fold, fold_and_compare, fold_and_measure, model, normal, operators, statistics

BN = "BatchNormalization"


@st.composite
def blocks(draw):
    groups = draw(st.sampled_from([1, 2, 6]))
    rank = draw(st.integers(1, 3))
    return {
        "groups": groups,
        "rank": rank,
        "kernel": [draw(st.sampled_from([1, 3, 5])) for _ in range(rank)],
        "dilation": draw(st.integers(1, 2)),
        "stride": draw(st.integers(1, 2)),
        "order": draw(st.permutations(["k", "p", "n", "x"])),
        "bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@given(blocks())
@settings(max_examples=40)
def test_a_training_block_becomes_one_convolution(block):
    """k: a kernel with BN, p: 1x1 with BN, n: BN of the input, x: the input; the last two at stride 1 only."""
    rng = np.random.default_rng(block["seed"])
    rank, groups, step, stride = block["rank"], block["groups"], block["dilation"], block["stride"]
    pads = [(size - 1) // 2 * step for size in block["kernel"]] * 2
    constants = {
        "wk": normal(rng, 6, 6 // groups, *block["kernel"]),
        "wp": normal(rng, 6, 6 // groups, *[1] * rank),
        "b": normal(rng, 6),
    }
    for name in "kpn":
        constants |= statistics(rng, 6, name)
    body = f"""
        ck = Conv <group = {groups}, strides = {[stride] * rank}, dilations = {[step] * rank}, pads = {pads}>
                  (x, wk{", b" if block["bias"] else ""})
        k = {BN}(ck, kscale, kbias, kmean, kvar)
        cp = Conv <group = {groups}, strides = {[stride] * rank}> (x, wp)
        p = {BN}(cp, pscale, pbias, pmean, pvar)"""
    terms = [name for name in block["order"] if stride == 1 or name in "kp"]
    if "n" in terms:
        body += f" n = {BN}(x, nscale, nbias, nmean, nvar)"
    total = terms[0]
    for i, term in enumerate(terms[1:]):
        body += f" s{i} = Add({total}, {term})"
        total = f"s{i}"
    shape = ",".join(["N", "6", "S", "T", "U"][: rank + 2])
    subject = model(f"g (float[{shape}] x) => (float[] y) {{ {body} y = Relu({total}) }}", constants)
    result, report = fold_and_measure(subject, {"x": normal(rng, 2, 6, *rng.integers(5, 8, rank))})
    assert operators(result) == {"Conv": 1, "Relu": 1}
    assert report.folded == len(terms) - ("x" in terms)


def test_the_kernels_add_up_in_float64_and_are_rounded_once():
    rng = np.random.default_rng(0)
    constants = {"a": normal(rng, 4, 4, 3, 3), "b": normal(rng, 4, 4, 1, 1)}
    subject = model(
        """g (float[N,4,6,6] x) => (float[N,4,6,6] y)
        { p = Conv <pads = [1, 1, 1, 1]> (x, a) q = Conv(x, b) y = Sum(p, x, q) }""",
        constants,
    )
    result, _ = fold_and_measure(subject, {"x": normal(rng, 1, 4, 6, 6)})
    expected = constants["a"].astype(np.float64)
    expected[:, :, 1, 1] += constants["b"][:, :, 0, 0].astype(np.float64) + np.eye(4)
    assert np.array_equal(constant(result, "a"), expected.astype(np.float32))


@pytest.mark.parametrize(
    "text, convolutions, additions",
    [
        # SAME at stride 1 is a fixed padding, and a 1x1 may sit off the centre
        ('p = Conv <auto_pad = "SAME_UPPER"> (x, k2) q = Conv(x, k1) y = Add(p, q)', 1, 0),
        ('p = Conv <auto_pad = "SAME_LOWER"> (x, k2) q = Conv(x, k1) y = Add(p, q)', 1, 0),
        ("p = Conv <pads = [0, 0, 2, 2]> (x, k3) q = Conv(x, k1) y = Add(p, q)", 1, 0),
        # ACNet: 3x3, 1x3 and 3x1
        ("p = Conv <pads = [1, 0, 1, 0]> (x, k31) q = Conv <pads = [0, 1, 0, 1]> (x, k13) s = Add(p, q) "
         "r = Conv <pads = [1, 1, 1, 1]> (x, k3) y = Add(s, r)", 1, 0),
        # 3 + 3 taps must not become 9
        ("p = Conv <pads = [1, 0, 1, 0]> (x, k31) q = Conv <pads = [0, 1, 0, 1]> (x, k13) y = Add(p, q)", 2, 1),
        # dilated: the ring around the centre fits a 3x3, but not the grid of another dilation
        ("p = Conv <pads = [2, 2, 2, 2], dilations = [2, 2]> (x, k3) y = Add(p, x)", 1, 0),
        ("p = Conv <pads = [2, 2, 2, 2], dilations = [2, 2]> (x, k3) q = Conv <pads = [1, 1, 1, 1]> (x, k3) "
         "y = Add(p, q)", 2, 1),
        # other inputs, other readers, other groups
        ("n = Relu(x) p = Conv(x, k1) q = Conv(n, k1) r = Conv(x, k1) s = Add(p, q) y = Add(s, r)", 2, 1),
        ("p = Conv(x, k1) q = Conv(p, k1) y = Add(p, q)", 2, 0),
        ("p = Conv(x, k1) q = Conv(x, k1) s = Add(p, q) r = Relu(p) y = Add(s, r)", 2, 2),
        ("p = Conv <group = 2> (x, g1) q = Conv(x, k1) y = Add(p, q)", 2, 1),
        ("p = Conv <group = 2> (x, g1) y = Add(p, x)", 1, 0),
        # scaled shortcuts
        ("n = Mul(x, h) p = Conv(x, k1) y = Add(p, n)", 1, 0),
        ("n = Mul(x, h) m = Add(n, h) p = Conv(x, k1) y = Add(m, p)", 1, 0),
        ("p = Conv(x, k1) s = Add(x, p) y = Add(s, x)", 1, 0),
        ("n = Relu(x) p = Conv(x, k1) y = Add(p, n)", 1, 1),
    ],
)
def test_which_sums_merge(text, convolutions, additions):
    rng = np.random.default_rng(0)
    constants = {
        "k1": normal(rng, 4, 4, 1, 1),
        "k2": normal(rng, 4, 4, 2, 2),
        "k3": normal(rng, 4, 4, 3, 3),
        "k13": normal(rng, 4, 4, 1, 3),
        "k31": normal(rng, 4, 4, 3, 1),
        "g1": normal(rng, 4, 2, 1, 1),
        "h": normal(rng, 4, 1, 1),
    }
    subject = model(f"g (float[N,4,6,7] x) => (float[N,4,6,7] y) {{ {text} }}", constants)
    result, _ = fold_and_measure(subject, {"x": normal(rng, 2, 4, 6, 7)})
    counts = operators(result)
    assert (counts["Conv"], counts["Add"]) == (convolutions, additions)


@pytest.mark.parametrize(
    "text",
    [
        "p = Conv(x, wide) y = Add(p, x)",  # 1 filter, broadcast over 4 channels
        "p = Conv <pads = [1, 1, 1, 1]> (x, k3) q = Conv(x, one) y = Add(p, q)",
        "p = Conv <strides = [2, 2]> (t, k1) q = Conv(t, point) y = Add(p, q)",  # output sizes differ
    ],
)
def test_broadcast_sums_stay(text):
    rng = np.random.default_rng(0)
    constants = {
        "wide": normal(rng, 1, 4, 1, 1),
        "one": normal(rng, 1, 4, 1, 1),
        "k3": normal(rng, 4, 4, 3, 3),
        "k1": normal(rng, 4, 4, 1, 1),
        "point": normal(rng, 4, 4, 2, 2),
    }
    subject = model(f"g (float[N,4,6,6] x, float[N,4,2,2] t) => (float[N,C,H,W] y) {{ {text} }}", constants)
    feeds = {"x": normal(rng, 2, 4, 6, 6), "t": normal(rng, 2, 4, 2, 2)}
    result, _ = fold_and_compare(subject, feeds)
    assert operators(result) == operators(subject)


def test_a_merge_that_would_overflow_stays():
    subject = model(
        "g (float[N,1,2,2] x) => (float[N,1,2,2] y) { p = Conv(x, a) q = Conv(x, b) y = Add(p, q) }",
        {"a": np.full((1, 1, 1, 1), 1e19, np.float32), "b": np.full((1, 1, 1, 1), 1e19, np.float32)},
    )
    result, _ = fold_and_compare(subject, {"x": np.full((1, 1, 2, 2), 0.5, np.float32)})
    assert operators(result) == {"Conv": 2, "Add": 1}


def test_branches_whose_statistics_are_broken_stay_with_the_reason():
    rng = np.random.default_rng(0)
    constants = {"w": normal(rng, 4, 4, 1, 1), **statistics(rng, 4)}
    constants["var"][2] = np.nan
    subject = model(
        f"g (float[N,4,2,2] x) => (float[] y) {{ p = Conv(x, w) n = {BN}(x, scale, bias, mean, var) y = Add(p, n) }}",
        constants,
    )
    result, report = fold(subject)
    assert operators(result) == operators(subject) and report.items[0].verdict == "kept"


@pytest.mark.parametrize("how, opset", [("script", 17), ("traced", 18)])
def test_a_branch_that_is_subtracted(how: str, opset: int) -> None:
    """FastViT mixes tokens by x + scale * (branches(x) - norm(x)): one depthwise convolution."""
    torch = pytest.importorskip("torch")

    class Mixer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.scale = torch.nn.Conv2d(3, 8, 1), torch.nn.Parameter(torch.rand(8, 1, 1))
            self.conv = torch.nn.Conv2d(8, 8, 3, 1, 1, groups=8)
            self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(8) for _ in range(3))
            for norm in self.norms:
                for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                    torch.nn.init.uniform_(values, 0.5, 1.5)

        def forward(self, x):
            x = self.first(x).relu()
            mixed = self.norms[0](self.conv(x)) + self.norms[1](x)
            return x + self.scale * (mixed - self.norms[2](x))

    torch.manual_seed(0)
    subject = export(Mixer().eval(), torch.randn(2, 3, 9, 9), how, opset, dynamic=(0,))
    result, report = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 3, 9, 9)})
    assert operators(result) == {"Conv": 2, "Relu": 1} and report.folded == 3
