"""A job: which rows are missing, the model made ready for them once, an engine that computes them, parts that hold them."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__, host
from ..api import SessionOptions
from ..compiled import is_compiled
from ..compiling import compile
from ..errors import InvalidInputError, UnsupportedError
from ..preprocess import Preprocess
from .arrow import pa
from .parts import Parts, alone
from .rows import batch_size

if TYPE_CHECKING:
    import onnx_ir as ir

ENGINES = ("local", "ray")
COMPILED = ".model.infold"  # in the output's folder; readers of Parquet pass over names with a dot


@dataclass(frozen=True)
class Summary:
    """rows: of the job; resumed: of these, from an earlier run; unreadable: of the others, with an error; parts: files."""

    rows: int
    resumed: int
    unreadable: int
    parts: int


def run(model: str | os.PathLike, files: Sequence[str], output: str | os.PathLike, preprocess: Preprocess, *,
        batch: int | None = None, rows: int = 1024, engine: str = "local", options: SessionOptions | None = None,
        workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Run a model over pictures; write `output`/part-NNNNN.parquet with the columns path, the outputs, and error.

    Parts appear whole, so a run that ended in whatever way goes on where it was if it is called again. The same files give the same
    bits, with any engine and number of workers.

    Args:
        model: path of a model with one image as input.
        files: paths of the pictures, without duplicates.
        output: a folder; made if it is not there.
        batch: pictures in a run of the model; None: what the model fixes, else 8, or 1 where `preprocess` gives several sizes.
        rows: of a part, rounded to whole batches.
        engine: "local" (one process) or "ray" (`infold.integrations.ray`).
        options: of the sessions; threads are each worker's, where 0 is one for engine "ray".
        workers: processes of engine "ray"; None: as many as there are CPUs for.
        progress: called with (rows written, rows of the job).
    Raises:
        InvalidInputError: the output has parts of another job or is being written to, or the model does not fit the pictures.
        UnsupportedError, MissingDependencyError: see `Rows`; the engine is not known, or not installed.
    """
    if engine not in ENGINES:
        raise UnsupportedError(f"engine {engine!r}: one of {', '.join(ENGINES)} expected")
    options, folder, advance = options or SessionOptions(), Path(output), progress or (lambda done, total: None)
    if engine == "ray":
        from ..integrations.ray import tables

        options = replace(options, intra_op_num_threads=options.intra_op_num_threads or 1)
    else:
        from .local import tables
    with alone(folder):
        name, size, digest = _described(model, preprocess, batch)
        facts = [digest, preprocess.to_dict(), size, __version__, host.isa(), options.precision, options.training_mode]
        parts = Parts(folder, files, max(1, rows // size) * size, facts)
        missing = {number: parts.files[number] for number in parts.missing()}
        done = resumed = len(files) - sum(map(len, missing.values()))
        unreadable = 0
        advance(done, len(files))
        try:
            ready = _ready(model, name, size, preprocess, options, folder / COMPILED) if missing else ""
            for number, columns in tables(ready, preprocess, size, options, missing, workers) if missing else ():
                parts.write(number, pa.table({"path": pa.array(missing[number], pa.string())} | columns))
                unreadable += len(columns["error"]) - columns["error"].null_count
                advance(done := done + len(missing[number]), len(files))
        finally:
            (folder / COMPILED).unlink(missing_ok=True)
        return Summary(len(files), resumed, unreadable, len(parts.files))


def _described(model: str | os.PathLike, preprocess: Preprocess, batch: int | None) -> tuple[str, int, str]:
    """The name of the model's input, the size of a batch, and a digest of the model's contents."""
    from ..importers import load
    from ..report.inputs import required_inputs

    if is_compiled(model):
        raise UnsupportedError(f"{model} is compiled already: give the model itself, it is compiled for the batches that are run")
    loaded = load(model)
    inputs = required_inputs(loaded)
    if len(inputs) != 1 or inputs[0].shape is None:
        raise InvalidInputError(f"pictures are for models with one input of known rank; this one has {[v.name for v in inputs]}")
    [value] = inputs
    return value.name, batch_size(value.name, list(value.shape), preprocess, batch), _digest(loaded)


def _ready(model: str | os.PathLike, name: str, size: int, preprocess: Preprocess, options: SessionOptions, path: Path) -> str:
    """The path of the model compiled for its batches, which is in memory once for all who map it; else of the model itself."""
    if preprocess.shape is not None:
        with suppress(UnsupportedError):  # steps in Python: what cannot be used at all, a session will say
            compile(model, path, [{name: (size, *preprocess.shape)}], options)
            return str(path.absolute())
    return str(Path(model).absolute())


def _digest(model: ir.Model) -> str:
    """SHA-256 of all that a model holds."""
    import onnx_ir as ir

    made, bare = hashlib.sha256(), model.clone()
    for name, value in sorted(model.graph.initializers.items()):
        tensor = value.const_value
        made.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        made.update(tensor.tobytes())
    bare.graph.initializers.clear()
    made.update(ir.to_proto(bare).SerializeToString(deterministic=True))
    return made.hexdigest()
