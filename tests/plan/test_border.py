"""The zeros around an image: all that is between, before and behind its pixels, and nothing else."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from infold.plan.lowering import Lowering
from infold.plan.tensor import F32, Tensor, image_layout

CASES = [
    ((1, 3, 4, 5), ((1, 1), (1, 1))),
    ((3, 2, 4, 5), ((2, 1), (0, 3))),
    ((2, 2, 1, 1), ((0, 1), (2, 0))),
    ((2, 2, 3, 4), ((0, 0), (1, 2))),
    ((2, 2, 3, 4), ((2, 0), (0, 0))),
    ((2, 2, 3, 4), ((0, 0), (0, 0))),
    ((2, 3, 7), ((3, 2),)),
    ((2, 2, 3, 2, 4), ((1, 2), (0, 1), (2, 1))),
    ((2, 2, 3, 2, 4), ((1, 0), (0, 0), (0, 1))),
    ((2, 2, 0, 4), ((1, 2), (1, 1))),
    ((2, 2, 3, 0), ((1, 2), (1, 0))),
]


@pytest.mark.parametrize(("shape", "border"), CASES)
@pytest.mark.parametrize("spare", [0, 2])
def test_each_zero_is_written_once(shape, border, spare: int):
    strides, first, count = image_layout(shape, shape[1] + spare, border)
    written = np.zeros(count, int)

    def fill(t: Tensor, value: float) -> None:
        at = sum((np.arange(n) * s).reshape(-1, *[1] * (len(t.shape) - 1 - i)) for i, (n, s) in enumerate(zip(t.shape, t.strides)))
        np.add.at(written, t.offset // 4 + at.ravel(), 1)

    Lowering._zero_border(SimpleNamespace(fill=fill), Tensor(None, shape, strides, F32, 4 * first, border))
    padded = np.ones((shape[0], *[b + n + a for n, (b, a) in zip(shape[2:], border)], shape[1] + spare), int)
    padded[(slice(None), *[slice(b, b + n) for n, (b, _) in zip(shape[2:], border)])] = 0
    np.testing.assert_array_equal(written, padded.ravel())
