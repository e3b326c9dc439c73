"""How close the normalisations come to the speed of memory: every norm at several sizes, beside a memcpy of the same bytes.

    python bench/norms.py [--threads 1 2] [--only layer,group] [--seconds 0.1] [--json out.json]

The bytes of a norm are counted as they must move: the data read once and written once where what shares its statistics fits half
of the second-level cache; else read twice, because nothing can be written before all of it is read. A memcpy is measured in the
same run, on buffers of the same size with the same number of threads (glibc's, on each thread's part), and scaled to these bytes:
"of memcpy" is its time divided by the norm's. Times are the best of many runs, of norm and memcpy in turn, caches as the runs
before leave them, so sizes below the last-level cache are measured there, for norm and memcpy alike.

"arithmetic" is the time of the same call with all its data in the first-level cache: the same loops over rows, blocks and channels,
but the strides from each 8 KB to the next are zero. A norm is "bound" by what takes longer alone, memcpy or arithmetic. Slow
kernels would be no excuse: "of peak" is the time that the vector operations which a norm cannot do without (`must`) would take at
the measured rate of multiply-adds, divided by the time of the arithmetic (a CPU that adds beside them can exceed it).
"""
from __future__ import annotations

import argparse
import ctypes
import json
import threading
import time
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

LAST, FIRST = "channels last", "channels first"
LINE = 16  # floats of a cache line


@dataclass
class Case:
    kind: str
    op: str
    shape: tuple[int, ...]
    layout: str = FIRST
    vectors: int = 2  # inputs with a number per channel (or per element of a row)
    together: int = 0  # elements that share their statistics, and must be read before any is written
    attributes: dict = field(default_factory=dict)
    domain: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.shape))}" + (" " + self.layout if len(self.shape) > 2 else "")


def cases() -> list[Case]:
    out = []
    for rows, length in [(3136, 96), (197, 768), (1024, 2048), (50176, 96), (20000, 768), (8192, 2048)]:
        out.append(Case("layer", "LayerNormalization", (rows, length), together=length))
        out.append(Case("rms", "RMSNormalization", (rows, length), vectors=1, together=length))
        out.append(Case("lp", "LpNormalization", (rows, length), vectors=0, together=length, attributes={"p": 2}))
    for shape in [(1, 64, 56, 56), (1, 2048, 7, 7), (1, 3, 1024, 1024), (1, 64, 224, 224), (1, 256, 224, 224), (8, 32, 256, 256),
                  (64, 3, 224, 224)]:
        for layout in (FIRST, LAST):
            images, channels, pixels = shape[0], shape[1], prod(shape[2:])
            groups = 32 if channels % 32 == 0 else 1
            line = min(channels, LINE) if layout == LAST else 1  # channels that no read can part
            one, some = pixels * line, pixels * max(line, channels // groups)
            out.append(Case("instance", "InstanceNormalization", shape, layout, together=one))
            out.append(Case("group", "GroupNormalization", shape, layout, together=some, attributes={"num_groups": groups}))
            out.append(Case("batch", "BatchNormalization", shape, layout, 4, images * one, {"training_mode": 1}))
            out.append(Case("evo-s0", "EvoNormS0", shape, layout, 3, some, {"groups": groups, "epsilon": 1e-5}, "infold"))
            out.append(Case("evo-b0", "EvoNormB0", shape, layout, 4, one, {"epsilon": 1e-3}, "infold"))
    return out


def model(case: Case) -> ir.Model:
    """The norm, and behind it the largest element: as inside a network, the result goes to memory that was used before. Channels
    last: behind a Transpose, which is a view."""
    rng = np.random.default_rng(0)
    length = case.shape[1]
    vectors = [onnx.numpy_helper.from_array(rng.uniform(0.5, 1.5, length).astype(np.float32), f"v{i}") for i in range(case.vectors)]
    rank, shape, nodes, x = len(case.shape), case.shape, [], "x"
    if case.layout == LAST and rank > 2:
        shape, x = (shape[0], *shape[2:], shape[1]), "first"
        nodes.append(helper.make_node("Transpose", ["x"], [x], perm=[0, rank - 1, *range(1, rank - 1)]))
    inputs = [x, *(v.name for v in vectors)]
    nodes.append(helper.make_node(case.op, inputs, ["y"], "norm", domain=case.domain, **case.attributes))
    nodes.append(helper.make_node("ReduceMax", ["y"], ["top"], keepdims=0))
    graph = helper.make_graph(nodes, "norm", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("top", onnx.TensorProto.FLOAT, [])], vectors)
    opsets, functions = [helper.make_opsetid("", 23)], []
    if case.domain:  # its body is never run, nor inlined: it is of another operator set
        opsets.append(helper.make_opsetid(case.domain, 1))
        functions.append(helper.make_function(case.domain, case.op, inputs, ["y"], [
            helper.make_node("Relu", [x], ["y"])], [helper.make_opsetid("", 22)], list(case.attributes)))
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10))


def aligned(nbytes: int) -> np.ndarray:
    """Memory that begins on a cache line, as every tensor inside a network does; its pages are there."""
    room = np.ones(nbytes + 63, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + nbytes]


def session_of(case: Case, threads: int):
    import infold

    session = infold.InferenceSession(model(case), infold.SessionOptions(intra_op_num_threads=threads, training_mode="batch"))
    shape = session.get_inputs()[0].shape
    feeds = {"x": aligned(4 * prod(shape)).view(np.float32).reshape(shape)}
    np.random.default_rng(1).standard_normal(dtype=np.float32, out=feeds["x"])
    return session, feeds


def norm_seconds(case: Case, threads: int, seconds: float) -> float:
    session, feeds = session_of(case, threads)
    best, until = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < until or best == np.inf:
        best = min(best, sum(r.ms for r in session.profile(feeds, runs=3) if r.kernel == "norm"))
    return best / 1e3


def must(case: Case) -> int:
    """Vector operations per element that no kernel can do without: one for a square, or three for deviation, sum and square; two
    to centre and scale (one without a mean); one for gamma and beta by element. A sigmoid is an exponential (multiply, round,
    subtract, five multiply-adds, scale), an addition and a division; EvoNorm-B0 a multiply-add,
    a maximum and a division; a division is one."""
    statistics = 1 if case.kind in ("rms", "lp", "evo-s0") else 3
    form = {"evo-s0": 1 + 9 + 1 + 1, "evo-b0": 3}.get(case.kind, 0)
    return statistics + form + (1 if case.kind in ("rms", "lp") else 2) + (1 if case.kind in ("layer", "rms") else 0)


def in_first_cache(step) -> bytes:
    """The step's parameters: zero for the strides of input and output from each 8 KB to the next, and no stores past caches."""
    fields = step.op.fields
    numbers, values = list(step.op.layout.unpack(step.params)), {}
    for f in fields:
        values[f.name], numbers = (numbers[: f.count], numbers[f.count :]) if f.count else (numbers[0], numbers[1:])
    values["far"], size, pixels = 0, values["channels"], prod(values["pixels"])
    fit, apart = 1, 0
    if values["group"] == size > 1 << 12:  # long runs are cut into pieces
        pieces = next(n for n in range(size >> 11, size + 1) if size % n == 0)
        values["channels"] = values["group"] = size // pieces
        pixels *= pieces
    elif pixels * size > 1 << 12:  # as many pixels as fit; more of few channels, which are read several at a time
        room = 1 << (13 if size < LINE else 11)
        fit, apart = next(n for n in range(max(room // size, 1), 0, -1) if pixels % n == 0), values["in_pixel"][3]
    if pixels * values["channels"] > 1 << 12:
        values["pixels"], values["in_pixel"], values["out_pixel"] = [1, 1, pixels // fit, fit], [0, 0, 0, apart], [0, 0, 0, apart]
    for name in ("in_stride", "out_stride"):
        values[name] = [0] * 4
    return step.op.pack(values)


def arithmetic_seconds(case: Case, threads: int, seconds: float) -> float:
    """Best time of the norm's own step where its data is in the first-level cache."""
    from infold import _native, host
    from infold.plan.program import place

    session, feeds = session_of(case, threads)
    session.run(None, feeds)
    (plan,) = session.runner.plans
    step = next(s for s in plan.steps if s.op.name == "norm")
    given = [aligned(1 << 16).view(np.float32) for t in step.args if t is not None and t.buffer.kind != "const"]  # input and output
    given[0][:] = np.random.default_rng(1).standard_normal(given[0].size)
    regions = iter(range(len(given)))
    args = [None if t is None else place(t.buffer, t.offset) if t.buffer.kind == "const" else (next(regions), 0) for t in step.args]
    program = _native.Program(host.isa(), [a.nbytes for a in given])
    if program.append(step.op.index, in_first_cache(step), args):
        raise ValueError(f"{case.name}: parameters that do not fit")
    best, until = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < until or best == np.inf:
        began = time.perf_counter()
        program.run(given, threads)
        best = min(best, time.perf_counter() - began)
    return best


def memcpy_seconds(nbytes: int, threads: int, seconds: float) -> float:
    """Best time of copying so many bytes, each thread its part; several copies per round: starting threads costs nothing."""
    libc = ctypes.CDLL(None)
    libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    source, target = (aligned(nbytes) for _ in range(2))
    part, repeats, best = nbytes // threads, max(1, (1 << 25) // nbytes), np.inf

    def copy(index: int, barrier: threading.Barrier) -> None:
        barrier.wait()
        for _ in range(repeats):
            libc.memcpy(target.ctypes.data + index * part, source.ctypes.data + index * part, part)
        barrier.wait()

    until = time.perf_counter() + seconds
    while time.perf_counter() < until or best == np.inf:
        barrier = threading.Barrier(threads)
        helpers = [threading.Thread(target=copy, args=(i, barrier)) for i in range(1, threads)]
        for helper_thread in helpers:
            helper_thread.start()
        began = time.perf_counter()
        copy(0, barrier)
        best = min(best, (time.perf_counter() - began) / repeats)
        for helper_thread in helpers:
            helper_thread.join()
    return best


def measure(case: Case, threads: int, seconds: float) -> dict:
    from infold import _native, host

    nbytes = 4 * prod(case.shape)
    passes = 2 if 4 * case.together <= (_native.cache_bytes(2) or 1 << 20) / 2 else 3
    rounds = [(memcpy_seconds(nbytes, threads, seconds / 6), norm_seconds(case, threads, seconds / 3)) for _ in range(3)]
    copied, took = min(r[0] for r in rounds) * passes / 2, min(r[1] for r in rounds)
    arithmetic = arithmetic_seconds(case, threads, seconds / 3)
    least = must(case) * prod(case.shape) / (_native.peak_flops(host.isa(), 0.02, False, threads) / 2)
    return {"norm": case.name, "threads": threads, "MB": nbytes / 1e6, "passes": passes, "ms": took * 1e3,
            "memcpy ms": copied * 1e3, "of memcpy": copied / took, "arithmetic ms": arithmetic * 1e3, "of peak": least / arithmetic,
            "bound": "memory" if copied >= arithmetic else "arithmetic", "of bound": max(copied, arithmetic) / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="", help="comma-separated parts of names")
    parser.add_argument("--seconds", type=float, default=0.1, help="time per measurement")
    parser.add_argument("--json", help="write the results there")
    args = parser.parse_args()
    results = []
    print(f"{'norm':<40} threads    MB  passes     ms  memcpy  of memcpy  arithmetic  of peak  bound       of bound")
    for case in cases():
        if not any(part in case.name for part in args.only.split(",")):
            continue
        for threads in args.threads:
            r = measure(case, threads, args.seconds)
            results.append(r)
            print(f"{r['norm']:<40} {threads:7} {r['MB']:5.1f} {r['passes']:7} {r['ms']:6.3f} {r['memcpy ms']:7.3f} "
                  f"{100 * r['of memcpy']:8.0f} % {r['arithmetic ms']:11.3f} {100 * r['of peak']:6.0f} %  {r['bound']:<10} "
                  f"{100 * r['of bound']:7.0f} %", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
