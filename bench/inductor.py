"""PyTorch's Inductor with frozen weights, for the networks of bench/zoo.py: it compiles modules, not ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zoo

from infold.report.engines import Feeds, Prepared, engine


@engine("inductor", "torch")
def _inductor(path: str, feeds: Feeds, threads: int) -> Prepared:
    import torch
    import torch._inductor.config

    name, kind = Path(path).stem, Path(path).parent.name
    if name not in zoo.NAMES or kind != "opt":
        raise ValueError("Inductor takes the network itself, once, in the place of its optimised export")
    torch.set_num_threads(threads)
    torch._inductor.config.freezing = True
    images = torch.from_numpy(next(iter(feeds.values())))
    network = torch.compile(zoo.build(name))

    def run() -> list[np.ndarray]:
        with torch.no_grad():
            return [network(images).numpy()]

    return Prepared(run, torch.__version__.split("+")[0], "float32")
