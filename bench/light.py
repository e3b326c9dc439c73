"""The light models of the onnx package, with weights that carry information."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def with_random_weights(path: Path) -> onnx.ModelProto:
    """A light model has constants for weights (ConstantOfShape), so its output is uniform: here they are He-scaled random numbers,
    always the same, and its vectors (variances among them) positive."""
    rng, proto = np.random.default_rng(0), onnx.load(path)
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        if node.op_type != "ConstantOfShape":
            proto.graph.node.append(node)
            continue
        shape = shapes[node.input[0]]
        values = rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    return proto


def before_softmax(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same without a Softmax at its end, which may round to ones and zeros whatever came before."""
    (last,) = [node for node in proto.graph.node if node.output[0] == proto.graph.output[0].name]
    if last.op_type == "Softmax":
        proto.graph.node.remove(last)
        del proto.graph.output[:]
        proto.graph.output.append(onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, None))
    return proto
