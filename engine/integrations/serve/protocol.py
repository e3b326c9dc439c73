"""What stands between the network and the model: limits, exact decoding, and a clear refusal of everything that makes no sense."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from kserve import InferInput, InferRequest, InferResponse
from kserve.constants.constants import INFERENCE_CONTENT_LENGTH_HEADER
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.v2_datamodels import InferenceRequest, RequestInput
from pydantic import ValidationError
from starlette.exceptions import HTTPException

import infold

from ...errors import Error, NativeError
from .batching import OverloadedError

LOG = logging.getLogger("infold.serve")
STATUS = {  # exception -> HTTP's and gRPC's status; the first that fits counts, and what is not here is a fault of the server
    NativeError: (500, grpc.StatusCode.INTERNAL),
    OverloadedError: (503, grpc.StatusCode.UNAVAILABLE),
    Error: (400, grpc.StatusCode.INVALID_ARGUMENT),  # of a run: the inputs were taken, but the model cannot compute with them
    InvalidInput: (400, grpc.StatusCode.INVALID_ARGUMENT),
    RequestValidationError: (400, grpc.StatusCode.INVALID_ARGUMENT),
    ModelNotFound: (404, grpc.StatusCode.NOT_FOUND),
    NotImplementedError: (404, grpc.StatusCode.NOT_FOUND),  # KServe's answer to a version
    PermissionError: (403, grpc.StatusCode.PERMISSION_DENIED),
}


def refusal(error: Exception) -> tuple[int, grpc.StatusCode, str]:
    """The statuses of HTTP and gRPC for an exception, and what to say of it."""
    for kind, (http, code) in STATUS.items():
        if isinstance(error, kind):
            return http, code, _text(error)
    if isinstance(error, HTTPException):
        return error.status_code, grpc.StatusCode.UNKNOWN, str(error.detail)
    return 500, grpc.StatusCode.INTERNAL, "internal error"


def _text(error: Exception) -> str:
    if isinstance(error, (RequestValidationError, ValidationError)):  # without the input, which may be large, or no JSON
        return "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:3])
    return str(error)


class Data(DataPlane):
    """KServe's way from requests to models, with the binary extension decoded without a copy, and every size in it checked."""

    def metadata(self) -> dict[str, Any]:
        return {"name": "infold", "version": infold.__version__, "extensions": ["binary_tensor_data"]}

    def decode_inference_request(self, body: bytes | InferenceRequest, headers: dict, model_name: str) -> InferRequest:
        """Raises InvalidInput if the request's parts do not go together."""
        if isinstance(body, InferenceRequest):
            return super().decode_inference_request(body, headers, model_name)
        length = headers.get(INFERENCE_CONTENT_LENGTH_HEADER, str(len(body)))  # without it, all is JSON
        at = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else -1
        if not 0 <= at <= len(body):
            raise InvalidInput(f"{INFERENCE_CONTENT_LENGTH_HEADER} is no length of JSON in {len(body)} bytes: {length[:20]!r}")
        try:
            head = _Head.model_validate_json(body[:at])
        except ValidationError as error:
            raise InvalidInput(_text(error)) from error
        inputs = []
        for tensor in head.inputs:
            inputs.append(InferInput(tensor.name, tensor.shape, tensor.datatype, tensor.data, tensor.parameters or {}))
            if tensor.data is None:
                size = (tensor.parameters or {}).get("binary_data_size")
                if type(size) is not int or not 0 <= size <= len(body) - at:
                    raise InvalidInput(f"input {tensor.name!r}: no data, and binary_data_size {size!r} of {len(body) - at} bytes")
                inputs[-1]._raw_data = memoryview(body)[at:at + size]
                at += size
        if at != len(body):
            raise InvalidInput(f"{len(body) - at} bytes are left behind the last input")
        wanted = [RequestedOutput(output.name, output.parameters or {}) for output in head.outputs or []]
        return InferRequest(model_name, inputs, head.id, parameters=head.parameters, request_outputs=wanted or None)

    def encode(self, model_name: str, response: InferResponse, headers: object, req_attributes: object) -> tuple[Any, dict]:
        body, json_length = response.to_rest()
        return body, {} if json_length is None else {INFERENCE_CONTENT_LENGTH_HEADER: str(json_length)}


class _Tensor(RequestInput):
    data: list | None = None


class _Head(InferenceRequest):
    inputs: list[_Tensor]


class FixedModels(ModelRepositoryExtension):
    """Refuses to load and unload models: what is served is decided where the server is started."""

    async def load(self, model_name: str) -> NoReturn:
        raise PermissionError("the models of this server are fixed")

    unload = load


class Interceptor(AsyncExceptionToStatusInterceptor):
    """gRPC's side of `refusal`; a version is refused as REST does."""

    async def intercept(self, method: Callable[..., Awaitable], request: Any, context: grpc.aio.ServicerContext, name: str) -> Any:
        async def versionless(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if getattr(request, "version", "") or getattr(request, "model_version", ""):
                raise NotImplementedError("Model versioning not supported yet.")
            return await method(request, context)

        return await super().intercept(versionless, request, context, name)

    async def handle_exception(self, ex: Exception, request: Any, context: grpc.aio.ServicerContext, name: str) -> NoReturn:
        http, code, text = refusal(ex)
        if http == 500:
            LOG.exception("%s failed", name, exc_info=ex)
        await context.abort(code, text)


class BodyLimit:
    """ASGI middleware: a body of more than `limit` bytes is refused, by what it says of its length or while it comes."""

    def __init__(self, app: Callable, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claimed = int(Request(scope).headers.get("content-length", "0"))  # HTTP servers check that it is a number
        received = 0

        async def limited() -> dict:
            nonlocal received
            message = await receive() if claimed <= self._limit else {}
            received += len(message.get("body", b""))
            if max(received, claimed) > self._limit:
                raise HTTPException(413, f"a request of more than {self._limit} bytes")
            return message

        await self._app(scope, limited, send)


def refuse_clearly(app: FastAPI) -> None:
    """REST's side of `refusal`: JSON with an `error`, as the protocol has it."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        status, _, text = refusal(error)
        return JSONResponse({"error": text}, status)

    for kind in (*STATUS, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
