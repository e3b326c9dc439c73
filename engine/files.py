"""Files that appear whole or not at all."""
from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Have `save` write into an empty folder beside `path`, then move what it made into place, `path` last.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no folder for `path`, or `path` is one.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        save(Path(folder) / path.name)
        for made in sorted(Path(folder).iterdir(), key=lambda made: made.name == path.name):
            os.replace(made, path.parent / made.name)
