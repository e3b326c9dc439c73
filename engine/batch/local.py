"""One process: pictures are decoded in threads while the session runs."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from .. import host
from ..api import SessionOptions
from ..errors import UnsupportedError
from ..preprocess import Preprocess
from .arrow import pa
from .rows import Rows

T, U = TypeVar("T"), TypeVar("U")


def tables(model: str, preprocess: Preprocess, size: int, options: SessionOptions, parts: Mapping[int, list[str]],
           workers: int | None = None) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """The columns of each part, as `Rows.columns` has them, in order.

    Raises: UnsupportedError: another number of workers than one.
    """
    if workers not in (None, 1):
        raise UnsupportedError("the local engine is one process: `workers` is for engine 'ray'")
    rows = Rows(model, preprocess, size, options)
    with ThreadPoolExecutor(host.cpus()) as pool:
        decoded = ahead(pool, rows.decode, chain.from_iterable(parts.values()), 2 * rows.size + host.cpus())
        try:
            for number, files in parts.items():
                yield number, rows.columns(decoded, len(files))
        finally:
            decoded.close()


def ahead(pool: ThreadPoolExecutor, function: Callable[[T], U], items: Iterable[T], count: int) -> Iterator[U]:
    """As `map`, with the calls for the next `count` items under way in the pool."""
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
