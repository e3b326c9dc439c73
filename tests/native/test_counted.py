"""Operations whose results the data count: non-zero elements and non-maximum suppression."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import dims, refusal, refused, run

F32 = np.float32


@pytest.mark.parametrize("shape", [(7,), (1,), (4, 5), (3, 1, 6), (2, 2, 2, 2, 2, 2)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_nonzero(shape, share, isa, side):
    x = np.random.default_rng(1).random(shape) < share
    arrays = {"in": x, "out": np.zeros((x.ndim, x.size), np.int64), "count": np.zeros(1, np.int64)}
    got = run("nonzero", isa, {"shape": dims(shape, 6, 1), "dims": x.ndim}, **arrays, side=side)
    np.testing.assert_array_equal(got["out"][:, : got["count"][0]], np.nonzero(x))


@refused({
    0: [{}],
    1: [{"dims": 7}, {"dims": -1}],
    2: [{"dims": 3}, {"shape": [1, 1, 1, 1, 4, 6]}, {"shape": [1, 1, 1, -1, 4, 5]}, {"shape": [2**62, 1, 1, 4, 4, 5]}]
})
def test_check_nonzero(change, status, isa):
    arrays = {"in": np.zeros((4, 5), bool), "out": np.zeros((2, 20), np.int64), "count": np.zeros(1, np.int64)}
    assert refusal("nonzero", isa, {"shape": dims((4, 5), 6, 1), "dims": 2} | change, **arrays) == status


def boxes_call(batch: int, classes: int, boxes: int, limit: int, center: int = 0, seed: int = 0) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    corner, size = rng.random((batch, boxes, 2)), rng.random((batch, boxes, 2)) * 0.5
    scores = rng.integers(0, 20, (batch, classes, boxes)).astype(F32) / 20
    arrays = {
        "boxes": np.concatenate([corner, size if center else corner + size], 2).astype(F32),
        "scores": scores,
        "index": np.argsort(-scores, axis=2, kind="stable"),
        "out": np.zeros((batch * classes * limit, 3), np.int64),
        "count": np.zeros(1, np.int64),
    }
    return {"batch": batch, "classes": classes, "boxes": boxes, "limit": limit, "center": center, "iou": 0.3, "score": 0.2}, arrays


def suppressed(params: dict, arrays: dict) -> list[list[int]]:
    """Greedy suppression by the definition."""
    found = []
    for n in range(params["batch"]):
        box = arrays["boxes"][n].astype(np.float64)
        if params["center"]:
            box = np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], 1)
        for c in range(params["classes"]):
            kept: list[int] = []
            for i in arrays["index"][n, c]:
                if not arrays["scores"][n, c, i] > F32(params["score"]) or len(kept) == params["limit"]:
                    continue
                sides = [np.minimum(box[i, 2:], box[k, 2:]) - np.maximum(box[i, :2], box[k, :2]) for k in kept]
                common = [np.prod(np.maximum(0, side)) for side in sides]
                area = np.prod(box[:, 2:] - box[:, :2], axis=1)
                if all(x / (area[i] + area[k] - x) <= params["iou"] for x, k in zip(common, kept)):
                    kept.append(int(i))
            found += [[n, c, i] for i in kept]
    return found


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize(("batch", "classes", "boxes", "limit"), [(1, 1, 50, 50), (2, 3, 20, 4), (1, 2, 1, 1), (1, 1, 5, 0)])
def test_suppression(batch, classes, boxes, limit, center, isa, side):
    params, arrays = boxes_call(batch, classes, boxes, limit, center)
    got = run("nms", isa, params, **arrays, side=side)
    expected = suppressed(params, arrays)
    assert got["count"][0] == len(expected)
    np.testing.assert_array_equal(got["out"][: len(expected)], np.reshape(expected, (-1, 3)))


@refused({
    0: [{}],
    1: [{"limit": 7}, {"limit": -1}, {"batch": -1}],
    2: [{"limit": 5}, {"boxes": 7}, {"classes": 3}, {"batch": 2}, {"classes": 2**62}, {"boxes": 2**62},
        {"boxes": 2**63 - 1, "limit": 2**63 - 1}]
})
def test_check_suppression(change, status, isa):
    params, arrays = boxes_call(1, 2, 6, 4)
    assert refusal("nms", isa, params | change, **arrays) == status
