"""Pictures from files, decoded, resized and cropped."""
from __future__ import annotations

import glob
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
LARGEST = 1 << 28  # pixels of a picture that is made larger
Size = int | tuple[int, int] | None


def find(where: str | os.PathLike) -> list[str]:
    """The files that a pattern matches (`**`: any folders), or the pictures in a folder and below it; sorted.

    Raises: InvalidInputError if there is none.
    """
    where = os.fspath(where)
    if Path(where).is_dir():
        found = [path for path in glob.glob(f"{glob.escape(where)}/**/*", recursive=True) if Path(path).suffix.lower() in SUFFIXES]
    else:
        found = glob.glob(where, recursive=True)
    if not (files := sorted(path for path in found if Path(path).is_file())):
        raise InvalidInputError(f"{where}: no picture in this folder" if Path(where).is_dir() else f"{where}: no such file")
    return files


class Batches:
    """Pictures as arrays of at most `size` of them; read when iterated, so that only one batch is in memory."""

    def __init__(self, files: Sequence[str], preprocess: Callable[[Sequence[str]], np.ndarray], size: int) -> None:
        self._files, self._preprocess, self._size = files, preprocess, size

    def __len__(self) -> int:
        return -(-len(self._files) // self._size)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._files), self._size):
            yield self._preprocess(self._files[start : start + self._size])


def read(image: Any, gray: bool, resize: Size, interpolation: str, crop: Size) -> np.ndarray:
    """A picture as uint8 [H, W, 3] (RGB) or [H, W, 1]; arguments are those of `Preprocess`.

    Raises: InvalidInputError, MissingDependencyError.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingDependencyError("reading pictures needs Pillow: pip install 'infold[images]'") from None
    name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "picture"
    try:
        with _open(image) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of mode {picture.mode}, not of 8 bits")
            picture = picture.convert("L" if gray else "RGB")
            if resize is not None:
                picture = picture.resize(_resized(picture.size, resize), getattr(Image.Resampling, interpolation.upper()))
            if crop is not None:
                picture = picture.crop(_middle(picture.size, crop))
    except Exception as error:  # decoders raise whatever damaged files make them stumble over
        why = error.strerror if isinstance(error, OSError) else None  # the name once is enough
        why = "of no known format" if isinstance(error, UnidentifiedImageError) else why or str(error) or type(error).__name__
        raise InvalidInputError(f"{name}: not a readable picture ({why})") from error
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def _open(image: Any) -> Image:
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise ValueError(f"an array of {image.dtype}, not of uint8")
        return Image.fromarray(image)
    return Image.open(io.BytesIO(image) if isinstance(image, (bytes, bytearray, memoryview)) else image)


def _resized(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """Width and height, as torchvision's Resize has them."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = (int(resize * length / min(size)) for length in size)
    if width * height > LARGEST:
        raise ValueError(f"it would become {height}x{width} pixels")
    return width, height


def _middle(size: tuple[int, int], crop: int | tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, as torchvision's CenterCrop has them."""
    height, width = crop if isinstance(crop, tuple) else (crop, crop)
    if width > size[0] or height > size[1]:
        raise ValueError(f"{size[1]}x{size[0]} pixels, fewer than the {height}x{width} to crop")
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return left, top, left + width, top + height
