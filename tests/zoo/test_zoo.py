"""Networks as torchvision and timm build them and torch exports them: folded, run natively, and right.

Exports are kept in build/ for the next time. `-m "slow or not slow"` adds the large networks.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

import infold
from infold.report.inputs import random_inputs

pytest.importorskip("torch", reason="exporting needs torch, torchvision and timm")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "zoo.py"
SPEC = importlib.util.spec_from_file_location("zoo", SCRIPT)
zoo = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(zoo)

FOLDER = ROOT / "build" / f"zoo-{hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:8]}"
QUICK = ("resnet18", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "shufflenet_v2_x1_0", "repvgg_a0")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in zoo.NAMES]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def model() -> Callable[[str, str], ir.Model]:
    """Loads a network exported with an open batch."""
    return lambda name, kind: infold.load(zoo.export(name, kind, FOLDER, dynamic=True))


def behind_a_convolution(model: ir.Model) -> list[str]:
    """The BatchNorms whose input is a convolution that nothing else reads."""
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]
    sources = [(node, node.inputs[0].producer()) for node in norms]
    return [
        node.name for node, source in sources if source is not None and source.op_type == "Conv" and len(node.inputs[0].uses()) == 1
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_batchnorm_stays_behind_a_convolution(model: Callable, name: str) -> None:
    original = model(name, "raw")
    before = behind_a_convolution(original)
    folded, report = infold.fold(original)
    assert not behind_a_convolution(folded)
    verdicts = {item.name: item.verdict for item in report.items}
    assert {verdicts[norm] for norm in before} <= {"folded"}
    if name == "resnet50":
        assert (report.batchnorms, report.folded, report.remaining) == (53, 53, 0)


@pytest.mark.parametrize("kind", zoo.KINDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (4, 2)])
def test_verifies(model: Callable, name: str, kind: str, batch: int, threads: int) -> None:
    report = infold.verify(model(name, kind), batch=batch, threads=threads)
    assert report.ok, report.summary()


@pytest.mark.parametrize("kind", zoo.KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_runs_natively(model: Callable, name: str, kind: str) -> None:
    loaded = model(name, kind)
    session = infold.InferenceSession(loaded, infold.SessionOptions(native_only=True))
    (scores,) = session.run(None, random_inputs(loaded, batch=1))
    assert scores.shape == (1, 1000)
