"""A Caffe net as it runs at test time: layers of all three generations in today's form, inputs, weights by layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import Message

from infold.errors import InvalidModelError, UnsupportedError
from infold.importers.caffe_schema import LayerParameter

# Layers that bring data into the net: their first top has a shape, further tops are labels.
DATA_TYPES = {"Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "AnnotatedData", "VideoData"}

# Types whose name today is not the V1 enum's or V0 string's parts with capitals.
_RENAMED = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
    "CONV": "Convolution",
    "POOL": "Pooling",
    "INNERPRODUCT": "InnerProduct",
    "IMAGES": "ImageData",
    "IM2COL": "Im2col",
}

# V0 kept every parameter in the layer itself: its field -> (message, field) today, by the layer's type.
_V0_FIELDS = {
    "conv": (
        "convolution_param",
        {
            "num_output": "num_output",
            "biasterm": "bias_term",
            "group": "group",
            "pad": "pad",
            "kernelsize": "kernel_size",
            "stride": "stride",
        },
    ),
    "padding": ("convolution_param", {"pad": "pad"}),
    "innerproduct": ("inner_product_param", {"num_output": "num_output", "biasterm": "bias_term"}),
    "pool": ("pooling_param", {"pool": "pool", "pad": "pad", "kernelsize": "kernel_size", "stride": "stride"}),
    "lrn": ("lrn_param", {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"}),
    "concat": ("concat_param", {"concat_dim": "concat_dim"}),
}


def layers(net: Message) -> list[Message]:
    """Return the layers that take part in the TEST phase, as LayerParameter messages.

    Raises:
        InvalidModelError: no layers, both generations at once, a layer without a type, or contradicting rules.
    """
    if net.layer and net.layers:
        raise InvalidModelError("the net mixes `layer` and the older `layers`; Caffe reads only one of them")
    found = list(net.layer) or [_upgrade(layer) for layer in net.layers]
    if not found:
        raise InvalidModelError("the net has no layers")
    for index, layer in enumerate(found):
        if not layer.type:
            raise InvalidModelError(f"layer {layer.name or index!r} has no type")
        layer.name = layer.name or f"{layer.type}_{index}"
        _check_finite(layer, f"layer {layer.name!r} ({layer.type})")
    return [layer for layer in found if _included(layer, net.state)]


def _check_finite(message: Message, where: str) -> None:
    """Refuse parameters that are infinite or no number."""
    for field, value in message.ListFields():
        for item in value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]:
            if isinstance(item, Message):
                _check_finite(item, where)
            elif isinstance(item, float) and not math.isfinite(item):
                raise InvalidModelError(f"{where}: {message.DESCRIPTOR.name}.{field.name} is {item}, must be finite")


def _included(layer: Message, state: Message) -> bool:
    """Caffe's `Net::FilterNet` with phase TEST."""
    if layer.include and layer.exclude:
        raise InvalidModelError(f"layer {layer.name!r} has include and exclude rules; Caffe allows only one kind")
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def _meets(rule: Message, state: Message) -> bool:
    if rule.HasField("phase") and rule.phase != 1:
        return False
    if (rule.HasField("min_level") and state.level < rule.min_level) or (
        rule.HasField("max_level") and state.level > rule.max_level
    ):
        return False
    return set(rule.stage) <= set(state.stage) and not set(rule.not_stage) & set(state.stage)


def _upgrade(old: Message) -> Message:
    """Bring a V1 layer, or the V0 layer inside it, into today's form, without its blobs."""
    new = LayerParameter(name=old.name, bottom=old.bottom, top=old.top)
    new.include.extend(old.include)
    new.exclude.extend(old.exclude)
    if old.HasField("layer"):
        return _upgrade_v0(old.layer, new)
    name = type(old).DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name
    new.type = _type_name(name) if old.HasField("type") else ""
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    return new


def _upgrade_v0(old: Message, new: Message) -> Message:
    new.name, new.type = old.name, _type_name(old.type)
    message, fields = _V0_FIELDS.get(old.type, ("", {}))
    for before, after in fields.items():
        if old.HasField(before):
            value, param = getattr(old, before), getattr(new, message)
            if isinstance(getattr(param, after), (int, float)):
                setattr(param, after, value)
            else:
                getattr(param, after).append(value)
    if old.cropsize:
        new.transform_param.crop_size = old.cropsize
        new.data_param.batch_size = old.batchsize
    return new


def _type_name(name: str) -> str:
    upper = name.upper()
    return _RENAMED.get(upper) or "".join(part.capitalize() for part in upper.split("_"))


def inputs(net: Message, found: Sequence[Message], shapes: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...] | None]:
    """Return the shapes of the net's inputs by name: net-level inputs, Input layers, data layers; None if not given.

    Args:
        shapes: shapes that replace those of the net, by blob name.
    Raises:
        InvalidModelError: shapes that do not fit the inputs in number, or two inputs of one name.
    """
    pairs: list[tuple[str, tuple[int, ...] | None]] = []
    if net.input:
        given = [tuple(shape.dim) for shape in net.input_shape] or _quads(net.input_dim)
        pairs += zip(net.input, _per_top(given, net.input, "the net's inputs"))
    for layer in found:
        if layer.type == "Input":
            given = [tuple(shape.dim) for shape in layer.input_param.shape]
        elif layer.type in DATA_TYPES:
            given = _data_shapes(layer)
        else:
            continue
        pairs += zip(layer.top, _per_top(given, layer.top, f"layer {layer.name!r}"))
    known = dict(pairs)
    if "" in known:
        raise InvalidModelError("the net has an input without a name")
    if len(known) != len(pairs):
        double, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InvalidModelError(f"the net has two inputs called {double!r}")
    for name, shape in (shapes or {}).items():
        if name not in known:
            raise InvalidModelError(
                f"input_shapes names {name!r}, but the net's inputs are {', '.join(map(repr, known)) or 'none'}"
            )
        known[name] = tuple(int(dim) for dim in shape)
    return known


def _quads(dims: Sequence[int]) -> list[tuple[int, ...]]:
    if len(dims) % 4:
        raise InvalidModelError(f"the net has {len(dims)} input_dim; there must be four for each input")
    return [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]


def _per_top(shapes: list[tuple[int, ...]], tops: Sequence[str], what: str) -> list[tuple[int, ...] | None]:
    if len(shapes) == 1 or not shapes:
        return [shapes[0] if shapes else None] * len(tops)
    if len(shapes) != len(tops):
        raise InvalidModelError(f"{what}: {len(shapes)} shapes for {len(tops)} blobs")
    return list(shapes)


def _data_shapes(layer: Message) -> list[tuple[int, ...] | None]:
    """What a data layer says about its shape; most know it only from their data."""
    memory, dummy = layer.memory_data_param, layer.dummy_data_param
    if layer.type == "MemoryData" and memory.channels:
        first = (memory.batch_size, memory.channels, memory.height, memory.width)
    elif layer.type == "DummyData":
        legacy = list(zip(dummy.num, dummy.channels, dummy.height, dummy.width))
        return [tuple(shape.dim) for shape in dummy.shape] or legacy
    elif crop := layer.transform_param.crop_size or layer.data_param.crop_size or layer.image_data_param.crop_size:
        batch = layer.image_data_param.batch_size if layer.type == "ImageData" else layer.data_param.batch_size
        first = (batch, 1 if layer.transform_param.force_gray else 3, crop, crop)
    else:
        return []
    return [first, *[None] * (len(layer.top) - 1)]


def weights(model: Message | None) -> dict[str, Sequence[Message]]:
    """Return the blobs of each layer of a WeightsParameter, by layer name; the first layer of a name that has any."""
    found: dict[str, Sequence[Message]] = {}
    if model is None:
        return found
    for layer in [*model.layer, *model.layers]:
        old = getattr(layer, "layer", layer)
        name, blobs = layer.name or old.name, layer.blobs or old.blobs
        if blobs:
            found.setdefault(name, blobs)
    return found


def array(blob: Message, what: str) -> np.ndarray:
    """Return a blob as float32 in the shape it declares.

    Raises:
        InvalidModelError: the shape is negative or does not fit the number of values.
        UnsupportedError: integer data.
    """
    legacy = ("num", "channels", "height", "width")
    shape = (
        tuple(blob.shape.dim)
        if blob.HasField("shape")
        else tuple(getattr(blob, name) for name in legacy)
        if any(blob.HasField(name) for name in legacy)
        else ()
    )
    if blob.data:
        data, dtype = b"".join(blob.data), "<f4"
    elif blob.double_data:
        data, dtype = b"".join(blob.double_data), "<f8"
    else:
        data, dtype = blob.raw_data, {0: "<f8", 1: "<f4", 2: "<f2"}.get(blob.raw_data_type)
        if dtype is None:
            raise UnsupportedError(f"{what} holds integers; floating point is needed")
    size = np.dtype(dtype).itemsize
    if any(dim < 0 for dim in shape) or math.prod(shape) * size != len(data):
        raise InvalidModelError(f"{what} declares the shape {list(shape)}, but has {len(data)} bytes ({len(data) / size:g} values)")
    return np.frombuffer(data, dtype).reshape(shape).astype(np.float32, copy=False)
