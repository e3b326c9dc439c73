"""Export a zoo of BatchNorm-heavy CNNs from torchvision and timm to ONNX.

    python bench/zoo.py FOLDER [NAME ...] [--kind raw|opt] [--dynamic]

Each network is written to FOLDER/raw/NAME.onnx as torch's exporter traces it (every BatchNormalization still there,
constants spelled as subgraphs) and to FOLDER/opt/NAME.onnx after torch's own optimiser (what most users have); what
exists is kept. Weights are random but the same each time, the BatchNorm statistics estimated from random images. Needs
what bench/requirements.txt and bench/requirements-nodeps.txt list.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TORCHVISION = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "densenet121",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "vgg16_bn",
    "convnext_tiny",
)
TIMM = ("resnetv2_50", "resnetv2_50d_evos", "repvgg_a0", "mobileone_s0")
NAMES = (*TORCHVISION, *TIMM)
KINDS = ("raw", "opt")
SIZE = 224


def export(name: str, kind: str, folder: str | os.PathLike, *, dynamic: bool = False) -> Path:
    """Export one network unless its file exists, and return the path FOLDER/KIND/NAME.onnx.

    Input `input` is float32 [1, 3, 224, 224] (the batch open if `dynamic`), output `output` float32 [1, 1000].

    Raises: ValueError for an unknown name or kind, ImportError where torch, torchvision or timm is missing.
    """
    if name not in NAMES or kind not in KINDS:
        raise ValueError(f"no network {name!r} of kind {kind!r}; names: {', '.join(NAMES)}; kinds: {', '.join(KINDS)}")
    path = Path(folder) / kind / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as unfinished:
            made = Path(unfinished) / path.name
            _export(build(name), made, optimize=kind == "opt", dynamic=dynamic)
            made.replace(path)
    return path


def build(name: str) -> torch.nn.Module:
    """The network in evaluation mode: seeded weights, BatchNorms with plausible parameters and statistics."""
    import torch

    torchvision = _torchvision()
    torch.manual_seed(0)
    if name in TORCHVISION:
        network = getattr(torchvision.models, name)(weights=None)
    else:
        import timm

        network = timm.create_model(name, pretrained=False)
    return calibrate(network)


def calibrate(network: torch.nn.Module) -> torch.nn.Module:
    """Randomise each BatchNorm's affine parameters and estimate its running statistics on three random batches."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.affine:
            torch.nn.init.uniform_(module.weight, 0.5, 1.2)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            module.momentum = 0.5
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, SIZE, SIZE))
    return network.eval()


def _export(network: torch.nn.Module, path: Path, *, optimize: bool, dynamic: bool) -> None:
    import torch

    images = torch.randn(2 if dynamic else 1, 3, SIZE, SIZE)  # an example of one would fix the batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (images,),
            path,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: "batch"},) if dynamic else None,
            dynamo=True,
            optimize=optimize,
            external_data=False,
            verbose=False,
        )


_library = None  # declarations live as long as this torch.library.Library


def _torchvision() -> ModuleType:
    """Import torchvision where its compiled operators do not fit the installed torch: no classifier needs them.

    Importing registers meta implementations of those operators, for which they have to be declared: their names are
    read from its source and declared with the signature of any.
    """
    global _library
    import torch

    if _library is None and "torchvision" not in sys.modules:
        origin = importlib.util.find_spec("torchvision")
        if origin is None or origin.origin is None:
            raise ImportError("torchvision is not installed")
        source = (Path(origin.origin).parent / "_meta_registrations.py").read_text()
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for pair in re.findall(r'register_meta\("(\w+)"\)|register_fake\("torchvision::(\w+)"\)', source):
            name = "".join(pair)
            if not hasattr(torch.ops.torchvision, name):
                _library.define(f"{name}(Tensor x) -> Tensor")
    import torchvision

    return torchvision


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a zoo of CNNs to ONNX.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"default all: {', '.join(NAMES)}")
    parser.add_argument("--kind", choices=KINDS, help="default both")
    parser.add_argument("--dynamic", action="store_true", help="leave the batch open")
    arguments = parser.parse_args()
    for name in arguments.names:
        for kind in KINDS if arguments.kind is None else (arguments.kind,):
            print(export(name, kind, arguments.folder, dynamic=arguments.dynamic), flush=True)


if __name__ == "__main__":
    main()
