"""Model files, opened with care."""

from __future__ import annotations

import mmap
import os
import stat

from infold.errors import InvalidModelError


def mapped(path: str | os.PathLike) -> memoryview:
    """Map a file: its bytes, read-only.

    Raises:
        InvalidModelError: it cannot be opened, is no regular file, or is empty; the message does not name it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # of a pipe, nobody need be at the other end
    except (OSError, ValueError) as error:
        raise InvalidModelError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidModelError("is a directory" if stat.S_ISDIR(status.st_mode) else "is no regular file")
        if status.st_size == 0:
            raise InvalidModelError("the file is empty")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
