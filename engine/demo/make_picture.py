"""Make the picture that `infold demo` reads: a notice in English and Chinese, seen as a camera sees one.

    python engine/demo/make_picture.py [--font NotoSansCJK-Regular.ttc] [--out engine/demo/notice.jpg]

Needs pillow and a font with Latin and Chinese glyphs (Debian: fonts-noto-cjk). The page is printed, then seen in
perspective on a table, under uneven light with a shadow across it, slightly out of focus, through a noisy sensor, as a
JPEG. One sticker is upside down: work for the direction classifier. Fixed seed.
"""
from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = (960, 736)
LINES = [                                                           # text, height in pixels, colour
    ("Northgate Botanical Garden", 60, (20, 70, 45)),
    ("城北植物园欢迎您", 62, (20, 70, 45)),
    ("Opening hours  08:30 - 18:00", 44, (30, 30, 34)),
    ("开放时间：每天（星期一除外）", 44, (30, 30, 34)),
    ("Adults 12.50 / Children 6.00", 44, (30, 30, 34)),
    ("Please keep to the marked paths.", 38, (60, 40, 40)),
    ("请勿采摘花草，谢谢合作。", 42, (150, 30, 30)),
    ("Tel. 0571-8829 4410   www.northgate-garden.org", 30, (60, 60, 66)),
]
CORNERS = [(96, 58), (884, 34), (918, 706), (52, 672)]              # where the page's corners land in the picture


def page(font: Path) -> Image.Image:
    """The printed page, 900x760, and the sticker on it."""
    sheet = Image.new("RGB", (900, 760), (246, 244, 236))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((12, 12, 887, 747), outline=(20, 70, 45), width=4)
    y = 36
    for text, height, colour in LINES:
        draw.text((56, y), text, font=ImageFont.truetype(font, height), fill=colour)
        y += round(height * 1.78)
    sticker = Image.new("RGB", (240, 64), (250, 214, 60))
    ImageDraw.Draw(sticker).text((18, 3), "FREE ENTRY", font=ImageFont.truetype(font, 38), fill=(30, 30, 34))
    sheet.paste(sticker.rotate(180), (632, 560))
    return sheet


def homography(source: list[tuple[float, float]], target: list[tuple[float, float]]) -> list[float]:
    """The eight coefficients with which PIL maps each target pixel back to its source pixel."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target):
        rows += [[u, v, 1, 0, 0, 0, -x * u, -x * v], [0, 0, 0, u, v, 1, -y * u, -y * v]]
        right += [x, y]
    return np.linalg.solve(np.array(rows), np.array(right)).tolist()


def photograph(sheet: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The page on a wooden table, as a camera sees it: uint8 RGB of SIZE."""
    width, height = SIZE
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    grain = np.sin(60 * y + 3 * np.sin(5 * x) + 1.2 * np.sin(23 * x + 11 * y))
    table = np.array([118, 84, 58]) + 14 * grain[..., None] + rng.normal(0, 5, (height, width, 1))

    edge_x, edge_y = sheet.width, sheet.height
    matrix = homography([(0, 0), (edge_x, 0), (edge_x, edge_y), (0, edge_y)], CORNERS)
    view = (SIZE, Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BICUBIC)
    seen = np.asarray(sheet.transform(*view), np.float64)
    cover = np.asarray(Image.new("L", sheet.size, 255).transform(*view), np.float64)[..., None] / 255
    scene = cover * seen + (1 - cover) * table

    light = 0.74 + 0.34 * np.exp(-((x - 0.3) ** 2 + (y - 0.25) ** 2) / 0.35)            # a lamp at the upper left
    shadow = 1 - 0.38 / (1 + np.exp(-(x + 0.45 * y - 1.05) * 28))                       # and somebody standing in it
    scene = scene * (light * shadow)[..., None]
    blurred = Image.fromarray(scene.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    noisy = np.asarray(blurred, np.float64) + rng.normal(0, 5, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--font", type=Path, default=Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("notice.jpg"))
    args = parser.parse_args()
    picture = photograph(page(args.font), np.random.default_rng(0))
    with tempfile.TemporaryDirectory(dir=args.out.parent) as folder:
        picture.save(Path(folder, args.out.name), quality=88)
        os.replace(Path(folder, args.out.name), args.out)


if __name__ == "__main__":
    main()
