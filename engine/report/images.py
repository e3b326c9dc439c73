"""Pictures as network inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..errors import InvalidInputError, MissingDependencyError
from .inputs import required_inputs

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class ImageBatches:
    """The pictures of a folder as batches float32 [n, C, H, W] of a model's only input; sized, and read when iterated.

    Each picture is scaled to H×W (bilinear, its proportions not kept), its values to 0..1, then normalised:
    (x - mean) / std per channel.

    Args:
        folder: searched recursively for files with a picture's suffix, in alphabetical order.
        model: its input tells C (1: grey, 3: RGB), and H, W and the batch where it fixes them.
        size: H, W where the model leaves them open.
        mean, std: one number, or one per channel, for values in 0..1.
        batch: pictures per batch where the model leaves it open.
    Raises:
        InvalidInputError: no picture, an unreadable one, a size the model does not have, or no single image input.
        MissingDependencyError: Pillow is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: ir.Model,
        *,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        batch: int = 16,
    ) -> None:
        inputs = required_inputs(model)
        shape = inputs[0].shape if len(inputs) == 1 else None
        dims = [d if isinstance(d, int) else None for d in shape] if shape is not None else []
        if len(dims) != 4 or dims[1] not in (1, 3, None) or inputs[0].dtype != ir.DataType.FLOAT:
            raise InvalidInputError(
                "pictures need a model with one float32 input [N, 1 or 3, H, W]; this one has "
                + ", ".join(f"{v.name!r} {v.type} {v.shape}" for v in inputs)
            )
        self._size = tuple(
            _agree(axis, fixed, None if size is None else size[place])
            for place, (axis, fixed) in enumerate(zip(("height", "width"), dims[2:]))
        )
        self._channels = dims[1] or 3
        self._mean, self._std = (
            _per_channel(name, value, self._channels) for name, value in (("mean", mean), ("std", std))
        )
        if not (self._std > 0).all():
            raise InvalidInputError(f"std must be positive, not {list(std)}")
        self._paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not self._paths:
            raise InvalidInputError(f"{folder}: no picture ({', '.join(sorted(SUFFIXES))}) in this folder")
        self._batch = batch_size(len(self._paths), dims[0], batch)

    def __len__(self) -> int:
        return -(-len(self._paths) // self._batch)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._paths), self._batch):
            yield np.stack([self._read(path) for path in self._paths[start : start + self._batch]])

    def _read(self, path: Path) -> np.ndarray:
        try:
            from PIL import Image
        except ImportError:
            raise MissingDependencyError("reading pictures needs Pillow: pip install 'infold[images]'") from None
        try:
            with Image.open(path) as picture:
                picture = picture.convert("L" if self._channels == 1 else "RGB")
                picture = picture.resize(self._size[::-1], Image.Resampling.BILINEAR)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InvalidInputError(f"{path}: not a readable picture ({error})") from None
        pixels = np.asarray(picture, np.float32).reshape(*self._size, self._channels) / np.float32(255)
        return ((pixels - self._mean) / self._std).transpose(2, 0, 1)


def batch_size(samples: int, fixed: int | None, wanted: int) -> int:
    """How many samples go into a batch. Raises InvalidInputError if a fixed batch does not divide them."""
    if fixed is not None and (fixed < 1 or samples % fixed):
        raise InvalidInputError(f"the model fixes the batch at {fixed}, which does not divide {samples} samples")
    return wanted if fixed is None else fixed


def _agree(axis: str, fixed: int | None, wanted: int | None) -> int:
    if fixed is None and wanted is None:
        raise InvalidInputError(f"the model leaves the {axis} of its input open: give the size")
    if fixed is not None and wanted not in (None, fixed):
        raise InvalidInputError(f"the model's input has the {axis} {fixed}, not {wanted}")
    return wanted if fixed is None else fixed


def _per_channel(name: str, values: Sequence[float], channels: int) -> np.ndarray:
    if len(values) not in (1, channels):
        raise InvalidInputError(f"{name}: one number or {channels}, one per channel, expected; got {list(values)}")
    return np.asarray(values, np.float32)
