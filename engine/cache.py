"""Sessions kept between processes (`SessionOptions.cache_dir`): what `compile` writes, under what each was made from.

An entry is a compiled file whose header also tells which files it came from. It serves while these are what they were: the same
inode, size and times, or else the same contents.
"""
from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from . import _native, tuned
from .compiled import CompiledFile, machine
from .compiling import save
from .errors import Error, UnsupportedError
from .files import version

if TYPE_CHECKING:
    from .api import InferenceSession

logger = logging.getLogger(__name__)

RECENT = 2  # seconds: a file changed so shortly before may change again without its times telling
_SESSION = ("precision", "native_only", "max_memory", "training_mode", "algorithms", "tuned", "preprocess")  # options that count


class Entry:
    """Where a session of an ONNX file, as this session runs it, is kept, and how it gets there."""

    def __init__(self, folder: str | os.PathLike, session: InferenceSession, source: str | os.PathLike) -> None:
        self.source, self._begun = str(Path(source).absolute()), time.time()
        wanted = {name: repr(getattr(session.options, name, None)) for name in _SESSION}
        wanted |= machine(session.isa) | {"threads": session.threads, "caches": [_native.cache_bytes(level) for level in (1, 2, 3)]}
        digest = hashlib.sha256(json.dumps([self.source, wanted], sort_keys=True).encode()).hexdigest()
        self.path = Path(folder) / f"{Path(source).stem}-{digest[:32]}.infold"

    def open(self) -> CompiledFile | None:
        """What is kept, unless the model, or what `infold tune` has found, has changed since; a damaged file is ignored with a
        warning."""
        if not self.path.exists():
            return None
        try:
            file = CompiledFile(self.path)
            made = file.header["made"]
            return file if made["tuned"] == _tunings() and self.source in made["files"] and current(file) else None
        except (Error, OSError, LookupError, TypeError, ValueError) as error:
            self.ignore(error)
            return None

    def ignore(self, error: Exception) -> None:
        """Say that what is kept cannot be used."""
        warnings.warn(f"{self.path}: ignored and made anew: {error}", stacklevel=2)

    def keep(self, session: InferenceSession, files: list[str]) -> None:
        """Write the session's plan; files: all that it was made from. One that Python has a part in is left out."""
        try:
            versions = {path: version(path) for path in (self.source, *files)}
            if None in versions.values() or max(max(each[3:]) for each in versions.values()) > 1e9 * (self._begun - RECENT):
                return
            made = {"tuned": _tunings(), "files": {path: [each, _digest(path)] for path, each in versions.items()}}
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            save(session, self.path, [{}], fallback=False, made=made)
        except UnsupportedError as error:
            logger.info("%s is not kept: %s", self.source, error)
        except OSError as error:
            warnings.warn(f"{self.path}: cannot be kept: {error}", stacklevel=2)


def current(file: CompiledFile) -> bool:
    """Whether the files that it was made from are what they were."""
    return all(_same(path, *was) for path, was in file.header["made"]["files"].items())


def _same(path: str, was: list[int], digest: str) -> bool:
    now = version(path)
    try:
        return now is not None and (now == was or (now[2] == was[2] and _digest(path) == digest))
    except OSError:
        return False


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tunings() -> list:
    try:
        return sorted([path.name, path.stat().st_mtime_ns] for path in tuned.folder().iterdir())
    except (OSError, RuntimeError):  # there are none, or no home
        return []
