"""Does an installed infold work? `python smoke.py`: nothing but the package and what it depends on is needed.

Folds and runs the network that the package ships and a Conv-BatchNorm made here, compares both with onnx's own implementation, and
asks the command for what it sees. Exits non-zero, with a message, if something is wrong.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from onnx.reference import ReferenceEvaluator

import infold
from infold import demo


def conv_bn() -> onnx.ModelProto:
    """A convolution and its BatchNorm at opset 15, (1, 3, 9, 9) to (1, 8, 9, 9)."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 3, 3, 3))} | {name: rng.uniform(0.5, 2, 8) for name in ("scale", "bias", "mean", "var")}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, 9, 9]) for name, n in (("x", 3), ("y", 8)))
    initializers = [from_array(value.astype(np.float32), name) for name, value in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], initializers), opset_imports=[helper.make_opsetid("", 15)])


def check(model: onnx.ModelProto) -> None:
    """Raises AssertionError if a session, or the folded model in a session, is not near onnx's own result."""
    value = model.graph.input[0]
    shape = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
    x = {value.name: np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    expected = ReferenceEvaluator(model).run(None, x)[0]
    folded, report = infold.fold(infold.load(model))
    assert report.remaining == 0, report
    for candidate in (model, folded):
        np.testing.assert_allclose(infold.InferenceSession(candidate).run(None, x)[0], expected, rtol=1e-4, atol=1e-5)


def main() -> None:
    check(conv_bn())
    check(onnx.load(Path(demo.__file__).parent / "lenet.onnx"))
    command = Path(sysconfig.get_path("scripts")) / "infold"
    said = subprocess.run([command, "info"], capture_output=True, text=True, check=True).stdout
    assert infold.__version__ in said, said
    print(f"infold {infold.__version__} works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
