"""One module of a Torch7 network: its fields, read with checks, under its path in the tree."""

from __future__ import annotations

import math

import numpy as np

from infold.errors import InvalidModelError, UnsupportedError
from infold.importers.torch7_reader import Object, Table

_MAX_INT = 2**31 - 1
_REQUIRED = object()


class Module:
    """A Torch object seen as an nn.Module.

    `path` is made of the positions that lead to it, such as "3.1": the first child of the third child of the network.
    """

    def __init__(self, source: object, path: str) -> None:
        self.path = path
        if not isinstance(source, Object):
            raise InvalidModelError(f"module {path or 'at the root'}: {source!r} is no Torch object")
        self.source, self.name = source, source.name
        if not isinstance(source.fields, Table):
            raise self.invalid("it has no table of fields")
        self.fields: Table = source.fields

    def __str__(self) -> str:
        return f"module {self.path} ({self.name})" if self.path else f"the network ({self.name})"

    def invalid(self, message: str) -> InvalidModelError:
        return InvalidModelError(f"{self}: {message}")

    def unsupported(self, message: str) -> UnsupportedError:
        return UnsupportedError(f"{self}: {message}")

    def below(self, name: object) -> str:
        """A path or name with the module's path in front."""
        return f"{self.path}.{name}" if self.path else str(name)

    def child(self, source: object, position: int | str) -> Module:
        return Module(source, self.below(position))

    def children(self) -> list[Module]:
        modules = self.fields.get("modules")
        if not isinstance(modules, Table):
            raise self.invalid("it has no table of modules")
        return [self.child(source, index) for index, source in enumerate(modules.sequence(), 1)]

    def number(self, field: str, default: object = _REQUIRED) -> float:
        """Return a finite number; a missing field is `default`."""
        value = self.fields.get(field)
        if value is None and default is not _REQUIRED:
            return default  # type: ignore[return-value]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.invalid(f"field {field!r} must be a finite number, not {value!r}")
        return value

    def integer(self, field: str, default: object = _REQUIRED, *, least: int = -_MAX_INT) -> int:
        value = self.number(field, default)
        if value is default:
            return value  # type: ignore[return-value]
        if not isinstance(value, int) or not least <= value <= _MAX_INT:
            raise self.invalid(f"field {field!r} must be an integer of at least {least}, not {value!r}")
        return value

    def flag(self, field: str, default: bool = False) -> bool:
        value = self.fields.get(field)
        return default if value is None else bool(value)

    def array(self, field: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Return a tensor field that is not empty; with `shape`, in that shape (any of as many elements is taken)."""
        value = self.fields.get(field)
        if not isinstance(value, np.ndarray) or value.size == 0:
            raise self.invalid(f"field {field!r} must be a tensor that is not empty")
        if shape is None or value.shape == shape:
            return value
        if value.size != math.prod(shape):
            raise self.invalid(f"field {field!r} of shape {value.shape} must have shape {shape}")
        return value.reshape(shape)

    def has(self, field: str) -> bool:
        value = self.fields.get(field)
        return value is not None and not (isinstance(value, np.ndarray) and value.size == 0)

    def sizes(self, field: str) -> list[int]:
        """Return a list of dimensions: a storage or tensor of integers, or a table of numbers."""
        value = self.fields.get(field)
        values = (
            value.sequence()
            if isinstance(value, Table)
            else value.tolist()
            if isinstance(value, np.ndarray) and value.ndim == 1
            else None
        )
        if values is None or len(values) > 32 or not all(type(v) is int and -1 <= v <= _MAX_INT for v in values):
            raise self.invalid(f"field {field!r} must be a list of dimensions")
        return values
