"""Writes Torch7 files, binary and ASCII, as torch.save does; and what the tests of the importer run the result with."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

import infold
from infold.importers import torch7

onnxruntime.set_default_logger_severity(4)
_CLASSES = {"u1": "Byte", "i1": "Char", "i2": "Short", "i4": "Int", "i8": "Long", "f4": "Float", "f8": "Double", "f2": "Half"}


@dataclass(eq=False)
class Obj:
    """An object of a Torch class; its fields are written as a table."""

    name: str
    fields: object = field(default_factory=dict)
    version: str | None = "V 1"


@dataclass(eq=False)
class Storage:
    values: np.ndarray


@dataclass(eq=False)
class View:
    """A tensor of given geometry over a storage; `offset` counts from 1."""

    storage: Storage | None
    shape: tuple
    strides: tuple
    offset: int = 1


@dataclass(eq=False)
class Key:
    """A table or an object as the key of a table."""

    value: object


def module(name: str, modules: list | None = None, **fields: object) -> Obj:
    """An object of nn (or cudnn, inn): numbers, tensors, LongStorages (from tuples) and child modules."""
    content = {
        key: Storage(np.array(value, np.int64)) if isinstance(value, tuple) else value
        for key, value in fields.items()
        if value is not None
    }
    if modules is not None:
        content["modules"] = modules
    return Obj(name if "." in name else f"nn.{name}", {"train": False, **content})


def sequential(*modules: object) -> Obj:
    return module("Sequential", list(modules))


def table(*modules: object) -> Obj:
    return module("ConcatTable", list(modules))


def window(*kernel: int, d: object = None, pad: object = None, adj: object = None) -> dict[str, int]:
    """The fields kH, kW, dH, ... of a window, its steps, padding and what is added to the output, each of one number or as many
    as the kernel."""
    each = {"k": kernel, "d": d, "pad": pad, "adj": adj}
    return {name + letter: size for name, sizes in each.items() if sizes is not None
            for letter, size in zip("THW"[-len(kernel):], sizes if isinstance(sizes, tuple) else (sizes,) * len(kernel))}


class Writer:
    """Appends values to `data`; objects that come twice are written once."""

    def __init__(self, *, ascii: bool = False, long: str = "<i8") -> None:
        self.ascii, self.long, self.data = ascii, long, bytearray()
        self._indices: dict[int, int] = {}
        self._tensors: dict[int, View] = {}
        self._kept: list[object] = []  # so that no id is used twice

    def write(self, value: object) -> Writer:
        if value is None:
            self.int(0)
        elif isinstance(value, bool):
            self.int(5, int(value))
        elif isinstance(value, (int, float)):
            self.int(1)
            self.numbers(np.array([value], "<f8"))
        elif isinstance(value, str):
            self.int(2)
            self.string(value)
        elif isinstance(value, (list, dict)):
            if self._reference(3, value):
                pairs = dict(enumerate(value, 1)) if isinstance(value, list) else value
                self.int(len(pairs))
                for key, item in pairs.items():
                    self.write(key.value if isinstance(key, Key) else key).write(item)
        elif isinstance(value, Obj):
            if self._reference(4, value):
                self.header(value.name, value.version)
                self.write(value.fields)
        elif isinstance(value, Storage):
            if self._reference(4, value):
                self.header(f"torch.{_CLASSES[value.values.dtype.str[1:]]}Storage")
                self.longs(value.values.size)
                self.numbers(value.values)
        elif isinstance(value, View):
            if self._reference(4, value):
                self.header(f"torch.{_CLASSES[value.storage.values.dtype.str[1:]] if value.storage else 'Float'}Tensor")
                self.int(len(value.shape))
                self.longs(*value.shape)
                self.longs(*value.strides)
                self.longs(value.offset)
                self.write(value.storage)
        elif isinstance(value, np.ndarray):
            if id(value) not in self._tensors:
                array = np.ascontiguousarray(value)
                self._tensors[id(value)] = View(
                    Storage(array.reshape(-1)), array.shape, tuple(s // array.itemsize for s in array.strides)
                )
                self._kept.append(value)
            self.write(self._tensors[id(value)])
        else:
            raise TypeError(type(value))
        return self

    def int(self, *values: int) -> None:
        for value in values:
            self.data += b"%d\n" % value if self.ascii else struct.pack("<i", value)

    def longs(self, *values: int) -> None:
        self.numbers(np.array(values, self.long))

    def string(self, text: str) -> None:
        self.int(len(text.encode()))
        self.chars(text.encode())

    def chars(self, text: bytes) -> None:
        self.data += text + (b"\n" if self.ascii and text else b"")

    def header(self, name: str, version: str | None = "V 1") -> None:
        if version is not None:
            self.string(version)
        self.string(name)

    def numbers(self, values: np.ndarray) -> None:
        if values.dtype.itemsize == 1 or not self.ascii:
            kind = self.long if values.dtype == np.int64 else values.dtype.str
            self.chars(values.astype(kind).tobytes())
        elif values.size:
            self.data += " ".join(f"{value:.17g}" for value in values.tolist()).encode() + b"\n"

    def _reference(self, kind: int, value: object) -> bool:
        self._kept.append(value)
        known = id(value) in self._indices
        index = self._indices.setdefault(id(value), len(self._indices) + 1)
        self.int(kind, index)
        return not known


def dump(value: object, **options: object) -> bytes:
    return bytes(Writer(**options).write(value).data)


def run(model: ir.Model, *inputs: np.ndarray, optimised: bool = False) -> list[np.ndarray]:
    """Check that a model is legal, with full shape inference, and run it in onnxruntime."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, _feeds(model, inputs))


def check(
    network: Obj,
    inputs: np.ndarray | list[np.ndarray],
    expected: object,
    *,
    shape: object = None,
    tolerance: float = 2e-6,
    batchnorms: int = 0,
) -> ir.Model:
    """Convert a network; compare onnxruntime, infold and the folded model with the expectation; count remaining BNs."""
    inputs = inputs if isinstance(inputs, list) else [inputs]
    expected = list(expected) if isinstance(expected, (list, tuple)) else [expected]
    model = torch7.load(dump(network), shape=shape)
    folded, report = infold.fold(model)
    assert report.remaining == batchnorms, [item for item in report.items if item.verdict == "kept"]
    native = infold.InferenceSession(model).run(None, _feeds(model, inputs))
    for name, outputs in (("onnxruntime", run(model, *inputs)), ("infold", native), ("folded", run(folded, *inputs))):
        assert len(outputs) == len(expected), name
        for found, wanted in zip(outputs, expected):
            assert found.shape == wanted.shape, name
            assert np.abs(wanted).max() > 0 and wanted.std() > 0, "a constant comparison shows nothing"
            error = np.abs(found - wanted).max() / np.abs(wanted).max()
            assert error <= tolerance, f"{name}: relative error {error:.2e}"
    return model


def tensors(*arrays: np.ndarray | None) -> list:
    """Float64 tensors of torch; None stays None."""
    import torch

    return [None if array is None else torch.from_numpy(np.ascontiguousarray(array, np.float64)) for array in arrays]


def _feeds(model: ir.Model, inputs: tuple | list) -> Mapping[str, np.ndarray]:
    return {value.name: np.asarray(array, np.float32) for value, array in zip(model.graph.inputs, inputs, strict=True)}
