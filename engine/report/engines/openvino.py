"""OpenVINO's CPU plugin, for latency, at float32 or with its bfloat16 hint."""

from __future__ import annotations

from functools import partial

import numpy as np

from infold.report.engines import Feeds, Prepared, engine


def _prepare(path: str, feeds: Feeds, threads: int, precision: str) -> Prepared:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", hints)
    request, feeds = compiled.create_infer_request(), dict(feeds)

    def run() -> list[np.ndarray]:
        results = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [results[output] for output in compiled.outputs]

    precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())  # what it really took
    return Prepared(run, openvino.__version__.split("-")[0], {"f32": "float32", "bf16": "bfloat16"}.get(precision, precision))


for _name, _precision in (("openvino", "f32"), ("openvino@bf16", "bf16")):
    engine(_name, "openvino")(partial(_prepare, precision=_precision))
