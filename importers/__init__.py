"""Importers: every format ends as a legal `onnx_ir.Model`."""
from __future__ import annotations

import os

import onnx
import onnx_ir as ir

from infold.errors import UnsupportedError

_PLANNED = {".t7": "Torch7", ".pt2": "PyTorch exported programs", ".pt": "PyTorch checkpoints", ".pth": "PyTorch checkpoints"}


def load(source: str | os.PathLike | bytes | onnx.ModelProto | ir.Model, *, folder: str | os.PathLike | None = None,
         **options: object) -> ir.Model:
    """Load a model; the suffix of a path names its format, everything else is ONNX.

    Args and errors as for `infold.importers.onnx.load`; for Caffe's `.prototxt` and `.caffemodel`, `options` and errors as for
    `infold.importers.caffe.load`.
    Raises:
        UnsupportedError: a path with the suffix of a format that has no importer.
        TypeError: an option that the format's importer does not have.
    """
    from infold.importers.onnx import load as load_onnx

    if isinstance(source, (str, os.PathLike)):
        suffix = os.path.splitext(os.fspath(source))[1].lower()
        if suffix in (".prototxt", ".caffemodel"):
            from infold.importers.caffe import load as load_caffe

            return load_caffe(source, **options)
        if suffix in _PLANNED:
            raise UnsupportedError(f"{os.fspath(source)}: there is no importer for {_PLANNED[suffix]} ({suffix}); "
                                   "export the model to .onnx")
    return load_onnx(source, folder=folder, **options)
