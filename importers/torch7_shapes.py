"""Torch7 modules that rearrange: views, slices, transposition, padding, resampling."""

from __future__ import annotations

import math

import onnx_ir as ir

from infold.errors import ShapeError
from infold.importers.torch7_containers import axis
from infold.importers.torch7_graph import Graph, Nested, converts, static
from infold.importers.torch7_module import Module
from infold.importers.torch7_reader import Table

_END = 2**63 - 1


@converts("nn.View")
def _view(graph: Graph, module: Module, x: Nested) -> Nested:
    """nn.View keeps what its sizes do not account for as the batch, unless a -1 among them takes it.

    A view to (-1) alone is written for a sample; it leaves the batch, too.
    """
    x, sizes = graph.tensor(module, x), _sizes(module)
    rank, shape, inside = len(x.shape), graph.shape(x), module.integer("numInputDims", None, least=0)
    if -1 not in sizes:
        return _batch_view(graph, module, x, sizes)
    batch = 1 if sizes == [-1] and inside is None else max(rank - inside, 0) if inside is not None else 0
    if batch <= 1:
        return _reshape(graph, module, x, [0] * batch + sizes)
    if (merged := static(shape[:batch])) is None:
        raise module.unsupported(
            f"the {batch} leading dimensions of {x.shape} become one and are not known; give the input's shape"
        )
    return _reshape(graph, module, x, [merged, *sizes])


def _batch_view(graph: Graph, module: Module, x: ir.Value, sizes: list[int]) -> ir.Value:
    shape, count = graph.shape(x), math.prod(sizes)
    inside, total = static(shape[1:]), static(shape)
    if inside in (count, None):
        return _reshape(graph, module, x, [0, *sizes])
    if total == count:
        return _reshape(graph, module, x, sizes)
    if total is not None and total % count:
        raise ShapeError(f"{module}: a view of {x.shape} as {sizes}")
    return _reshape(graph, module, x, [-1, *sizes])


@converts("nn.Reshape")
def _reshape_module(graph: Graph, module: Module, x: Nested) -> Nested:
    x, sizes = graph.tensor(module, x), _sizes(module)
    shape, mode = graph.shape(x), module.fields.get("batchMode")
    whole = mode is False or (mode is None and static(shape) == math.prod(sizes) and shape[0] != 1)
    return _reshape(graph, module, x, sizes if whole else [0, *sizes])


def _sizes(module: Module) -> list[int]:
    sizes = module.sizes("size")
    if not sizes or 0 in sizes or sizes.count(-1) > 1:
        raise module.invalid(f"sizes {sizes}")
    return sizes


def _reshape(graph: Graph, module: Module, x: ir.Value, sizes: list[int]) -> ir.Value:
    """Reshape, with 0 for a dimension that stays, after a check of what is known."""
    total = static(graph.shape(x))
    known = [dim if size == 0 else size for dim, size in zip([*graph.shape(x), *sizes], sizes)]
    if total is not None and None not in known:
        count = math.prod(size for size in known if size != -1)
        if total % count or (-1 not in known and total != count):
            raise ShapeError(f"{module}: an input of shape {x.shape} does not fit the sizes {sizes}")
    return graph.add(module, "Reshape", x, graph.integers(*sizes))


@converts("nn.Squeeze")
def _squeeze(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x)
    shape = graph.shape(x)
    if (along := module.integer("dim", None, least=1)) is not None:
        along += -1 + int(module.integer("numInputDims", -1) + 1 == len(shape))
        if along >= len(shape):
            raise ShapeError(f"{module}: dimension {along + 1} of an input of shape {x.shape}")
        return x if shape[along] not in (1, None) else graph.add(module, "Squeeze", x, graph.integers(along))
    if None in shape[1:]:
        raise module.unsupported(f"which dimensions of {x.shape} are 1 is not known; give the input's shape")
    axes = [position for position, size in enumerate(shape) if position and size == 1]
    return graph.add(module, "Squeeze", x, graph.integers(*axes)) if axes else x


@converts("nn.Unsqueeze")
def _unsqueeze(graph: Graph, module: Module, x: Nested) -> Nested:
    x, position = graph.tensor(module, x), module.integer("pos", least=1)
    rank = len(x.shape)
    along = rank - module.integer("numInputDims", rank, least=0) + position - 1
    if not 0 <= along <= rank:
        raise ShapeError(f"{module}: position {position} in an input of shape {x.shape}")
    return graph.add(module, "Unsqueeze", x, graph.integers(along))


@converts("nn.Transpose")
def _transpose(graph: Graph, module: Module, x: Nested) -> Nested:
    """Swap pairs of dimensions, one pair after the other."""
    x, pairs = graph.tensor(module, x), module.fields.get("permutations")
    order = list(range(len(x.shape)))
    offset = len(order) - module.integer("numInputDims", len(order), least=0)
    if not isinstance(pairs, Table) or len(pairs) > 64:
        raise module.invalid("it has no list of swaps")
    for pair in pairs.sequence():
        swap = pair.sequence() if isinstance(pair, Table) else []
        if len(swap) != 2 or not all(isinstance(d, int) and 0 <= offset + d - 1 < len(order) for d in swap):
            raise module.invalid(f"swap {swap} of an input of shape {x.shape}")
        first, second = (offset + d - 1 for d in swap)
        order[first], order[second] = order[second], order[first]
    return graph.add(module, "Transpose", x, perm=order)


@converts("nn.Select")
def _select(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x)
    along, index = axis(module, "dimension", x), module.integer("index")
    if index == 0 or ((size := graph.shape(x)[along]) is not None and abs(index) > size):
        raise ShapeError(f"{module}: index {index} in dimension {along} of {x.shape}")
    return graph.add(module, "Gather", x, graph.index(index if index < 0 else index - 1), axis=along)


@converts("nn.Narrow")
def _narrow(graph: Graph, module: Module, x: Nested) -> Nested:
    """`length` elements from `index`; a negative length counts from the end, -1 being all."""
    x = graph.tensor(module, x)
    along, index, length = axis(module, "dimension", x), module.integer("index", least=1), module.integer("length", 1)
    end = index - 1 + length if length >= 0 else length + 1 if length < -1 else _END
    size = graph.shape(x)[along]
    if size is not None and (index > size or (length >= 0 and end > size)):
        raise ShapeError(f"{module}: {length} elements from {index} in dimension {along} of {x.shape}")
    return graph.add(module, "Slice", x, graph.integers(index - 1), graph.integers(end), graph.integers(along))


@converts("nn.SpatialZeroPadding", "nn.SpatialReflectionPadding", "nn.SpatialReplicationPadding")
def _spatial_padding(graph: Graph, module: Module, x: Nested) -> Nested:
    left, right, top, bottom = (module.integer(f"pad_{side}", 0) for side in "lrtb")
    mode = {"Z": "constant", "R": "reflect"}[module.name[10]] if "Replication" not in module.name else "edge"
    return _pad(graph, module, graph.tensor(module, x, 4), [0, 0, top, left], [0, 0, bottom, right], mode)


@converts("nn.VolumetricReplicationPadding")
def _volumetric_padding(graph: Graph, module: Module, x: Nested) -> Nested:
    left, right, top, bottom, front, back = (
        module.integer(f"p{side}", 0) for side in ("left", "right", "top", "bottom", "front", "back")
    )
    return _pad(graph, module, graph.tensor(module, x, 5), [0, 0, front, top, left], [0, 0, back, bottom, right], "edge")


@converts("nn.Padding")
def _padding(graph: Graph, module: Module, x: Nested) -> Nested:
    """A positive pad goes to the end of a dimension, a negative one to its beginning."""
    x, pad = graph.tensor(module, x), module.integer("pad")
    rank, inside = len(x.shape), module.integer("nInputDim", None)
    along = module.integer("dim", least=1) - 1 + int(inside is not None and inside != rank)
    if along >= rank:
        raise ShapeError(f"{module}: dimension {along + 1} of an input of shape {x.shape}")
    if module.integer("index", 1) != 1:
        raise module.unsupported("padding in the middle of a dimension")
    before, after = [0] * rank, [0] * rank
    (after if pad > 0 else before)[along] = abs(pad)
    return _pad(graph, module, x, before, after, "constant", module.number("value", 0))


def _pad(graph: Graph, module: Module, x: ir.Value, before: list[int], after: list[int], mode: str, value: float = 0) -> ir.Value:
    for size, low, high in zip(graph.shape(x), before, after):
        if size is not None and (size + low + high < 1 or (mode == "reflect" and max(low, high) >= size)):
            raise ShapeError(f"{module}: padding {before} and {after} of an input of shape {x.shape}")
    if not any(before + after):
        return x
    constant = [graph.scalar(value)] if value else []
    return graph.add(module, "Pad", x, graph.integers(*before, *after), *constant, mode=mode)


@converts("nn.SpatialUpSamplingNearest", "nn.SpatialUpSamplingBilinear", "nn.UpSampling")
def _upsampling(graph: Graph, module: Module, x: Nested) -> Nested:
    """Bilinear resampling aligns corners, as in Torch; of its two rules for the size, the later (times the scale)."""
    x = graph.tensor(module, x, 4)
    nearest = "Nearest" in module.name or module.fields.get("mode") == "nearest"
    how = (
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if nearest
        else {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    )
    if module.has("scale_factor"):
        scale = module.number("scale_factor")
        if scale < 1:
            raise module.invalid(f"scale factor {scale}")
        return graph.add(module, "Resize", x, None, graph.floats(1, 1, scale, scale), **how)
    sizes = [module.integer("oheight", least=1), module.integer("owidth", least=1)]
    return graph.add(module, "Resize", x, None, None, graph.integers(*sizes), axes=[2, 3], **how)
