"""Elementwise operators: erf in full precision, and the explicit broadcasting of opsets before 7."""

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import load_op


class Erf(OpRun):
    """The error function; onnx.reference rounds it to float32 even for float64 input."""

    _erf = staticmethod(np.frompyfunc(math.erf, 1, 1))

    def _run(self, x):
        return (self._erf(x).astype(x.dtype) if x.ndim else np.array(math.erf(x), x.dtype),)


def _with_old_broadcasting(name: str) -> type[OpRun]:
    """Extend onnx.reference's operator by the attributes `broadcast` and `axis` that it had before opset 7.

    The second input's dimensions then line up with the first's from `axis` on (default: the last ones).
    """
    base = load_op("", name)

    def run(self, x, y):
        if self.run_params["opsets"][""] < 7 and getattr(self, "broadcast", 0):
            axis = getattr(self, "axis", None)
            axis = x.ndim - y.ndim if axis is None else axis + x.ndim * (axis < 0)
            y = y.reshape(y.shape + (1,) * (x.ndim - axis - y.ndim))
        return base.run(self, x, y)

    return type(name, (base,), {"run": run, "__doc__": f"{name}, with the explicit broadcasting of opsets before 7."})


BROADCASTING = [
    _with_old_broadcasting(name) for name in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
]
