"""Nothing of these models runs in the fallback. (Exports and the detector have tests of their own, which say the same.)"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from session_harness import Net, session
from test_light import NAMES, image, network
from test_ocr import MODELS, path_of, pieces

import infold

LARGE = ("vgg19", "bvlc_alexnet", "zfnet512", "resnet50", "inception_v2")
SIZES = {"detection": (160, 160), "direction": (48, 192), "recognition": (48, 160), "orientation": (224, 224)}


def require_native(subject: infold.InferenceSession, feeds: dict) -> None:
    """No step of a run is the fallback's: a statement about steps, not about the time they happen to take."""
    steps = subject.profile(feeds)
    assert len(steps) > 3
    assert not (slow := [(step.name, step.op) for step in steps if not step.native]), slow
    assert subject.report.fallbacks == []


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in NAMES])
def test_light_models(name):
    model = network(name)
    require_native(session(model), image(model))


@pytest.mark.parametrize("model", MODELS)
def test_ocr(model):
    subject = infold.InferenceSession(path_of(model), infold.SessionOptions(intra_op_num_threads=1))
    require_native(subject, {"x": pieces(1, *SIZES[model])})


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
    require_native(subject, {"x": x.numpy()})
    np.testing.assert_allclose(subject.run(None, {"x": x.numpy()})[0], expected, atol=2e-2 if half else 1e-5)


VOICE = """<ir_version: 10, opset_import: ["": 17]>
net (float[1, 512] input, float[2, 1, 64] state, int64 sr) => (float[1, 1] output, float[2, 1, 64] next) {
    wide = Constant <value = int64 {16000}> () yes = Equal(sr, wide)
    output, next = If (yes) <
        then_branch = fine () => (float[1, 1] p, float[2, 1, 64] q) {
            padded = Pad <mode = "reflect"> (input, ends) row = Unsqueeze(padded, one)
            spectrum = Conv <strides = [128]> (row, basis) re, im = Split <axis = 1> (spectrum, halves)
            rr = Mul(re, re) ii = Mul(im, im) power = Add(rr, ii) size = Sqrt(power)
            c = Conv <pads = [1, 1]> (size, w) a = Relu(c) frames = Transpose <perm = [2, 0, 1]> (a)
            h, k = Split <axis = 0> (state, pair)
            s, hn, kn = LSTM <hidden_size = 64> (frames, wx, wh, wb, nothing, h, k) q = Concat <axis = 0> (hn, kn)
            last = Squeeze(hn, zero) l = Relu(last) d = Gemm(l, head) p = Sigmoid(d)
        }, else_branch = coarse () => (float[1, 1] m, float[2, 1, 64] n) {
            m = ReduceMean <axes = [1], keepdims = 1> (input) n = Identity(state)
        }>
}"""


def test_voice():
    """A detector of speech (as silero-vad is built): spectrum, convolutions, a recurrent layer, in an If by the sampling rate."""
    model, rng = onnx.parser.parse_model(VOICE.replace(", nothing,", ", ,")), np.random.default_rng(0)
    shapes = {"basis": (258, 1, 256), "w": (64, 129, 3), "wx": (1, 256, 64), "wh": (1, 256, 64), "wb": (1, 512), "head": (64, 1)}
    arrays = {name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32) for name, shape in shapes.items()}
    integers = {"ends": [0, 0, 0, 64], "one": [1], "zero": [0], "halves": [129, 129], "pair": [1, 1]}
    arrays |= {name: np.array(values) for name, values in integers.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    feeds = {"input": rng.standard_normal((1, 512)).astype(np.float32), "state": np.zeros((2, 1, 64), np.float32)}
    peer, subject = onnxruntime.InferenceSession(model.SerializeToString()), session(ir.from_proto(model))
    for rate in (16000, 8000):
        feeds["sr"] = np.array(rate)
        for found, expected in zip(subject.run(None, feeds), peer.run(None, feeds)):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    require_native(subject, feeds | {"sr": np.array(16000)})


def test_quantised(tmp_path):
    """Weights of eight bits, activations as the run finds them: onnxruntime's dynamic quantisation."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    net = Net(opset=17)
    x = net.input(1, 3, 32, 32)
    y = net("Relu", net("Conv", x, net.weight(24, 3, 3, 3), strides=[2, 2]))
    y = net("Relu", net("Conv", y, net.weight(40, 24, 3, 3), pads=[1, 1, 1, 1]))
    y = net("MatMul", net("Flatten", net("GlobalAveragePool", y)), net.normal(40, 10))
    onnx.save(ir.to_proto(net.model(y)), tmp_path / "float.onnx")
    quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "eight.onnx", weight_type=quantization.QuantType.QUInt8)
    model = onnx.load(tmp_path / "eight.onnx")
    assert {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"} <= {node.op_type for node in model.graph.node}
    subject = infold.InferenceSession(model)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, net.feeds)[0]
    np.testing.assert_allclose(subject.run(None, net.feeds)[0], expected, atol=2e-3 * np.abs(expected).max())
    require_native(subject, net.feeds)
