"""Reading inputs and writing results for the commands; what is written appears whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from infold.files import write

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from infold import Preprocess

PROTOBUF_LIMIT = 2**31 - 2**24  # a protobuf message ends below 2 GiB; the graph around the weights gets 16 MiB


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`["x=1x3x224x224"]` to `{"x": (1, 3, 224, 224)}`; a colon does for the sign of equality."""
    shapes = {}
    for text in texts or []:
        found = re.fullmatch(r"(.+)[=:]((\d+([x,]\d+)*)?)", text)
        if not found:
            raise typer.BadParameter(f"--shape takes NAME=1x3x224x224, not {text!r}")
        shapes[found[1]] = tuple(int(dim) for dim in re.split("[x,]", found[2]) if dim)
    return shapes


def load(path: Path, shapes: Sequence[str] | None, weights: Path | None, *, runs: bool = False) -> ir.Model:
    """The model of any format, with `--shape` and `--weights` given to the importers that ask for them.

    Args:
        runs: whether the command makes inputs of these shapes for models of other formats.
    Raises: as `infold.load`; typer.BadParameter for options that make no sense for this file.
    """
    import infold
    from infold.importers import format_of

    kind, given = format_of(path), parse_shapes(shapes)
    if weights is not None and (kind != "caffe" or path.suffix.lower() == ".caffemodel"):
        raise typer.BadParameter("--weights goes with a .prototxt")
    if kind == "caffe":
        return infold.load(path, weights=weights, input_shapes=given or None)
    if kind == "torch7" and given:
        names = ["input"] if len(given) == 1 else [f"input_{index}" for index in range(1, len(given) + 1)]
        if given.keys() != set(names):
            raise typer.BadParameter(f"--shape names {', '.join(given)}; a Torch7 network's inputs are called {', '.join(names)}")
        return infold.load(path, shape=given["input"] if len(given) == 1 else [given[name] for name in names])
    if given and not runs:
        raise typer.BadParameter("--shape is for Caffe and Torch7 models here: what else is read knows its shapes")
    return infold.load(path)


def preprocessing(path: Path | None) -> Preprocess | None:
    """What `--preprocess` declares. Raises: as `Preprocess.load`."""
    from infold import Preprocess

    return None if path is None else Preprocess.load(path)


def read_inputs(
    model: ir.Model, texts: Sequence[str] | None, shapes: Mapping[str, Sequence[int]], preprocess: Preprocess | None = None
) -> dict[str, np.ndarray]:
    """The feeds that `--input` and `--shape` describe; inputs that no file gives are random.

    Raises: as `read_given` and `infold.report.inputs.random_inputs`.
    """
    from infold.report.inputs import random_inputs, required_inputs

    feeds = read_given(model, texts, preprocess)
    known = [value.name for value in required_inputs(model)]
    if feeds.keys() >= set(known) and not shapes:
        return feeds
    return random_inputs(model, {name: feeds[name].shape for name in known if name in feeds} | dict(shapes)) | feeds


def read_given(model: ir.Model, texts: Sequence[str] | None, preprocess: Preprocess | None = None) -> dict[str, np.ndarray]:
    """The arrays of the files that `--input` names, by input; a picture becomes a batch of one.

    Raises: InvalidInputError for a file without the array or an unknown name, OSError for an unreadable one.
    """
    from infold.errors import InvalidInputError
    from infold.report.inputs import required_inputs

    feeds: dict[str, np.ndarray] = {}
    known = [value.name for value in required_inputs(model)]
    for text in texts or []:
        if text == "random":
            continue
        name, _, path = text.rpartition("=")
        arrays = _arrays(path or text, preprocess)
        if name or None in arrays:
            name = name or (known[0] if len(known) == 1 else "")
            if not name:
                raise InvalidInputError(f"{text}: which input? Write NAME={text}; the model has {', '.join(known)}")
            array = arrays.get(None, arrays.get(name))
            if array is None:
                raise InvalidInputError(f"{path} has no array {name!r}; it has {', '.join(map(str, arrays))}")
            arrays = {name: array}
        feeds.update(arrays)
    if unknown := feeds.keys() - {value.name for value in model.graph.inputs}:
        raise InvalidInputError(f"the model has no input {sorted(unknown)[0]!r}; it has {', '.join(known)}")
    return feeds


def _arrays(path: str, preprocess: Preprocess | None) -> dict[str | None, np.ndarray]:
    """The arrays of an .npz by name, or the one of an .npy or picture under None."""
    import numpy as np

    from infold.errors import InvalidInputError
    from infold.preprocess.pictures import SUFFIXES

    if Path(path).suffix.lower() in SUFFIXES:
        if preprocess is None:
            raise InvalidInputError(f"{path}: what is done to pictures must be declared: infold run --preprocess FILE")
        return {None: preprocess([path])}
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {None: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError) as error:
        raise InvalidInputError(f"{path}: not an .npy or .npz file, or one that holds pickled objects") from error


def write_model(model: ir.Model, path: Path, *, source: Path) -> None:
    """Write `model` as .onnx, with its weights beside it in `PATH.data` if protobuf's 2 GiB do not hold them.

    Raises: typer.BadParameter if a file to be written is `source`, the model that was read, or has the name of another format.
    """
    import onnx_ir as ir

    from infold.compiled import is_compiled
    from infold.importers import format_of

    if format_of(path) != "onnx" or is_compiled(path):
        raise typer.BadParameter(f"{path} would be read as another format: what is written is ONNX, name it .onnx")
    large = sum(value.const_value.nbytes for value in model.graph.initializers.values()) > PROTOBUF_LIMIT
    data = f"{path.name}.data" if large else None
    refuse_overwriting(path, source=source)
    write(path, lambda made: ir.save(model, made, format="protobuf", external_data=data))


def refuse_overwriting(path: Path, *, source: Path, what: str = "model") -> None:
    """Raise typer.BadParameter if `path` is `source`, which was read."""
    if path.exists() and path.samefile(source):
        raise typer.BadParameter(f"{path} is the {what} itself: write to another file")


def write_npz(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write `arrays` as an .npz."""
    import numpy as np

    def save(made: Path) -> None:
        with open(made, "wb") as file:
            np.savez(file, **arrays)

    write(path, save)
