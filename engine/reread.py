"""The weights of a model's file once more, for sessions that keep them in another form only."""
from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from .errors import InvalidModelError
from .files import version
from .locks import lock


class Reread:
    """Reads the file anew when a weight is asked for, which programs do that look into a model, not those that run it.

    Args:
        path: the file, from which all large weights come.
        make: the model as the session prepares it, from a path.
    """

    def __init__(self, path: str | os.PathLike, make: Callable[[Path], ir.Model]) -> None:
        self._path, self._make, self._version = Path(path).absolute(), make, version(path)
        self._lock = lock()
        self._wanted: set[str] = set()
        self._rest: dict[str, np.ndarray] = {}  # of the last reading, for those asked for next

    def later(self, name: str) -> Callable[[], np.ndarray]:
        """What gives a weight of the prepared model when it is called, or raises InvalidModelError if the file is no longer what
        it was."""
        self._wanted.add(name)
        return partial(self._read, name)

    def _read(self, name: str) -> np.ndarray:
        with self._lock:
            if name not in self._rest:
                if (version(self._path) or [])[:4] != (self._version or [])[:4]:  # its contents
                    raise InvalidModelError(f"{self._path} has changed: the session cannot read the weight {name!r} from it again")
                values = self._make(self._path).graph.initializers
                self._rest = {each: np.array(values[each].const_value.numpy()) for each in self._wanted & values.keys()}
            return self._rest.pop(name)
