"""infold on a Ray cluster: a class for `ray.data.Dataset.map_batches`, and the engine of `infold batch --engine ray`."""
from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..api import SessionOptions
from ..batch.arrow import pa, pc
from ..batch.rows import Rows
from ..errors import Error, MissingDependencyError
from ..preprocess import Preprocess

try:
    import ray
    import ray.data
except ImportError:
    raise MissingDependencyError("the engine 'ray' needs Ray: pip install 'infold[ray]'") from None


class Predictor:
    """A model's outputs for the pictures of a Ray dataset; each actor makes one of them and loads the model once.

        dataset.map_batches(Predictor, fn_constructor_args=["model.infold", "imagenet.toml"], batch_size=64, concurrency=4)

    Actors on one machine share the memory of a compiled model (`infold compile`), which they map.

    Args:
        model: a path that every node sees.
        preprocess: an `infold.Preprocess`, or the path of its declaration.
        column: with the pictures: paths, or encoded bytes.
        batch: pictures in a run of the model; see `infold.batch.run`.
        options: of the session; None: one thread, which is what Ray gives an actor.
    Raises: as `infold.batch.rows.Rows`.
    """

    def __init__(self, model: str | os.PathLike, preprocess: Preprocess | str | os.PathLike, *, column: str = "path",
                 batch: int | None = None, options: SessionOptions | None = None) -> None:
        declared = preprocess if isinstance(preprocess, Preprocess) else Preprocess.load(preprocess)
        self._rows = Rows(model, declared, batch, options or SessionOptions(intra_op_num_threads=1))
        self._column = column

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> pa.Table:
        """The batch's columns but encoded pictures, then those of `Rows.columns`."""
        pictures = list(batch[self._column])
        encoded = any(isinstance(picture, bytes) for picture in pictures)
        kept = {name: list(values) for name, values in batch.items() if name != self._column or not encoded}
        found = self._rows.columns(map(self._rows.decode, pictures), len(pictures))
        return pa.table({name: pa.array(values) for name, values in kept.items()} | found)


def tables(model: str, preprocess: Preprocess, size: int, options: SessionOptions, parts: Mapping[int, list[str]],
           workers: int | None = None) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """The columns of each part, as `infold.batch.rows.Rows.columns` has them, in the order in which they are ready.

    On the cluster that Ray is connected to or $RAY_ADDRESS names, else on one that ends with the last part. A part is a block of a
    dataset; Ray starts an actor that died again, and its block with it.

    Raises: Error: what an actor could not do.
    """
    threads = options.intra_op_num_threads
    with _cluster():
        actors = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        blocks = [pa.table({"path": [str(Path(name).absolute()) for name in files], "part": [number] * len(files),
                            "row": range(len(files))}) for number, files in parts.items()]
        dataset = ray.data.from_arrow(blocks).map_batches(
            Predictor, fn_constructor_args=[model, preprocess], fn_constructor_kwargs={"batch": size, "options": options},
            batch_size=None, compute=ray.data.ActorPoolStrategy(size=min(actors, len(blocks))), num_cpus=threads)
        waiting: dict[int, pa.Table] = {}
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for number in block["part"].unique().to_pylist():
                mine = block.filter(pc.equal(block["part"], number))
                known = pa.concat_tables([waiting.pop(number), mine]) if number in waiting else mine
                if len(known) < len(parts[number]):
                    waiting[number] = known
                    continue
                ordered = known.sort_by("row").drop_columns(["path", "part", "row"]).combine_chunks()
                yield number, {name: ordered[name].combine_chunks() for name in ordered.column_names}


@contextmanager
def _cluster() -> Iterator[None]:
    """Ray, connected and quiet, its errors infold's; afterwards all is as it was."""
    ours, logger = not ray.is_initialized(), logging.getLogger("ray.data")
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(logging_level="warning", log_to_driver=False)
    context, level = ray.data.DataContext.get_current(), logger.level
    bars = context.enable_progress_bars
    try:
        context.enable_progress_bars = False  # whoever asks for the tables shows how many there are
        logger.setLevel(logging.ERROR)
        yield
    except ray.exceptions.RayError as error:
        told = re.findall(r"(?m)^infold\.errors\.\w+: (.+)$", str(error))
        raise Error(f"the run on Ray ended: {told[-1] if told else error}") from error
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)
        if ours:
            ray.shutdown()
