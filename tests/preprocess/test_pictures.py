from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from infold import InvalidInputError, Preprocess
from infold.preprocess import pictures

Image = pytest.importorskip("PIL.Image")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A smooth JPEG of 61 by 90 pixels with some noise."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:61, :90]
    pixels = np.stack([2 * x, 3 * y, x + y], -1) + rng.integers(0, 40, (61, 90, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "crop"), [(48, 40), ((50, 40), None), (33, (17, 31)), (None, 30), (100, None)])
def test_as_torchvision_does(photo: Path, interpolation: str, resize: object, crop: object):
    """Every bit: Resize, CenterCrop, ToTensor, Normalize."""
    import zoo

    zoo._torchvision()
    from torchvision import transforms

    steps = [] if resize is None else [transforms.Resize(resize, transforms.InterpolationMode(interpolation))]
    steps += [] if crop is None else [transforms.CenterCrop(crop)]
    expected = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])(Image.open(photo)).numpy()
    preprocess = Preprocess(resize=resize, crop=crop, interpolation=interpolation, mean=MEAN, std=STD)
    found = preprocess([photo])
    assert found.dtype == np.float32 and found.std() > 0.1 and preprocess.shape in (None, found.shape[1:])
    np.testing.assert_array_equal(found, expected[None])


def test_layout_order_and_type(photo: Path):
    pixels = np.asarray(Image.open(photo))
    caffe = Preprocess(color="bgr", max_pixel_value=1, mean=[104, 117, 123])([photo, pixels])
    np.testing.assert_array_equal(caffe[0], pixels[..., ::-1].transpose(2, 0, 1) - np.float32([[[104]], [[117]], [[123]]]))
    np.testing.assert_array_equal(caffe[0], caffe[1])
    last = Preprocess(layout="nhwc", mean=MEAN)
    np.testing.assert_array_equal(last([photo]).transpose(0, 3, 1, 2), Preprocess(mean=MEAN)([photo]))
    half = Preprocess(dtype="float16", mean=MEAN)([photo])
    np.testing.assert_array_equal(half, Preprocess(mean=MEAN)([photo]).astype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(last.rest([photo]), pixels[None])
    gray = Preprocess(color="gray", max_pixel_value=1)([photo])
    np.testing.assert_array_equal(gray[0, 0], np.asarray(Image.open(photo).convert("L")))


def test_what_is_taken_for_a_picture(photo: Path):
    data, pixels = photo.read_bytes(), np.asarray(Image.open(photo))
    forms = [photo, str(photo), data, bytearray(data), memoryview(data), io.BytesIO(data), pixels]
    found = Preprocess(resize=(9, 8))(iter(forms))
    assert found.shape == (7, 3, 9, 8) and all((each == found[0]).all() for each in found)
    assert Preprocess()([pixels[..., 0]]).shape == (1, 3, 61, 90)  # gray


def encoded(array: np.ndarray, kind: str) -> bytes:
    Image.fromarray(array).save(made := io.BytesIO(), kind)
    return made.getvalue()


@pytest.mark.parametrize(("image", "fields", "words"), [
    (b"", {}, "^picture: not a readable picture .of no known format.$"),
    (b"GIF89a", {}, "not a readable picture"),
    ("absent.png", {}, "^absent.png: not a readable picture .No such file or directory.$"),
    (encoded(np.ones((40, 40), np.uint8), "png")[:60], {}, "not a readable"),
    (encoded(np.full((8, 8), 60000, np.uint16), "png"), {}, "8 bits"),
    (np.ones((8, 8, 3), np.float32), {}, "float32, not of uint8"),
    (np.ones((8, 8, 7), np.uint8), {}, "not a readable"),
    (np.ones((8, 8, 3), np.uint8), {"crop": 9}, "8x8 pixels, fewer than the 9x9"),
    (np.ones((1, 60000, 3), np.uint8), {"resize": 9000}, "it would become"),
    (None, {}, "not a readable"),
])
def test_unreadable_pictures(image: object, fields: dict, words: str):
    with pytest.raises(InvalidInputError, match=words):
        Preprocess(**fields)([image])


def test_what_makes_no_batch():
    with pytest.raises(InvalidInputError, match="declare `resize`"):
        Preprocess()([np.zeros((4, 5), np.uint8), np.zeros((5, 5), np.uint8)])
    with pytest.raises(InvalidInputError, match="no picture"):
        Preprocess()([])


def test_finding_pictures(tmp_path: Path):
    for name in ("b/2.png", "b/c/1.JPG", "b[1]/3.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert pictures.find(tmp_path) == sorted(str(tmp_path / name) for name in ("b/2.png", "b/c/1.JPG", "b[1]/3.png"))
    assert pictures.find(tmp_path / "b[1]") == [str(tmp_path / "b[1]/3.png")]
    assert pictures.find(f"{tmp_path}/b/**/*.*") == [str(tmp_path / f"b/{name}") for name in ("2.png", "c/1.JPG", "notes.txt")]
    for where in (f"{tmp_path}/*.jpg", tmp_path / "b/none"):
        with pytest.raises(InvalidInputError, match="no such file"):
            pictures.find(where)
