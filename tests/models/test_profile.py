"""Where the time goes: at most a twentieth in the fallback, on every model of these tests."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from session_harness import session
from test_light import NAMES, image, network
from test_ocr import MODELS, path_of, pieces

import infold

LARGE = ("vgg19", "bvlc_alexnet", "zfnet512", "resnet50", "inception_v2")
SIZES = {"detection": (160, 160), "direction": (48, 192), "recognition": (48, 160), "orientation": (224, 224)}


def in_fallback(subject: infold.InferenceSession, feeds: dict) -> float:
    """The share of the time of a run."""
    steps = subject.profile(feeds, runs=2)
    total, slow = sum(step.ms for step in steps), [step for step in steps if not step.native]
    assert total > 0 and len(steps) > 3
    assert {step.name for step in slow} <= {fallback.node for fallback in subject.report.fallbacks}
    return sum(step.ms for step in slow) / total


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in NAMES])
def test_light_models(name):
    model = network(name)
    assert in_fallback(session(model), image(model)) <= 0.05


@pytest.mark.parametrize("model", MODELS)
def test_ocr(model):
    subject = infold.InferenceSession(path_of(model), infold.SessionOptions(intra_op_num_threads=1))
    assert in_fallback(subject, {"x": pieces(1, *SIZES[model])}) <= 0.05


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
@pytest.mark.parametrize("half", [False, True])
def test_recogniser_of_text(cell, half):
    """CRNN (arXiv 1507.05717): convolutions, then two recurrent layers in both directions over the columns."""
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = [torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                      torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d((16, 1))]
            self.body, self.head = torch.nn.Sequential(*layers), torch.nn.Linear(64, 37)
            self.cell = getattr(torch.nn, cell)(32, 32, num_layers=2, bidirectional=True)

        def forward(self, x):
            columns = self.body(x).squeeze(2).permute(2, 0, 1)
            return self.head(self.cell(columns)[0]).log_softmax(2)

    torch.manual_seed(0)
    model, x, file = Network().eval(), torch.randn(1, 1, 32, 64), BytesIO()
    expected = model(x).detach().numpy()
    if half:
        model, x = model.half(), x.half()
    torch.onnx.export(model, (x,), file, dynamo=False, input_names=["x"])
    subject = infold.InferenceSession(file.getvalue())
    assert in_fallback(subject, {"x": x.numpy()}) <= 0.05
    np.testing.assert_allclose(subject.run(None, {"x": x.numpy()})[0], expected, atol=2e-2 if half else 1e-5)
