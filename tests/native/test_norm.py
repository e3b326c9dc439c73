"""Layer, instance, group, batch and RMS normalisation against float64."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import dims, normal, refusal, refused, run, strides

from infold import _native

F32 = np.float32


def parameters(x: np.ndarray, kind: str, group: int, **more) -> dict:
    """x: images, height, width, channels; a view with wider pixels is fine."""
    lead, steps, out = x.shape[:3], strides(x)[:3], strides(np.zeros(x.shape, F32))[:3]
    apart = {"batch": 0, "image": 1, "rows": 3}[kind]  # how many dimensions have statistics of their own
    divisor = int(np.prod(lead[apart:])) * group
    return {"n": dims(lead[:apart], 4, 1), "in_stride": dims(steps[:apart], 4, 0), "out_stride": dims(out[:apart], 4, 0),
            "pixels": dims(lead[apart:], 4, 1), "in_pixel": dims(steps[apart:], 4, 0), "out_pixel": dims(out[apart:], 4, 0),
            "channels": x.shape[3], "group": group, "divisor": divisor, "epsilon": 1e-5, "affine_channel": 1, "near": 1 << 17,
            **more}


def expected_norm(x: np.ndarray, kind: str, group: int, gamma, beta, rms: bool, epsilon: float = 1e-5) -> np.ndarray:
    wide = x.astype(np.float64).reshape(*x.shape[:3], -1, group)
    axes = {"batch": (0, 1, 2, 4), "rows": (4,), "image": (1, 2, 4)}[kind]
    mean = 0 if rms else wide.mean(axes, keepdims=True)
    y = (wide - mean) / np.sqrt(((wide - mean) ** 2).mean(axes, keepdims=True) + epsilon)
    return y.reshape(x.shape) * (1 if gamma is None else gamma) + (0 if beta is None else beta)


def norm(isa, x, kind, group, gamma=None, beta=None, rms=False, act="IDENTITY", tables=None, power=None, near=1 << 17, far=0,
         **how):
    params = parameters(x, kind, group, power=2 * rms if power is None else power, act=_native.ACTS[act], near=near, far=far)
    affine = {k: v for k, v in (("gamma", gamma), ("beta", beta)) if v is not None} | (tables or {})
    storage = x if x.base is None else x.base
    return run("norm", isa, params, **{"in": storage}, **affine, out=np.zeros(x.shape, F32), **how)["out"]


def agree(got, x, kind, group, gamma=None, beta=None, rms=False, rtol=2e-6):
    expected = expected_norm(x, kind, group, gamma, beta, rms)
    assert expected.std() > 0.1
    assert np.abs(got - expected).max() <= rtol * np.abs(expected).max()


@pytest.mark.parametrize(
    "kind,groups", [("image", "each"), ("image", "pairs"), ("image", "all"), ("batch", "each"), ("rows", "all")]
)
def test_channels(kind, groups, isa, side):
    rng = np.random.default_rng(5)
    lanes = _native.isa_info(isa)["lanes"]
    for channels in (2, lanes, lanes + 2, 4 * lanes + 2, 96, 258, 512, 770):
        group = {"each": 1, "pairs": 2, "all": channels}[groups]
        x = normal(rng, 2, 7, 6, channels) * 3 + F32(2)
        gamma, beta = normal(rng, channels), normal(rng, channels)
        agree(norm(isa, x, kind, group, gamma, beta, side=side), x, kind, group, gamma, beta)
        agree(norm(isa, x, kind, group, side=side), x, kind, group)


@pytest.mark.parametrize("kind,group", [("image", 1), ("image", 4), ("rows", 8), ("image", 8)])
@pytest.mark.parametrize("only", ["gamma", "beta"])
def test_rms_and_missing_affine(kind, group, only, isa, side):
    rng = np.random.default_rng(6)
    x, v = normal(rng, 2, 5, 5, 8), normal(rng, 8)
    how = {only: v}
    agree(norm(isa, x, kind, group, rms=True, side=side, **how), x, kind, group, rms=True, **how)
    agree(norm(isa, x, kind, group, side=side, **how), x, kind, group, **how)


@pytest.mark.parametrize(
    "kind,group", [("image", 1), ("image", 5), ("batch", 1), ("rows", 35), ("image", 35), ("rows", 35 * 1640)]
)
@pytest.mark.parametrize("channels_of_a_pixel", [35, 1])
def test_mean_far_from_zero(channels_of_a_pixel, kind, group, isa):
    """A deviation ten thousand times smaller than the mean loses nothing but what float32 inputs have lost already."""
    x = normal(np.random.default_rng(7), 2, 40, 41, 35) + F32(10000)
    if group > 35:
        x = x.reshape(2, 1, 1, -1)
    elif channels_of_a_pixel == 1 and group == 1:
        x = x.reshape(2, 40, -1, 1)
    agree(norm(isa, x, kind, group), x, kind, group)


@pytest.mark.parametrize("length", [35, 96, 1000, 2048, 2049, 5000])
def test_outliers(length, isa):
    """Deviations are taken from elements of the row; where these are far from all others, from the mean after all."""
    x = normal(np.random.default_rng(14), 1, 3, 5, length)
    x[..., [0, length // 2, -1]] += 1000
    x[0, 1, :, 2040:] += 3000  # and a mean that moves behind the first block
    agree(norm(isa, x, "rows", length), x, "rows", length)


@pytest.mark.parametrize("kind,group", [("image", 1), ("image", 4), ("image", 300), ("batch", 1), ("rows", 300)])
@pytest.mark.parametrize("form", ["gated", "bounded", "absolute"])
def test_forms(form, kind, group, isa, side):
    rng = np.random.default_rng(10)
    for channels in {group, 300 if group in (1, 4) else group, *([12] if group == 4 else [])}:
        x, gamma, beta, v, floor = (normal(rng, *shape) for shape in [(2, 5, 7, channels), *[(channels,)] * 4])
        floor = np.abs(floor) + F32(0.1)
        wide = x.astype(np.float64).reshape(2, 5, 7, -1, group)
        axes = {"batch": (0, 1, 2, 4), "rows": (4,), "image": (1, 2, 4)}[kind]
        d = np.broadcast_to(np.sqrt(wide.var(axes, keepdims=True) + 1e-5), wide.shape).reshape(x.shape)
        tables = {"gated": {"v": v}, "bounded": {"v": v, "floor": floor}, "absolute": {}}[form]
        wide = x.astype(np.float64)
        if form == "gated":
            y = wide / (1 + np.exp(-wide * v)) / d
        elif form == "bounded":
            y = wide / np.maximum(floor, v * wide + d)
        else:
            parts = np.abs(wide).reshape(2, 5, 7, -1, group)
            y = (wide.reshape(parts.shape) / parts.mean(axes, keepdims=True)).reshape(x.shape)
        got = norm(isa, x, kind, group, gamma, beta, power=int(form == "absolute"), tables=tables, side=side)
        expected = y * gamma + beta
        assert np.abs(got - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("channels", [1, 3, 20, 64, 300])
@pytest.mark.parametrize("kind", ["batch", "image", "run"])
def test_larger_than_a_cache(kind, channels, isa):
    """Cut into blocks; the same on any number of threads."""
    pixels = 700_001 // channels
    x = normal(np.random.default_rng(11), 1, 1, pixels, channels) * F32(0.5) + F32(20)
    group = channels
    if kind == "run":  # all of it in one row
        x, group = x.reshape(1, 1, 1, -1), x.size
    elif kind == "batch":
        group = 1
    form = "rows" if kind == "run" else kind
    one, two, seven = (norm(isa, x, form, group, threads=t) for t in (1, 2, 7))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, seven)
    agree(one, x, form, group)


@pytest.mark.parametrize("near", [1 << 17, 0])
@pytest.mark.parametrize(
    "kind,channels,group", [("image", 16, 1), ("image", 3, 1), ("image", 16, 16), ("batch", 3, 1), ("rows", 96, 96),
                            ("rows", 1600, 1600), ("rows", 48000, 48000)]
)
def test_larger_than_every_cache(kind, channels, group, near, isa, side):
    """Stores go past the caches, and must have arrived when the operation returns: as if the last cache held 1000 elements, and the
    second none. The numbers are those of ordinary stores."""
    pixels = 48000 // channels
    x = normal(np.random.default_rng(13), 1, 10, pixels, channels)
    how = {"near": near, "threads": 2, "side": side}
    got = norm(isa, x, kind, group, far=1000, **how)
    agree(got, x, kind, group)
    np.testing.assert_array_equal(got, norm(isa, x, kind, group, **how))


@pytest.mark.parametrize("kind,group,channels", [("image", 1, 33), ("image", 4, 12), ("batch", 1, 3), ("rows", 40, 40)])
def test_statistics_given_away(kind, group, channels, isa, side):
    x = normal(np.random.default_rng(12), 2, 6, 4, channels) + F32(3)
    n = {"image": [2], "batch": [], "rows": [2, 6, 4]}[kind]
    groups = channels // group
    stat = np.zeros((*n, groups), F32)
    wide = x.astype(np.float64).reshape(2, 6, 4, groups, group)
    axes = {"batch": (0, 1, 2, 4), "rows": (4,), "image": (1, 2, 4)}[kind]
    for inverse, spread in ((0, wide.var(axes)), (1, 1 / np.sqrt(wide.var(axes) + 1e-5))):
        params = parameters(x, kind, group, stat_stride=dims(strides(stat)[:-1], 4, 0), stat_group=1, inverse=inverse)
        got = run("norm", isa, params, side=side, **{"in": x}, mean=stat, spread=stat, **({"out": x} if inverse else {}))
        np.testing.assert_allclose(got["mean"], wide.mean(axes).reshape(stat.shape), rtol=2e-6)
        np.testing.assert_allclose(got["spread"], spread.reshape(stat.shape), rtol=2e-6)


def test_pixels_wider_than_channels(isa, side):
    x = normal(np.random.default_rng(8), 2, 5, 4, 40)[..., :33]
    whole = np.ascontiguousarray(x)
    np.testing.assert_array_equal(norm(isa, x, "image", 1, side=side), norm(isa, whole, "image", 1))


@pytest.mark.parametrize(
    "kind,group,channels",
    [("image", 1, 300), ("image", 1, 33), ("image", 300, 300), ("rows", 300, 300), ("batch", 1, 300)],
)
@pytest.mark.parametrize("act", ["IDENTITY", "RELU", "SILU"])
def test_activation_and_threads(kind, group, channels, act, isa):
    x = normal(np.random.default_rng(9), 3, 20, 20, channels)
    one, two = (norm(isa, x, kind, group, act=act, threads=t) for t in (1, 2))
    np.testing.assert_array_equal(one, two)
    if act == "RELU":
        np.testing.assert_array_equal(one, np.maximum(norm(isa, x, kind, group), 0))


def test_constant_input_and_one_element(isa):
    x = np.full((1, 4, 4, 20), 3, F32)
    assert (norm(isa, x, "image", 1) == 0).all()
    assert (norm(isa, x, "rows", 20, beta=np.ones(20, F32)) == 1).all()
    assert (norm(isa, x[:, :1, :1].copy(), "image", 1) == 0).all()


@pytest.mark.parametrize("kind,group", [("image", 1), ("rows", 20)])
def test_not_a_number_stays_in_its_group(kind, group, isa):
    x = normal(np.random.default_rng(1), 1, 4, 4, 20)
    x[0, 1, 2, 3] = np.inf
    got = norm(isa, x, kind, group)
    expected = np.zeros(x.shape, bool)
    expected[(0, ..., 3) if kind == "image" else (0, 1, 2)] = True
    np.testing.assert_array_equal(np.isnan(got), expected)


@refused({
    0: [{}],
    1: [{"channels": 7}, {"group": 0}, {"act": _native.ACTS["PRELU"]}, {"affine_channel": 2}, {"power": 3}, {"near": -1},
        {"far": -1}, {"divisor": 0}],
    2: [{"channels": 16}, {"channels": 2**62, "group": 1}, {"pixels": [1, 1, 4, 4]}, {"pixels": [2**40, 2**40, 3, 4]},
        {"n": [1, 1, 1, 3]}, {"in_pixel": [0, 0, -32, 8]}, {"out_pixel": [0, 0, 33, 8]}, {"affine_stride": [0, 0, 0, 1]}]
})
def test_check(change, status, isa):
    x = np.zeros((2, 3, 4, 8), F32)
    arrays = {"in": x, "gamma": np.zeros(8, F32), "beta": np.zeros(8, F32), "out": x}
    assert refusal("norm", isa, parameters(x, "image", 2) | change, **arrays) == status
    assert refusal("norm", isa, parameters(x, "image", 2) | {"stat_stride": [0, 0, 0, 4], "stat_group": 1} | change, **arrays,
                   mean=np.zeros(7, F32)) == (status or 2)
    assert refusal("norm", isa, parameters(x, "image", 2), **arrays, floor=np.zeros(8, F32)) == 3
    short = arrays | {"gamma": np.zeros(7, F32)}
    assert refusal("norm", isa, parameters(x, "image", 2), **short) == 2
