from __future__ import annotations

import json
from pathlib import Path

import pytest

from infold import InvalidInputError, Preprocess

IMAGENET = """
resize = 256
crop = [224, 192]
interpolation = "bicubic"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


def test_toml_and_json_declare_the_same(tmp_path: Path):
    (tmp_path / "a.toml").write_text(IMAGENET)
    loaded = Preprocess.load(tmp_path / "a.toml")
    statistics = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert loaded == Preprocess(resize=256, crop=(224, 192), interpolation="bicubic", **statistics)
    (tmp_path / "a.json").write_text(json.dumps(loaded.to_dict()))
    assert Preprocess.load(tmp_path / "a.json") == loaded


@pytest.mark.parametrize(("fields", "shape"), [
    ({}, None),
    ({"resize": 8}, None),
    ({"resize": (8, 6)}, (3, 8, 6)),
    ({"resize": 8, "crop": 6, "layout": "nhwc"}, (6, 6, 3)),
    ({"crop": [6, 5], "color": "gray"}, (1, 6, 5)),
])
def test_what_is_known_of_the_result(fields: dict, shape: tuple | None):
    assert Preprocess(**fields).shape == shape


@pytest.mark.parametrize(("text", "words"), [
    ('colour = "rgb"', "no field 'colour'"),
    ('color = "cmyk"', "'color': one of rgb, bgr, gray expected, not 'cmyk'"),
    ('color = ["rgb"]', "'color'"),
    ("interpolation = 2", "'interpolation'"),
    ('layout = "chw"', "'layout'"),
    ('dtype = "float64"', "'dtype'"),
    ('dtype = "uint8"', "'dtype': max_pixel_value 1, mean 0 and std 1"),
    ("resize = 0", "'resize'"),
    ("resize = 1.5", "'resize'"),
    ("resize = true", "'resize'"),
    ("resize = [224, 224, 3]", "'resize'"),
    ("crop = [224, 0]", "'crop'"),
    ("crop = 70000", "'crop'"),
    ("max_pixel_value = 0", "'max_pixel_value'"),
    ("max_pixel_value = inf", "'max_pixel_value'"),
    ("mean = [0.5, 0.5]", "'mean': one number or 3"),
    ("mean = [0.5, 0.5, nan]", "'mean'"),
    ('mean = "0.5"', "'mean'"),
    ("std = [1, 1, -1]", "'std': positive"),
    ('color = "gray"\nstd = [1, 1, 1]', "'std': one number or 1"),
    ("resize = ", "no legal TOML"),
])
def test_wrong_fields_are_named(tmp_path: Path, text: str, words: str):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InvalidInputError) as error:
        Preprocess.load(tmp_path / "a.toml")
    assert str(error.value).startswith(f"{tmp_path / 'a.toml'}: ") and words in str(error.value)


@pytest.mark.parametrize(("name", "data", "words"), [
    ("a.yaml", b"", r"\.toml or \.json"),
    ("a.json", b"{", "no legal JSON"),
    ("a.json", b"[]", "an object"),
    ("a.json", b"[" * 100_000, "no legal JSON"),
    ("a.toml", b"\xff", "no legal TOML"),
])
def test_files_that_declare_nothing(tmp_path: Path, name: str, data: bytes, words: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInputError, match=words):
        Preprocess.load(tmp_path / name)
    with pytest.raises(OSError):
        Preprocess.load(tmp_path / "absent.toml")
