"""The engines a benchmark knows, each prepared in its best documented form. A new one is a function under `@engine`.

A preparing function takes the path of an .onnx file, the feeds (whose shapes the engine may fix) and a thread count,
and returns a `Prepared`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """A model ready to run in one engine."""

    run: Callable[[], list[np.ndarray]]  # one inference on the feeds it was prepared with; outputs in graph order
    version: str
    precision: str


ENGINES: dict[str, Callable[[str, Feeds, int], Prepared]] = {}
_MODULES: dict[str, str] = {}


def engine(name: str, module: str) -> Callable:
    """Register a preparing function for the engine `name`, installed if `module` can be imported."""

    def register(prepare: Callable[[str, Feeds, int], Prepared]) -> Callable[[str, Feeds, int], Prepared]:
        ENGINES[name], _MODULES[name] = prepare, module
        return prepare

    return register


def installed() -> list[str]:
    """The engines that can be imported here, infold first."""
    return [name for name, module in _MODULES.items() if importlib.util.find_spec(module) is not None]


@engine("infold", "infold")
def _infold(path: str, feeds: Feeds, threads: int) -> Prepared:
    import infold

    options = infold.SessionOptions(intra_op_num_threads=threads, training_mode="batch")  # the benchmark has asked already
    session = infold.InferenceSession(path, options)
    feeds = dict(feeds)
    return Prepared(lambda: session.run(None, feeds), infold.__version__, "float32")


@engine("onnxruntime", "onnxruntime")
def _onnxruntime(path: str, feeds: Feeds, threads: int) -> Prepared:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = dict(feeds)
    return Prepared(lambda: session.run(None, feeds), onnxruntime.__version__, "float32")


@engine("openvino", "openvino")
def _openvino(path: str, feeds: Feeds, threads: int) -> Prepared:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", hints)
    request, feeds = compiled.create_infer_request(), dict(feeds)

    def run() -> list[np.ndarray]:
        results = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [results[output] for output in compiled.outputs]

    return Prepared(run, openvino.__version__.split("-")[0], "float32")
