"""Fixtures of the kernel tests: every kernel on every instruction set of this machine, in one process."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test modules import native_harness

from infold import _native

faulthandler.enable()


FLOAT32 = [name for name in _native.isa_names() if _native.isa_info(name)["kernels"] == name]  # others share these kernels


@pytest.fixture(params=FLOAT32)
def isa(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["end", "start"])
def side(request: pytest.FixtureRequest) -> str:
    """Which end of every buffer touches the unmapped page."""
    return request.param
