"""Pictures, a model for them, and what a job writes, for the tests of both engines."""
from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
from onnx import TensorProto, helper
from PIL import Image

import infold

LENET = Path(str(files("infold.demo") / "lenet.onnx"))
DIGITS = infold.Preprocess(color="gray", resize=(28, 28), mean=0.1307, std=0.3081)


def pictures(folder: Path, count: int, height: int = 40, width: int = 30) -> list[str]:
    """JPEGs, each other than the others; the sixth is none."""
    folder.mkdir()
    y, x = np.mgrid[:height, :width]
    for index in range(count):
        pixels = 127 + 120 * np.sin((x * (index + 1) + y * (index % 7)) / width)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03d}.jpg")
    if count > 5:
        (folder / "005.jpg").write_bytes(b"no picture")
    return sorted(str(path) for path in folder.iterdir())


def network(tmp_path: Path, *, batch: object = "N", kind: int = TensorProto.FLOAT, output: str = "y", op: str = "Relu") -> Path:
    """One operator over x [batch, 1, H, W]."""
    axes = {"ReduceMax": {"axes": [0], "keepdims": 0}}.get(op, {})
    node = helper.make_node(op, ["x"], [output], **axes)
    x = helper.make_tensor_value_info("x", kind, [batch, 1, "H", "W"])
    shape = None if axes else [batch, 1, "H", "W"]
    graph = helper.make_graph([node], "g", [x], [helper.make_tensor_value_info(output, kind, shape)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def rows(folder: Path) -> list[dict]:
    """All rows of a folder; outputs as bytes, so that equality means every bit."""
    return [{name: np.float32(value).tobytes() if isinstance(value, list) else value for name, value in row.items()}
            for row in pq.read_table(folder).to_pylist()]


def alone(paths: list[str], preprocess: infold.Preprocess = DIGITS) -> dict[str, np.ndarray]:
    """The logits of each readable picture, run by itself."""
    session = infold.InferenceSession(LENET)
    readable = [path for path in paths if Path(path).read_bytes()[:2] == b"\xff\xd8"]
    return {path: session.run(None, {"image": preprocess([path])})[0] for path in readable}
