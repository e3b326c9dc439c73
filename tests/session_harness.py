"""Small models built value by value, run by infold's session and compared with the float64 run."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnx_ir as ir

import infold
from infold.reference import run_float64

LATEST = 22  # opset of models that do not ask for another


class Net:
    """A model under construction; values are known by name. Constants and feeds come from one seeded generator."""

    def __init__(self, seed: int = 0, opset: int = LATEST) -> None:
        self.rng, self.opset = np.random.default_rng(seed), opset
        self.feeds: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple] = {}
        self.initializers: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def input(self, *shape: int, dims: tuple | None = None) -> str:
        """A float32 graph input fed with normal numbers; `dims`: the shape that is declared, names for open dimensions."""
        return self.feed(self.rng.standard_normal(shape).astype(np.float32), dims)

    def feed(self, array: np.ndarray, dims: tuple | None = None) -> str:
        name = self.name()
        self.feeds[name], self.shapes[name] = array, array.shape if dims is None else dims
        return name

    def constant(self, array: np.ndarray) -> str:
        name = self.name()
        self.initializers[name] = np.asarray(array)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        """A weight (filters first) scaled so that activations keep their size."""
        return self.constant((self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    def normal(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.3, 2, shape).astype(np.float32))

    def __call__(self, op_type: str, *inputs: str | None, outputs: int = 1, domain: str = "", **attributes):
        """Add a node; returns its output's name, or a list of them."""
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(onnx.helper.make_node(op_type, [i or "" for i in inputs], names, domain=domain,
                                                **{k: v for k, v in attributes.items() if v is not None}))
        return names[0] if outputs == 1 else names

    def model(self, *outputs: str, types: Mapping[str, int] | None = None) -> ir.Model:
        proto = onnx.helper.make_model(
            onnx.helper.make_graph(
                self.nodes, "net",
                [onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), self.shapes[n])
                 for n, a in self.feeds.items()],
                [onnx.helper.make_tensor_value_info(n, (types or {}).get(n, onnx.TensorProto.FLOAT), None) for n in outputs],
                [onnx.numpy_helper.from_array(a, n) for n, a in self.initializers.items()]),
            opset_imports=[onnx.helper.make_opsetid("", self.opset)], ir_version=8 if self.opset < 20 else 10)
        return ir.from_proto(proto)


def session(model: ir.Model, threads: int = 1, **options) -> infold.InferenceSession:
    return infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=threads,
                                                                **{"training_mode": "batch", **options}))


def check(net: Net, *outputs: str, native: bool = True, tolerance: float = 3e-6, types=None,
          trivial: bool = False) -> infold.InferenceSession:
    """Run the net with one and two threads, which must agree bit for bit, and compare with float64, relative to max|reference|.

    A run on NaN in between must leave no trace in memory that is used again. `native`: no node may run in the fallback.
    `trivial`: the reference may be constant or empty.
    """
    model = net.model(*outputs, types=types)
    expected = run_float64(model, net.feeds)
    subject = session(model)
    found = subject.run(list(outputs), net.feeds)
    for name, value in zip(outputs, found):
        compare(value, expected[name], tolerance, trivial)
    if native:
        assert not subject.report.fallbacks, subject.report.fallbacks
    poison = {n: np.full_like(a, np.nan) if a.dtype.kind == "f" else a for n, a in net.feeds.items()}
    subject.run(None, poison)
    again, two = subject.run(list(outputs), net.feeds), session(model, threads=2).run(list(outputs), net.feeds)
    for first, second, third in zip(found, again, two):
        np.testing.assert_array_equal(first, second, "a second run differs")
        np.testing.assert_array_equal(first, third, "two threads differ from one")
    return subject


def compare(found: np.ndarray, expected: np.ndarray, tolerance: float, trivial: bool = False) -> None:
    assert found.shape == expected.shape, f"shape {found.shape}, not {expected.shape}"
    if expected.dtype != np.float64 or found.dtype == np.float64:
        np.testing.assert_array_equal(found, expected)
        return
    assert found.dtype == np.float32
    if not trivial:
        assert expected.size and np.ptp(expected) > 1e-3 * np.abs(expected).max(), "a constant reference proves nothing"
    if expected.size:
        error, top = np.abs(found.astype(np.float64) - expected).max(), np.abs(expected).max()
        assert error <= tolerance * top, f"relative error {error / top:.2e}"


def together(*tasks: Callable[[], object]) -> None:
    """Run each in a thread of its own, all at once; the first exception in one is raised here."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        running = [pool.submit(task) for task in tasks]
    for future in running:
        future.result()


def native_function(net: Net, name: str, *inputs: str | None, threads: int = 1, **attributes) -> np.ndarray:
    """Run a function of infold's own as a native step. Its body plays no part: of another operator set than the model, it is not
    inlined."""
    y = net(name, *inputs, domain="infold", **attributes)
    model = net.model(y)
    body = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    formal = [f"i{i}" if i else "x" for i in range(len(inputs))]
    other = [onnx.helper.make_opsetid("", net.opset - 1)]
    function = onnx.helper.make_function("infold", name, formal, ["y"], body, other, list(attributes))
    model.functions["infold", name, ""] = ir.from_proto(function)
    model.opset_imports["infold"] = 1
    subject = session(model, threads)
    found = subject.run(None, net.feeds)[0]
    assert not subject.report.fallbacks, subject.report.fallbacks
    return found
