"""`import onnxruntime` under `infold exec`."""

from infold.integrations.onnxruntime import *  # noqa: F403
from infold.integrations.onnxruntime import __version__  # noqa: F401

from . import capi  # noqa: F401
