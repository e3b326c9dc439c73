"""GatherElements against torch.gather."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_harness import run_node

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [1, -1])
def test_gather_elements_takes_long_axes_and_fewer_indices(axis):
    x = RNG.standard_normal((3, 300, 300))
    indices = RNG.integers(-300, 300, (2, 7, 5))
    expected = torch.gather(torch.tensor(x), axis, torch.tensor(indices % 300)).numpy()
    np.testing.assert_array_equal(run_node("GatherElements", x, indices, axis=axis), expected)
