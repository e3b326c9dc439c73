"""The script that made the demo's picture."""
from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from infold import demo

Image = pytest.importorskip("PIL.Image")
SCRIPT = Path(demo.__file__).parent / "make_picture.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("make_picture", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_homography_takes_the_corners_of_the_picture_to_those_of_the_page(script: ModuleType):
    corners = [(0, 0), (900, 0), (900, 760), (0, 760)]
    a, b, c, d, e, f, g, h = script.homography(corners, script.CORNERS)
    for (x, y), (u, v) in zip(corners, script.CORNERS):
        scale = g * u + h * v + 1
        np.testing.assert_allclose([(a * u + b * v + c) / scale, (d * u + e * v + f) / scale], [x, y], atol=1e-6)


def test_script_writes_the_same_picture_again(tmp_path: Path):
    """With any font: matplotlib's has no Chinese glyphs, but a box for each."""
    matplotlib = pytest.importorskip("matplotlib")
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    pictures = []
    for name in ("one.jpg", "two.jpg"):
        subprocess.run([sys.executable, SCRIPT, "--font", font, "--out", tmp_path / name], check=True)
        pictures.append(np.asarray(Image.open(tmp_path / name)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.jpg", "two.jpg"]
    np.testing.assert_array_equal(*pictures)
    shipped = np.asarray(Image.open(SCRIPT.with_name("notice.jpg")))
    assert shipped.shape == pictures[0].shape == (736, 960, 3)
    margin = np.s_[:30]                                                 # the table above the page shows no text
    assert np.abs(shipped[margin].astype(int) - pictures[0][margin]).mean() < 4
