"""Files that appear whole or not at all, and the pages of those that are mapped."""
from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import hashlib


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Have `save` write into an empty folder beside `path`, then move what it made into place, `path` last.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no folder for `path`, or `path` is one.
    """
    import tempfile  # here, since few write files

    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        save(Path(folder) / path.name)
        for made in sorted(Path(folder).iterdir(), key=lambda made: made.name == path.name):
            os.replace(made, path.parent / made.name)


def sha256(data: bytes) -> hashlib._Hash:
    """The hash of the data, by OpenSSL, which is not loaded for sessions that need none."""
    import hashlib

    return hashlib.sha256(data)


def version(path: str | os.PathLike) -> list[int] | None:
    """What tells whether a file was changed: device, inode, size, and when its contents, and anything of it, last changed (ns);
    None if it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def mapping(array: object) -> mmap.mmap | None:
    """The mapped file that an array is a view of, if it is one."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) and isinstance(array.obj, mmap.mmap) else None


def pages(array: np.ndarray) -> tuple[int, int]:
    """The whole pages under a contiguous view of a mapped file: the first one's place in the mapping, and their size; in bytes."""
    start = _address(array) - _address(np.frombuffer(mapping(array), np.uint8))
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    return first, max(start + array.nbytes - first, 0) // mmap.PAGESIZE * mmap.PAGESIZE


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def give_back(array: np.ndarray) -> None:
    """Let the pages under a view of a mapped file go; who reads them again gets them again. Nothing happens to other arrays."""
    if array.nbytes >= mmap.PAGESIZE and array.flags.c_contiguous and (mapped := mapping(array)) is not None \
            and hasattr(mmap, "MADV_DONTNEED") and (span := pages(array))[1]:
        mapped.madvise(mmap.MADV_DONTNEED, *span)
