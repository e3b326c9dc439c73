"""Whole Torch7 networks: OpenCV's importer and torch as oracles, BatchNorms folded, input shapes read from the layers, bad trees."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch7_writer import Key, Obj, Storage, View, check, dump, module, run

import infold
from infold.errors import Error, InvalidModelError, UnsupportedError
from infold.importers import torch7

RNG = np.random.default_rng(9)
REAL = Path(__file__).parent / "data" / "torch7"


def random(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def conv(cin: int, cout: int, k: int = 3, d: int = 1, pad: int | None = None, name: str = "SpatialConvolution", bias: bool = True) -> Obj:
    pad = k // 2 if pad is None else pad
    return module(name, nInputPlane=cin, nOutputPlane=cout, kW=k, kH=k, dW=d, dH=d, padW=pad, padH=pad,
                  weight=random(cout, cin, k, k, scale=(cin * k * k) ** -0.5), bias=random(cout, scale=0.1) if bias else None)


def norm(channels: int, name: str = "SpatialBatchNormalization") -> Obj:
    return module(name, eps=1e-5, affine=True, running_mean=random(channels, scale=0.1), weight=1 + random(channels, scale=0.1),
                  running_var=RNG.uniform(0.5, 1.5, channels).astype(np.float32), bias=random(channels, scale=0.1))


def pool(kind: str, k: int, d: int, pad: int = 0, ceil: bool = False) -> Obj:
    return module(f"Spatial{kind}Pooling", kW=k, kH=k, dW=d, dH=d, padW=pad, padH=pad, ceil_mode=ceil, **({"divide": True} if kind == "Average" else {}))


def sequential(*modules: Obj) -> Obj:
    return module("Sequential", list(modules))


def linear(inputs: int, outputs: int) -> Obj:
    return module("Linear", weight=random(outputs, inputs, scale=inputs ** -0.5), bias=random(outputs))


def residual(cin: int, cout: int, d: int, bn: str = "SpatialBatchNormalization") -> Obj:
    """The block of fb.resnet.torch."""
    branch = sequential(conv(cin, cout, 3, d), norm(cout, bn), module("ReLU"), conv(cout, cout), norm(cout, bn))
    shortcut = module("Identity") if cin == cout and d == 1 else sequential(conv(cin, cout, 1, d), norm(cout, bn))
    return sequential(module("ConcatTable", [branch, shortcut]), module("CAddTable", inplace=True), module("ReLU"))


def resnet() -> Obj:
    return sequential(conv(3, 8, 7, 2), norm(8), module("ReLU"), pool("Max", 3, 2, 1), residual(8, 8, 1), residual(8, 12, 2),
                      pool("Average", 4, 1), module("View", size=(12,), numElements=12, numInputDims=3), linear(12, 10), module("LogSoftMax"))


def inception() -> Obj:
    concat = module("Concat", [sequential(conv(8, 4, 1), norm(4), module("ReLU")), sequential(conv(8, 5, 3), norm(5), module("ReLU")),
                               sequential(pool("Max", 3, 1, 1), conv(8, 3, 1), norm(3), module("ReLU"))], dimension=2)
    return sequential(conv(3, 8, 3, 2), norm(8), module("ReLU"), pool("Max", 3, 2, ceil=True), concat, pool("Average", 8, 8),
                      module("View", size=(12,), numElements=12), linear(12, 6), module("SoftMax"))


def lenet() -> Obj:
    return sequential(conv(3, 6, 5, 1, 0), module("Tanh"), pool("Max", 2, 2), conv(6, 8, 5, 1, 0), module("Tanh"), pool("Max", 2, 2),
                      module("Reshape", size=(8 * 5 * 5,), nelement=200), linear(200, 20), module("Tanh"), linear(20, 10), module("SoftMax"))


def autoencoder() -> Obj:
    up = module("SpatialFullConvolution", nInputPlane=8, nOutputPlane=6, kW=4, kH=4, dW=2, dH=2, padW=1, padH=1, adjW=0, adjH=0,
                weight=random(8, 6, 4, 4, scale=0.1), bias=random(6))
    return sequential(conv(3, 8, 3, 2), norm(8), module("PReLU", nOutputPlane=8, weight=random(8)), up, norm(6), module("ReLU"),
                      module("SpatialZeroPadding", pad_l=1, pad_r=1, pad_t=1, pad_b=1), conv(6, 3, 3, 1, 0), module("Sigmoid"))


@pytest.mark.parametrize("build", [resnet, inception, lenet, autoencoder])
def test_networks_as_opencv_runs_them(build, tmp_path):
    network, x = build(), random(2, 3, 32, 32)
    path = tmp_path / "network.t7"
    path.write_bytes(dump(network))
    oracle = cv2.dnn.readNetFromTorch(str(path), True, True)
    oracle.setInput(x)
    expected = oracle.forward()
    model = check(network, x, expected, tolerance=5e-6)
    assert ir.Shape(["N", 3, "H", "W"]) == model.graph.inputs[0].shape
    again = infold.InferenceSession(str(path)).run(None, {"input": x})
    assert np.abs(again[0] - expected).max() <= 5e-6 * np.abs(expected).max()


def test_ascii_as_opencv_reads_it(tmp_path):
    path = tmp_path / "network.t7"
    path.write_bytes(dump(network := resnet(), ascii=True))
    oracle = cv2.dnn.readNetFromTorch(str(path), False, True)
    oracle.setInput(x := random(1, 3, 32, 32))
    check(network, x, oracle.forward(), tolerance=5e-6)
    np.testing.assert_array_equal(run(torch7.load(path), x)[0], run(torch7.load(dump(network)), x)[0])


def test_batch_norms_of_a_resnet_all_fold():
    model = torch7.load(dump(resnet()))
    folded, report = infold.fold(model)
    assert (report.batchnorms, report.folded, report.remaining) == (6, 6, 0)
    assert "5.1.1.2.SpatialBatchNormalization" in {item.name for item in report.items}
    assert not [node for node in folded.graph if node.op_type == "BatchNormalization"]


def test_shared_modules_share_weights():
    shared = conv(4, 4)
    model = torch7.load(dump(sequential(shared, module("ReLU"), shared)), shape=(1, 4, 6, 6))
    assert set(model.graph.initializers) == {"1.weight", "1.bias"}
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv"]


def test_flattened_parameters():
    """After getParameters() all weights are views of one storage."""
    flat = Storage(random(100))
    first, second = View(flat, (4, 5), (5, 1), 1), View(flat, (3, 4), (4, 1), 21)
    network = sequential(module("LinearNoBias", weight=first), module("LinearNoBias", weight=second))
    x, values = random(2, 5), flat.values.astype(np.float64)
    check(network, x, x @ values[:20].reshape(4, 5).T @ values[20:32].reshape(3, 4).T)


# nngraph

def graph_node(content: dict, node_id: int) -> Obj:
    return Obj("nngraph.Node", {"data": content, "id": node_id, "children": {}, "visited": False, "marked": False})


def gmodule(modules: list[Obj | int | None], edges: list[tuple[int, int]], inputs: int, early: bool = False) -> Obj:
    """A graph as nngraph stores it: node 0 is the input node, the last one the output node; an int selects an entry."""
    nodes = [graph_node({"annotations": {}, "mapindex": {}}, index) for index in range(len(modules))]
    for node, content in zip(nodes, modules):
        if content is not None:
            node.fields["data"]["selectindex" if isinstance(content, int) else "module"] = content
    for source, target in edges:
        slots, children = nodes[target].fields["data"]["mapindex"], nodes[source].fields["children"]
        position = len(slots) // 2 + 1
        slots[position], slots[Key(nodes[source].fields["data"])] = nodes[source].fields["data"], position
        place = len(children) // 2 + 1
        children[place], children[Key(nodes[target])] = nodes[target], place
    fields = {"forwardnodes": nodes, "innode": nodes[0], "outnode": nodes[-1], "nInputs": inputs, "verbose": False}
    if early:
        del fields["nInputs"]
        own, slots = nodes[0].fields["data"]["mapindex"], [target for source, target in edges if source == 0]
        for position, target in enumerate(slots, 1):
            own[position], own[Key(nodes[target].fields["data"])] = nodes[target].fields["data"], position
    return Obj("nn.gModule", fields)


def test_nngraph_of_real_torch():
    model = torch7.load(REAL / "gmodule_with_linear_identity.t7", shape=[(None, 1), (None, 2)])
    a, b = random(3, 1), random(3, 2)
    weight, bias = np.array([[-0.024837296], [0.17503953]]), np.array([0.05159848, -0.25367147])
    expected = b + a @ weight.T + bias
    for found in (run(model, a, b), infold.InferenceSession(model).run(None, {"input_1": a, "input_2": b})):
        np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_nngraph_residual_network():
    first, second, bn1, bn2 = conv(3, 4), conv(4, 4), norm(4), norm(4)
    network = gmodule([None, first, bn1, module("ReLU"), second, bn2, module("CAddTable"), None],
                      [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 6), (6, 7)], 1)
    plain = sequential(first, bn1, module("ReLU"), module("ConcatTable", [sequential(second, bn2), module("Identity")]), module("CAddTable"))
    x = random(2, 3, 8, 9)
    check(network, x, run(torch7.load(dump(plain)), x)[0])


@pytest.mark.parametrize("early", [False, True])
def test_nngraph_with_two_inputs_and_outputs(early):
    a, b = linear(4, 3), linear(5, 3)
    modules: list = [None, a, b, module("CSubTable"), module("Tanh"), None]
    edges = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 5)]
    if not early:
        modules[1:1] = [1, 2]
        edges = [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (5, 6), (5, 7), (6, 7)]
    x, y = random(2, 4), random(2, 5)
    apply = lambda layer, values: values @ layer.fields["weight"].T.astype(np.float64) + layer.fields["bias"]  # noqa: E731
    difference = apply(a, x) - apply(b, y)
    model = check(gmodule(modules, edges, 2, early), [x, y], [difference, np.tanh(difference)])
    assert [(v.name, list(v.shape)) for v in model.graph.inputs] == [("input_1", ["N", 4]), ("input_2", ["N", 5])]
    assert [v.name for v in model.graph.outputs] == ["output_1", "output_2"]


# Inputs and outputs

def test_input_shapes_are_read_from_the_layers():
    shape = lambda network: list(torch7.load(dump(network)).graph.inputs[0].shape)  # noqa: E731
    assert shape(sequential(module("SpatialZeroPadding", pad_l=1, pad_r=1, pad_t=1, pad_b=1), pool("Max", 2, 2), conv(5, 4))) == ["N", 5, "H", "W"]
    assert shape(sequential(module("Dropout", p=0.5, v2=True), linear(7, 3))) == ["N", 7]
    assert shape(module("ConcatTable", [module("Identity"), conv(2, 2)])) == ["N", 2, "H", "W"]
    assert shape(sequential(norm(6), module("ReLU"))) == ["N", 6, "H", "W"]


def test_a_checkpoint_with_one_network():
    x = random(1, 4)
    subject = linear(4, 2)
    model = torch7.load(dump({"epoch": 12, "model": subject, "optimState": {"learningRate": 0.1}}))
    np.testing.assert_allclose(run(model, x)[0], x @ subject.fields["weight"].T + subject.fields["bias"], rtol=1e-5, atol=1e-6)


def test_the_shape_given_wins():
    model = torch7.load(dump(conv(3, 4)), shape=("batch", 3, 16, None))
    assert list(model.graph.inputs[0].shape) == ["batch", 3, 16, "dim_3"]
    with pytest.raises(TypeError, match="dimension -1"):
        torch7.load(dump(conv(3, 4)), shape=(-1, 3, 16, 16))
    with pytest.raises(TypeError, match="sequence"):
        torch7.load(dump(conv(3, 4)), shape=3)


@pytest.mark.parametrize("network", [module("View", size=(10,)), module("Identity"), sequential(), module("CAddTable")], ids=lambda n: n.name)
def test_an_input_shape_that_must_be_given(network):
    with pytest.raises(UnsupportedError, match="shape of the input"):
        torch7.load(dump(network))


def test_identities_and_repeated_outputs():
    x = random(2, 3)
    check(module("ConcatTable", [module("Identity"), module("Identity")]), x, [x.astype(np.float64)] * 2, shape=x.shape)


# Trees that cannot be

def test_unknown_modules_are_named_by_their_path():
    network = sequential(conv(3, 4), module("ConcatTable", [module("Identity"), sequential(module("ReLU"), module("stn.AffineTransform"))]))
    with pytest.raises(UnsupportedError, match=r"module 2\.2\.2 \(stn\.AffineTransform\): there is no conversion"):
        torch7.load(dump(network))


def test_a_module_inside_itself():
    network = sequential(conv(3, 3))
    network.fields["modules"].append(network)
    with pytest.raises(InvalidModelError, match="module 2 .*contains itself"):
        torch7.load(dump(network))


def test_deep_and_wide_trees_end():
    deep = conv(3, 3)
    for _ in range(300):
        deep = sequential(deep)
    with pytest.raises(Error, match="100 levels"):
        torch7.load(dump(deep), shape=(1, 3, 8, 8))
    wide = module("Identity")
    for _ in range(60):
        wide = sequential(wide, wide)
    with pytest.raises(Error, match="10000 modules"):
        torch7.load(dump(wide), shape=(1, 3))
    with pytest.raises(UnsupportedError):
        torch7.load(dump(wide))


def test_overlapping_weights_are_bounded():
    """A few bytes of tensors that repeat one storage cannot become gigabytes."""
    row = Storage(random(4096))
    layers = [module("LinearNoBias", weight=View(row, (4096, 4096), (0, 1), 1)) for _ in range(40)]
    for index, layer in enumerate(layers):
        layer.fields["weight"] = View(row, (4096, 4096 - index), (0, 1), 1)
    networks = [sequential(module("Narrow", dimension=2, index=1, length=4096 - index), layer) for index, layer in enumerate(layers)]
    with pytest.raises(InvalidModelError, match="many times larger than the file"):
        torch7.load(dump(sequential(*networks)), shape=(1, 4096))


@pytest.mark.parametrize("value, message", [(5, "networks"), ({"a": linear(2, 2), "b": linear(2, 2)}, "2 networks"), (Obj("nn.Linear", 3), "no table of fields"),
                                            (Obj("nn.Sequential", {"modules": 3}), "no table of modules"), (sequential(3), "no Torch object"),
                                            (Obj("nn.gModule", {}), "no list"), (module("DataParallelTable", []), "no module in it")])
def test_files_without_a_network(value, message):
    with pytest.raises(Error, match=message):
        torch7.load(dump(value), shape=(1, 2))


def test_paths_are_named(tmp_path):
    with pytest.raises(InvalidModelError, match="missing.t7: cannot be opened"):
        torch7.load(tmp_path / "missing.t7")
    (tmp_path / "empty.t7").write_bytes(b"")
    with pytest.raises(InvalidModelError, match="empty"):
        torch7.load(tmp_path / "empty.t7")
    (tmp_path / "short.t7").write_bytes(dump(resnet())[:-100])
    with pytest.raises(InvalidModelError, match=r"short.t7: Torch7 file, byte \d+"):
        torch7.load(tmp_path / "short.t7")
    with pytest.raises(InvalidModelError, match="no regular file"):
        torch7.load(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_networks_load_or_are_refused(seed):
    """What loads is a legal model."""
    rng = np.random.default_rng(seed)
    network = [resnet, inception, autoencoder, lambda: gmodule([None, conv(3, 4), norm(4), None], [(0, 1), (1, 2), (2, 3)], 1)][seed]()
    original = np.frombuffer(dump(network), np.uint8)
    structure = [i for i in range(len(original) - 4) if original[i:i + 4].max() < 128][:4000]
    loaded = 0
    for _ in range(120):
        data = original.copy()
        places = rng.choice(structure, rng.integers(1, 4))
        data[places] = rng.choice([0, 1, 2, 3, 4, 5, 63, 64, 127, 128, 191, 255], len(places))
        try:
            model = torch7.load(data.tobytes(), shape=(1, 3, 32, 32))
        except Error as error:
            assert str(error)
        else:
            loaded += 1
            if loaded % 20 == 1:
                try:
                    infold.InferenceSession(model).run(None, {"input": random(1, 3, 32, 32)})
                except Error as error:
                    assert str(error)
    assert loaded


def test_torch_agrees_on_a_residual_block():
    """OpenCV computes in float32; here is float64."""
    block, x = residual(4, 4, 1), random(1, 4, 6, 6)
    branch = block.fields["modules"][0].fields["modules"][0].fields["modules"]
    t = torch.from_numpy(x).double()
    for layer in branch:
        values = {key: torch.from_numpy(value).double() for key, value in layer.fields.items() if isinstance(value, np.ndarray)}
        if "Convolution" in layer.name:
            t = F.conv2d(t, values["weight"], values["bias"], padding=1)
        elif "Norm" in layer.name:
            t = F.batch_norm(t, values["running_mean"], values["running_var"], values["weight"], values["bias"])
        else:
            t = F.relu(t)
    check(block, x, F.relu(t + torch.from_numpy(x).double()).numpy())
