"""What is done to a picture before a network sees it: a few typed fields, in TOML or JSON."""
from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from . import pictures

CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
LAYOUTS = ("nchw", "nhwc")
DTYPES = ("float32", "float16", "uint8")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The way of a picture to a network's input; fields are checked, nothing is taken from the model. They act in this order.

    Attributes:
        color: "rgb", "bgr" or "gray"; the order of the channels, here and in `mean` and `std`.
        resize: the length of the shorter side, the longer one in proportion (rounded down); or [height, width],
            proportions not kept; None: not at all.
        interpolation: of `resize`, with Pillow's filters of support that grows as the picture shrinks: "nearest", "box",
            "bilinear", "bicubic", "lanczos".
        crop: the side of the square in the middle that is kept, or its [height, width]; None: everything.
        max_pixel_value: pixels, 0 to 255, are divided by it.
        mean, std: then (pixel - mean) / std, in float32; one number, or one for each channel.
        dtype: "float32", "float16" (rounded at the end) or "uint8" (the pixels themselves: max_pixel_value 1, mean 0, std 1).
        layout: "nchw" or "nhwc".
    Raises:
        InvalidInputError: a field is of another type or beyond its range; names the field.
    """

    color: str = "rgb"
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    crop: int | tuple[int, int] | None = None
    max_pixel_value: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: str = "float32"
    layout: str = "nchw"

    def __post_init__(self) -> None:
        for name, known in (("color", CHANNELS), ("interpolation", pictures.FILTERS), ("dtype", DTYPES), ("layout", LAYOUTS)):
            if not isinstance(value := getattr(self, name), str) or value not in known:
                raise _wrong(name, f"one of {', '.join(known)} expected", value)
        for name in ("resize", "crop"):
            object.__setattr__(self, name, _lengths(name, getattr(self, name)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_channel(name, getattr(self, name)))
        if not _is_number(self.max_pixel_value) or self.max_pixel_value <= 0:
            raise _wrong("max_pixel_value", "a positive number expected", self.max_pixel_value)
        if not all(value > 0 for value in self.std):
            raise _wrong("std", "positive numbers expected", list(self.std))
        if self.dtype == "uint8" and (self.max_pixel_value, set(self.mean), set(self.std)) != (1, {0.0}, {1.0}):
            raise _wrong("dtype", "max_pixel_value 1, mean 0 and std 1 expected, for bytes are left as they are", self.dtype)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Preprocess:
        """The fields in a .toml or .json file.

        Raises: InvalidInputError for a file of another kind, one that is damaged, or a field that is unknown or wrong;
        OSError for one that cannot be read.
        """
        path = Path(path)
        read = {".toml": tomllib.loads, ".json": json.loads}.get(path.suffix.lower())
        if read is None:
            raise InvalidInputError(f"{path}: preprocessing is declared in a .toml or .json file")
        try:
            values = read(path.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{path}: no legal {path.suffix[1:].upper()}: {error}") from None
        try:
            return cls._of(values)
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from None

    @classmethod
    def _of(cls, values: Any) -> Preprocess:
        if not isinstance(values, dict):
            raise InvalidInputError("an object with the fields of the preprocessing expected")
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise InvalidInputError(f"preprocessing has no field {unknown[0]!r}; its fields are {', '.join(known)}")
        return cls(**values)

    def __call__(self, images: Iterable[Any]) -> np.ndarray:
        """The pictures as one array of `dtype`, [N, C, H, W] or [N, H, W, C].

        Args:
            images: paths, encoded bytes, binary files, or arrays uint8 [H, W, 3] (RGB) or [H, W].
        Raises:
            InvalidInputError: none at all, one that is unreadable or smaller than `crop`, or pictures of several sizes.
            MissingDependencyError: Pillow is not installed.
        """
        arrays = [self.one(image) for image in images]
        if sizes := {array.shape for array in arrays} - {array.shape for array in arrays[:1]}:
            raise InvalidInputError(f"pictures of shapes {arrays[0].shape} and {sizes.pop()} make no batch: "
                                    "declare `resize` or `crop`")
        if not arrays:
            raise InvalidInputError("no picture")
        return np.stack(arrays)

    def one(self, image: Any) -> np.ndarray:
        """A single picture, without the axis N; arguments and errors are those of a call."""
        pixels = pictures.read(image, self.color == "gray", self.resize, self.interpolation, self.crop)
        pixels = pixels[..., ::-1] if self.color == "bgr" else pixels
        planes = np.empty((self.channels, *pixels.shape[:2]), self.dtype)
        for channel, table in enumerate(self._tables):
            planes[channel] = table[pixels[..., channel]]
        return planes if self.layout == "nchw" else np.ascontiguousarray(planes.transpose(1, 2, 0))

    @property
    def channels(self) -> int:
        return CHANNELS[self.color]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of `one`'s result; None if it depends on the picture."""
        size = self.crop or self.resize
        size = (size, size) if isinstance(size, int) and self.crop else size
        if not isinstance(size, tuple):
            return None
        return (self.channels, *size) if self.layout == "nchw" else (*size, self.channels)

    @property
    def rest(self) -> Preprocess:
        """What is left to do to pictures for a model that has taken up layout, data type and arithmetic (`preprocess.graph`)."""
        return replace(self, max_pixel_value=1.0, mean=(0.0,), std=(1.0,), dtype="uint8", layout="nhwc")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @cached_property
    def _tables(self) -> np.ndarray:
        """[C, 256]: what becomes of each pixel value in each channel."""
        mean, std = (np.array(values, np.float32).reshape(-1, 1) for values in (self.mean, self.std))
        values = (np.arange(256, dtype=np.float32) / np.float32(self.max_pixel_value) - mean) / std
        return np.broadcast_to(values.astype(self.dtype), (self.channels, 256))

    def _per_channel(self, name: str, value: Any) -> tuple[float, ...]:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if len(values) not in (1, self.channels) or not all(map(_is_number, values)):
            raise _wrong(name, f"one number or {self.channels}, one for each channel, expected", value)
        return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _lengths(name: str, value: Any) -> int | tuple[int, int] | None:
    lengths = value if isinstance(value, (list, tuple)) else [value, value]
    if value is None:
        return None
    if len(lengths) != 2 or not all(type(length) is int and 0 < length < 1 << 16 for length in lengths):
        raise _wrong(name, "a length in pixels or [height, width] expected, each from 1 to 65535", value)
    return tuple(lengths) if isinstance(value, (list, tuple)) else value


def _wrong(name: str, expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(f"preprocessing, field {name!r}: {expected}, not {value!r}")
