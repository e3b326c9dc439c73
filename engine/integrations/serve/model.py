"""A session as one of KServe's models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import numpy as np
from kserve import InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from kserve.utils.utils import generate_uuid
from prometheus_client import Gauge

from ...errors import UnsupportedError
from ...preprocess import Preprocess
from .batching import Batcher
from .tensors import array_of, described, tensor_of, text_of

GAUGES = {name: Gauge(f"infold_{name}", text, ["model_name"]) for name, text in (
    ("waiting", "requests in the queue"), ("requests", "requests taken from the queue"), ("runs", "runs they were computed in"))}


class ServedModel(Model):
    """Turns requests into runs of a session, and their results into responses; KServe times the three steps for its metrics.

    Args:
        name: the model's, in requests.
        batcher: what runs them.
        pictures: makes the model's one input of encoded pictures, which requests then hold as BYTES [N].
    Raises: UnsupportedError if the protocol has no type for an input or output, or pictures have no one input to go to.
    """

    def __init__(self, name: str, batcher: Batcher, pictures: Preprocess | None = None) -> None:
        super().__init__(name)
        session = batcher.session
        self._batcher = batcher
        self._inputs = [described(port) for port in session.inputs.values()]
        self._pictures, self._decoding = pictures, 0
        if pictures is not None:
            if len(self._inputs) != 1:
                raise UnsupportedError(f"preprocessing is for models of one input, not {len(self._inputs)}")
            self._inputs[0] |= {"datatype": "BYTES", "shape": self._inputs[0]["shape"][:1]}
        self._outputs = [described(port) for port in session.outputs.values()]
        for attribute, gauge in GAUGES.items():
            gauge.labels(name).set_function(partial(getattr, batcher, attribute))
        self.ready = True

    def get_input_types(self) -> list[dict]:
        return self._inputs

    def get_output_types(self) -> list[dict]:
        return self._outputs

    async def preprocess(self, payload: InferRequest,
                         headers: object = None) -> tuple[InferRequest, dict[str, np.ndarray], list[str]]:
        """The arrays of a request, and the names of the outputs that it asks for. Raises InvalidInput."""
        feeds: dict[str, np.ndarray] = {}
        for tensor in payload.inputs:
            if tensor.name in feeds:
                raise InvalidInput(f"the input {tensor.name!r} is there twice")
            feeds[tensor.name] = array_of(tensor)
            if tensor.datatype == "BYTES":
                feeds[tensor.name] = await self._read(tensor.name, feeds[tensor.name])
        known = [output["name"] for output in self._outputs]
        wanted = list(dict.fromkeys(output.name for output in payload.request_outputs or [])) or known
        if unknown := set(wanted) - set(known):
            raise InvalidInput(f"no output named {sorted(unknown)[0]!r}; the model has {', '.join(known)}")
        return payload, feeds, wanted

    async def _read(self, name: str, array: np.ndarray) -> np.ndarray:
        if self._pictures is None:
            return text_of(name, array)
        encoded = array.reshape(-1).tolist()
        if not all(isinstance(one, bytes) for one in encoded):
            raise InvalidInput(f"input {name!r}: pictures travel as bytes, not in JSON")
        self._batcher.refuse_more(self._decoding)
        self._decoding += 1
        try:
            return await asyncio.to_thread(self._pictures, encoded)
        finally:
            self._decoding -= 1

    async def predict(self, payload: tuple, headers: object = None, response_headers: object = None) -> tuple:
        """The outputs asked for, computed. Raises: as `Batcher.run`."""
        request, feeds, wanted = payload
        results = await self._batcher.run(feeds)
        return request, {name: results[name] for name in wanted}

    async def postprocess(self, result: tuple[InferRequest, Mapping[str, np.ndarray]], headers: object = None,
                          response_headers: object = None) -> InferResponse:
        request, outputs = result
        return InferResponse(
            request.id or generate_uuid(), self.name,
            [tensor_of(name, array, raw=request.from_grpc) for name, array in outputs.items()],
            use_binary_outputs=request.use_binary_outputs, requested_outputs=request.request_outputs)
