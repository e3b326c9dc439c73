from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

IMAGES = np.random.default_rng(0).standard_normal((3, 1, 28, 28), np.float32)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", IMAGES)
    np.savez(tmp_path / "images.npz", image=IMAGES)
    np.savez(tmp_path / "other.npz", picture=IMAGES)
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "wrong.npy", IMAGES[:, :, :5])
    (tmp_path / "noise.npy").write_bytes(b"noise")
    return tmp_path


@pytest.mark.parametrize("given", ["images.npy", "images.npz", "image={}images.npy", "image={}images.npz"])
def test_outputs_are_those_of_onnxruntime(cli: Callable, lenet: Path, files: Path, given: str) -> None:
    given = given.format(f"{files}/") if "=" in given else files / given
    result = cli("run", lenet, "--input", given, "--output", files / "out.npz", "--threads", 1, "--json")
    assert result.code == 0
    (facts,) = result.json["outputs"]
    assert (facts["name"], facts["shape"], facts["dtype"], facts["not_finite"]) == ("logits", [3, 10], "float32", 0)
    session = onnxruntime.InferenceSession(lenet, providers=["CPUExecutionProvider"])
    with np.load(files / "out.npz") as written:
        np.testing.assert_allclose(written["logits"], session.run(None, {"image": IMAGES})[0], rtol=1e-4, atol=1e-5)


def test_random_inputs_of_a_given_shape(cli: Callable, lenet: Path) -> None:
    result = cli("run", lenet, "--input", "random", "--shape", "image=2x1x28x28")
    assert result.code == 0 and "logits" in result.out and "2x10" in result.out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--input", "absent.npy"], "absent.npy"),
        (["--input", "picture={}/images.npy"], "no input 'picture'"),
        (["--input", "{}/other.npz"], "no input 'picture'"),
        (["--input", "image={}/other.npz"], "no array 'image'"),
        (["--input", "{}/pickled.npy"], "pickled"),
        (["--input", "{}/noise.npy"], "not an .npy"),
        (["--input", "{}/wrong.npy"], "'image'"),
        (["--shape", "image=1xtwo"], "--shape takes"),
        (["--shape", "image=1x1x5x28"], "'image' is declared as"),
        (["--shape", "picture=1x1x28x28"], "no input 'picture'"),
        (["--input", "{}/images.npy", "--output", "{}/absent/out.npz"], "no such folder"),
    ],
)
def test_inputs_that_do_not_fit(cli: Callable, lenet: Path, files: Path, given: list[str], words: str) -> None:
    result = cli("run", lenet, *(text.format(files) for text in given))
    assert result.code == 2 and words in result.err and len(result.err.splitlines()) == 1 and not result.out
