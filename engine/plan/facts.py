"""What is known of every value before a plan is made: shape, data type and, where it does not depend on the data, the value
itself."""
from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from .. import inference
from ..errors import ShapeError
from ..ops import base
from ..passes.context import subgraphs
from .graph import opsets
from .tensor import TYPES

VALUE_LIMIT = 1 << 16  # elements: shape arithmetic is small; larger results are better computed in the run, in planned memory
# From these versions on inference leaves out windows that begin beyond the image (`ceil_mode`) and takes axes in any order, as
# runtimes do at every version.
EXACT = {"MaxPool": 22, "AveragePool": 22, "LpPool": 22, "Squeeze": 11}
FEW = 256  # elements whose largest product is within the limit
ARITHMETIC = {"Add", "And", "Cast", "Ceil", "Concat", "Div", "Equal", "Floor", "Gather", "Greater", "Identity", "Less", "Max",
              "Min", "Mod",
              "Mul", "Neg", "Not", "Or", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Slice", "Split", "Sqrt",
              "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}  # of shapes: results no larger than the broadcast inputs
DATA_SIZED = {"NonZero", "Unique", "Compress"}  # the result's size follows from the data, and is at most the input's
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}


@dataclass(eq=False)
class Fact:
    """shape None: unknown until the run; dtype None: not a numeric tensor (string, sequence, optional)."""

    shape: tuple[int, ...] | None
    dtype: np.dtype | None
    value: np.ndarray | None = None

    @staticmethod
    def of(value) -> Fact:
        """The fact of a value already computed."""
        if isinstance(value, np.ndarray) and value.dtype in TYPES:
            return Fact(value.shape, value.dtype, value)
        return Fact(None, None)

    @staticmethod
    def of_constant(tensor: ir.TensorProtocol) -> Fact:
        """The fact of a constant of the model."""
        return ConstantFact(tensor) if tensor.dtype.numpy() in TYPES else Fact(None, None)


class ConstantFact(Fact):
    """The fact of a model's constant, whose contents are looked up when somebody asks for them."""

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        self.shape, self.dtype, self.tensor = tuple(tensor.shape.numpy()), tensor.dtype.numpy(), tensor

    @property
    def value(self) -> np.ndarray:
        return self.tensor.numpy()


def known(fact: Fact | None) -> bool:
    return fact is not None and fact.shape is not None and fact.dtype is not None


def infer_node(node: ir.Node, facts: dict[str, Fact], model: ir.Model) -> list[Fact] | None:
    """Facts of the node's outputs, or None if their shapes cannot be known before the node has run."""
    inputs = [None if v is None else facts.get(v.name) for v in node.inputs]
    present = [f for f, v in zip(inputs, node.inputs) if v is not None]
    inference.require_one_type(node, opsets(model, node).get(node.domain, 1), [f and f.dtype for f in inputs])
    if node.domain == "" and node.op_type in ("Shape", "Size") and known(inputs[0]):
        return [Fact.of(_shape_value(node, inputs[0].shape))]
    if all(f is not None and f.value is not None for f in present) and _foldable(node, inputs, present, model):
        from ..reference import NodeRunner

        return [Fact.of(v) for v in NodeRunner(node, opsets(model, node)).run([None if f is None else f.value for f in inputs])]
    return _infer_shapes(node, inputs, present, model)


def _infer_shapes(node: ir.Node, inputs: list[Fact | None], present: list[Fact | None], model: ir.Model) -> list[Fact] | None:
    if any(f is None or (f.shape is None and f.dtype is not None) for f in present):
        return None
    op = base.find(node)
    if op is not None and op.infer is not None and all(map(known, present)):
        try:
            shapes = op.infer(node, inputs)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ShapeError(f"node {node.name!r} ({node.op_type}): no output shape for inputs "
                             f"{[f.shape for f in present]}: {error}") from error
        if shapes is not None:
            return [Fact(*s) if len(s) == 2 and isinstance(s[1], np.dtype) else Fact(tuple(s), present[0].dtype) for s in shapes]
    return _onnx_inference(node, inputs, model)


def _foldable(node: ir.Node, inputs: list[Fact | None], present: list[Fact], model: ir.Model) -> bool:
    """Whether the node, all of whose inputs are known, is computed now: it and its result are small."""
    if node.op_type in RANDOM or subgraphs(node):
        return False
    if not present:
        return node.op_type == "Constant"
    size = sum(f.value.size for f in present)
    if size > VALUE_LIMIT or (size <= FEW and node.op_type in ARITHMETIC):
        return size <= VALUE_LIMIT
    found = _infer_shapes(node, inputs, present, model)  # the result may be far larger than the inputs
    if found is None:
        return node.op_type in DATA_SIZED
    return all(f.shape is None or 0 <= prod(f.shape) <= VALUE_LIMIT for f in found)


def _shape_value(node: ir.Node, shape: tuple[int, ...]) -> np.ndarray:
    if node.op_type == "Size":
        return np.array(int(np.prod(shape, dtype=np.int64)), np.int64)
    return np.array(shape[base.attr(node, "start", 0):base.attr(node, "end", len(shape))], np.int64)


def _onnx_inference(node: ir.Node, inputs: list[Fact | None], model: ir.Model) -> list[Fact] | None:
    """onnx's own inference for one node (with the values of small inputs, which decide the shape of Reshape and its like)."""
    opset = node.version or model.opset_imports.get(node.domain)
    if opset is not None and node.domain == "":
        opset = max(opset, EXACT.get(node.op_type, 0))
    if opset is None:
        return None
    types, data = {}, {}
    for value, fact in zip(node.inputs, inputs):
        if value is None:
            continue
        if not known(fact):
            return None
        element = onnx.helper.np_dtype_to_tensor_dtype(fact.dtype)
        types[value.name] = onnx.helper.make_tensor_type_proto(element, fact.shape)
        if fact.value is not None and fact.value.size <= 1024:
            data[value.name] = onnx.numpy_helper.from_array(np.asarray(fact.value, order="C"), value.name)
    try:
        result = inference.infer_node(ir.to_proto(node), opset, types, data)
    except inference.Contradiction as error:
        raise ShapeError(f"node {node.name!r} ({node.op_type}): {error}") from error
    if result is None:
        return None
    facts = []
    for value in node.outputs:
        if not value.name:
            facts.append(Fact(None, None))
            continue
        got = result.get(value.name)
        if got is None or not got.HasField("tensor_type") or not got.tensor_type.HasField("shape"):
            return None
        dims = got.tensor_type.shape.dim
        if any(not d.HasField("dim_value") for d in dims):
            return None
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(got.tensor_type.elem_type))
        if dtype not in TYPES:
            return None
        facts.append(Fact(tuple(d.dim_value for d in dims), dtype))
    return facts


