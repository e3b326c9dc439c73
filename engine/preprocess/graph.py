"""Preprocessing as the first nodes of a model, where the passes fold what is exact."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..errors import InvalidInputError, UnsupportedError
from ..passes.context import GraphContext
from ..report.inputs import required_inputs
from .config import Preprocess

NODE = "preprocess"  # the BatchNormalization, in reports
PLANES, PIXELS = (0, 3, 1, 2), (0, 2, 3, 1)  # NHWC to NCHW, and back


def embed(model: ir.Model, preprocess: Preprocess) -> ir.Model:
    """A copy of the model whose input is the pixels themselves, uint8 [N, H, W, C], as `preprocess.rest` gives them.

    The input keeps its name. Its Transpose and Cast, and (pixel / max_pixel_value - mean) / std as a BatchNormalization, follow; so
    reports tell what became of the arithmetic as they do of any other BatchNormalization.

    Raises:
        UnsupportedError: not one float32 image as the only input, or an operator set before 7.
        InvalidInputError: `preprocess` has another data type or number of channels than the input.
    """
    model = model.clone()
    inputs, version = required_inputs(model), model.opset_imports.get("", 0)
    images = [value for value in inputs if value.dtype == ir.DataType.FLOAT and value.shape is not None and len(value.shape) == 4]
    if version < 7 or len(inputs) != 1 or inputs != images:
        raise UnsupportedError(f"preprocessing needs a model of operator set 7 or later with one float32 image as input; this one, "
                               f"of set {version}, has {', '.join(f'{v.name!r} {v.type} {v.shape}' for v in inputs)}")
    [value], last = inputs, preprocess.layout == "nhwc"
    if preprocess.dtype != "float32":
        raise InvalidInputError(f"preprocessing, field 'dtype': the input {value.name!r} is float32, not {preprocess.dtype}")
    dims = list(value.shape) if last else [value.shape[axis] for axis in PIXELS]
    if isinstance(dims[3], int) and dims[3] != preprocess.channels:
        raise InvalidInputError(f"preprocessing, fields 'color' and 'layout': {preprocess.channels} channels, {preprocess.layout}, "
                                f"do not fit the input {value.name!r}, {value.shape}")
    shape = ir.Shape([*dims[:3], preprocess.channels])
    pixels = ir.Value(name=value.name, shape=shape, type=ir.TensorType(ir.DataType.UINT8))
    nodes, context = [], GraphContext(model, size_limit=0)

    def append(kind: str, what: str, *constants: ir.Value, **attributes: object) -> None:
        node = ir.node(kind, [nodes[-1].outputs[0] if nodes else pixels, *constants], attributes, name=context.unique_name(what))
        [result], [source] = node.outputs, node.inputs[:1]
        result.name, result.type = context.unique_name(f"{what}_out"), source.type if kind == "Transpose" else value.type
        result.shape = ir.Shape([source.shape[axis] for axis in attributes.get("perm", range(4))])
        nodes.append(node)

    def constant(what: str, numbers: np.ndarray | float) -> ir.Value:
        return context.constant(np.broadcast_to(np.float32(numbers), preprocess.channels).copy(), f"{NODE}_{what}")

    append("Transpose", f"{NODE}_planes", perm=PLANES)
    append("Cast", f"{NODE}_cast", to=int(ir.DataType.FLOAT))
    mean, std = (np.multiply(numbers, preprocess.max_pixel_value) for numbers in (preprocess.mean, preprocess.std))
    statistics = [constant(what, numbers) for what, numbers in (("scale", 1), ("bias", 0), ("mean", mean), ("variance", std ** 2))]
    append("BatchNormalization", NODE, *statistics, epsilon=0.0)
    if last:
        append("Transpose", f"{NODE}_layout", perm=PIXELS)
    value.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
    model.graph.inputs[list(model.graph.inputs).index(value)] = pixels
    model.graph.extend(nodes)
    model.graph.sort()
    return model
