"""The module `onnxruntime`, made of infold: what programs that run models on the CPU take from it.

`infold exec` puts this in the place of the real one. The names and signatures are those of onnxruntime's Python interface; options
that infold has no use for (arenas, logging, graph optimisation levels) are accepted and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace

from .. import api
from ..errors import Error, InvalidInputError, InvalidModelError, UnsupportedError
from ..ports import NodeArg

__all__ = [
    "ExecutionMode",
    "GraphOptimizationLevel",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "RunOptions",
    "SessionOptions",
    "errors",
    "get_all_providers",
    "get_available_providers",
    "get_device",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]

__version__ = "1.20.0"  # the release of onnxruntime whose interface this is

GraphOptimizationLevel = IntEnum(
    "GraphOptimizationLevel", {"ORT_DISABLE_ALL": 0, "ORT_ENABLE_BASIC": 1, "ORT_ENABLE_EXTENDED": 2, "ORT_ENABLE_ALL": 99}
)
ExecutionMode = IntEnum("ExecutionMode", {"ORT_SEQUENTIAL": 0, "ORT_PARALLEL": 1})

# onnxruntime.capi.onnxruntime_pybind11_state: the classes that programs catch
errors = SimpleNamespace(
    Fail=Error,
    RuntimeException=Error,
    InvalidArgument=InvalidInputError,
    InvalidGraph=InvalidModelError,
    InvalidProtobuf=InvalidModelError,
    NoSuchFile=InvalidModelError,
    NotImplemented=UnsupportedError,
)


@dataclass
class SessionOptions(api.SessionOptions):
    """infold's options, and onnxruntime's that are accepted without effect."""

    inter_op_num_threads: int = 0
    graph_optimization_level: int = GraphOptimizationLevel.ORT_ENABLE_ALL
    execution_mode: int = ExecutionMode.ORT_SEQUENTIAL
    enable_cpu_mem_arena: bool = True
    enable_mem_pattern: bool = True
    log_severity_level: int = 2
    log_verbosity_level: int = 0
    logid: str = ""
    config: dict[str, str] = field(default_factory=dict)

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.config[key] = value

    def get_session_config_entry(self, key: str) -> str:
        return self.config[key]

    def register_custom_ops_library(self, path: str) -> None:
        """Refused: custom operators are code for another runtime."""
        raise UnsupportedError(f"{path}: operators of onnxruntime's custom libraries do not run in infold")


@dataclass
class RunOptions:
    """Options of a run; accepted without effect."""

    log_severity_level: int = 2
    log_verbosity_level: int = 0
    logid: str = ""
    terminate: bool = False


@dataclass(frozen=True)
class ModelMetadata:
    """What a model file says of itself."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    version: int
    custom_metadata_map: dict[str, str]


class InferenceSession(api.InferenceSession):
    """`infold.InferenceSession` with onnxruntime's further arguments and questions."""

    def __init__(
        self,
        path_or_bytes: object,
        sess_options: api.SessionOptions | None = None,
        providers: Sequence | None = None,
        provider_options: Sequence[dict] | None = None,
        **ignored: object,
    ) -> None:
        super().__init__(path_or_bytes, sess_options, providers)

    def get_session_options(self) -> api.SessionOptions:
        return self.options

    def get_provider_options(self) -> dict[str, dict]:
        return {name: {} for name in self.get_providers()}

    def get_modelmeta(self) -> ModelMetadata:
        model = self.model
        return ModelMetadata(
            model.producer_name or "",
            model.graph.name or "",
            model.domain or "",
            model.doc_string or "",
            model.model_version or 0,
            dict(model.metadata_props),
        )


def get_available_providers() -> list[str]:
    return ["CPUExecutionProvider"]


get_all_providers = get_available_providers


def get_device() -> str:
    return "CPU"


def set_default_logger_severity(level: int) -> None:
    """Accepted without effect: infold logs nothing."""


def set_default_logger_verbosity(level: int) -> None:
    """Accepted without effect: infold logs nothing."""


def set_seed(seed: int) -> None:
    """Accepted without effect: inference draws no random numbers but those of Random* nodes."""
