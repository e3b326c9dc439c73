"""Every exception a user of infold can see. All derive from `Error`; messages name the node, the tensor and the expectation."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Error(Exception):
    """Base of all errors that infold raises on purpose."""


class InvalidModelError(Error):
    """The input is not a legal model: unreadable, truncated, or its graph breaks the ONNX rules."""


class ExternalDataError(InvalidModelError):
    """External tensor data is missing, too short, or outside the model's folder."""


class UnsupportedError(Error):
    """A legal model asks for something infold cannot do (data type, operator form, or a fallback under `native_only`)."""


class InvalidInputError(Error, ValueError):
    """Inputs given to `run` do not fit the model: name, data type, rank or dimension."""


class ShapeError(InvalidModelError):
    """The shapes inside a model contradict each other for the given inputs."""


class MemoryLimitError(Error, MemoryError):
    """A plan would exceed `SessionOptions.max_memory`, or the system has no memory left."""


def root_cause(error: BaseException) -> BaseException:
    """The error at the beginning of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """The first line of what an error of another library says, at most 300 characters of it; its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Any MemoryError inside becomes a MemoryLimitError that says what there was no memory for."""
    try:
        yield
    except MemoryLimitError:
        raise
    except MemoryError as error:
        raise MemoryLimitError(f"no memory for {what}: {error}") from error


class NativeError(Error, RuntimeError):
    """A native kernel refused its arguments; this is a bug in infold's planner, never in the user's model."""


class MissingDependencyError(Error, ImportError):
    """An optional package is needed for what was asked; the message names the extra to install."""
