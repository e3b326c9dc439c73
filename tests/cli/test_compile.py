from __future__ import annotations

import numpy as np
import pytest

from infold.cli.compile import by_plan


def test_compile_and_run(cli, lenet, tmp_path):
    path, given, written = tmp_path / "l.infold", tmp_path / "x.npy", tmp_path / "y.npz"
    done = cli("compile", lenet, "-o", path, "--shape", "image=2x1x28x28", "--shape", "image=1x1x28x28", "--json")
    assert done.code == 0 and done.json["plans"] == 2 and done.json["steps"] > 4
    assert done.json["bytes"] == path.stat().st_size > done.json["weight_bytes"] > 0
    np.save(given, np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32))
    results = []
    for model in (path, lenet):
        assert cli("run", model, "--input", given, "-o", written).code == 0
        with np.load(written) as arrays:
            results.append(arrays["logits"])
    np.testing.assert_array_equal(*results)
    assert np.abs(results[0]).max() > 0


@pytest.mark.parametrize(("name", "shapes"), [("l.onnx", ["image=1x1x28x28"]), ("l.infold", [])])
def test_wrong_usage(cli, lenet, tmp_path, name, shapes):
    done = cli("compile", lenet, "-o", tmp_path / name, *(f"--shape={s}" for s in shapes))
    assert done.code == 2 and "infold: error" in done.err and not (tmp_path / name).exists()


def test_an_input_that_comes_again_begins_a_plan():
    assert by_plan(["a=1x2", "b=3", "a=4x5"]) == [{"a": (1, 2), "b": (3,)}, {"a": (4, 5)}]
