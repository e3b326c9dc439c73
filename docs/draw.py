"""Draw the figures of docs/folding.md into docs/figures: `python docs/draw.py` (needs matplotlib).

Each figure is a graph before and after a rule. Colours are readable on light and on dark pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

FOLDER = Path(__file__).parent / "figures"
FILL = {"layer": "#2f6fb2", "norm": "#c2571a", "other": "#68707c", "changed": "#2c8a57"}
LINE, GAP, HEIGHT, ROW = "#868e99", 0.42, 0.56, 0.86  # inches


@dataclass(frozen=True)
class Box:
    """An operator at a column and a row; "x" and "y" without a kind are tensors."""

    text: str
    kind: str | None
    column: int
    row: float = 0.0

    @property
    def width(self) -> float:
        return 0.3 + 0.088 * max(map(len, self.text.split("\n"))) if self.kind else 0.22


Graph = tuple[list[Box], list[tuple[int, int]]]


def chain(*boxes: tuple[str, str | None]) -> Graph:
    """Operators in a row."""
    return [Box(text, kind, i) for i, (text, kind) in enumerate(boxes)], [(i, i + 1) for i in range(len(boxes) - 1)]


L, N, O, C = FILL
X, Y = ("x", None), ("y", None)

FIGURES: dict[str, tuple[Graph, Graph]] = {
    "backward": (
        chain(X, ("Conv\nW, b", L), ("BatchNorm", N), ("Mul", O), ("Add", O), Y),
        chain(X, ("Conv\ns·W, s·b + t", C), Y),
    ),
    "through": (
        ([Box("x", None, 0), Box("Conv", L, 1, 0.5), Box("Conv", L, 1, -0.5), Box("Concat", O, 2), Box("Flatten", O, 3),
          Box("BatchNorm", N, 4), Box("y", None, 5)], [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (4, 5), (5, 6)]),
        ([Box("x", None, 0), Box("Conv'", C, 1, 0.5), Box("Conv'", C, 1, -0.5), Box("Concat", O, 2), Box("Flatten", O, 3),
          Box("y", None, 4)], [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (4, 5)]),
    ),
    "branches": (
        ([Box("x", None, 0), Box("Conv 3×3", L, 1, 1), Box("BatchNorm", N, 2, 1), Box("Conv 1×1", L, 1), Box("BatchNorm", N, 2),
          Box("BatchNorm", N, 1, -1), Box("Add", O, 3), Box("y", None, 4)],
         [(0, 1), (1, 2), (2, 6), (0, 3), (3, 4), (4, 6), (0, 5), (5, 6), (6, 7)]),
        chain(X, ("Conv 3×3\nsum of kernels", C), Y),
    ),
    "forward": (
        ([Box("ReLU", O, 0), Box("BatchNorm", N, 1), Box("Conv 1×1\nW, b", L, 2, 0.5), Box("Flatten", O, 2, -0.5),
          Box("Gemm", L, 3, -0.5)], [(0, 1), (1, 2), (1, 3), (3, 4)]),
        ([Box("ReLU", O, 0), Box("Conv 1×1\nW·s, b + W·t", C, 1, 0.5), Box("Flatten", O, 1, -0.5), Box("Gemm'", C, 2, -0.5)],
         [(0, 1), (0, 2), (2, 3)]),
    ),
    "border": (
        chain(X, ("Sub 127.5", O), ("Div 127.5", O), ("Conv 3×3\nzeros around", L), Y),
        chain(X, ("Pad\nwith 127.5", O), ("Conv 3×3\nW', b'", C), Y),
    ),
    "dead": (
        chain(("Conv W, b\nγ = 0 in channel 3", L), ("ReLU", O), ("Conv\nV, c", L)),
        chain(("Conv\nwithout 3", C), ("ReLU", O), ("Conv without 3\nc + V₃·relu(b₃)", C)),
    ),
    "chains": (
        chain(X, ("Sub\nμ", O), ("Div\n√(σ²+ε)", O), ("Mul\nγ", O), ("Add\nβ", O), Y),
        chain(X, ("BatchNorm", N), Y),
    ),
    "epilogue": (
        chain(X, ("Conv", L), ("GELU", O), ("BatchNorm", N), ("Conv 3×3\npadded", L), Y),
        chain(X, ("Conv, then GELU\nand s·x + t in cache", C), ("Conv 3×3\npadded", L), Y),
    ),
    "prologue": (
        chain(("Concat", O), ("BatchNorm", N), ("ReLU", O), ("Conv 1×1", L), Y),
        chain(("Concat", O), ("Conv 1×1 reads\nrelu(s·x + t)", C), Y),
    ),
}


def draw(before: Graph, after: Graph) -> plt.Figure:
    (left, left_end), (right, right_end) = layout(before), layout(after)
    rows = [box.row for box, _ in left + right]
    bottom, top = min(rows) * ROW - HEIGHT / 2 - 0.06, max(rows) * ROW + HEIGHT / 2 + 0.06
    shift = left_end + 1.0
    figure = plt.figure(figsize=(shift + right_end, top - bottom))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, shift + right_end), ylim=(bottom, top))
    axes.axis("off")
    place(axes, left, before[1], 0.0)
    axes.annotate("", (shift - 0.22, 0), (left_end + 0.22, 0),
                  arrowprops={"arrowstyle": "simple,head_width=0.7,head_length=0.7,tail_width=0.25", "color": FILL[C]})
    place(axes, right, after[1], shift)
    return figure


def layout(graph: Graph) -> tuple[list[tuple[Box, float]], float]:
    """Every box with the middle of its column, and where the last column ends."""
    boxes, at, middle = graph[0], 0.06, {}
    for column in range(max(box.column for box in boxes) + 1):
        width = max(box.width for box in boxes if box.column == column)
        middle[column] = at + width / 2
        at += width + GAP
    return [(box, middle[box.column]) for box in boxes], at - GAP + 0.06


def place(axes: Axes, boxes: list[tuple[Box, float]], edges: list[tuple[int, int]], shift: float) -> None:
    for start, end in edges:
        (a, ax), (b, bx) = boxes[start], boxes[end]
        axes.annotate("", (bx + shift - b.width / 2, b.row * ROW), (ax + shift + a.width / 2, a.row * ROW),
                      arrowprops={"arrowstyle": "-|>", "color": LINE, "linewidth": 1.3, "shrinkA": 1, "shrinkB": 1})
    for box, x in boxes:
        y = box.row * ROW
        if box.kind:
            axes.add_patch(FancyBboxPatch((x + shift - box.width / 2, y - HEIGHT / 2), box.width, HEIGHT, linewidth=0,
                                          boxstyle="round,pad=0,rounding_size=0.08", facecolor=FILL[box.kind]))
        axes.text(x + shift, y, box.text, ha="center", va="center", fontsize=9.5, color="white" if box.kind else LINE,
                  linespacing=1.25)


def main() -> None:
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "infold", "font.family": "sans-serif"})
    FOLDER.mkdir(exist_ok=True)
    for name, graphs in FIGURES.items():
        figure = draw(*graphs)
        figure.savefig(FOLDER / f"{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
