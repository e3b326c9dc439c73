"""InferenceSession: onnxruntime's conventions, and what it says to input that does not fit."""
from __future__ import annotations

import gc
import pickle
import weakref
from copy import copy, deepcopy

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper
from session_harness import Net, session

import infold
from infold import InferenceSession, SessionOptions
from infold.errors import Error, InvalidInputError, InvalidModelError, UnsupportedError

onnxruntime.set_default_logger_severity(4)


def network() -> tuple[ir.Model, dict[str, np.ndarray], list[str]]:
    """Two inputs (one with open dimensions), a default, three outputs of different types."""
    net = Net(1)
    x = net.input(2, 3, 8, 8, dims=("batch", 3, "height", 8))
    bias = net.feed(net.rng.standard_normal((5, 1, 1)).astype(np.float32))
    y = net("Relu", net("Add", net("Conv", x, net.weight(5, 3, 3, 3), pads=[1] * 4), bias))
    pooled = net("GlobalMaxPool", y)
    large = net("Greater", pooled, net.constant(np.float32(1)))
    return net.model(y, pooled, large, types={large: TensorProto.BOOL}), net.feeds, [y, pooled, large]


@pytest.fixture
def model():
    return network()[0]


@pytest.fixture
def feeds():
    return network()[1]


def test_the_same_face_as_onnxruntime(model, feeds):
    ours, theirs = session(model), onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for found, expected in zip(ours.get_inputs(), theirs.get_inputs(), strict=True):
        assert (found.name, found.shape, found.type) == (expected.name, expected.shape, expected.type)
    for found, expected in zip(ours.get_outputs(), theirs.get_outputs(), strict=True):
        assert (found.name, found.type) == (expected.name, expected.type)
    assert ours.get_providers() == ["CPUExecutionProvider"]
    for names in (None, [], [o.name for o in ours.get_outputs()][::-1], [ours.get_outputs()[1].name]):
        found, expected = ours.run(names, feeds), theirs.run(names or None, feeds)
        assert isinstance(found, list) and len(found) == len(expected)
        for a, b in zip(found, expected):
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["path", "str", "bytes", "proto", "ir"])
def test_every_form_of_model(form, model, feeds, tmp_path):
    proto = ir.to_proto(model)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    given = {"path": path, "str": str(path), "bytes": proto.SerializeToString(), "proto": proto, "ir": model}[form]
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    found = InferenceSession(given, SessionOptions(intra_op_num_threads=1), providers=["CPUExecutionProvider"]).run(None, feeds)
    for a, b in zip(found, session(model).run(None, feeds)):
        np.testing.assert_array_equal(a, b)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert proto.SerializeToString(deterministic=True) == before and path.read_bytes() == proto.SerializeToString()


def test_options_of_onnxruntime_are_accepted(model, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found = InferenceSession(model, options).run(None, feeds, run_options=onnxruntime.RunOptions())
    np.testing.assert_array_equal(found[0], session(model).run(None, feeds)[0])


BAD = {
    "missing": (lambda f: dict(list(f.items())[1:]), "the input 'v1' is missing"),
    "unknown": (lambda f: f | {"nobody": np.zeros(1)}, "no input named 'nobody'"),
    "data type": (lambda f: f | {"v1": f["v1"].astype(np.float64)}, "input 'v1': data type float32 expected, got float64"),
    "integers": (lambda f: f | {"v1": f["v1"].astype(np.int32)}, "float32 expected, got int32"),
    "objects": (lambda f: f | {"v1": np.full((2, 3, 8, 8), None)}, "float32 expected, got object"),
    "no names": (lambda f: list(f.values()), "arrays by name of their input expected, got list"),
    "nothing": (lambda f: f | {"v1": None}, "float32 expected, got object"),
    "rank": (lambda f: f | {"v1": f["v1"][0]}, "rank 4 expected"),
    "dimension": (lambda f: f | {"v1": f["v1"][:, :2]}, "dimension 1 must be 3"),
    "last dimension": (lambda f: f | {"v1": f["v1"][..., :5]}, "dimension 3 must be 8"),
    "fixed": (lambda f: f | {"v2": np.zeros((4, 1, 1), np.float32)}, "input 'v2': dimension 0 must be 5"),
}


@pytest.mark.parametrize("case", BAD)
def test_input_that_does_not_fit(case, model, feeds):
    change, message = BAD[case]
    subject = session(model)
    expected = subject.run(None, feeds)[0]
    with pytest.raises(InvalidInputError, match=message) as caught:
        subject.run(None, change(feeds))
    assert isinstance(caught.value, Error) and isinstance(caught.value, ValueError)
    np.testing.assert_array_equal(subject.run(None, feeds)[0], expected)  # as if nothing had been


def test_output_that_does_not_exist(model, feeds):
    with pytest.raises(InvalidInputError, match="no output named 'nobody'"):
        session(model).run(["nobody"], feeds)


def test_one_value_given_out_twice(tmp_path):
    """As onnxruntime does it: a result for each entry of the model's list of outputs."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 4] y, float[1, 4] y, float[1, 2] z)
              { y = Concat <axis = 1> (x, x) z = Sigmoid (x) }"""
    model, x = onnx.parser.parse_model(text), np.ones((1, 2), np.float32)
    subject = session(model)
    infold.compile(model, tmp_path / "m.infold")
    for each in subject, InferenceSession(tmp_path / "m.infold"):
        assert [o.name for o in each.get_outputs()] == ["y", "y", "z"]
        assert [o.shape for o in each.run(None, {"x": x})] == [(1, 4), (1, 4), (1, 2)]


def test_arrays_of_any_making(model, feeds):
    """Read-only, strided, misaligned, of the other byte order, lists, and array-likes: all the same to the result."""
    subject, x = session(model), feeds["v1"]
    expected = subject.run(None, feeds)[0]
    frozen = x.copy()
    frozen.flags.writeable = False
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not shifted.flags.aligned
    padded = np.zeros((2, 3, 8, 20), np.float32)[..., ::2][..., :8]
    padded[...] = x
    for given in (frozen, shifted, padded, np.asfortranarray(x), x[::-1][::-1], x.astype(">f4"),
                  np.asarray(x, order="K")[:, :, :, :]):
        kept = np.array(given)
        np.testing.assert_array_equal(subject.run(None, feeds | {"v1": given})[0], expected)
        np.testing.assert_array_equal(given, kept)


class Lent:
    """Offers its array by one protocol alone."""

    def __init__(self, array: np.ndarray, protocol: str) -> None:
        for name in {"array": ["__array__"], "dlpack": ["__dlpack__", "__dlpack_device__"]}[protocol]:
            setattr(type(self), name, lambda self, *args, name=name, **options: getattr(array, name)(*args, **options))


@pytest.mark.parametrize("protocol", ["array", "dlpack"])
def test_arrays_of_others(protocol, model, feeds):
    subject = session(model)
    lent = type(protocol, (Lent,), {})(feeds["v1"], protocol)
    np.testing.assert_array_equal(subject.run(None, feeds | {"v1": lent})[0], subject.run(None, feeds)[0])


def test_tensors_of_torch(model, feeds):
    torch = pytest.importorskip("torch")
    subject, tensor = session(model), torch.from_numpy(feeds["v1"])
    expected = subject.run(None, feeds)[0]
    np.testing.assert_array_equal(subject.run(None, feeds | {"v1": tensor})[0], expected)
    turned = tensor.to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(subject.run(None, feeds | {"v1": turned})[0], expected)
    with pytest.raises(InvalidInputError, match="input 'v1': a Tensor that is no array"):
        subject.run(None, feeds | {"v1": tensor.clone().requires_grad_()})
    with pytest.raises(InvalidInputError, match="input 'v1': a list that is no array"):
        subject.run(None, feeds | {"v1": [[1.0], [2.0, 3.0]]})


def test_results_belong_to_the_caller(model, feeds):
    subject = session(model)
    first = subject.run(None, feeds)
    kept = [a.copy() for a in first]
    subject.run(None, {n: a * 3 for n, a in feeds.items()})
    for array, before in zip(first, kept):
        np.testing.assert_array_equal(array, before)
        assert array.flags.writeable and array.flags.c_contiguous
        array[...] = 0
    for array, before in zip(subject.run(None, feeds), kept):
        np.testing.assert_array_equal(array, before)


def test_zero_size_inputs(model, feeds):
    found = session(model).run(None, feeds | {"v1": np.zeros((0, 3, 8, 8), np.float32)})
    assert [a.shape for a in found] == [(0, 5, 8, 8), (0, 5, 1, 1), (0, 5, 1, 1)]


def test_options_that_make_no_sense(model):
    with pytest.raises(UnsupportedError, match="'exact'"):
        InferenceSession(model, SessionOptions(precision="exact"))
    with pytest.raises(UnsupportedError, match="CUDAExecutionProvider"):
        InferenceSession(model, providers=["CUDAExecutionProvider"])
    InferenceSession(model, providers=[("CUDAExecutionProvider", {}), "CPUExecutionProvider"])


@pytest.mark.parametrize("given", [b"", b"no model", b"\x08\x08" + b"\xff" * 40, "/nowhere/model.onnx"])
def test_what_is_no_model(given):
    with pytest.raises(InvalidModelError):
        InferenceSession(given)


def test_types_of_inputs_and_outputs():
    net = Net(2)
    inputs = {t: net.feed(np.zeros((2, 3), helper.tensor_dtype_to_np_dtype(t)))
              for t in (TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8, TensorProto.FLOAT16)}
    outputs = [net("Identity", x) for x in inputs.values()]
    subject = session(net.model(*outputs, types=dict(zip(outputs, inputs))))
    names = ["tensor(double)", "tensor(int64)", "tensor(bool)", "tensor(uint8)", "tensor(float16)"]
    assert [i.type for i in subject.get_inputs()] == names == [o.type for o in subject.get_outputs()]
    for found, given in zip(subject.run(None, net.feeds), net.feeds.values()):
        assert found.dtype == given.dtype


def test_report_and_profile(model, feeds):
    subject = session(model)
    assert subject.report.plans == 0
    subject.run(None, feeds)
    report = subject.report.to_dict()
    assert report["threads"] == 1 and report["plans"] == 1 and report["arena_bytes"] > 0 and report["weight_bytes"] > 4 * 5 * 27
    assert report["isa"] == subject.isa and report["fold"]["batchnorms"] == 0
    steps = subject.profile(feeds, runs=3)
    assert any(s.op == "conv" and s.native and s.gflops > 0 for s in steps) and all(s.ms >= 0 for s in steps)
    assert {s.name for s in steps if not s.native} == {f.node for f in subject.report.fallbacks}


def test_a_profile_is_in_execution_order_and_names_nodes_without_a_name():
    net = Net(4)
    x = net.input(1, 4, 6, 6)
    inner = net("RandomNormalLike", net("Conv", x, net.weight(4, 4, 3, 3)))
    model = net.model(net("Conv", inner, net.weight(3, 4, 3, 3)))
    steps = session(model).profile(net.feeds, runs=1)
    assert list(dict.fromkeys(step.name for step in steps)) == [node.outputs[0].name for node in model.graph]
    assert [step.op for step in steps if not step.native] == ["RandomNormalLike"]


def test_values_inside():
    """Intermediates by their names in the prepared graph; what folding removed is left out."""
    net = Net(3)
    x = net.input(1, 3, 6, 6)
    a = net("Conv", x, net.weight(4, 3, 3, 3))
    b = net("BatchNormalization", a, net.positive(4), net.normal(4), net.normal(4), net.positive(4))
    c = net("Relu", b)
    d = net("MaxPool", c, kernel_shape=[2, 2])
    model = net.model(net("Flatten", d))
    found = session(model).run_intermediates(net.feeds, [x, b, c, d, "nobody"])
    expected = infold.reference.run_float64(model, net.feeds, [b, c, d])
    assert {c, d} <= set(found) and "nobody" not in found
    for name in set(found) & set(expected):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_session_is_collected_with_its_memory(model, feeds):
    subject = session(model)
    subject.run(None, feeds)
    dead = weakref.ref(subject)
    del subject
    gc.collect()
    assert dead() is None


def test_a_copy_is_the_session_itself(model, feeds):
    subject = session(model)
    expected = subject.run(None, feeds)
    for other in (copy(subject), deepcopy([subject])[0]):
        assert other is subject
    del other
    batch = {**feeds, "v1": feeds["v1"][:1]}  # another plan, of weights that are still there
    np.testing.assert_allclose(subject.run(None, batch)[0], expected[0][:1], rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match="pickled"):
        pickle.dumps(subject)
