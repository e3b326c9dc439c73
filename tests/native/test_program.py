"""`Program.repeat` refuses what would leave the buffers."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import OPERATIONS, pack

from infold import _native


def doubling(count: int) -> _native.Program:
    """out = in + in, of `count` numbers; regions: 1 in, 2 out."""
    program = _native.Program("scalar", [0, 4 * count, 4 * count, 1])
    params = pack("binary", {"shape": [1] * 5 + [count], "a_stride": [0] * 5 + [1], "b_stride": [0] * 5 + [1],
                                  "out_stride": [0] * 5 + [1], "op": _native.BINARIES["ADD"]})
    assert program.append(OPERATIONS["binary"][0], params, [(1, 0), (1, 0), (2, 0)]) == 0
    return program


def buffers(count: int, trips: int = 1) -> list[np.ndarray]:
    return [np.zeros(0, np.uint8), np.ones(count, np.float32), np.zeros(count * trips, np.float32), np.ones(1, np.uint8)]


def test_a_state_and_all_it_was():
    given = buffers(3)
    assert doubling(3).repeat(given, 1, None, 5, set(), [(1, 2)], 3) == (-1, 5)
    np.testing.assert_array_equal(given[2], 32)  # an odd number of times: the last one is here
    np.testing.assert_array_equal(given[1], 16)
    given = buffers(3, 4)
    given[1] = np.arange(12, dtype=np.float32)
    assert doubling(3).repeat(given, 1, None, 4, {1, 2}, [], -1) == (-1, 4)
    np.testing.assert_array_equal(given[2], 2 * given[1])


def test_a_condition_ends_it():
    given, seconds = buffers(2), np.zeros(1)
    given[3][...] = 0
    assert doubling(2).repeat(given, 1, seconds, 9, set(), [(1, 2)], 3) == (-1, 1)
    np.testing.assert_array_equal(given[2], 2)
    assert seconds[0] > 0


@pytest.mark.parametrize("change", [
    {"trips": 0}, {"trips": 2**62}, {"moving": {2}}, {"carried": [(1, 3)]}, {"carried": [(1, 4)]}, {"carried": [(0, 1)]},
    {"carried": [(1, -1)]}, {"moving": {1}, "carried": [(1, 2)], "trips": 1}, {"condition": 4}, {"condition": 0}, {"condition": -2},
])
def test_refused(change):
    asked = {"trips": 2, "moving": {2} if change.get("trips") else set(), "carried": [], "condition": -1, **change}
    with pytest.raises(ValueError, match="region"):
        doubling(2).repeat(buffers(2), 1, None, *asked.values())
