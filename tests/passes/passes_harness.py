"""Small models from ONNX text, run by onnxruntime before and after the passes; float64 NumPy as the oracle."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

from infold import passes
from infold.reference import run_float64
from infold.report.fold import FoldReport

onnxruntime.set_default_logger_severity(4)


def model(text: str, constants: Mapping[str, np.ndarray] | None = None, *, opset: int = 17, ir_version: int = 8) -> ir.Model:
    """A model from a graph in ONNX's text form; `constants` become its initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}]> {text}')
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()
    )
    return ir.from_proto(proto)


def inferred(text: str, constants: Mapping[str, np.ndarray]) -> ir.Model:
    """As `model`, with those of the constants that the text names, and the shapes that ONNX infers."""
    used = set(re.findall(r"[\w-]+", text))
    proto = ir.to_proto(model(text, {name: array for name, array in constants.items() if name in used}))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def run(subject: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Check that the model is legal and run it in onnxruntime, whose own optimiser is off."""
    proto = ir.to_proto(subject)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, dict(feeds))))


def fold(subject: ir.Model, rule: Callable = passes.fold) -> tuple[ir.Model, FoldReport]:
    """Fold, and see that the argument is as it was."""
    before = ir.to_proto(subject).SerializeToString(deterministic=True)
    result, report = rule(subject)
    assert ir.to_proto(subject).SerializeToString(deterministic=True) == before
    assert report.remaining == operators(result)["BatchNormalization"]
    return result, report


def fold_and_compare(
    subject: ir.Model, feeds: Mapping[str, np.ndarray], *, tolerance: float = 2e-6, rule: Callable = passes.fold
) -> tuple[ir.Model, FoldReport]:
    """Fold, run both models, and see that every output agrees, relative to its largest element."""
    result, report = fold(subject, rule)
    expected, actual = run(subject, feeds), run(result, feeds)
    assert list(expected) == list(actual)
    for name, array in expected.items():
        assert_close(actual[name], array, tolerance)
    return result, report


def fold_and_measure(subject: ir.Model, feeds: Mapping[str, np.ndarray], tolerance: float = 2e-6) -> tuple[ir.Model, FoldReport]:
    """Fold, and compare every output with the unfolded graph in float64."""
    result, report = fold(subject)
    actual, exact = run(result, feeds), run_float64(subject, feeds)
    for name in actual:
        assert_close(actual[name], exact[name], tolerance)
    return result, report


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 0, "an output of zeros proves nothing"
    error = np.abs(actual.astype(np.float64) - expected).max() / np.abs(expected.astype(np.float64)).max()
    assert error <= tolerance, f"relative error {error:.1e}"


def operators(subject: ir.Model) -> Counter[str]:
    """How many nodes of each type the model has, subgraphs included, functions with their domain."""
    return Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in ir.traversal.RecursiveGraphIterator(subject.graph)
    )


def constant(subject: ir.Model, name: str) -> np.ndarray:
    return subject.graph.initializers[name].const_value.numpy()


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def statistics(rng: np.random.Generator, channels: int, prefix: str = "") -> dict[str, np.ndarray]:
    """Scale, bias, mean and variance of a BatchNormalization, of mixed signs and sizes."""
    return {
        f"{prefix}scale": normal(rng, channels),
        f"{prefix}bias": normal(rng, channels),
        f"{prefix}mean": normal(rng, channels),
        f"{prefix}var": rng.uniform(0.01, 4, channels).astype(np.float32),
    }


def batchnorm(x: np.ndarray, parameters: Mapping[str, np.ndarray], epsilon: float = 1e-5, prefix: str = "") -> np.ndarray:
    """BatchNormalization in inference, float64, channels on axis 1."""
    scale, bias, mean, var = (
        parameters[prefix + name].astype(np.float64).reshape(-1, *(1,) * (x.ndim - 2)) for name in ("scale", "bias", "mean", "var")
    )
    return (x.astype(np.float64) - mean) / np.sqrt(var + np.float64(np.float32(epsilon))) * scale + bias


def conv(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, group: int = 1, strides=None, dilations=None, pads=None
) -> np.ndarray:
    """Conv of any rank in float64: x [N, C, ...], weight [M, C/group, k...], pads begins then ends."""
    rank = weight.ndim - 2
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:])])
    spans = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations)]
    windows = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    windows = windows[
        (slice(None), slice(None), *(slice(None, None, step) for step in strides), *(slice(None, None, step) for step in dilations))
    ]
    out, kernel = "defg"[:rank], "uvw"[:rank]
    parts = [
        np.einsum(f"nc{out}{kernel},mc{kernel}->nm{out}", part, block.astype(np.float64))
        for part, block in zip(np.split(windows, group, axis=1), np.split(weight, group))
    ]
    y = np.concatenate(parts, axis=1)
    return y if bias is None else y + bias.astype(np.float64).reshape(-1, *(1,) * rank)


def conv_transpose(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, group: int = 1, strides=None
) -> np.ndarray:
    """ConvTranspose without padding: a convolution of the zero-stuffed input. weight [C, M/group, k...]."""
    rank = weight.ndim - 2
    strides = strides or [1] * rank
    stuffed = np.zeros((*x.shape[:2], *((size - 1) * step + 1 for size, step in zip(x.shape[2:], strides))))
    stuffed[(slice(None), slice(None), *(slice(None, None, step) for step in strides))] = x
    flipped = np.flip(weight, axis=tuple(range(2, 2 + rank)))
    blocks = [np.swapaxes(block, 0, 1) for block in np.split(flipped, group)]
    return conv(stuffed, np.concatenate(blocks), bias, group=group, pads=[size - 1 for size in weight.shape[2:]] * 2)
