"""RNN, LSTM and GRU against onnxruntime, and exports of torch."""

from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, session

import infold

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def cell(net: Net, kind: str, *, steps=5, batch=3, size=7, hidden=19, directions=1, computed=False, bias=True, lengths=None,
         initial=False, peephole=False, outputs=None, **attributes):
    """The outputs of one recurrent node; `computed`: the weights are inputs, as in ONNX's own tests."""
    def normal(*shape):
        array = 0.4 * net.rng.standard_normal(shape).astype(np.float32)
        return net.feed(array) if computed else net.constant(array)

    turned = attributes.get("layout", 0)
    x = net.input(*((batch, steps, size) if turned else (steps, batch, size)))
    state = (batch, directions, hidden) if turned else (directions, batch, hidden)
    inputs = [x, normal(directions, GATES[kind] * hidden, size), normal(directions, GATES[kind] * hidden, hidden),
              normal(directions, 2 * GATES[kind] * hidden) if bias else "",
              net.feed(np.array(lengths, np.int32)) if lengths else "", net.input(*state) if initial else ""]
    if kind == "LSTM":
        inputs += [net.input(*state) if initial else "", normal(directions, 3 * hidden) if peephole else ""]
    while not inputs[-1]:
        inputs.pop()
    return net(kind, *inputs, outputs=outputs or (3 if kind == "LSTM" else 2), hidden_size=hidden, **attributes)


def native(net, *names):
    made = session(net.model(*names))
    made.run(None, net.feeds)
    assert made.report.fallbacks == []


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(("opset", "direction"), [(7, "forward"), (14, "reverse"), (22, "bidirectional")])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": 64, "batch": 17, "size": 33},
        {"computed": True, "hidden": 5},
        {"bias": False, "lengths": [5, 2, 4]},
        {"initial": True, "lengths": [1, 5, 3], "batch": 3},
        {"initial": True, "lengths": [0, 5, 0]},
        {"clip": 0.3, "initial": True},
        {"steps": 1, "batch": 1, "hidden": 16},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_like_onnxruntime(kind, opset, direction, options, like_onnxruntime):
    net = Net(opset=opset)
    names = cell(net, kind, direction=direction, directions=1 + (direction == "bidirectional"), **options)
    native(net, *names)
    like_onnxruntime(net, *names)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first(kind, direction):
    """onnxruntime does not know this layout: the same numbers as with time first."""
    directions = 1 + (direction == "bidirectional")
    first, last = Net(3), Net(3)
    options = dict(direction=direction, directions=directions, initial=True, lengths=[4, 2, 5])
    names = cell(first, kind, **options), cell(last, kind, layout=1, **options)
    native(last, *names[1])
    for name, array in first.feeds.items():
        last.feeds[name] = np.ascontiguousarray(array.swapaxes(0, 1)) if array.ndim == 3 else array
    y, *states = session(first.model(*names[0])).run(list(names[0]), first.feeds)
    other, *turned = session(last.model(*names[1])).run(list(names[1]), last.feeds)
    np.testing.assert_array_equal(other, y.transpose(2, 0, 1, 3))
    for state, one in zip(states, turned):
        np.testing.assert_array_equal(one, state.swapaxes(0, 1))


@pytest.mark.parametrize("coupled", [0, 1])
@pytest.mark.parametrize("clip", [{}, {"clip": 0.5}])
def test_peepholes(coupled, clip, like_onnxruntime):
    net = Net(opset=14)
    names = cell(net, "LSTM", peephole=True, initial=True, direction="bidirectional", directions=2, input_forget=coupled, **clip)
    native(net, *names)
    like_onnxruntime(net, *names)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_linear_before_reset(bias, direction, like_onnxruntime):
    net = Net(opset=14)
    names = cell(net, "GRU", linear_before_reset=1, bias=bias, initial=True, direction=direction, lengths=[3, 5, 1],
                 directions=1 + (direction == "bidirectional"))
    native(net, *names)
    like_onnxruntime(net, *names)


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [("Relu", None, None), ("Tanh", None, None), ("Sigmoid", None, None), ("Affine", 0.3, 0.1), ("LeakyRelu", 0.2, None),
     ("ThresholdedRelu", 0.1, None), ("ScaledTanh", 0.8, 1.3), ("HardSigmoid", 0.3, 0.4), ("Elu", 0.6, None),
     ("Softsign", None, None), ("Softplus", None, None)],
)
def test_activations(name, alpha, beta, like_onnxruntime):
    for kind, count in (("RNN", 1), ("LSTM", 3), ("GRU", 2)):
        net = Net(opset=14)
        options = {}
        if alpha is not None:
            options["activation_alpha"] = [alpha * (1 + i / 10) for i in range(2 * count)]
        if beta is not None:
            options["activation_beta"] = [beta * (1 + i / 10) for i in range(2 * count)]
        names = cell(net, kind, direction="bidirectional", directions=2, activations=[name] * 2 * count,
                     steps=2, hidden=9, **options)
        native(net, *names)
        like_onnxruntime(net, *names, tolerance=1e-4)  # its tanh is less exact than ours


def test_some_outputs(like_onnxruntime):
    net = Net(opset=14)
    _, h, _ = cell(net, "LSTM")
    like_onnxruntime(net, h)
    net = Net(opset=14)
    like_onnxruntime(net, cell(net, "GRU")[0])


@pytest.mark.parametrize("lengths", [[5, 6, 1], [5, -1, 1]])
def test_lengths_out_of_range_are_refused(lengths):
    net = Net(opset=14)
    names = cell(net, "GRU", lengths=lengths)
    with pytest.raises(infold.Error, match="lies outside"):
        session(net.model(*names)).run(None, net.feeds)


def test_shapes_that_do_not_fit_are_refused():
    net = Net(opset=14)
    x, w, r = net.input(5, 3, 7), net.weight(1, 12, 7), net.weight(1, 12, 3)
    names = net("LSTM", x, w, r, net.normal(1, 20), outputs=2, hidden_size=3)
    with pytest.raises(infold.Error, match=r"B .*has the shape"):
        session(net.model(*names)).run(None, net.feeds)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"steps": 20, "batch": 40, "hidden": 48, "direction": "bidirectional", "directions": 2}),
        ("LSTM", {"steps": 3, "batch": 1, "hidden": 203, "initial": True}),  # here and below threads share a step
        ("GRU", {"steps": 3, "batch": 2, "hidden": 250, "lengths": [3, 2]}),
        ("GRU", {"steps": 3, "batch": 1, "hidden": 200, "linear_before_reset": 1, "direction": "reverse"}),
        ("RNN", {"steps": 2, "batch": 3, "hidden": 400, "direction": "bidirectional", "directions": 2}),
    ],
)
def test_threads_agree(kind, options, like_onnxruntime):
    net = Net()
    names = cell(net, kind, **options)
    model = net.model(*names)
    options = (infold.SessionOptions(intra_op_num_threads=n) for n in (1, 2, 3, 5))
    results = [infold.InferenceSession(model, each).run(None, net.feeds) for each in options]
    for some in results[1:]:
        for a, b in zip(results[0], some, strict=True):
            np.testing.assert_array_equal(a, b)
    like_onnxruntime(net, *names)


@pytest.mark.parametrize(("kind", "dynamo"), 
                         [pytest.param("LSTM", True, marks=pytest.mark.slow), ("LSTM", False), ("GRU", False), ("RNN", False)])
def test_exports_of_torch(kind, dynamo, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(12, 20, num_layers=2, bidirectional=True, batch_first=True).eval()
    x = torch.randn(3, 6, 12)
    torch.onnx.export(module, (x,), tmp_path / "m.onnx", dynamo=dynamo)
    made = infold.InferenceSession(tmp_path / "m.onnx")
    found = made.run(None, {made.get_inputs()[0].name: x.numpy()})
    assert made.report.fallbacks == []
    np.testing.assert_allclose(found[0], module(x)[0].detach().numpy(), atol=2e-6)


def test_compiled(tmp_path):
    net = Net(opset=14)
    names = cell(net, "LSTM", peephole=True, initial=True, lengths=[1, 5, 3])
    model = net.model(*names)
    infold.compile(model, tmp_path / "m.infold", fallback=False)
    found = infold.InferenceSession(tmp_path / "m.infold").run(None, net.feeds)
    for one, other in zip(found, session(model).run(None, net.feeds)):
        np.testing.assert_array_equal(one, other)
