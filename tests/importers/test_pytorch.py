"""PyTorch modules and .pt2 files: exported for evaluation, left as they were, equal to torch in float64."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import onnx_ir as ir
import pytest

import infold
from infold.errors import InvalidModelError, UnsupportedError
from infold.importers import load

torch = pytest.importorskip("torch", reason="it exports")
pytest.importorskip("onnxscript", reason="torch.onnx needs it")
nn = torch.nn

pytestmark = pytest.mark.zoo


class Net(nn.Module):
    """Two convolutions with BatchNorms, a residual add, dropout, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.frozen = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.frozen(self.second(x)))
        return self.head(self.drop(x.mean((2, 3))))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(4, 3, 10, 10))
    return net.eval()


@pytest.fixture(scope="module")
def program(net):
    return torch.export.export(net, (torch.randn(2, 3, 10, 10),))


@pytest.fixture(scope="module")
def saved(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(program, path)
    return path


def expected(net: Net, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        reference = net.double()(torch.from_numpy(x).double()).numpy()
    net.float()
    return reference


def agrees(model: ir.Model, net: Net, x: np.ndarray) -> None:
    _, report = infold.fold(model)
    assert (report.batchnorms, report.remaining) == (2, 0)
    reference = expected(net, x)
    [found] = infold.InferenceSession(model).run(None, {model.graph.inputs[0].name: x})
    assert np.abs(found - reference).max() <= 2e-6 * np.abs(reference).max()
    assert infold.verify(model, {model.graph.inputs[0].name: x}).ok


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def test_module(net):
    agrees(load(net, example_inputs=torch.randn(2, 3, 10, 10)), net, random(2, 3, 10, 10))


def test_dynamic_batch_from_an_example_of_one(net):
    model = infold.load(net, example_inputs=random(1, 3, 10, 10), dynamic_batch=True)
    shape = model.graph.inputs[0].shape
    assert not isinstance(shape[0], int) and list(shape[1:]) == [3, 10, 10]
    agrees(model, net, random(5, 3, 10, 10))
    agrees(model, net, random(1, 3, 10, 10))


def test_a_module_in_training_mode_is_exported_for_evaluation_and_left_as_it_was():
    net = Net()
    net.train()
    net.frozen.eval()
    flags = {name: part.training for name, part in net.named_modules()}
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.warns(UserWarning, match="Net is in training mode"):
        model = load(net, example_inputs=(torch.randn(2, 3, 10, 10),))
    assert {name: part.training for name, part in net.named_modules()} == flags
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    net.eval()
    agrees(model, net, random(2, 3, 10, 10))


def test_evaluation_mode_does_not_warn(net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(net, example_inputs=torch.randn(2, 3, 10, 10))


def test_the_model_owns_its_weights(net):
    model = load(net, example_inputs=torch.randn(2, 3, 10, 10))
    before = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}
    with torch.no_grad():
        net.head.weight.mul_(2)
    try:
        assert all(np.array_equal(value.const_value.numpy(), before[name]) for name, value in model.graph.initializers.items())
    finally:
        with torch.no_grad():
            net.head.weight.div_(2)


def test_nothing_of_this_machine_stays_in_the_model(net):
    model = load(net, example_inputs=torch.randn(2, 3, 10, 10))
    assert b"test_pytorch" not in ir.to_proto(model).SerializeToString()


def test_exported_program_and_file(net, program, saved):
    agrees(load(program), net, random(2, 3, 10, 10))
    agrees(load(saved), net, random(2, 3, 10, 10))
    x = random(2, 3, 10, 10)
    [found] = infold.InferenceSession(str(saved)).run(None, {"x": x})
    np.testing.assert_allclose(found, expected(net, x), rtol=1e-5, atol=1e-6)


def test_dynamic_program(net, tmp_path):
    dims = {0: torch.export.Dim("n"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    torch.export.save(torch.export.export(net, (torch.randn(2, 3, 10, 12),), dynamic_shapes=(dims,)), tmp_path / "dynamic.pt2")
    agrees(load(tmp_path / "dynamic.pt2"), net, random(3, 3, 7, 9))


def test_a_program_exported_in_training_mode_is_refused():
    program = torch.export.export(Net().train(), (torch.randn(2, 3, 10, 10),))
    with pytest.raises(UnsupportedError, match=r"batch_norm.*exported in training mode; call eval\(\)"):
        load(program)


# What is refused


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_pickles_are_refused_with_the_way_out(suffix, tmp_path, net):
    torch.save(net.state_dict(), tmp_path / f"net{suffix}")
    with pytest.raises(UnsupportedError, match=r"is a pickle.*torch\.export\.save"):
        load(tmp_path / f"net{suffix}")


def test_wrong_use(net, saved):
    for wrong in (None, 5, [1, 2], "x"):
        with pytest.raises(TypeError, match="example_inputs"):
            load(net, example_inputs=wrong)
    with pytest.raises(TypeError, match="its inputs and dynamic dimensions"):
        load(saved, dynamic_batch=True)
    with pytest.raises(TypeError):
        load(net, example_inputs=torch.randn(1, 3, 8, 8), shape=(1, 3, 8, 8))


def test_what_torch_cannot_export_is_named(net):
    class Untraceable(nn.Module):
        def forward(self, x):
            return x * float(x.sum().item() > 0) if x.sum() > 0 else x

    with pytest.raises(UnsupportedError, match="cannot export the Untraceable"):
        load(Untraceable().eval(), example_inputs=torch.randn(3))
    with pytest.raises(UnsupportedError, match="cannot export the Net"):
        load(net, example_inputs=torch.randn(2, 4, 10, 10))


def test_torch_missing():
    code = (
        "import sys; sys.modules['torch'] = None\nimport infold\n"
        "try:\n    infold.load('m.pt2')\nexcept infold.errors.MissingDependencyError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "infold[torch]" in done.stdout


class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


def edited(saved, tmp_path, change: dict[str, object]):
    """A copy of an archive with records replaced or added; a function edits the JSON document there is."""
    target = tmp_path / "edited.pt2"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        root = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            new = change.get(name.partition("/")[2])
            data = source.read(name)
            if callable(new):
                data = json.dumps(new(json.loads(data))).encode()
            elif new is not None:
                data = new
            copy.writestr(name, data)
        for name, data in change.items():
            if f"{root}/{name}" not in source.namelist():
                copy.writestr(f"{root}/{name}", data)
    return target


def set_target(document):
    document["graph_module"]["graph"]["nodes"][0]["target"] = "torch.serialization.os.system"
    return document


def set_expression(document):
    document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {
        "as_expr": {"expr_str": "__import__('os').getpid()", "hint": None}
    }
    return document


def use_pickle(document):
    next(iter(document["config"].values()))["use_pickle"] = True
    return document


def custom_object(document):
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    return {"config": {**document["config"], "x": entry}}


HARMFUL = {
    "operator": ({"models/model.json": set_target}, "calls 'torch.serialization.os.system'"),
    "expression": ({"models/model.json": set_expression}, "more than arithmetic"),
    "sample inputs": ({"data/sample_inputs/model.pt": pickle.dumps(Evil(), 2)}, "pickle of more than tensors"),
    "weight": (
        {"data/weights/model_weights_config.json": use_pickle, "data/weights/weight_0": pickle.dumps(Evil(), 2)},
        "pickle of more than tensors",
    ),
    "legacy weights": ({"data/weights/model.pt": pickle.dumps(Evil(), 2)}, "pickle of more than tensors"),
    "object": (
        {"data/constants/model_constants_config.json": custom_object, "data/constants/opaque_obj_0": pickle.dumps(Evil(), 2)},
        "Python or TorchScript object",
    ),
    "compiled code": ({"data/aotinductor/model/model.so": b"\x7fELF"}, "no part of"),
}


@pytest.mark.parametrize("change, message", HARMFUL.values(), ids=HARMFUL.keys())
def test_archives_that_could_run_code(change, message, saved, tmp_path, capfd):
    path = edited(saved, tmp_path, change)
    with pytest.raises(UnsupportedError, match=message):
        load(path)
    assert "never run" not in capfd.readouterr().out


def test_an_edited_archive_is_otherwise_fine(net, saved, tmp_path):
    agrees(load(edited(saved, tmp_path, {"extra/note": b"hello"})), net, random(2, 3, 10, 10))


def test_damaged_archives(saved, tmp_path):
    data = saved.read_bytes()
    for index, broken in enumerate((b"", b"not a zip", data[:1000], data[: len(data) // 2])):
        path = tmp_path / f"broken{index}.pt2"
        path.write_bytes(broken)
        with pytest.raises(InvalidModelError, match="broken"):
            load(path)
    with pytest.raises(InvalidModelError, match=r"missing\.pt2: cannot be read"):
        load(tmp_path / "missing.pt2")
    with pytest.raises(InvalidModelError, match="cannot load it"):
        load(edited(saved, tmp_path, {"models/model.json": lambda document: {**document, "graph_module": {}}}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    (tmp_path / "old.pt2").write_bytes(buffer.getvalue())
    with pytest.raises(InvalidModelError, match="before torch"):
        load(tmp_path / "old.pt2")
