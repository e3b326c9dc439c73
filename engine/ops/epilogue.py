"""What a convolution or matrix product can do before it stores: add a residual, then apply an activation."""
from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from .activations import Activation, activation_of


@dataclass
class Epilogue:
    """The nodes taken over, in order; the value that is finally stored; what to add and apply on the way."""

    output: str
    residual: str | None = None
    activation: Activation = Activation()
    nodes: list[ir.Node] = field(default_factory=list)

    def in_registers(self) -> bool:
        """Whether the kernel applies the activation before it stores; others are a second sweep over the stored tile."""
        return self.activation.act in ("IDENTITY", "RELU", "CLIP")

    def without_activation(self) -> Epilogue:
        """The same, leaving the activation to a step of its own."""
        if self.activation.act == "IDENTITY":
            return self
        return Epilogue(self.nodes[-1].inputs[0].name, self.residual, nodes=self.nodes[:-1])


def epilogue(ctx, node: ir.Node) -> Epilogue:
    """Follow the single readers of the node's output as far as the kernels' epilogue can go. Takes nothing yet."""
    found = Epilogue(node.outputs[0].name)
    shape = ctx.shape(found.output)
    while (reader := ctx.graph.only_reader(found.output)) is not None and reader not in ctx.done:
        other = _residual(ctx, reader, found.output, shape)
        if other is not None and found.residual is None:
            found.residual = other
        else:
            main = reader.inputs[0] if reader.inputs else None
            activation = activation_of(ctx, reader) if main is not None and main.name == found.output else None
            if activation is None:
                break
            found.activation = activation
        found.nodes.append(reader)
        found.output = reader.outputs[0].name
        if found.activation.act != "IDENTITY":
            break
    return found


def _residual(ctx, reader: ir.Node, name: str, shape) -> str | None:
    """The other operand of an Add (or two-operand Sum) of equal shapes, if it is already computed."""
    if reader.domain or reader.op_type not in ("Add", "Sum") or len(reader.inputs) != 2:
        return None
    names = [v.name for v in reader.inputs]
    other = names[1 - names.index(name)]
    if other == name or not ctx.computed(other) or ctx.facts[other].shape != shape:
        return None
    return other


def take(ctx, found: Epilogue) -> None:
    """Mark the nodes as done: call when the lowering can no longer refuse."""
    ctx.done.update(found.nodes)
