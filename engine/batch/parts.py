"""The parts of a job: files of Parquet that appear whole, and are recognised by a later run of the same job."""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidInputError
from ..files import write
from .arrow import pa, pq

KEY = b"infold.part"  # in a part's metadata


class Parts:
    """What is to be computed: part n has `rows` of the files, one row for each, in their order.

    Args:
        facts: all else that decides the rows; a part of other facts or other files is not taken for one's own. Files count by name,
            size and time of change.
    """

    def __init__(self, folder: Path, files: Sequence[str], rows: int, facts: Sequence[object]) -> None:
        self.folder, self._facts = folder, facts
        self.files = [list(files[start : start + rows]) for start in range(0, len(files), rows)]

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def missing(self) -> list[int]:
        """The numbers of the parts that are not there yet.

        Raises: InvalidInputError for a part that is not of this job, or damaged.
        """
        own = {self.path(number): number for number in range(len(self.files))}
        written = sorted(self.folder.glob("part-*.parquet"))
        for path in written:
            if path not in own or self._key_in(path) != self._key(own[path]):
                raise InvalidInputError(f"{path} is of another job: model, preprocessing, batch, version, CPU or files were "
                                        "others; write to another folder")
        return [number for path, number in own.items() if path not in written]

    def write(self, number: int, table: pa.Table) -> None:
        marked = table.replace_schema_metadata({KEY: self._key(number)})
        write(self.path(number), lambda made: pq.write_table(marked, made))

    def _key(self, number: int) -> bytes:
        files = [[name, _version(name)] for name in self.files[number]]
        return hashlib.sha256(json.dumps([self._facts, files]).encode()).hexdigest().encode()

    @staticmethod
    def _key_in(path: Path) -> bytes | None:
        try:
            return (pq.read_schema(path).metadata or {}).get(KEY)
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(f"{path}: no part that could be read ({error})") from None


def _version(name: str) -> list[int] | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The only run that writes into the folder, which is made; what an earlier one left unfinished goes.

    Raises: InvalidInputError if another process writes there.
    """
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInputError(f"{folder}: another run is writing there") from None
        for left in folder.glob(".part-*.parquet.*"):
            shutil.rmtree(left)
        yield
    finally:
        os.close(handle)
