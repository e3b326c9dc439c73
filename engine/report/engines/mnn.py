"""MNN, by its converter, at float32; its Winograd kernels stay on, as by default."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

from infold.report.engines import Feeds, Prepared, engine

# `mnnconvert`, the package's own command, installs other packages and reports over the network; what it calls does not.
CONVERT = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MNN greets on the C library's standard output, where a caller's `--json` goes: send that to standard error."""
    sys.stdout.flush()
    libc, kept = ctypes.CDLL(None), os.dup(1)
    libc.fflush(None)
    os.dup2(2, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


@engine("mnn", "MNN")
@_quiet()
def _mnn(path: str, feeds: Feeds, threads: int) -> Prepared:
    from MNN import expr, nn

    with tempfile.TemporaryDirectory(prefix="infold-mnn-") as folder:
        converted = os.path.join(folder, "model.mnn")
        command = [sys.executable, "-c", CONVERT, "-f", "ONNX", "--modelFile", path, "--MNNModel", converted, "--bizCode", "none"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not os.path.exists(converted):
            raise ValueError(f"MNN cannot convert it: {(done.stderr or done.stdout).strip()[-200:]}")
        config = {"backend": "CPU", "numThread": threads, "precision": "high"}
        net = nn.load_module_from_file(
            converted, [], [], runtime_manager=nn.create_runtime_manager((config,)), shape_mutable=False
        )
    arrays = [np.ascontiguousarray(feeds[name]) for name in net.get_info()["inputNames"]]
    variables = [expr.const(array, array.shape, expr.NCHW) for array in arrays]

    def run() -> list[np.ndarray]:
        return [np.array(output.read()) for output in net.forward(variables)]

    return Prepared(run, importlib.metadata.version("MNN"), "float32")
