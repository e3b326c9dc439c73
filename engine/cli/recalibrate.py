"""`infold recalibrate`: new running statistics for a model's BatchNorms, estimated from data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    import onnx_ir as ir

    from infold.report.recalibrate import RecalibrationReport


def recalibrate(
    model: common.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the recalibrated model to this .onnx.", show_default=False)
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of pictures.", show_default=False)
    ] = None,
    npz: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An .npz with every input, or an .npy with the only one; samples first.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Scale pictures to this, where the model leaves it open.")
    ] = None,
    mean: Annotated[str, typer.Option(help="Subtracted from pixels in 0..1: one number or R,G,B.")] = "0",
    std: Annotated[str, typer.Option(help="Pixels are then divided by this: one number or R,G,B.")] = "1",
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
    files.refuse_overwriting(output, source=model)
    with common.working(f"Reading {model}"):
        loaded = files.load(model, shapes, weights)
        batches = (
            _pictures(loaded, images, size, mean, std, batch) if images is not None else _arrays(loaded, npz, batch)
        )
    with common.progress(f"Recalibrating {model}") as advance:
        result, report = infold.recalibrate(loaded, batches, threads=threads, progress=advance)
    files.write_model(result, output, source=model)
    if as_json:
        common.print_json({"model": str(model), "written": output, **report.to_dict()})
    else:
        show(report)
        common.out().print(f"written to {output}")


def _pictures(model: ir.Model, folder: Path, size: str | None, mean: str, std: str, batch: int) -> Iterable:
    from infold.report.images import ImageBatches

    if not folder.is_dir():
        raise typer.BadParameter(f"--images: {folder} is no folder")
    if size is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        raise typer.BadParameter(f"--size takes HxW, not {size!r}")
    height_width = None if size is None else tuple(map(int, size.split("x")))
    return ImageBatches(
        folder, model, size=height_width, mean=_numbers("mean", mean), std=_numbers("std", std), batch=batch
    )


def _arrays(model: ir.Model, path: Path, batch: int) -> list:
    from infold.cli import files
    from infold.errors import InvalidInputError
    from infold.report.images import batch_size
    from infold.report.inputs import required_inputs

    feeds = files.read_given(model, [str(path)])
    counts = {name: len(array) if array.ndim else 0 for name, array in feeds.items()}
    if len(set(counts.values())) != 1:
        raise InvalidInputError(f"{path}: every input needs the same number of samples; got {counts}")
    samples = next(iter(counts.values()))
    shape = required_inputs(model)[0].shape
    fixed = shape[0] if shape is not None and len(shape) and isinstance(shape[0], int) else None
    step = batch_size(samples, fixed, batch)
    return [{name: array[i : i + step] for name, array in feeds.items()} for i in range(0, samples, step)]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--{option} takes one number or R,G,B, not {text!r}") from None


def show(report: RecalibrationReport) -> None:
    """Print how much each BatchNorm's statistics moved, and which were left alone and why."""
    from rich.table import Table

    table = Table("BatchNorm")
    for column in ("values per channel", "largest shift of a mean", "new / old variance"):
        table.add_column(column, justify="right")
    for item in report.items:
        if item.reason is None:
            table.add_row(item.name, str(item.values), f"{item.mean_shift:.3g} σ", f"{item.variance_ratio:.3g}")
        else:
            table.add_row(item.name, f"kept: {item.reason}", "", "")
    console = common.out()
    console.print(table)
    console.print(f"{report.recalibrated} of {len(report.items)} BatchNorms recalibrated on {report.samples} samples")
