"""A full queue, a long run and a stop: who asks is told, and what has been taken is finished."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import onnx_ir as ir
import pytest
import serving
import serving_models
from session_harness import Net
from tritonclient.utils import InferenceServerException

import infold

X = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
LONG = 40_000  # steps: a second or more


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving_models.slow(tmp_path_factory.mktemp("slow") / "slow.onnx")


def feeds(steps: int) -> dict[str, np.ndarray]:
    return {"x": X, "n": np.array(steps, np.int64)}


@contextmanager
def asking(server: serving.Server, protocol: str, count: int, steps: int, go: Event | None = None) -> Iterator[list[Future]]:
    """Requests from clients of their own, who have connected; sent when `go` is set."""

    def one() -> np.ndarray:
        client = server.client(protocol)
        try:
            assert client.is_server_live()
            connected.wait()
            if go is not None:
                go.wait(60)
            return serving.ask(server, client, feeds(steps))["y"]
        finally:
            client.close()

    connected = Barrier(count + 1, timeout=60)
    with ThreadPoolExecutor(count) as pool:
        sent = [pool.submit(one) for _ in range(count)]
        connected.wait()
        yield sent


def until(server: serving.Server, gauge: str, value: int) -> None:
    """Wait until the server's metrics say so."""
    connection = HTTPConnection(server.http, timeout=60)
    for _ in range(6000):
        connection.request("GET", "/metrics")
        if f'{gauge}{{model_name="slow"}} {value}.0' in connection.getresponse().read().decode():
            connection.close()
            return
        time.sleep(0.01)
    raise AssertionError(f"{gauge} has not become {value}")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_full_queue_answers_503_and_health_goes_on(slow: Path, protocol: str):
    go = Event()
    with serving.served(slow, "--max-queue", 3) as server, asking(server, protocol, 9, 1, go) as others:
        with asking(server, protocol, 1, LONG) as first:
            until(server, "infold_runs", 1)
            assert not first[0].done(), "metrics have not waited for the run"
            go.set()
            errors = [future.exception() for future in others]
        refused = [error for error in errors if error is not None]
        assert len(refused) == 6 and all(isinstance(error, InferenceServerException) for error in refused)
        assert {error.status() for error in refused} == {"503" if protocol == "http" else "StatusCode.UNAVAILABLE"}
        assert {error.message() for error in refused} == {"3 requests are waiting: try again later"}
        for future in first + [future for future, error in zip(others, errors) if error is None]:
            np.testing.assert_array_equal(future.result(), X)
        np.testing.assert_array_equal(serving.ask(server, server.client(protocol), feeds(2))["y"], X)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_stopped_server_finishes_what_it_has_taken(slow: Path, protocol: str):
    with serving.served(slow) as server, asking(server, protocol, 3, LONG // 2) as requests:
        until(server, "infold_waiting", 2)
        assert server.stop() == 0
        for request in requests:
            np.testing.assert_array_equal(request.result(timeout=60), X)
        for address in (server.http, server.grpc):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address.split(":")[0], int(address.split(":")[1])), timeout=60)


def test_grace_has_an_end(slow: Path):
    with serving.served(slow, "--grace", 0.2) as server, asking(server, "grpc", 1, 10**7) as [request]:
        until(server, "infold_runs", 1)
        assert server.stop() == 1
        assert isinstance(request.exception(timeout=60), InferenceServerException)


def test_who_hangs_up_takes_nothing_along(slow: Path):
    with serving.served(slow, "--max-queue", 2) as server:
        for _ in range(8):
            connection = socket.create_connection(("127.0.0.1", int(server.http.split(":")[1])), timeout=60)
            connection.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            connection.close()
        np.testing.assert_array_equal(serving.ask(server, server.client("http"), feeds(3))["y"], X)


def test_runs_side_by_side(slow: Path):
    """With two runs at a time a short request does not wait for a long one."""
    with serving.served(slow, "--parallel", 2) as server, asking(server, "grpc", 1, LONG) as [long]:
        until(server, "infold_runs", 1)
        np.testing.assert_array_equal(serving.ask(server, server.client("grpc"), feeds(1))["y"], X)
        assert not long.done()
        np.testing.assert_array_equal(long.result(timeout=120), X)


def test_a_run_beyond_the_memory_limit_is_refused(tmp_path: Path):
    net = Net()
    x = net.input(1, 1, 4, 4, dims=("N", 1, "H", "W"))
    y = net("Conv", x, net.weight(64, 1, 3, 3), pads=[1, 1, 1, 1])
    path = tmp_path / "wide.onnx"
    ir.save(net.model(y), path)
    session = infold.InferenceSession(path)
    with serving.served(path, "--max-memory", 16) as server:
        client = server.client("http")
        outputs = serving.ask(server, client, net.feeds)
        np.testing.assert_array_equal(outputs[y], session.run(None, net.feeds)[0])
        with pytest.raises(InferenceServerException, match="16777216") as error:
            serving.ask(server, client, {x: np.zeros((1, 1, 512, 512), np.float32)})
        assert error.value.status() == "400"


def test_a_port_that_is_taken_is_an_error(slow: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for option in ("--port", "--grpc-port"):
            refused = pytest.raises(RuntimeError, match=r"(?s)exit code 2: .*infold: error: ")
            with refused, serving.served(slow, option, taken.getsockname()[1]):
                raise AssertionError("a server on a port that is taken")


def test_no_server_is_left(slow: Path):
    """`served` stops its process also when the test inside fails."""
    seen: list[subprocess.Popen] = []
    with pytest.raises(ZeroDivisionError), serving.served(slow) as server:
        seen.append(server.process)
        1 / 0  # noqa: B018
    assert seen[0].returncode is not None
