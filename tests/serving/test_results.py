"""What comes out of a server has the bits of a run in this process, however many ask and whatever they ask for."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import onnx_ir as ir
import pytest
import serving
import serving_models
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

import infold

LENET = Path(str(files("infold.demo") / "lenet.onnx"))
REQUESTS = 1667  # for each of six ways: 10,002


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, np.ndarray]]:
    """Images, alone or up to three of them, each of its own."""
    rng = np.random.default_rng(9)
    counts = [1 + index % 7 // 5 * (index % 3) for index in range(REQUESTS)]
    return [{"image": rng.normal(size=(count, 1, 28, 28)).astype(np.float32)} for count in counts]


@pytest.fixture(scope="module")
def expected(feeds: list) -> list[np.ndarray]:
    session = infold.InferenceSession(LENET)
    return [session.run(None, one)[0] for one in feeds]


@pytest.fixture(scope="module")
def lenet():
    with serving.served(LENET) as server:
        yield server


@pytest.mark.parametrize("clients", [1, 2, 4])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_result_has_the_bits_of_a_run_in_process(lenet, feeds: list, expected: list, protocol: str, clients: int):
    wrong, seen = [], set()

    def compare(index: int, outputs: dict) -> None:
        seen.add(index)
        [got] = outputs.values()
        if got.tobytes() != expected[index].tobytes() or got.shape != expected[index].shape:
            wrong.append(index)

    serving.many(lenet, protocol, clients, feeds, compare)
    assert not wrong and len(seen) == len(feeds) and len({one.tobytes() for one in expected}) == len(feeds)


def test_requests_run_together_and_the_metrics_say_so(feeds: list, expected: list):
    with serving.served(LENET, "--batch-wait", 20, "--max-batch", 4) as server:
        assert server.line.endswith("(batches of up to 4)\n")
        got = {}
        serving.many(server, "grpc", 4, feeds[:60], got.__setitem__)
        assert len(got) == 60 and all(got[index]["logits"].tobytes() == expected[index].tobytes() for index in got)
        with urlopen(f"http://{server.http}/metrics", timeout=60) as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if not line.startswith("#"))
    value = {name: float(lines[f'{name}{{model_name="lenet"}}']) for name in (
        "infold_requests", "infold_runs", "infold_waiting", "request_predict_seconds_count")}
    assert value["infold_requests"] == value["request_predict_seconds_count"] == 60 and value["infold_waiting"] == 0
    assert 15 <= value["infold_runs"] < 60


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_health_and_metadata(lenet, protocol: str):
    client = lenet.client(protocol)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("lenet")
    metadata = client.get_model_metadata("lenet", **({"as_json": True} if protocol == "grpc" else {}))
    [given], [made] = metadata["inputs"], metadata["outputs"]
    assert (given["name"], given["datatype"], list(map(int, given["shape"]))) == ("image", "FP32", [-1, 1, 28, 28])
    assert (made["name"], made["datatype"], list(map(int, made["shape"]))) == ("logits", "FP32", [-1, 10])
    assert client.get_server_metadata(**({"as_json": True} if protocol == "grpc" else {}))["version"] == infold.__version__


@pytest.mark.parametrize("binary", [True, False])
def test_numbers_in_json_are_exact(lenet, feeds: list, expected: list, binary: bool):
    given = tritonclient.http.InferInput("image", feeds[0]["image"].shape, "FP32")
    given.set_data_from_numpy(feeds[0]["image"], binary_data=binary)
    wanted = tritonclient.http.InferRequestedOutput("logits", binary_data=not binary)
    result = lenet.client("http").infer("lenet", [given], outputs=[wanted])
    np.testing.assert_array_equal(result.as_numpy("logits"), expected[0])


def test_every_type(tmp_path: Path):
    values = {
        "half": np.array([1.5, np.inf, -0.0], np.float16),
        "small": np.array([-128, 0, 127], np.int8),
        "truth": np.array([True, False, True]),
        "text": np.array(["", "zwölf", "a\0b"], object),
        "index": np.array([4, 0, 2], np.int64),
    }
    path = serving_models.mixed(tmp_path / "mixed.onnx")
    names = [f"{name}_out" for name in values if name != "index"] + ["found"]
    expected = dict(zip(names, infold.InferenceSession(path).run(names, values)))
    with serving.served(path, "--name", "other") as server:
        assert server.name == "other"
        for protocol in ("http", "grpc"):
            client = server.client(protocol)
            outputs = serving.ask(server, client, values)
            assert set(outputs) == set(expected)
            for name, value in outputs.items():
                if value.dtype == object:
                    value = np.array([text.decode() for text in value], object)
                np.testing.assert_array_equal(value, expected[name])
                assert value.dtype == expected[name].dtype
            with pytest.raises(InferenceServerException, match="index"):
                serving.ask(server, client, {**values, "index": np.array([5], np.int64)})


@pytest.mark.parametrize("inside", [False, True])
def test_pictures(tmp_path: Path, inside: bool):
    """Encoded pictures of several sizes, prepared by the server, or by it and the model."""
    made = [np.random.default_rng(seed).integers(0, 256, (40 + seed, 50, 3), dtype=np.uint8) for seed in range(3)]
    encoded = []
    for one in made:
        file = io.BytesIO()
        Image.fromarray(one).save(file, "PNG")
        encoded.append(file.getvalue())
    preprocess = infold.Preprocess(color="gray", resize=30, crop=28, mean=[0.5], std=[0.25])
    session = infold.InferenceSession(LENET, infold.SessionOptions(preprocess=preprocess if inside else None))
    rest, path = preprocess.rest if inside else preprocess, tmp_path / "lenet.onnx"
    expected = session.run(None, {"image": rest(made)})[0]
    (tmp_path / "rest.json").write_text(json.dumps(rest.to_dict()))
    ir.save(session.model, path)
    with serving.served(path, "--preprocess", tmp_path / "rest.json") as server:
        for protocol in ("http", "grpc"):
            client = server.client(protocol)
            assert serving.ask(server, client, {"image": np.array(encoded, object)})["logits"].tobytes() == expected.tobytes()
            for wrong, says in ((encoded[0][:200], "not a readable picture"), (b"", "not a readable picture")):
                with pytest.raises(InferenceServerException, match=says):
                    serving.ask(server, client, {"image": np.array([*encoded, wrong], object)})
            with pytest.raises(InferenceServerException, match="input 'image'"):
                serving.ask(server, client, {"image": np.zeros((1, 1, 30, 28), np.float32)})
        client = server.client("http")
        [given] = client.get_model_metadata("lenet")["inputs"]
        assert given == {"name": "image", "datatype": "BYTES", "shape": [-1]}
        text = tritonclient.http.InferInput("image", [1], "BYTES")
        text.set_data_from_numpy(np.array(["a picture"], object), binary_data=False)
        with pytest.raises(InferenceServerException, match="not in JSON"):
            client.infer("lenet", [text])


def test_a_compiled_file(tmp_path: Path, feeds: list, expected: list):
    infold.compile(LENET, tmp_path / "small.infold", [{"image": (1, 1, 28, 28)}])
    with serving.served(tmp_path / "small.infold") as server:
        for protocol in ("http", "grpc"):
            np.testing.assert_array_equal(serving.ask(server, server.client(protocol), feeds[0])["logits"], expected[0])
