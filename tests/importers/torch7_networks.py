"""Small Torch7 networks of the classic kinds, with random weights."""

from __future__ import annotations

import numpy as np
from torch7_writer import Key, Obj, module, sequential, table, window

RNG = np.random.default_rng(9)


def random(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def conv(
    cin: int, cout: int, k: int = 3, d: int = 1, pad: int | None = None, name: str = "SpatialConvolution", bias: bool = True
) -> Obj:
    return module(name, nInputPlane=cin, nOutputPlane=cout, **window(k, k, d=d, pad=k // 2 if pad is None else pad),
                  weight=random(cout, cin, k, k, scale=(cin * k * k) ** -0.5), bias=random(cout, scale=0.1) if bias else None)


def norm(channels: int, name: str = "SpatialBatchNormalization") -> Obj:
    return module(
        name,
        eps=1e-5,
        affine=True,
        running_mean=random(channels, scale=0.1),
        weight=1 + random(channels, scale=0.1),
        running_var=RNG.uniform(0.5, 1.5, channels).astype(np.float32),
        bias=random(channels, scale=0.1),
    )


def pool(kind: str, k: int, d: int, pad: int = 0, ceil: bool = False) -> Obj:
    divide = {"divide": True} if kind == "Average" else {}
    return module(f"Spatial{kind}Pooling", **window(k, k, d=d, pad=pad), ceil_mode=ceil, **divide)


def linear(inputs: int, outputs: int) -> Obj:
    return module("Linear", weight=random(outputs, inputs, scale=inputs**-0.5), bias=random(outputs))


def residual(cin: int, cout: int, d: int, bn: str = "SpatialBatchNormalization") -> Obj:
    """The block of fb.resnet.torch."""
    branch = sequential(conv(cin, cout, 3, d), norm(cout, bn), module("ReLU"), conv(cout, cout), norm(cout, bn))
    shortcut = module("Identity") if cin == cout and d == 1 else sequential(conv(cin, cout, 1, d), norm(cout, bn))
    return sequential(table(branch, shortcut), module("CAddTable", inplace=True), module("ReLU"))


def resnet() -> Obj:
    return sequential(
        conv(3, 8, 7, 2),
        norm(8),
        module("ReLU"),
        pool("Max", 3, 2, 1),
        residual(8, 8, 1),
        residual(8, 12, 2),
        pool("Average", 4, 1),
        module("View", size=(12,), numElements=12, numInputDims=3),
        linear(12, 10),
        module("LogSoftMax"),
    )


def inception() -> Obj:
    concat = module(
        "Concat",
        [
            sequential(conv(8, 4, 1), norm(4), module("ReLU")),
            sequential(conv(8, 5, 3), norm(5), module("ReLU")),
            sequential(pool("Max", 3, 1, 1), conv(8, 3, 1), norm(3), module("ReLU")),
        ],
        dimension=2,
    )
    return sequential(
        conv(3, 8, 3, 2),
        norm(8),
        module("ReLU"),
        pool("Max", 3, 2, ceil=True),
        concat,
        pool("Average", 8, 8),
        module("View", size=(12,), numElements=12),
        linear(12, 6),
        module("SoftMax"),
    )


def lenet() -> Obj:
    return sequential(
        conv(3, 6, 5, 1, 0),
        module("Tanh"),
        pool("Max", 2, 2),
        conv(6, 8, 5, 1, 0),
        module("Tanh"),
        pool("Max", 2, 2),
        module("Reshape", size=(8 * 5 * 5,), nelement=200),
        linear(200, 20),
        module("Tanh"),
        linear(20, 10),
        module("SoftMax"),
    )


def autoencoder() -> Obj:
    up = module("SpatialFullConvolution", nInputPlane=8, nOutputPlane=6, **window(4, 4, d=2, pad=1, adj=0),
                weight=random(8, 6, 4, 4, scale=0.1), bias=random(6))
    return sequential(
        conv(3, 8, 3, 2),
        norm(8),
        module("PReLU", nOutputPlane=8, weight=random(8)),
        up,
        norm(6),
        module("ReLU"),
        module("SpatialZeroPadding", pad_l=1, pad_r=1, pad_t=1, pad_b=1),
        conv(6, 3, 3, 1, 0),
        module("Sigmoid"),
    )


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
