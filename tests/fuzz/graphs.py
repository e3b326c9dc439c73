"""The harness of the runtime: ONNX models whose fields, constants and wiring change; what still loads is run and compared.

A result is right if it is near onnxruntime's, the float64 run's or that of onnx.reference in the model's own types: where a mutant
makes numbers explode (a LayerNorm of 1e29 overflows in float32, not in onnxruntime's float64) or a rounding decides, they differ.
"""

from __future__ import annotations

import random
from functools import cache
from math import prod

import mutate
import numpy as np
import onnx
from campaign import Harness
from onnx import numpy_helper
from random_networks import random_network

import infold
from infold.ops import base, composed
from infold.reference import run_float64

LARGEST = 4000  # bytes of a seed
ELEMENTS = 200_000  # of an input that is made
TOLERANCE = 1e-3  # relative to the largest finite element; the harness looks for wrong results, not for rounding
MEMORY = 1 << 26  # the fallback is slow
WITHOUT_EXAMPLE = (  # in onnx's tests
    "net (float[1, 2, 5, 6] x, float[2, 5] r) => (float[2, 2, 2, 2] y) { y = MaxRoiPool <pooled_shape = [2, 2]> (x, r) }",
    "net (float[1, 2, 5, 6] x) => (float[1, 2, 1, 1] y) { y = GlobalLpPool <p = 3> (x) }",
)


@cache
def native() -> list[str]:
    """The operators that have kernels, or are composed of such as have."""
    base.register_all()
    return sorted({name for domain, name in base._OPS if domain == ""} | composed.names())


@cache
def small_models() -> list[tuple[onnx.ModelProto, list[np.ndarray]]]:
    """onnx's own test of each operator that runs natively, once for each form, and random networks; with inputs."""
    from onnx.backend.test.case.node import collect_testcases

    found, wanted = [], set(native())
    with np.errstate(all="ignore"):
        cases = collect_testcases(None)
    for case in cases:
        inputs = [np.asarray(a) if isinstance(a, np.generic) else a for a in case.data_sets[0][0]]
        graph = case.model.graph
        if len(graph.node) <= 3 and wanted & {n.op_type for n in graph.node} and all(isinstance(a, np.ndarray) for a in inputs):
            found.append((_with_constants(case.model, inputs), inputs))
    found = [(m, inputs) for m, inputs in found if m.ByteSize() <= LARGEST]
    for text in WITHOUT_EXAMPLE:
        model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + text)
        shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input]
        found.append((model, [np.ones(shape, np.float32) for shape in shapes]))
    for seed in range(60):
        model, feeds = random_network(random.Random(seed), nodes=2 + seed % 9)
        found.append((model, list(feeds.values())))
    return found


def _with_constants(model: onnx.ModelProto, inputs: list[np.ndarray]) -> onnx.ModelProto:
    """Integer inputs, which mostly decide shapes, become initializers (of the same name) where the operator also has others."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    floats = [a.dtype.kind == "f" for a in inputs]
    for value, array in zip(list(model.graph.input), inputs):
        if any(floats) and array.dtype == np.int64 and array.size <= 64:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
            model.graph.input.remove(value)
    return model


class Graphs(Harness):
    name = "graphs"

    def prepare(self) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        self.seeds = [m.SerializeToString() for m, _ in small_models()]

    def mutant(self, rng: random.Random) -> onnx.ModelProto:
        model = onnx.ModelProto.FromString(rng.choice(self.seeds))
        for _ in range(rng.choice((1, 1, 2, 3))):
            change = rng.choice((mutate.message, _rewire, _constant, _constant, _operator, _attribute, _attribute, _dimension))
            change(rng, model)
        return model

    def trial(self, rng, second_opinion):
        model = self.mutant(rng)
        options = infold.SessionOptions(intra_op_num_threads=rng.choice((1, 1, 1, 2)), max_memory=MEMORY, training_mode="batch")
        session = infold.InferenceSession(model, options)
        feeds = inputs_for(session, rng)
        if feeds is None:
            return "loaded", ""
        outputs = session.run(None, feeds)
        again = session.run(None, feeds)
        random_ops = any(node.op_type.startswith(("Random", "Bernoulli", "Multinomial", "Dropout")) for node in model.graph.node)
        if not random_ops and any(not _same_bits(a, b) for a, b in zip(outputs, again)):
            return "differs", "two runs of one session differ"
        second_opinion()
        return compare(model, feeds, outputs) if not random_ops else ("ran without a second opinion", "")


def compare(model: onnx.ModelProto, feeds: dict, outputs: list) -> tuple[str, str]:
    opinions = []
    for opinion in (_onnxruntime, _float64, _reference):
        try:
            expected = opinion(model, feeds)
        except Exception as error:  # of any type: the mutant may be anything
            opinions.append(f"{opinion.__name__}: {str(error)[:200]}")
            continue
        why = next(filter(None, (_deviation(a, b) for a, b in zip(outputs, expected))), None)
        if why is None:  # with what is mostly zero or constant, everybody agrees easily
            return "ran equal" if any(map(_telling, expected)) else "ran without a second opinion", ""
        opinions.append(f"{opinion.__name__}: {why}")
    wrong = [o for o in opinions[:2] if "deviates" in o]  # the third makes the mistakes of the second
    return ("differs", "; ".join(opinions)) if len(wrong) == 2 else ("ran without a second opinion", "; ".join(opinions))


def _onnxruntime(model: onnx.ModelProto, feeds: dict) -> list:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def _float64(model: onnx.ModelProto, feeds: dict) -> list:
    found = run_float64(infold.load(model), feeds)
    return [found[o.name] for o in model.graph.output]


def _reference(model: onnx.ModelProto, feeds: dict) -> list:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, feeds)


def _same_bits(a: object, b: object) -> bool:
    return not isinstance(a, np.ndarray) or (a.shape == b.shape and a.tobytes() == b.tobytes())


def _telling(value: object) -> bool:
    """Whether an array is neither constant nor mostly zeros."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or 2 * np.count_nonzero(value) <= value.size:
        return False
    return value.size == 1 or bool((value != value.flat[0]).any())


def _deviation(found: object, expected: object) -> str | None:
    if not (isinstance(found, np.ndarray) and isinstance(expected, np.ndarray)) or found.dtype.kind not in "fiub":
        return None
    if found.shape != expected.shape:
        return f"deviates: shape {found.shape}, not {expected.shape}"
    with np.errstate(all="ignore"):
        a, b = found.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(b) & (np.abs(b) < 1e30)
        if not finite.any():
            return None
        top, error = np.abs(b[finite]).max(), np.abs(a - b)[finite].max()
    return None if error <= TOLERANCE * max(top, 1e-3) else f"deviates by {error:.3g} of {top:.3g}"


def inputs_for(session: infold.InferenceSession, rng: random.Random) -> dict[str, np.ndarray] | None:
    """Random inputs of the declared types and shapes, open dimensions small; None if they would be too large or strange."""
    numbers, sizes, feeds = np.random.default_rng(rng.randrange(1 << 32)), {}, {}
    for value in session.get_inputs():
        shape = [d if isinstance(d, int) else sizes.setdefault(d or (value.name, i), rng.choice((1, 2, 3, 5, 8)))
                 for i, d in enumerate(value.shape)]
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        kind = {"float": "float32", "double": "float64"}.get(kind, kind)
        if prod(shape) > ELEMENTS or kind not in ("float32", "float64", "float16", "int64", "int32", "uint8", "int8", "bool"):
            return None
        top = 2 if kind == "bool" else 4
        values = numbers.standard_normal(shape) if kind.startswith("float") else numbers.integers(0, top, shape)
        feeds[value.name] = values.astype(kind)
    return feeds


def _rewire(rng: random.Random, model: onnx.ModelProto) -> None:
    """A node reads another value than it did."""
    graph = model.graph
    names = [v.name for v in graph.input] + [t.name for t in graph.initializer] + [o for n in graph.node for o in n.output] + [""]
    nodes = [n for n in graph.node if n.input]
    if nodes:
        node = rng.choice(nodes)
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _constant(rng: random.Random, model: onnx.ModelProto) -> None:
    """Elements of an initializer change, or its shape, or its type."""
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    try:
        array = numpy_helper.to_array(tensor).copy()
    except (TypeError, ValueError, KeyError):
        return
    if array.dtype.kind not in "fiu":
        return
    kind = rng.randrange(6)
    if kind == 0 and array.ndim:
        axis = rng.randrange(array.ndim)
        array = np.concatenate([array, array], axis) if rng.random() < 0.5 else array.take(range(array.shape[axis] // 2), axis)
    elif kind == 1:
        array = array.reshape(rng.choice(((-1,), (1, *array.shape), array.shape[::-1], (*array.shape, 1))))
    elif kind == 2 and rng.random() < 0.3:
        with np.errstate(all="ignore"):
            array = array.astype(rng.choice((np.float32, np.float64, np.int64, np.int32, np.float16)))
    elif array.size:
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(array.size)
            if array.dtype.kind == "f":
                array.flat[at] = np.float64(rng.choice(mutate.FLOATS)).astype(array.dtype)
            else:
                info = np.iinfo(array.dtype)
                array.flat[at] = max(info.min, min(info.max, mutate.integer(rng, int(array.flat[at]))))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _operator(rng: random.Random, model: onnx.ModelProto) -> None:
    """A node becomes another operator, or the model another opset."""
    if rng.random() < 0.4 and model.opset_import:
        model.opset_import[0].version = rng.randint(1, onnx.defs.onnx_opset_version())
        return
    node = rng.choice(model.graph.node) if model.graph.node else None
    if node is not None:
        node.op_type = rng.choice(native())


def _attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    """An attribute that the operator has, set or not, gets an edge case as its value."""
    nodes = [n for n in model.graph.node if onnx.defs.has(n.op_type, n.domain)]
    if not nodes:
        return
    node = rng.choice(nodes)
    known = onnx.defs.get_schema(node.op_type, node.domain).attributes
    if not known:
        return
    name = rng.choice(sorted(known))
    old = next((a for a in node.attribute if a.name == name), None)
    kind = known[name].type.name
    if kind == "INT":
        value = mutate.integer(rng, old.i if old is not None else 0)
    elif kind == "FLOAT":
        value = float(np.float64(rng.choice(mutate.FLOATS)).astype(np.float32))
    elif kind == "INTS":
        value = list(old.ints) if old is not None and old.ints else [1] * rng.choice((1, 2, 3, 4))
        if rng.random() < 0.7:
            value[rng.randrange(len(value))] = mutate.integer(rng, value[0])
        else:
            value = [*value, 1] if rng.random() < 0.5 else value[:-1]
    elif kind == "STRING":
        value = rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "linear", "nearest", "cubic", "edge", "reflect",
                            "wrap", "constant",
                            "CRD", "DCR", "tanh", "asymmetric", "align_corners", "half_pixel", "floor", "ceil", "", "none"))
    else:
        return
    if old is not None:
        node.attribute.remove(old)
    if value != []:
        node.attribute.append(onnx.helper.make_attribute(name, value))


def _dimension(rng: random.Random, model: onnx.ModelProto) -> None:
    """An input is declared with another dimension, another rank or another type."""
    if not model.graph.input:
        return
    tensor = rng.choice(model.graph.input).type.tensor_type
    dims = tensor.shape.dim
    kind = rng.randrange(8)
    if kind == 0:
        tensor.elem_type = rng.choice((1, 1, 6, 7, 9, 10, 11, 2, 3))
    elif kind == 1:
        dims.add(dim_value=rng.choice((1, 2, 3)))
    elif dims:
        at = rng.randrange(len(dims))
        if kind == 2:
            del dims[at]
        elif kind == 3:
            dims[at].dim_param = rng.choice("nhw")
        else:
            dims[at].dim_value = mutate.integer(rng, dims[at].dim_value) if rng.random() < 0.5 else rng.randrange(9)


def harnesses() -> list[Harness]:
    return [Graphs()]
