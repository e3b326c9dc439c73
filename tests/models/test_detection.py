"""A two-stage detector as exporters write it, small: anchors by score, suppression, regions, classes. Each stage is as long as the
data say."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
from session_harness import Net, session

INT64 = 7


def detector(net: Net, x: str) -> tuple[str, str, str]:
    """Boxes (n, 4), scores (n, classes) and classes (n)."""
    features = net("Relu", net("Conv", x, net.weight(16, 3, 3, 3), pads=[1] * 4, strides=[4, 4]))
    scores = net("Sigmoid", net("Conv", features, net.weight(1, 16, 1, 1)))
    anchors = np.mgrid[0:16, 0:16].transpose(1, 2, 0).reshape(-1, 2)[:, ::-1] * 4.0
    deltas = net("Reshape", net("Transpose", net("Conv", features, net.weight(4, 16, 1, 1)), perm=[0, 2, 3, 1]), net.ints(1, -1, 4))
    corners = net.constant(np.concatenate([anchors - 6, anchors + 6], 1)[None].astype(np.float32))
    boxes = net("Clip", net("Add", corners, deltas), net.constant(np.float32(0)), net.constant(np.float32(64)))
    best, places = net("TopK", net("Reshape", scores, net.ints(-1)), net("Min", net.ints(100), net("Size", scores)), outputs=2)
    boxes = net("Gather", boxes, places, axis=1)
    likely = net("Squeeze", net("NonZero", net("Greater", best, net.constant(np.float32(0.7)))), net.ints(0))
    boxes, best = net("Gather", boxes, likely, axis=1), net("Gather", best, likely)
    thresholds = [net.constant(np.array([v], np.float32)) for v in (0.4, 0.0)]
    kept = net("NonMaxSuppression", boxes, net("Unsqueeze", best, net.ints(0, 1)), net.ints(100), *thresholds)
    boxes = net("Gather", net("Squeeze", boxes, net.ints(0)), net("Gather", kept, net.constant(np.int64(2)), axis=1))
    image = net("Expand", net.ints(0), net("Slice", net("Shape", boxes), net.ints(0), net.ints(1)))
    pooled = net("RoiAlign", features, boxes, image, output_height=4, output_width=4, sampling_ratio=2, spatial_scale=0.25)
    hidden = net("Relu", net("Gemm", net("Flatten", pooled), net.weight(32, 256), transB=1))
    classes = net("Softmax", net("Gemm", hidden, net.weight(5, 32), transB=1))
    return boxes, classes, net("ArgMax", classes, axis=1, keepdims=0)


def test_detector():
    net = Net(seed=3, opset=16)
    x = net.input(1, 3, 64, 64)
    outputs = detector(net, x)
    model = net.model(*outputs, types={outputs[2]: INT64})
    subject = session(model)
    other = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    counts = set()
    for contrast in (0.8, 0.6, 0.5, 1):
        found, expected = subject.run(None, net.feeds), other.run(None, net.feeds)
        assert len(found[0]) > 3
        for one, two in zip(found, expected):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5, strict=True)
        counts.add(len(found[0]))
        net.feeds[x] = (contrast * net.rng.standard_normal((1, 3, 64, 64))).astype(np.float32)
    assert len(counts) > 1, "every picture had the same number of objects"
    assert not subject.report.fallbacks, subject.report.fallbacks
    two = session(model, threads=2).run(None, net.feeds)
    for one, other in zip(subject.run(None, net.feeds), two):
        np.testing.assert_array_equal(one, other)
