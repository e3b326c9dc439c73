"""The ONNX backend test suite of the installed onnx package, all of it, through `infold.backend`."""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx.backend.test import BackendTest
from onnx.backend.test.loader import load_model_tests

from infold import backend

DEVICE = "_cpu"


def suite() -> dict:
    """{name: function} of every test for the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own arithmetic on infinities
        cases = BackendTest(backend.Backend, __name__).test_cases.values()
    return {name.removesuffix(DEVICE): function for case in cases for name, function in vars(case).items() if name.endswith(DEVICE)}


SUITE = suite()
FAILURES = tomllib.loads((Path(__file__).parent / "known_failures.toml").read_text())
KNOWN = {name: reason for group in FAILURES.values() for name, reason in group.items()}


@pytest.fixture(autouse=True, scope="module")
def scratch(tmp_path_factory):
    """The suite writes the data of its larger models there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_HOME", str(tmp_path_factory.mktemp("onnx")))
        yield


@pytest.fixture(autouse=True)
def repeatable(monkeypatch):
    """Random operators without a seed draw the same numbers every time: none passes or fails by luck."""
    generator = np.random.RandomState
    monkeypatch.setattr(np.random, "RandomState", lambda seed=None: generator(1 if seed is None else seed))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=KNOWN[name], strict=True)) if name in KNOWN else name
        for name in sorted(SUITE)
    ],
)
def test_onnx(name):
    SUITE[name](None)


@pytest.mark.parametrize("name", FAILURES["suite"])
def test_what_the_suite_cannot_compare(name):
    case = next(case for case in load_model_tests(kind="node") if case.name == name)
    prepared = backend.prepare(case.model)
    for inputs, expected in case.data_sets:
        for found, values in zip(prepared.run(inputs), expected, strict=True):
            assert len(found) == len(values) > 0
            for one, other in zip(found, values):
                np.testing.assert_array_equal(one, other, strict=True)


def test_known_failures_exist():
    assert set(KNOWN) <= set(SUITE)


def test_goal():
    """2,020 of the 2,033 tests of onnx 1.23.2."""
    assert len(SUITE) - len(KNOWN) >= 2020 or len(SUITE) < 2033
