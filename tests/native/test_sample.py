"""Images read at computed points: regions and grids, with hostile coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import normal, prepare, refusal, refused, run, strides

F32 = np.float32
HOSTILE = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e9, -1e9, 0, 1, -1]


def regions_call(x: np.ndarray, rois: np.ndarray, pool=(2, 3), sampling: int = 2, scale: float = 1.0,
                 half: int = 0, mode: int = 0) -> tuple[dict, dict]:
    out = np.zeros((len(rois), *pool, x.shape[3]), F32)
    params = {"rois": len(rois), "size": x.shape[1:3], "pool": pool, "channels": x.shape[3], "batch": x.shape[0],
              "in_stride": strides(x)[:3], "out_stride": strides(out)[:3], "mode": mode, "sampling": sampling, "half_pixel": half,
              "scale": scale}  # fmt: skip
    return params, {"in": x, "rois": rois.astype(F32), "index": np.arange(len(rois)) % x.shape[0], "out": out}


def bilinear(x: np.ndarray, y: float, at: float) -> np.ndarray:
    """A pixel of (height, width, channels) as RoiAlign reads it."""
    h, w = x.shape[:2]
    if y < -1 or y > h or at < -1 or at > w:
        return np.zeros(x.shape[2])
    y, at = min(max(y, 0), h - 1), min(max(at, 0), w - 1)
    top, left = int(y), int(at)
    down, right = min(top + 1, h - 1), min(left + 1, w - 1)
    u, v = y - top, at - left
    return (1 - u) * ((1 - v) * x[top, left] + v * x[top, right]) + u * ((1 - v) * x[down, left] + v * x[down, right])


def neighbours(x: np.ndarray, y: float, at: float) -> np.ndarray:
    """Products of the four pixels and weights of `bilinear`; zeros outside."""
    h, w = x.shape[:2]
    if y < -1 or y > h or at < -1 or at > w:
        return np.zeros((4, x.shape[2]))
    parts = []
    for place, size in (y, h), (at, w):
        place = min(max(place, 0), size - 1)
        parts.append([(int(place), 1 - place % 1), (min(int(place) + 1, size - 1), place % 1)])
    return np.array([u * v * x[i, j] for i, u in parts[0] for j, v in parts[1]])


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize(("channels", "sampling"), [(19, 0), (1, 1), (300, 3)])
def test_regions(channels, sampling, half, mode, isa, side):
    rng = np.random.default_rng(3)
    x = normal(rng, 2, 9, 11, channels)
    rois = np.array([[0, 0, 10, 8], [2.3, 1.1, 7.7, 6.2], [-4, -3, 5, 20], [6, 6, 6.1, 6.1], [1, 2, 3, 9.9]])
    params, arrays = regions_call(x, rois, sampling=sampling, half=half, scale=0.8, mode=mode)
    expected = np.zeros_like(arrays["out"], np.float64)
    for r, (x0, y0, x1, y1) in enumerate(arrays["rois"].astype(np.float64) * 0.8 - 0.5 * half):
        height, width = ((y1 - y0), (x1 - x0)) if half else (max(1, y1 - y0), max(1, x1 - x0))
        bin_h, bin_w = height / 2, width / 3
        gh, gw = sampling or int(np.ceil(bin_h)), sampling or int(np.ceil(bin_w))
        for i, j in np.ndindex(2, 3):
            read = neighbours if mode else bilinear
            points = [read(x[r % 2].astype(np.float64), y0 + (i + (a + 0.5) / gh) * bin_h, x0 + (j + (b + 0.5) / gw) * bin_w)
                      for a, b in np.ndindex(gh, gw)]  # fmt: skip
            expected[r, i, j] = np.concatenate(points).max(0) if mode else np.mean(points, 0)
    for threads in (1, 2):
        got = run("roi_align", isa, params, **arrays, side=side, threads=threads)["out"]
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("channels", [1, 300])
def test_regions_of_pixels(channels, isa, side):
    rng = np.random.default_rng(4)
    x = normal(rng, 2, 9, 40, channels) - 3
    rois = np.array([[0, 0, 39, 8], [2.3, 1.1, 7.7, 6.2], [-4, -3, 5, 20], [6, 6, 6.1, 6.1], [30, 2, 90, 9.9]])
    params, arrays = regions_call(x, rois, scale=0.8, mode=2)
    expected = np.zeros_like(arrays["out"])
    for r, corners in enumerate(arrays["rois"] * F32(0.8)):
        x0, y0, x1, y1 = np.copysign(np.floor(np.abs(corners) + 0.5), corners).astype(int)
        height, width = F32(max(1, y1 - y0 + 1)) / F32(2), F32(max(1, x1 - x0 + 1)) / F32(3)
        for i, j in np.ndindex(2, 3):
            rows, columns = ([min(max(0, first + int(end)), size) for end in (np.floor(n * step), np.ceil((n + 1) * step))]
                             for n, first, step, size in ((i, y0, height, 9), (j, x0, width, 40)))  # fmt: skip
            pixels = x[r % 2, slice(*rows), slice(*columns)]
            expected[r, i, j] = pixels.max((0, 1)) if pixels.size else 0
    assert (expected == 0).any() and (expected < 0).any()
    for threads in (1, 2):
        np.testing.assert_array_equal(run("roi_align", isa, params, **arrays, side=side, threads=threads)["out"], expected)


def test_hostile_regions(isa, side):
    rng = np.random.default_rng(0)
    rois = rng.choice(HOSTILE, (60, 4))
    for sampling, half, mode in (0, 0, 0), (0, 1, 0), (2, 1, 0), (0, 0, 1), (2, 1, 1), (0, 0, 2):
        params, arrays = regions_call(normal(rng, 1, 4, 5, 3), rois, sampling=sampling, half=half, mode=mode)
        run("roi_align", isa, params, **arrays, side=side)
    arrays["index"][7] = 1
    status, program, guarded, names = prepare("roi_align", isa, params, arrays, side)
    assert status == 0 and program.run([guarded[name].array for name in names], 1) == 0  # a fault


@refused({
    0: [{}],
    1: [{"sampling": -1}, {"sampling": 513}, {"size": [0, 5]}, {"batch": 0}, {"mode": 3}, {"mode": -1},
        {"mode": 2, "size": [1025, 5]}],
    2: [{"batch": 2}, {"size": [5, 5]}, {"pool": [3, 3]}, {"rois": 4}, {"channels": 4}, {"rois": 2**62}]
})
def test_check_regions(change, status, isa):
    params, arrays = regions_call(np.zeros((1, 4, 5, 3), F32), np.zeros((3, 4)))
    assert refusal("roi_align", isa, params | change, **arrays) == status


def grid_call(x: np.ndarray, grid: np.ndarray, taps: int = 2, padding: int = 0, corners: int = 0) -> tuple[dict, dict]:
    """x (batch, [depth,] height, width, channels); grid (batch, [depth,] height, width, axes)."""
    out, axes = np.zeros((*grid.shape[:-1], x.shape[-1]), F32), grid.shape[-1]

    def volume(values, one: int) -> list[int]:
        return [*[one] * (3 - axes), *values[1:-1]]

    params = {"batch": x.shape[0], "size": volume(x.shape, 1), "points": volume(grid.shape, 1), "channels": x.shape[-1],
              "in_stride": [strides(x)[0], *volume(strides(x), 0)], "out_stride": [strides(out)[0], *volume(strides(out), 0)],
              "axes": axes, "taps": taps, "padding": padding, "corners": corners}  # fmt: skip
    return params, {"in": x, "grid": grid.astype(F32), "out": out}


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(("axes", "taps"), [(2, 1), (2, 2), (2, 4), (3, 1), (3, 2)])
def test_grid(axes, taps, padding, corners, isa, side):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    for channels in (1, 19):
        x, grid = normal(rng, 2, *(6, 7, 3)[:axes], channels), rng.uniform(-1.6, 1.6, (2, *(5, 4, 2)[:axes], axes)).astype(F32)
        params, arrays = grid_call(x, grid, taps, padding, corners)
        mode, pad = {1: "nearest", 2: "bilinear", 4: "bicubic"}[taps], ("zeros", "border", "reflection")[padding]
        image = torch.from_numpy(x).movedim(-1, 1)
        expected = torch.nn.functional.grid_sample(image, torch.from_numpy(grid), mode, pad, bool(corners)).movedim(1, -1)
        for threads in (1, 2):
            got = run("grid_sample", isa, params, **arrays, side=side, threads=threads)["out"]
            np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("axes", "taps"), [(2, 1), (2, 2), (2, 4), (3, 1), (3, 2)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_hostile_grid(axes, taps, padding, isa, side):
    rng = np.random.default_rng(0)
    grid = rng.choice(HOSTILE, (1, *(8, 8, 3)[:axes], axes))
    for size in (4, 5, 2), (1, 1, 1):
        for corners in 0, 1:
            params, arrays = grid_call(normal(rng, 1, *size[:axes], 3), grid, taps, padding, corners)
            run("grid_sample", isa, params, **arrays, side=side)


@refused({
    0: [{}],
    1: [{"taps": 3}, {"padding": 3}, {"padding": -1}, {"size": [1, 0, 5]}, {"size": [1, 2**24 + 1, 1]}, {"size": [2, 4, 5]},
        {"points": [2, 3, 3]}, {"axes": 4}, {"axes": 1}, {"axes": 3, "taps": 4}],
    2: [{"axes": 3}, {"batch": 2}, {"size": [1, 5, 5]}, {"points": [1, 4, 3]}, {"channels": 4}, {"points": [1, 2**62, 4]}]
})
def test_check_grid(change, status, isa):
    params, arrays = grid_call(np.zeros((1, 4, 5, 3), F32), np.zeros((1, 3, 3, 2)))
    assert refusal("grid_sample", isa, params | change, **arrays) == status
