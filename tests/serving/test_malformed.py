"""Requests that make no sense are refused with a status of the client's fault and a text, and the server goes on."""

from __future__ import annotations

import itertools
import json
from http.client import HTTPConnection
from importlib.resources import files
from pathlib import Path

import grpc
import numpy as np
import pytest
import schemathesis
import serving
import serving_models
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelReadyRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

LENET = Path(str(files("infold.demo") / "lenet.onnx"))
LIMIT = 1 << 20  # bytes of a request
IMAGE = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 1, 28, 28)
GOOD = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": IMAGE.ravel().tolist()}
RAW = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "parameters": {"binary_data_size": IMAGE.nbytes}}


@pytest.fixture(scope="module")
def server():
    with serving.served(LENET, "--max-request", LIMIT / 2**20) as started:
        yield started
        assert started.process.poll() is None, "a request has ended the server"
        assert started.stop() == 0


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory):
    with serving.served(serving_models.mixed(tmp_path_factory.mktemp("mixed") / "mixed.onnx")) as started:
        yield started


@pytest.fixture(autouse=True)
def alive(request: pytest.FixtureRequest, server):
    """After every test the server still computes."""
    yield
    for protocol in ("http", "grpc"):
        outputs = serving.ask(server, server.client(protocol), {"image": IMAGE})
        assert outputs["logits"].shape == (1, 10) and outputs["logits"].any()


def post(server: serving.Server, body: bytes, path: str = "", **headers: object) -> tuple[int, str]:
    """POST to the model's infer endpoint, or to a path; the status, and the text of the error."""
    connection = HTTPConnection(server.http, timeout=60)
    named = {key.replace("_", "-"): str(value) for key, value in headers.items()}
    connection.request("POST", path or f"/v2/models/{server.name}/infer", body, named)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text).get("error", "")


def asked(*inputs: object, **more: object) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def changed(**parts: object) -> bytes:
    return asked({**GOOD, **parts})


JSON = {  # name -> body, and what the text says
    "nothing": (b"", ""),
    "no JSON": (b"\x00\xff{", ""),
    "cut off": (changed()[:-9], ""),
    "nested": (b"[" * 100_000, ""),
    "a list": (b"[]", ""),
    "a string": (b'"image"', ""),
    "no inputs": (b"{}", "inputs"),
    "no input": (asked(), "'image' is missing"),
    "no such input": (changed(name="imago"), "'image' is missing"),
    "another beside it": (asked(GOOD, {**GOOD, "name": "more"}), "'more'"),
    "twice": (asked(GOOD, GOOD), "twice"),
    "no such output": (asked(GOOD, outputs=[{"name": "logit"}]), "'logit'"),
    "outputs of no kind": (asked(GOOD, outputs=["logits"]), "outputs"),
    "data type unknown": (changed(datatype="FP33"), "'FP33'"),
    "data type wrong": (changed(datatype="FP64"), "float32 expected, got float64"),
    "data type no text": (changed(datatype=None), "datatype"),
    "rank": (changed(shape=[784]), "rank 4 expected"),
    "dimension": (changed(shape=[1, 1, 784, 1]), "dimension 2 must be 28"),
    "too many": (changed(shape=[1, 1, 28, 27]), "cannot reshape"),
    "negative": (changed(shape=[-1, 1, 28, 28]), "shape"),
    "huge": (changed(shape=[2**62, 2**62, 2**62, 1]), "shape"),
    "beyond 64 bits": (changed(shape=[2**200]), "shape"),
    "shape of text": (changed(shape=["a"]), "shape"),
    "fraction of a dimension": (changed(shape=[1.5, 1, 28, 28]), "shape"),
    "text for numbers": (changed(data=["1"] * 784), "type str"),
    "one null": (changed(data=[*GOOD["data"][:-1], None]), "type NoneType"),
    "objects": (changed(data=[{}] * 784), "type dict"),
    "ragged": (changed(data=[[1.0], [2.0, 3.0]]), "type list"),
    "truth for numbers": (changed(data=[True] * 784), "type bool"),
    "integer beyond float": (changed(data=[10**400] * 784), ""),
    "half in JSON": (changed(datatype="FP16"), "16"),
    "id": (asked(GOOD, id=[1]), "id"),
    "empty data": (changed(data=[]), "cannot reshape"),
}


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream"])
def test_json(server, name: str, content_type: str):
    body, says = JSON[name]
    status, text = post(server, body, content_type=content_type)
    assert status == 400 and says in text and text and len(text) < 500


def test_nan_in_json_is_a_number(server):
    body = changed(data=[float("nan")] * 784)
    assert b"NaN" in body
    status, _ = post(server, body, content_type="application/json")
    assert status == 200
    status, text = post(server, asked(GOOD, id=float("nan")), content_type="application/json")
    assert status == 400 and "id" in text


BINARY = {  # name -> tensors, the bytes behind them, what the header says of the JSON part's length (None: the truth), the text
    "too few": ([RAW], IMAGE.tobytes()[:-4], None, "binary_data_size"),
    "too many": ([RAW], IMAGE.tobytes() + b"1234", None, "4 bytes are left"),
    "none": ([RAW], b"", None, "binary_data_size"),
    "a huge size": ([{**RAW, "parameters": {"binary_data_size": 2**63}}], IMAGE.tobytes(), None, "binary_data_size"),
    "a negative size": ([{**RAW, "parameters": {"binary_data_size": -4}}], IMAGE.tobytes(), None, "binary_data_size"),
    "a size that is true": ([{**RAW, "parameters": {"binary_data_size": True}}], b"1", None, "binary_data_size"),
    "no size": ([{**RAW, "parameters": None}], IMAGE.tobytes(), None, "binary_data_size"),
    "a size that fits not": ([{**RAW, "parameters": {"binary_data_size": 3135}}], IMAGE.tobytes()[1:], None, "buffer size"),
    "another shape": ([{**RAW, "shape": [1, 1, 28, 27]}], IMAGE.tobytes(), None, "cannot reshape"),
    "a huge shape": ([{**RAW, "shape": [2**40, 1, 28, 28]}], IMAGE.tobytes(), None, "cannot reshape"),
    "half as wide": ([{**RAW, "datatype": "FP16", "shape": [2, 1, 28, 28]}], IMAGE.tobytes(), None, "float32 expected"),
    "strings": ([{**RAW, "datatype": "BYTES"}], IMAGE.tobytes(), None, "BYTES"),
    "no datatype": ([{**RAW, "datatype": "BF16"}], IMAGE.tobytes(), None, "BF16"),
    "length of all": ([RAW], IMAGE.tobytes(), 10**12, "length"),
    "length negative": ([RAW], IMAGE.tobytes(), -1, "length"),
    "length of nothing": ([RAW], IMAGE.tobytes(), "", "length"),
    "length in text": ([RAW], IMAGE.tobytes(), "many", "length"),
    "length endless": ([RAW], IMAGE.tobytes(), "9" * 5000, "length"),
    "length short": ([RAW], IMAGE.tobytes(), 20, ""),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_data(server, name: str):
    inputs, data, length, says = BINARY[name]
    head = asked(*inputs)
    headers = {"inference_header_content_length": len(head) if length is None else length}
    status, text = post(server, head + data, content_type="application/octet-stream", **headers)
    assert status == 400 and says in text and text


def test_what_is_not_there(server):
    for path in ("/v2/models/nix/infer", "/v2/models/lenet/versions/1/infer", "/v2/models/nix/versions/7/infer",
                 "/v1/models/lenet:predict", "/v2/models//infer", "/v2/models/lenet/generate"):
        status, text = post(server, changed(), path, content_type="application/json")
        assert status == 404 and text, path
    for path in ("load", "unload"):
        assert post(server, b"", f"/v2/repository/models/lenet/{path}")[0] == 403
    connection = HTTPConnection(server.http, timeout=60)
    connection.request("DELETE", "/v2/models/lenet")
    assert connection.getresponse().status == 405


def test_what_is_too_large(server):
    assert post(server, bytes(LIMIT + 1), content_type="application/json") == (413, f"a request of more than {LIMIT} bytes")
    claim = HTTPConnection(server.http, timeout=60)
    claim.putrequest("POST", "/v2/models/lenet/infer")
    claim.putheader("content-length", 1 << 60)
    claim.endheaders()
    assert claim.getresponse().status == 413, "refused before a byte of it has come"
    claim.close()
    pieces = HTTPConnection(server.http, timeout=60)
    pieces.request("POST", "/v2/models/lenet/infer", (bytes(1 << 16) for _ in range(17)), encode_chunked=True,
                   headers={"transfer-encoding": "chunked"})
    assert pieces.getresponse().status == 413, "with no length said"
    pieces.close()


class Rpc:
    """The generated stub, for messages that a client library would not send."""

    def __init__(self, server: serving.Server) -> None:
        self.channel = grpc.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)])
        self.stub = GRPCInferenceServiceStub(self.channel)

    def fails(self, request: ModelInferRequest) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as error:
            self.stub.ModelInfer(request, timeout=60)
        return error.value.code(), error.value.details()


@pytest.fixture
def rpc(server):
    made = Rpc(server)
    yield made
    made.channel.close()


def message(raw: tuple = (IMAGE.tobytes(),), model: str = "lenet", version: str = "", **parts: object) -> ModelInferRequest:
    tensor = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", **parts}
    return ModelInferRequest(model_name=model, model_version=version, inputs=[tensor], raw_input_contents=raw)


WRONG = {
    "too few bytes": (message((IMAGE.tobytes()[:-1],)), "buffer size"),
    "two buffers": (message((IMAGE.tobytes(),) * 2), "number of inputs"),
    "none": (message(()), "cannot reshape"),
    "data type": (message(datatype="FP64"), "FP64"),
    "no data type": (message(datatype="NUMBERS"), ""),
    "shape": (message(shape=[1, 1, 27, 28]), "cannot reshape"),
    "negative": (message(shape=[-1, 1, 28, 28]), "shape"),
    "huge": (message(shape=[2**62, 2**62]), "shape"),
    "name": (message(name="imago"), "'image' is missing"),
    "both": (message(contents={"fp32_contents": [1.0]}), "contents"),
    "contents of another type": (message((), contents={"int_contents": [1] * 784}), "cannot reshape"),
    "empty": (ModelInferRequest(model_name="lenet"), "'image' is missing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_grpc(rpc: Rpc, name: str):
    request, says = WRONG[name]
    code, text = rpc.fails(request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and says in text and text


def test_grpc_what_is_not_there_or_too_large(rpc: Rpc):
    assert rpc.fails(message(model="nix"))[0] == grpc.StatusCode.NOT_FOUND
    assert rpc.fails(message(version="3"))[0] == grpc.StatusCode.NOT_FOUND
    assert rpc.fails(message((bytes(LIMIT),)))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as error:
        rpc.stub.ModelReady(ModelReadyRequest(name="lenet", version="1"), timeout=60)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_numbers_that_do_not_fit_are_not_cut_off(mixed):
    values = {"half": np.ones(1, np.float16), "small": np.ones(1, np.int8), "truth": np.ones(1, bool),
              "text": np.array(["a"], object), "index": np.zeros(1, np.int64)}
    raw = {name: {"name": name, "shape": [1], "datatype": serving.TYPES.get(value.dtype.name) or value.dtype.name.upper(),
                  "data": value.tolist()} for name, value in values.items()}
    half = values["half"].tobytes()
    raw["half"] = {"name": "half", "shape": [1], "datatype": "FP16", "parameters": {"binary_data_size": len(half)}}
    wanted = [{"name": "small_out"}, {"name": "text_out"}]

    def send(**parts: object) -> tuple[int, str]:
        head = asked(*(raw | {name: {**raw[name], "data": [value]} for name, value in parts.items()}).values(), outputs=wanted)
        return post(mixed, head + half, inference_header_content_length=len(head))

    assert send() == (200, "")
    wrong = {"small": (128, 1.5, True, "1"), "truth": (1, "true"), "text": (7, None), "index": (2**63, 10**30, -6)}
    for name, value in [(name, value) for name, several in wrong.items() for value in several]:
        status, text = send(**{name: value})
        assert status == 400 and text, (name, value)


def test_lengths_of_strings_that_lie(mixed):
    for data in (b"\xff\xff\xff\xff", b"\x05\0\0\0abc", b"\1\0\0", b"\1\0\0\0a\1\0\0\0b", b"\2\0\0\0\xff\xfe"):
        head = asked({"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}})
        status, text = post(mixed, head + data, inference_header_content_length=len(head))
        assert status == 400 and "BYTES" in text


def test_what_schemathesis_makes_of_the_openapi_document(server):
    """Bounded: some dozen requests for each of the operations, the same ones every time."""
    schema = schemathesis.openapi.from_url(f"http://{server.http}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 10
    statuses = set()
    for operation, mode in itertools.product(operations, schemathesis.GenerationMode):
        if mode is schemathesis.GenerationMode.NEGATIVE and not operation.body:
            continue  # any text is a legal part of a path

        @given(case=operation.as_strategy(generation_mode=mode), known=booleans())
        @settings(max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))
        def send(case: schemathesis.Case, known: bool) -> None:
            if known and "model_name" in case.path_parameters:
                case.path_parameters["model_name"] = "lenet"
            answer = case.call(timeout=60)
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (case.as_curl_command(), answer.content)

        send()
    assert {200, 400, 403, 404} <= statuses
