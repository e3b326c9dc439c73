"""`infold recalibrate`: new running statistics for a model's BatchNorms, estimated from data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    import onnx_ir as ir

    from infold import Preprocess
    from infold.report.recalibrate import RecalibrationReport


def recalibrate(
    model: common.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the recalibrated model to this .onnx.", show_default=False)
    ],
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder of pictures, or a pattern such as 'a/**/*.jpg'.", show_default=False)
    ] = None,
    npz: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An .npz with every input, or an .npy with the only one; samples first.",
            show_default=False,
        ),
    ] = None,
    preprocess: common.Preprocessing = None,
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, help="Batch size, where the model leaves it open.")
    ] = 16,
    threads: common.Threads = 0,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    as_json: common.Json = False,
) -> None:
    """Re-estimate the running mean and variance of every BatchNorm from data, layer by layer; weights stay."""
    import infold
    from infold.cli import files

    if (images is None) == (npz is None):
        raise typer.BadParameter("give the data: either --images DIR or --npz FILE")
    if (images is None) != (preprocess is None):
        raise typer.BadParameter("--images and --preprocess go together: what is done to pictures must be declared")
    files.refuse_overwriting(output, source=model)
    with common.working(f"Reading {model}"):
        loaded = files.load(model, shapes, weights)
        batches = (
            _pictures(loaded, images, files.preprocessing(preprocess), batch) if images is not None else _arrays(loaded, npz, batch)
        )
    with common.progress(f"Recalibrating {model}") as advance:
        result, report = infold.recalibrate(loaded, batches, threads=threads, progress=advance)
    files.write_model(result, output, source=model)
    if as_json:
        common.print_json({"model": str(model), "written": output, **report.to_dict()})
    else:
        show(report)
        common.out().print(f"written to {output}")


def _pictures(model: ir.Model, images: str, preprocess: Preprocess, batch: int) -> Iterable:
    from infold.preprocess import pictures

    found = pictures.find(images)
    return pictures.Batches(found, preprocess, _batch_size(model, len(found), batch))


def _arrays(model: ir.Model, path: Path, batch: int) -> list:
    from infold.cli import files
    from infold.errors import InvalidInputError

    feeds = files.read_given(model, [str(path)])
    counts = {name: len(array) if array.ndim else 0 for name, array in feeds.items()}
    if len(set(counts.values())) != 1:
        raise InvalidInputError(f"{path}: every input needs the same number of samples; got {counts}")
    samples = next(iter(counts.values()))
    step = _batch_size(model, samples, batch)
    return [{name: array[i : i + step] for name, array in feeds.items()} for i in range(0, samples, step)]


def _batch_size(model: ir.Model, samples: int, wanted: int) -> int:
    """How many samples go into a batch. Raises InvalidInputError if the model fixes a number that does not divide them."""
    from infold.errors import InvalidInputError
    from infold.report.inputs import required_inputs

    shape = required_inputs(model)[0].shape
    fixed = shape[0] if shape is not None and len(shape) and isinstance(shape[0], int) else None
    if fixed is not None and (fixed < 1 or samples % fixed):
        raise InvalidInputError(f"the model fixes the batch at {fixed}, which does not divide {samples} samples")
    return wanted if fixed is None else fixed


def show(report: RecalibrationReport) -> None:
    """Print how much each BatchNorm's statistics moved, and which were left alone and why."""
    table = common.table("BatchNorm", numbers=("values per channel", "largest shift of a mean", "new / old variance"))
    for item in report.items:
        if item.reason is None:
            table.add_row(item.name, str(item.values), f"{item.mean_shift:.3g} σ", f"{item.variance_ratio:.3g}")
        else:
            table.add_row(item.name, f"kept: {item.reason}", "", "")
    console = common.out()
    console.print(table)
    console.print(f"{report.recalibrated} of {len(report.items)} BatchNorms recalibrated on {report.samples} samples")
