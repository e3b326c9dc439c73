"""Errors of whole models against a float64 run, infold's over onnxruntime's: a table of docs/performance.md, written as Markdown.

    python bench/accuracy.py --zoo FOLDER [NAME ...] [MODEL.onnx ...] [--picture FILE ...] [--kept FOLDER]

Eight pictures of as many kinds, and those of --picture, go through every file of a model (a zoo has it raw and optimised). r is a
float64 run of the same file; an error is y - r over the largest |r|. Two numbers of each picture's errors count: the root mean
square, which all elements share, and the largest, a single element. Of infold's over onnxruntime's the table has the geometric mean
over all runs, and the range. How little single ratios say is seen beside them: in onnxruntime's without optimisations over its own
with them. --kept keeps the float64 runs, which take most of the time, for the next call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import selection

import infold
from infold.preprocess import Preprocess
from infold.reference import run_float64

LEVELS = ("highest", "high", "medium")
Errors = dict[str, np.ndarray]  # by engine: [pictures, 2], root mean square and largest


def pictures(channels: int, height: int, width: int) -> dict[str, np.ndarray]:
    """float32 [1, channels, height, width] by kind, with values as pictures have them when mean and deviation are taken out."""
    rng, shape = np.random.default_rng(0), (channels, height, width)

    def coarse(cells: int, between=lambda weights: weights) -> np.ndarray:
        """Random numbers at the corners of cells x cells, and between them straight lines."""
        rows, columns = (between(np.maximum(0, 1 - abs(np.linspace(0, cells, n)[:, None] - np.arange(cells + 1))))
                         for n in (height, width))
        return rows @ rng.standard_normal((channels, cells + 1, cells + 1)) @ columns.T

    dark = 0.02 * rng.standard_normal(shape) - 2
    dark[:, height // 3: height // 2, width // 2:] = 2.2
    kinds = {
        "noise": rng.standard_normal(shape), "bright noise": rng.uniform(-2.1, 2.6, shape), "smooth": coarse(5),
        "smooth with noise": coarse(14) + 0.2 * rng.standard_normal(shape), "blocks": coarse(14, np.round),
        "stripes": coarse(3) + np.sin(np.arange(width) / 3 + np.arange(height)[:, None] / 4), "dark": dark,
        "faint": 0.1 * coarse(9),
    }
    return {kind: picture[None].astype(np.float32) for kind, picture in kinds.items()}


def inputs(model, files: Sequence[str]) -> dict[str, np.ndarray]:
    """The pictures as the model's only input; where it leaves a size open, one picture and 224 pixels.

    An input that is no image has its last axes filled.
    """
    shape = [d if isinstance(d, int) else 224 for d in model.graph.inputs[0].shape]
    shape[0] = 1
    image = [*[1] * (4 - len(shape)), *shape[1:]]
    made = pictures(*image)
    if image[0] == 3:
        convert = Preprocess(resize=tuple(image[1:]), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        made |= {Path(file).stem: convert([file]) for file in files}
    return {kind: picture.reshape(shape) for kind, picture in made.items()}


def error(outputs: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> tuple[float, float]:
    """(root mean square, largest) over all outputs, each relative to its output's largest element."""
    every = np.concatenate([(np.float64(y) - r).ravel() / np.abs(r).max() for y, r in zip(outputs, exact, strict=True)])
    return float(np.sqrt(np.mean(every**2))), float(np.abs(every).max())


def peer(path: Path, level: str):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(path: Path, files: Sequence[str], kept: Path | None) -> tuple[Errors, dict[str, int]]:
    """Errors by engine, and by level of precision the number of pictures whose first class is not the float64 run's."""
    model = infold.load(path)
    name, fed = model.graph.inputs[0].name, inputs(model, files)
    engines = {"onnxruntime": peer(path, "ORT_ENABLE_ALL"), "plain": peer(path, "ORT_DISABLE_ALL")}
    for level in LEVELS:
        engines[level] = infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=1, precision=level))
    errors: dict[str, list] = {engine: [] for engine in engines}
    moved = dict.fromkeys(LEVELS, 0)
    for kind, picture in fed.items():
        exact = _kept(kept and kept / f"{path.parent.name}-{path.stem}-{kind}.npz", model, {name: picture})
        for engine, session in engines.items():
            outputs = session.run(None, {name: picture})
            errors[engine].append(error(outputs, exact))
            if engine in moved:
                moved[engine] += int(outputs[0].argmax() != exact[0].argmax())
    return {engine: np.array(rows) for engine, rows in errors.items()}, moved


def _kept(file: Path | None, model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    if file and file.exists():
        with np.load(file) as arrays:
            return list(arrays.values())
    exact = list(run_float64(model, feeds).values())
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished.npz")
        np.savez(unfinished, *exact)
        unfinished.replace(file)
    return exact


def row(name: str, measured: Sequence[tuple[Errors, Mapping[str, int]]]) -> str:
    """One line of the table, from the measurements of each file of the model."""
    errors = {engine: np.concatenate([each[engine] for each, _ in measured]) for engine in measured[0][0]}
    own = errors["onnxruntime"]
    cells = [_mean(own[:, 0], ".1e"), _mean(errors["plain"][:, 0] / own[:, 0])]
    cells += [_mean(ratios) for level in ("highest", "high") for ratios in (errors[level] / own).T]
    cells += [f"{errors[level][:, 1].max():.1e} ({sum(moved[level] for _, moved in measured)})" for level in LEVELS]
    return f"| {name} | {' | '.join(cells)} |"


def _mean(numbers: np.ndarray, form: str = ".2f") -> str:
    """The geometric mean and the range."""
    return f"{np.exp(np.log(numbers).mean()):{form}} ({numbers.min():{form}}–{numbers.max():{form}})"


def main() -> None:
    parser = selection.parser(__doc__)
    parser.add_argument("--picture", action="append", default=[], metavar="FILE", help="one more; may be repeated")
    parser.add_argument("--kept", type=Path, metavar="FOLDER", help="float64 runs of an earlier call")
    options = parser.parse_args()
    print("| model | onnxruntime: root mean square | not optimised / optimised | `highest` / onnxruntime: root mean square "
          "| largest | `high`: root mean square | largest | `highest`: largest error (first classes moved) | `high` | `medium` |")
    print("|---|" + "---|" * 9)
    for name, paths in selection.models(options).items():
        print(row(Path(name).stem, [measure(path, options.picture, options.kept) for path in paths.values()]), flush=True)


if __name__ == "__main__":
    main()
