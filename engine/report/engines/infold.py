"""infold itself, at each precision level."""

from __future__ import annotations

from functools import partial

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


for _name, _precision in (("infold", "highest"), ("infold@high", "high"), ("infold@medium", "medium")):
    engine(_name, "infold")(partial(_prepare, precision=_precision))
