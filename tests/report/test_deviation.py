"""Errors mean what they say: relative to the largest reference value, blind to nothing."""

from __future__ import annotations

import math

import numpy as np

from infold.report.deviation import deviation, differences, same_pattern, trivial


def test_deviation_is_relative_to_the_largest_value():
    r = np.array([4.0, -8.0, 0.0])
    assert deviation(r, r) == 0
    assert deviation(r + np.array([0, 0, 2]), r) == 0.25
    assert deviation(np.array([0.0, 0.5]), np.zeros(2)) == 0.5
    assert deviation(np.array([1, 2, 5]), np.array([1, 2, 4])) == 0.25
    assert deviation(np.array([True, False]), np.array([True, True])) == 1
    assert deviation(np.empty((0, 3)), np.empty((0, 3))) == 0


def test_what_cannot_be_compared_is_infinitely_far():
    assert deviation(np.ones((2, 1)), np.ones(2)) == math.inf
    assert deviation([np.ones(2)], np.ones(2)) == math.inf
    assert deviation([np.ones(2)], [np.ones(2), np.ones(2)]) == math.inf
    assert deviation(None, np.ones(1)) == math.inf and deviation(None, None) == 0
    assert deviation(np.array(["a", "b"]), np.array(["a", "c"])) == math.inf
    assert deviation(np.array(["a", "b"]), np.array(["a", "b"], dtype=object)) == 0
    assert deviation([np.ones(2), np.full(2, 3.0)], [np.ones(2), np.full(2, 2.0)]) == 0.5


def test_special_values_are_left_to_the_pattern():
    r = np.array([1.0, np.nan, np.inf, -np.inf])
    assert deviation(r, r) == 0 and same_pattern(r, r)
    assert deviation(r, np.ones(4)) == 0
    for wrong in ([1, 2, np.inf, -np.inf], [1, np.nan, -np.inf, -np.inf], [np.nan] * 4):
        assert not same_pattern(np.array(wrong), r)
    assert same_pattern(np.array([np.inf], np.float32), np.array([1e300]))  # what float32 cannot hold
    assert not same_pattern(np.array([np.inf], np.float32), np.array([1e30]))
    assert same_pattern([r], [r]) and not same_pattern([r], [r, r]) and not same_pattern(r, r[:2])


def test_differences_ignore_relative_noise_near_zero():
    assert differences(np.array([100.5, 1e-3]), np.array([100.0, 1e-6])) == (0.5, 0.005)
    assert differences(np.zeros(2), np.zeros(2)) == (0, 0)
    assert differences([np.ones(1)], [np.ones(1)]) == (None, None)


def test_trivial_references():
    assert trivial(np.zeros(5)) and trivial(np.full((2, 2), 7.0)) and trivial([np.zeros(2), np.ones(2)])
    assert not trivial(np.array([0.0, 1.0])) and not trivial(np.array([3.0])) and not trivial(np.empty(0))
