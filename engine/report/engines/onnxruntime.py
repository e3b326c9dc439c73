"""onnxruntime on the CPU, all optimisations on."""

from __future__ import annotations

from infold.report.engines import Feeds, Prepared, engine


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
