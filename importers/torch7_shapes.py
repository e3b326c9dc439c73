"""Torch7 modules that rearrange: views, slices, transposition, padding, resampling."""

from __future__ import annotations

import math

import onnx_ir as ir

from infold.errors import ShapeError
from infold.importers.torch7_graph import Nested, Site, converts, static
from infold.importers.torch7_reader import Table

_END = 2**63 - 1


@converts("nn.View")
def _view(site: Site) -> Nested:
    """nn.View keeps what its sizes do not account for as the batch, unless a -1 among them takes it.

    A view to (-1) alone is written for a sample; it leaves the batch, too.
    """
    x, sizes = site.tensor(), _sizes(site)
    rank, shape, inside = len(x.shape), site.shape(x), site.integer("numInputDims", None, least=0)
    if -1 not in sizes:
        return _batch_view(site, x, sizes)
    batch = 1 if sizes == [-1] and inside is None else max(rank - inside, 0) if inside is not None else 0
    if batch <= 1:
        return _reshape(site, x, [0] * batch + sizes)
    if (merged := static(shape[:batch])) is None:
        raise site.unsupported(
            f"the {batch} leading dimensions of {x.shape} become one and are not known; give the input's shape"
        )
    return _reshape(site, x, [merged, *sizes])


def _batch_view(site: Site, x: ir.Value, sizes: list[int]) -> ir.Value:
    shape, count = site.shape(x), math.prod(sizes)
    inside, total = static(shape[1:]), static(shape)
    if inside in (count, None):
        return _reshape(site, x, [0, *sizes])
    if total == count:
        return _reshape(site, x, sizes)
    if total is not None and total % count:
        raise ShapeError(f"{site}: a view of {x.shape} as {sizes}")
    return _reshape(site, x, [-1, *sizes])


@converts("nn.Reshape")
def _reshape_module(site: Site) -> Nested:
    x, sizes = site.tensor(), _sizes(site)
    shape, mode = site.shape(x), site.fields.get("batchMode")
    whole = mode is False or (mode is None and static(shape) == math.prod(sizes) and shape[0] != 1)
    return _reshape(site, x, sizes if whole else [0, *sizes])


def _sizes(site: Site) -> list[int]:
    sizes = site.sizes("size")
    if not sizes or 0 in sizes or sizes.count(-1) > 1:
        raise site.invalid(f"sizes {sizes}")
    return sizes


def _reshape(site: Site, x: ir.Value, sizes: list[int]) -> ir.Value:
    """Reshape, with 0 for a dimension that stays, after a check of what is known."""
    total = static(site.shape(x))
    known = [dim if size == 0 else size for dim, size in zip([*site.shape(x), *sizes], sizes)]
    if total is not None and None not in known:
        count = math.prod(size for size in known if size != -1)
        if total % count or (-1 not in known and total != count):
            raise ShapeError(f"{site}: an input of shape {x.shape} does not fit the sizes {sizes}")
    return site.add("Reshape", x, site.integers(*sizes))


@converts("nn.Squeeze")
def _squeeze(site: Site) -> Nested:
    x = site.tensor()
    shape = site.shape(x)
    if (along := site.integer("dim", None, least=1)) is not None:
        along += -1 + int(site.integer("numInputDims", -1) + 1 == len(shape))
        if along >= len(shape):
            raise ShapeError(f"{site}: dimension {along + 1} of an input of shape {x.shape}")
        return x if shape[along] not in (1, None) else site.add("Squeeze", x, site.integers(along))
    if None in shape[1:]:
        raise site.unsupported(f"which dimensions of {x.shape} are 1 is not known; give the input's shape")
    axes = [position for position, size in enumerate(shape) if position and size == 1]
    return site.add("Squeeze", x, site.integers(*axes)) if axes else x


@converts("nn.Unsqueeze")
def _unsqueeze(site: Site) -> Nested:
    x, position = site.tensor(), site.integer("pos", least=1)
    rank = len(x.shape)
    along = rank - site.integer("numInputDims", rank, least=0) + position - 1
    if not 0 <= along <= rank:
        raise ShapeError(f"{site}: position {position} in an input of shape {x.shape}")
    return site.add("Unsqueeze", x, site.integers(along))


@converts("nn.Transpose")
def _transpose(site: Site) -> Nested:
    """Swap pairs of dimensions, one pair after the other."""
    x, pairs = site.tensor(), site.fields.get("permutations")
    order = list(range(len(x.shape)))
    offset = len(order) - site.integer("numInputDims", len(order), least=0)
    if not isinstance(pairs, Table) or len(pairs) > 64:
        raise site.invalid("it has no list of swaps")
    for pair in pairs.sequence():
        swap = pair.sequence() if isinstance(pair, Table) else []
        if len(swap) != 2 or not all(isinstance(d, int) and 0 <= offset + d - 1 < len(order) for d in swap):
            raise site.invalid(f"swap {swap} of an input of shape {x.shape}")
        first, second = (offset + d - 1 for d in swap)
        order[first], order[second] = order[second], order[first]
    return site.add("Transpose", x, perm=order)


@converts("nn.Select")
def _select(site: Site) -> Nested:
    x = site.tensor()
    along, index = site.axis("dimension", x), site.integer("index")
    if index == 0 or ((size := site.shape(x)[along]) is not None and abs(index) > size):
        raise ShapeError(f"{site}: index {index} in dimension {along} of {x.shape}")
    return site.add("Gather", x, site.index(index if index < 0 else index - 1), axis=along)


@converts("nn.Narrow")
def _narrow(site: Site) -> Nested:
    """`length` elements from `index`; a negative length counts from the end, -1 being all."""
    x = site.tensor()
    along, index, length = site.axis("dimension", x), site.integer("index", least=1), site.integer("length", 1)
    end = index - 1 + length if length >= 0 else length + 1 if length < -1 else _END
    size = site.shape(x)[along]
    if size is not None and (index > size or (length >= 0 and end > size)):
        raise ShapeError(f"{site}: {length} elements from {index} in dimension {along} of {x.shape}")
    return site.add("Slice", x, site.integers(index - 1), site.integers(end), site.integers(along))


@converts("nn.SpatialZeroPadding", "nn.SpatialReflectionPadding", "nn.SpatialReplicationPadding")
def _spatial_padding(site: Site) -> Nested:
    left, right, top, bottom = (site.integer(f"pad_{side}", 0) for side in "lrtb")
    mode = {"Z": "constant", "R": "reflect"}[site.name[10]] if "Replication" not in site.name else "edge"
    return _pad(site, site.tensor(4), [0, 0, top, left], [0, 0, bottom, right], mode)


@converts("nn.VolumetricReplicationPadding")
def _volumetric_padding(site: Site) -> Nested:
    left, right, top, bottom, front, back = (
        site.integer(f"p{side}", 0) for side in ("left", "right", "top", "bottom", "front", "back")
    )
    return _pad(site, site.tensor(5), [0, 0, front, top, left], [0, 0, back, bottom, right], "edge")


@converts("nn.Padding")
def _padding(site: Site) -> Nested:
    """A positive pad goes to the end of a dimension, a negative one to its beginning."""
    x, pad = site.tensor(), site.integer("pad")
    rank, inside = len(x.shape), site.integer("nInputDim", None)
    along = site.integer("dim", least=1) - 1 + int(inside is not None and inside != rank)
    if along >= rank:
        raise ShapeError(f"{site}: dimension {along + 1} of an input of shape {x.shape}")
    if site.integer("index", 1) != 1:
        raise site.unsupported("padding in the middle of a dimension")
    before, after = [0] * rank, [0] * rank
    (after if pad > 0 else before)[along] = abs(pad)
    return _pad(site, x, before, after, "constant", site.number("value", 0))


def _pad(site: Site, x: ir.Value, before: list[int], after: list[int], mode: str, value: float = 0) -> ir.Value:
    for size, low, high in zip(site.shape(x), before, after):
        if size is not None and (size + low + high < 1 or (mode == "reflect" and max(low, high) >= size)):
            raise ShapeError(f"{site}: padding {before} and {after} of an input of shape {x.shape}")
    if not any(before + after):
        return x
    constant = [site.scalar(value)] if value else []
    return site.add("Pad", x, site.integers(*before, *after), *constant, mode=mode)


@converts("nn.SpatialUpSamplingNearest", "nn.SpatialUpSamplingBilinear", "nn.UpSampling")
def _upsampling(site: Site) -> Nested:
    """Bilinear resampling aligns corners, as in Torch; of its two rules for the size, the later (times the scale)."""
    x = site.tensor(4)
    nearest = "Nearest" in site.name or site.fields.get("mode") == "nearest"
    how = (
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if nearest
        else {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    )
    if site.has("scale_factor"):
        scale = site.number("scale_factor")
        if scale < 1:
            raise site.invalid(f"scale factor {scale}")
        return site.add("Resize", x, None, site.floats(1, 1, scale, scale), **how)
    sizes = [site.integer("oheight", least=1), site.integer("owidth", least=1)]
    return site.add("Resize", x, None, None, site.integers(*sizes), axes=[2, 3], **how)
