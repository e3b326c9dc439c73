"""infold itself, at each precision level."""

from __future__ import annotations

from infold.report.engines import Feeds, Prepared, engine


def _prepare(path: str, feeds: Feeds, threads: int, precision: str) -> Prepared:
    import infold

    options = infold.SessionOptions(
        intra_op_num_threads=threads,
        precision=precision,
        training_mode="batch",  # the benchmark has asked already
    )
    session = infold.InferenceSession(path, options)
    feeds = dict(feeds)
    return Prepared(lambda: session.run(None, feeds), infold.__version__, precision)


@engine("infold", "infold")
def _highest(path: str, feeds: Feeds, threads: int) -> Prepared:
    return _prepare(path, feeds, threads, "highest")


@engine("infold@high", "infold")
def _high(path: str, feeds: Feeds, threads: int) -> Prepared:
    return _prepare(path, feeds, threads, "high")


@engine("infold@medium", "infold")
def _medium(path: str, feeds: Feeds, threads: int) -> Prepared:
    return _prepare(path, feeds, threads, "medium")
