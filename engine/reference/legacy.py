"""Forms that operators had in old opsets and that onnx.reference, which knows the newest, gets wrong or refuses."""

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import load_op


def _over_two_dimensions(name: str) -> type[OpRun]:
    """Softmax, LogSoftmax and Hardmax before opset 13: over all dimensions from `axis` (default 1) on, taken as one."""
    base = load_op("", name)

    def run(self, x):
        if self.run_params["opsets"][""] >= 13:
            return base.run(self, x)
        explicit = next((attribute.i for attribute in self.onnx_node.attribute if attribute.name == "axis"), 1)
        axis = explicit + x.ndim * (explicit < 0)
        self.axis = 1
        flat = base._run(self, x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))[0]
        return (flat.reshape(x.shape),)

    return type(name, (base,), {"run": run, "__doc__": f"{name}, in its form before opset 13 as well."})


SOFTMAX = [_over_two_dimensions(name) for name in ("Softmax", "LogSoftmax", "Hardmax")]


class Dropout(OpRun):
    """Identity unless training is asked for (the input `training_mode`, or `is_test` = 0 before opset 7)."""

    def _run(self, x, ratio=None, training_mode=None, seed=None, is_test=None, consumed_inputs=None):
        opset = self.run_params["opsets"][""]
        training = bool(training_mode) if opset >= 12 else opset < 7 and not is_test
        if ratio is None:
            ratio = 0.5
        if not training or float(ratio) == 0:
            return (x, np.ones(x.shape, bool))[: max(len(self.onnx_node.output), 1)]
        keep = np.random.RandomState(seed).uniform(0, 1, x.shape) >= float(ratio)  # the generator of ONNX's own tests
        return ((x * keep / (1 - float(ratio))).astype(x.dtype), keep)[: len(self.onnx_node.output)]


class GridSample(load_op("", "GridSample")):
    """GridSample; from opset 16 to 19 its modes are called bilinear and bicubic."""

    def _run(self, x, grid, mode=None, **attributes):
        return super()._run(x, grid, mode=mode.removeprefix("bi"), **attributes)


class Reshape(OpRun):
    """Reshape; `shape` is an attribute before opset 5. 0 copies the input's dimension unless `allowzero`."""

    def _run(self, x, shape=None, allowzero=None, consumed_inputs=None):
        target = [int(dim) for dim in shape]
        if not allowzero:
            target = [x.shape[axis] if dim == 0 else dim for axis, dim in enumerate(target)]
        return (x.reshape(target),)


class Pad(OpRun):
    """Pad by attributes (`paddings`, `pads`, `value`) or inputs; constant, reflect, edge or wrap; negative crops."""

    def _run(self, x, pads=None, value=None, axes=None, mode=None, paddings=None):
        pads = [int(pad) for pad in (pads if pads is not None else paddings)]
        axes = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
        width = [(0, 0)] * x.ndim
        for axis, before, after in zip(axes, pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True):
            width[axis] = before, after
        x = x[tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, width))]
        width = [(max(before, 0), max(after, 0)) for before, after in width]
        if mode not in (None, "", "constant"):
            return (np.pad(x, width, mode=mode),)
        constant = 0 if value is None or np.size(value) == 0 else np.asarray(value).astype(x.dtype).item()
        return (np.pad(x, width, constant_values=constant),)


class Scatter(load_op("", "ScatterElements")):
    """ScatterElements by its name before opset 11."""

    def _run(self, data, indices, updates, axis=None):
        return super()._run(data, indices, updates, axis=axis or 0)


class Squeeze(OpRun):
    """Squeeze of axes in any order; before opset 13 onnx.reference's takes only increasing ones for what they are."""

    def _run(self, x, axes=None):
        return (np.squeeze(x, None if axes is None else tuple(np.ravel(axes))),)
