"""How close the normalisations come to the speed of memory: every norm at several sizes, beside a memcpy of the same bytes.

    python bench/norms.py [--threads 1 2] [--only layer,group] [--seconds 0.1] [--json out.json]

The bytes of a norm are counted as they must move: the data read once and written once where what shares its statistics fits half
of the second-level cache; else read twice, because nothing can be written before all of it is read. A memcpy is measured in the
same run, on buffers of the same size with the same number of threads (glibc's, on each thread's part), and scaled to these bytes:
"of memcpy" is its time divided by the norm's. Times are the best of many runs, of norm and memcpy in turn, caches as the runs
before leave them, so sizes below the last-level cache are measured there, for norm and memcpy alike.
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


def norm_seconds(case: Case, threads: int, seconds: float) -> float:
    import infold

    session = infold.InferenceSession(model(case), infold.SessionOptions(intra_op_num_threads=threads, training_mode="batch"))
    shape = session.get_inputs()[0].shape
    feeds = {"x": aligned(4 * prod(shape)).view(np.float32).reshape(shape)}
    np.random.default_rng(1).standard_normal(dtype=np.float32, out=feeds["x"])
    best, until = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < until or best == np.inf:
        best = min(best, sum(r.ms for r in session.profile(feeds, runs=3) if r.kernel == "norm"))
    return best / 1e3


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
    from infold import _native

    nbytes = 4 * prod(case.shape)
    passes = 2 if 4 * case.together <= (_native.cache_bytes(2) or 1 << 20) / 2 else 3
    rounds = [(memcpy_seconds(nbytes, threads, seconds / 6), norm_seconds(case, threads, seconds / 3)) for _ in range(3)]
    copied, took = min(r[0] for r in rounds) * passes / 2, min(r[1] for r in rounds)
    return {"norm": case.name, "threads": threads, "MB": nbytes / 1e6, "passes": passes, "ms": took * 1e3,
            "GB/s": passes * nbytes / took / 1e9, "memcpy GB/s": passes * nbytes / copied / 1e9, "of memcpy": copied / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="", help="comma-separated parts of names")
    parser.add_argument("--seconds", type=float, default=0.1, help="time per measurement")
    parser.add_argument("--json", help="write the results there")
    args = parser.parse_args()
    results = []
    print(f"{'norm':<40} threads      MB  passes       ms    GB/s  memcpy  of memcpy")
    for case in cases():
        if not any(part in case.name for part in args.only.split(",")):
            continue
        for threads in args.threads:
            r = measure(case, threads, args.seconds)
            results.append(r)
            print(f"{r['norm']:<40} {threads:7} {r['MB']:7.1f} {r['passes']:7} {r['ms']:8.3f} {r['GB/s']:7.1f} "
                  f"{r['memcpy GB/s']:7.1f} {100 * r['of memcpy']:8.0f} %", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
