"""A model as the doctor sees it: its BatchNormalizations, with their statistics where those are constant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..passes.affine import not_constant
from ..passes.context import GraphContext, attribute, is_op, node_name
from ..passes.training import is_training

PARAMETERS = ("scale", "bias", "mean", "variance")


@dataclass(frozen=True, eq=False)
class Norm:
    """A BatchNormalization as the rules see it.

    Attributes:
        scale, bias, mean, variance: float64 per channel (with `spatial=0` also per position); None if not constant.
        training: whether its statistics come from the batch.
        spatial: False where it normalises every position for itself.
    """

    node: ir.Node
    epsilon: float
    training: bool
    spatial: bool
    scale: np.ndarray | None
    bias: np.ndarray | None
    mean: np.ndarray | None
    variance: np.ndarray | None

    @property
    def name(self) -> str:
        return node_name(self.node)

    @property
    def source(self) -> ir.Value:
        return self.node.inputs[0]

    @property
    def parameters(self) -> dict[str, np.ndarray | None]:
        return {what: getattr(self, what) for what in PARAMETERS}

    @property
    def gain(self) -> np.ndarray | None:
        """|scale| / sqrt(variance + epsilon), where that is a number."""
        if self.scale is None or self.variance is None:
            return None
        spread = self.variance + self.epsilon
        with np.errstate(all="ignore"):
            gain = np.abs(self.scale) / np.sqrt(np.where(spread > 0, spread, np.nan))
        return np.where(np.isfinite(gain), gain, 0.0)

    @property
    def untouched(self) -> bool:
        """Whether the statistics are those a layer starts with: mean 0 and variance 1, or in Caffe both 0."""
        return (
            self.mean is not None
            and self.variance is not None
            and self.variance.size > 0
            and not self.mean.any()
            and bool((self.variance == self.variance.flat[0]).all())
            and self.variance.flat[0] in (0, 1)
        )

    def not_constant(self) -> dict[str, str]:
        """Of each parameter that is not constant, what it is instead."""
        return {
            what: not_constant(value)
            for (what, array), value in zip(self.parameters.items(), self.node.inputs[1:5])
            if array is None
        }


@dataclass(frozen=True)
class Patient:
    """A model with its constants folded, and its BatchNormalizations in graph order, subgraphs included."""

    context: GraphContext
    norms: list[Norm]

    @classmethod
    def of(cls, context: GraphContext) -> Patient:
        return cls(context, [_norm(context, node) for node in context.nodes() if is_op(node, "BatchNormalization")])

    def norm(self, node: ir.Node | None) -> Norm | None:
        return next((norm for norm in self.norms if norm.node is node), None)


def _norm(context: GraphContext, node: ir.Node) -> Norm:
    opset = context.opset(node)
    arrays = [context.array(value) for value in node.inputs[1:5]]
    return Norm(
        node,
        attribute(node, "epsilon", 1e-5),
        is_training(node, opset),
        opset >= 9 or bool(attribute(node, "spatial", 1)),
        *(None if array is None else array.astype(np.float64) for array in arrays),
    )
