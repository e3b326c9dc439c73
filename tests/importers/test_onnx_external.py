"""External tensor data comes from inside the model's folder, whole, or is refused by name."""

from __future__ import annotations

import os

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_harness import build, matmul

from infold.errors import ExternalDataError
from infold.importers.onnx import load

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def external(location, offset=None, length=None, dims=(3, 2)):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


@pytest.fixture
def folder(tmp_path):
    """A model folder with 4 bytes of padding and a 3x2 weight in `w.bin`; the same lies outside as `secret.bin`."""
    inside = tmp_path / "model"
    inside.mkdir()
    for path in (inside / "w.bin", tmp_path / "secret.bin"):
        path.write_bytes(b"\0" * 4 + WEIGHT.tobytes())
    return inside


def save(folder, model):
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_inside_the_folder(folder):
    path = save(folder, matmul(external("w.bin", 4, 24)))
    (folder / "sub").mkdir()
    os.symlink("../w.bin", folder / "sub" / "link.bin")  # a link that stays inside is fine
    for source, options in (
        (path, {}),
        (path.read_bytes(), {"folder": folder}),
        (save(folder, matmul(external("sub/link.bin", 4))), {}),
        (ir.load(path), {}),
    ):
        model = load(source, **options)
        assert np.array_equal(model.graph.initializers["w"].const_value.numpy().ravel(), WEIGHT.ravel())
        assert ir.to_proto(model).graph.initializer[0].data_location == TensorProto.DEFAULT


@pytest.mark.parametrize(
    "tensor, says",
    [
        (lambda folder: external("gone.bin"), "gone.bin.*No such file"),
        (lambda folder: external("w.bin", 8), "bytes 8 to 32 of 'w.bin', which has 28"),
        (lambda folder: external("w.bin", 1 << 62), "which has 28"),
        (lambda folder: external("w.bin", -4), "offset -4"),
        (lambda folder: external("w.bin", 0, 20), "needs 24 bytes.*length 20"),
        (lambda folder: external("w.bin", "four"), "must be numbers"),
        (lambda folder: external(None), "without a location"),
        (lambda folder: external(str(folder / "w.bin"), 4), "inside the model's folder"),
        (lambda folder: external("../secret.bin", 4), "inside the model's folder"),
        (lambda folder: external("sub/../../secret.bin", 4), "inside the model's folder"),
        (lambda folder: external("..\\secret.bin", 4), "inside the model's folder"),
        (lambda folder: external("link.bin", 4), "symbolic link"),
        (lambda folder: external("linked/secret.bin", 4), "symbolic link"),
        (lambda folder: external("hard.bin", 4), "hard links"),
        (lambda folder: external("."), "cannot be read"),
        (lambda folder: external("pipe"), "not a regular file"),
    ],
)
def test_external_data_that_is_refused(folder, tensor, says):
    os.symlink("../secret.bin", folder / "link.bin")
    os.symlink("..", folder / "linked")
    os.link(folder.parent / "secret.bin", folder / "hard.bin")
    os.mkfifo(folder / "pipe")
    tensor = tensor(folder)
    with pytest.raises(ExternalDataError, match=says) as info:
        load(save(folder, matmul(tensor)))
    assert "'w'" in str(info.value)
    constant = build([helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("MatMul", ["x", "w"], ["y"])])
    with pytest.raises(ExternalDataError, match=says):
        load(save(folder, constant))


def test_external_data_without_a_folder(folder):
    for source in (model := matmul(external("w.bin", 4)), model.SerializeToString()):
        with pytest.raises(ExternalDataError, match=r"'w'.*no folder"):
            load(source)
