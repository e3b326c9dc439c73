"""What torch's exporter writes today, as traced and optimised, with an open batch: small images, real networks."""
from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from session_harness import session

from infold.importers import load
from infold.reference import Float64Model

SIZE = 64
EXPORTS = [("resnet18", "raw"), ("shufflenet_v2_x1_0", "opt"), ("densenet121", "opt")]
onnxruntime.set_default_logger_severity(4)


@pytest.fixture(scope="module", params=EXPORTS, ids="-".join)
def network(request) -> ir.Model:
    """Exported once, then kept under pytest's cache directory."""
    pytest.importorskip("torch", reason="exporting needs torch and torchvision")
    spec = importlib.util.spec_from_file_location("zoo_of_small_images", Path(__file__).parents[2] / "bench" / "zoo.py")
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    zoo.SIZE = SIZE
    name, kind = request.param
    return load(zoo.export(name, kind, request.config.cache.mkdir(f"zoo{SIZE}"), dynamic=True))


@pytest.mark.zoo
@pytest.mark.timeout(400)
def test_as_accurate_as_onnxruntime(network: ir.Model):
    subject, two, judge = session(network), session(network, threads=2), Float64Model(network)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    peer = onnxruntime.InferenceSession(ir.to_proto(network).SerializeToString(), options)
    for batch in (1, 4):
        feeds = {"input": np.random.default_rng(batch).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)}
        expected = judge.run(feeds)["output"]
        top = np.abs(expected).max()
        assert expected.shape == (batch, 1000) and np.ptp(expected) > 1e-3 * top
        (found,), (theirs,) = subject.run(None, feeds), peer.run(None, feeds)
        assert np.abs(found - expected).max() <= max(2 * np.abs(theirs - expected).max(), 1e-6 * top)
        np.testing.assert_array_equal(two.run(None, feeds)[0], found)
    assert not subject.report.fallbacks
    fold = subject.report.fold
    assert fold.folded + fold.fused == fold.batchnorms == sum(node.op_type == "BatchNormalization" for node in network.graph)


@pytest.mark.zoo
@pytest.mark.timeout(400)
def test_values_inside(network: ir.Model):
    feeds = {"input": np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)}
    subject = session(network)
    names = [v.name for node in subject.model.graph for v in node.outputs][5::17]
    found, expected = subject.run_intermediates(feeds, names), Float64Model(subject.model).run(feeds, names)
    assert list(found) == names and len(names) >= 3
    for name in names:
        if expected[name].dtype == np.float64:
            assert np.abs(found[name] - expected[name]).max() <= 5e-6 * np.abs(expected[name]).max(), name
