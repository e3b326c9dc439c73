"""The server: KServe's endpoints and servicer on uvicorn and grpc.aio.

`kserve.ModelServer` itself listens on all interfaces, has no limit on a request's size, lets anybody unload the model, and answers
some malformed requests as if they were faults of the server; so its parts are put together here.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import uvicorn
from fastapi import FastAPI
from kserve import ModelRepository
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.rest.server import metrics_handler
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints

import infold

from .model import ServedModel
from .protocol import BodyLimit, Data, FixedModels, Interceptor, refuse_clearly


@dataclass(frozen=True)
class Place:
    """Where a server listens, and what it takes.

    Attributes:
        host: the address of the interface.
        port, grpc_port: 0: one that is free. grpc_port None: no gRPC.
        max_request: bytes of a request.
        grace: seconds that requests have to end when the server is stopped.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = 8081
    max_request: int = 64 << 20
    grace: float = 30.0


def serve(model: ServedModel, place: Place, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what has been asked; a second signal ends the process at once.

    Args:
        started: called with the addresses once requests are taken.
    Raises: OSError if a port is not to be had.
    """
    asyncio.run(_serve(model, place, started))


def application(model: ServedModel, max_request: int) -> tuple[FastAPI, InferenceServicer]:
    """The REST application and the gRPC servicer for a model."""
    repository = ModelRepository()
    repository.update(model)
    data, fixed = Data(repository), FixedModels(repository)
    app = FastAPI(title="infold", version=infold.__version__, docs_url=None, redoc_url=None)
    app.add_api_route("/metrics", metrics_handler, methods=["GET"])
    register_v2_endpoints(app, data, fixed)
    refuse_clearly(app)
    app.add_middleware(BodyLimit, limit=max_request)
    return app, InferenceServicer(data, fixed)


class _Rest(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: signals concern gRPC as well."""
        yield


def _listening(host: str, port: int) -> socket.socket:
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    made = socket.socket(family, kind, protocol)  # asyncio sends small packets at once only where the protocol is named
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        made.listen(2048)
    except OSError:
        made.close()
        raise
    return made


async def _serve(model: ServedModel, place: Place, started: Callable[[str], None]) -> None:
    app, servicer = application(model, place.max_request)
    listening = _listening(place.host, place.port)
    host = f"[{place.host}]" if ":" in place.host else place.host
    addresses = f"http://{host}:{listening.getsockname()[1]}"
    rpc = grpc.aio.server(interceptors=[Interceptor()], options=[
        ("grpc.max_receive_message_length", place.max_request), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)])
    if place.grpc_port is not None:
        add_GRPCInferenceServiceServicer_to_server(servicer, rpc)
        try:
            addresses += f" grpc://{host}:{rpc.add_insecure_port(f'{host}:{place.grpc_port}')}"
        except RuntimeError as error:
            listening.close()
            raise OSError(str(error)) from error
    rest = _Rest(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=place.grace))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stopped(number: int) -> None:
        loop.remove_signal_handler(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped, number)
    if place.grpc_port is not None:
        await rpc.start()
    serving = asyncio.create_task(rest.serve([listening]))
    started(addresses)
    await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    rest.should_exit = True
    await asyncio.gather(serving, rpc.stop(place.grace))
