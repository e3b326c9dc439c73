"""tract (Rust), on one thread: it has no other way."""

from __future__ import annotations

import tempfile

import numpy as np
import onnx

from infold.report.engines import Feeds, Prepared, engine


@engine("tract", "tract")
def _tract(path: str, feeds: Feeds, threads: int) -> Prepared:
    import tract

    if threads != 1:
        raise ValueError("tract runs a model on one thread")
    proto = onnx.load(path)
    del proto.graph.value_info[:]  # shapes declared in symbols, which tract holds against the fixed inputs
    names = [value.name for value in proto.graph.input if value.name in feeds]
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        onnx.save(proto, file.name)
        model = tract.onnx().load(file.name)
    for index, name in enumerate(names):
        array = feeds[name]
        model.set_input_fact(index, ",".join([*map(str, array.shape), f"{array.dtype.kind}{8 * array.dtype.itemsize}"]))
    for index in range(model.output_count()):
        model.set_output_fact(index, None)
    runnable = model.into_model().into_runnable()
    arrays = [np.ascontiguousarray(feeds[name]) for name in names]
    return Prepared(lambda: [tensor.to_numpy() for tensor in runnable.run(arrays)], tract.version(), "float32")
