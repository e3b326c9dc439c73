"""ncnn, by its converter pnnx, at float32 storage and arithmetic; its Winograd kernels stay on, as by default."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile

import numpy as np

from infold.report.engines import Feeds, Prepared, engine

NARROW = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "int8_storage", "int8_arithmetic")


@engine("ncnn", "ncnn")
def _ncnn(path: str, feeds: Feeds, threads: int) -> Prepared:
    import ncnn
    import pnnx

    if any(array.shape[0] != 1 for array in feeds.values()):
        raise ValueError("ncnn has no batch dimension")
    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    for name in NARROW:
        setattr(net.opt, f"use_{name}", False)
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]" for array in feeds.values())
    with tempfile.TemporaryDirectory(prefix="infold-ncnn-") as folder:
        copy = shutil.copy(path, os.path.join(folder, "model.onnx"))  # pnnx writes beside the model
        command = [pnnx.EXEC_PATH, copy, f"inputshape={shapes}", "fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        stem = os.path.join(folder, "model.ncnn")
        if done.returncode or net.load_param(f"{stem}.param") or net.load_model(f"{stem}.bin"):
            raise ValueError(f"pnnx cannot convert it: {done.stderr.strip()[-200:]}")
    inputs = [(f"in{index}", np.ascontiguousarray(array[0])) for index, array in enumerate(feeds.values())]
    outputs = sum(name.startswith("out") for name in net.output_names())

    def run() -> list[np.ndarray]:
        extractor = net.create_extractor()
        for name, array in inputs:
            extractor.input(name, ncnn.Mat(array))
        return [np.array(extractor.extract(f"out{index}")[1])[np.newaxis] for index in range(outputs)]

    return Prepared(run, importlib.metadata.version("ncnn"), "float32")
