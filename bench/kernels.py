"""How close the convolution kernels come to the machine's roofline, layer by layer and ISA by ISA.

    python bench/kernels.py [MODEL.onnx ...] [--isa avx512 ...] [--algorithm bf16] [--threads 1] [--batch 1] [--seconds 0.2]
        [--json out.json]

Every distinct convolution of the models (default: ResNet-50's, which need no file) runs alone through a session, bias and ReLU
included. For each: best time of many runs, the algorithm's kernel, GFLOP/s, and the fraction of its roof: the smaller of the
multiply-add peak and of bandwidth x operations per byte, where the bandwidth is that of a copy between arrays as large as the
layer's data (input, weights and output, each moved once). Peak and bandwidth are measured in the same run, between layers. An
algorithm with fewer multiplications (Winograd) is counted with those of the plain convolution, and may pass its roof.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass


@dataclass(frozen=True, order=True)
class Layer:
    """A square two-dimensional convolution with "same" padding."""

    channels: int
    filters: int
    kernel: int
    stride: int
    size: int
    groups: int = 1

    @property
    def out(self) -> int:
        return (self.size + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1

    def bytes(self, batch: int) -> int:
        weights = self.filters * self.channels // self.groups * self.kernel**2
        return 4 * (batch * (self.channels * self.size**2 + self.filters * self.out**2) + weights)

    def flops(self, batch: int) -> int:
        return 2 * batch * self.filters * self.out**2 * self.channels // self.groups * self.kernel**2

    def __str__(self) -> str:
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{self.channels}->{self.filters} {self.kernel}x{self.kernel}/{self.stride}{groups} @{self.size}"


RESNET50 = {Layer(*shape): count for count, *shape in [
    (1, 3, 64, 7, 2, 224), (1, 64, 64, 1, 1, 56), (3, 64, 64, 3, 1, 56), (4, 64, 256, 1, 1, 56), (2, 256, 64, 1, 1, 56),
    (1, 256, 128, 1, 1, 56), (1, 128, 128, 3, 2, 56), (4, 128, 512, 1, 1, 28), (1, 256, 512, 1, 2, 56), (3, 512, 128, 1, 1, 28),
    (3, 128, 128, 3, 1, 28), (1, 512, 256, 1, 1, 28), (1, 256, 256, 3, 2, 28), (6, 256, 1024, 1, 1, 14), (1, 512, 1024, 1, 2, 28),
    (5, 1024, 256, 1, 1, 14), (5, 256, 256, 3, 1, 14), (1, 1024, 512, 1, 1, 14), (1, 512, 512, 3, 2, 14), (3, 512, 2048, 1, 1, 7),
    (1, 1024, 2048, 1, 2, 14), (2, 2048, 512, 1, 1, 7), (2, 512, 512, 3, 1, 7)]}


def layers_of(path: str) -> dict[Layer, int]:
    """The distinct square convolutions of a model, as they are after folding, and how often each occurs."""
    import onnx
    import onnx_ir
    from onnx import shape_inference

    import infold

    graph = shape_inference.infer_shapes(onnx_ir.to_proto(infold.fold(infold.load(path))[0])).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in values}
    shapes |= {t.name: list(t.dims) for t in graph.initializer}
    found: Counter[Layer] = Counter()
    for node in graph.node:
        x, w = (shapes.get(name, []) for name in node.input[:2]) if node.op_type == "Conv" else ([], [])
        if len(x) == len(w) == 4 and x[2] == x[3] and w[2] == w[3] and w[2] % 2:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            found[Layer(x[1], w[0], w[2], attributes.get("strides", [1])[0], x[2], attributes.get("group", 1))] += 1
    return dict(sorted(found.items(), key=lambda item: (-item[0].size, item[0])))


def layer_model(layer: Layer, batch: int):
    """Conv with bias, then ReLU, as a ModelProto."""
    import numpy as np
    import onnx
    from onnx import helper

    rng, kernel = np.random.default_rng(0), layer.kernel
    shape = (layer.filters, layer.channels // layer.groups, kernel, kernel)
    weight = (rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[kernel] * 2, strides=[layer.stride] * 2,
                            pads=[kernel // 2] * 4, group=layer.groups)
    graph = helper.make_graph(
        [conv, helper.make_node("Relu", ["c"], ["y"], "relu")], "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, layer.channels, layer.size, layer.size])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, layer.filters, layer.out, layer.out])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(np.zeros(layer.filters, np.float32), "b")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def measure(layers: dict[Layer, int], algorithm: str | None, threads: int, batch: int, seconds: float) -> dict:
    """All layers on the ISA of this process (INFOLD_ISA), by the planner's choice of algorithms or by one: "bf16" against
    the peak of the bf16 instruction."""
    import numpy as np

    import infold
    from infold import _native, host
    from infold.report.roofline import bandwidth, roof

    isa, rows, peaks = host.isa(), [], []
    bf16 = algorithm == "bf16"
    options = infold.SessionOptions(intra_op_num_threads=threads, precision="medium" if bf16 else "highest",
                                    algorithms={"*": algorithm} if algorithm else {})
    for layer, count in layers.items():
        peaks.append(_native.peak_flops(isa, 0.02, bf16, threads))
        speed = bandwidth(layer.bytes(batch))
        session = infold.InferenceSession(layer_model(layer, batch), options)
        x = {"x": np.random.default_rng(1).standard_normal((batch, layer.channels, layer.size, layer.size)).astype(np.float32)}
        best, kernels, until = float("inf"), set(), time.perf_counter() + seconds
        while best == float("inf") or time.perf_counter() < until:
            steps = [r for r in session.profile(x, runs=3) if r.gflops]
            best, kernels = min(best, sum(r.ms for r in steps)), {r.kernel for r in steps}
        rows.append({**asdict(layer), "layer": str(layer), "count": count, "kernel": "+".join(sorted(kernels)), "ms": best,
                     "gflops": layer.flops(batch) / best / 1e6, "bandwidth": speed,
                     "intensity": layer.flops(batch) / layer.bytes(batch)})
    peak = max(peaks) / 1e9
    for row in rows:
        row["roof"] = roof(peak, row["intensity"], row["bandwidth"] * threads / 1e9)
        row["of_peak"], row["of_roof"] = row["gflops"] / peak, row["gflops"] / row["roof"]
    total = sum(r["count"] * r["ms"] for r in rows)
    work = sum(r["count"] * r["ms"] * r["gflops"] for r in rows)
    return {"isa": isa, "threads": threads, "batch": batch, "peak_gflops": peak, "layers": rows, "total_ms": total,
            "total_gflops": work / total, "total_of_peak": work / total / peak}


def show(result: dict) -> None:
    print(f"\n{result['isa']}, {result['threads']} thread(s), batch {result['batch']}: peak {result['peak_gflops']:.0f} GFLOP/s")
    print("                                                      ms   GFLOP/s   of peak   of roof")
    for r in result["layers"]:
        print(f"  {r['count']:>2} x {r['layer']:<28} {r['kernel']:<10} {r['ms']:8.3f} {r['gflops']:9.1f} "
              f"{100 * r['of_peak']:7.0f} % "
              f"{100 * r['of_roof']:7.0f} %")
    count = sum(r["count"] for r in result["layers"])
    print(f"  all {count} convolutions {result['total_ms']:29.3f} {result['total_gflops']:9.1f} "
          f"{100 * result['total_of_peak']:7.0f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL.onnx", help="default: ResNet-50's layers")
    parser.add_argument("--isa", nargs="*", help="ISAs to measure (default: all of this CPU)")
    parser.add_argument("--algorithm", help='for every layer that can ("direct", "bf16", ...); default: the planner chooses')
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.2, help="time per layer")
    parser.add_argument("--json", help="write the results there")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        layers: Counter[Layer] = Counter()
        for path in args.models:
            layers.update(layers_of(path))
        json.dump(measure(dict(layers) or RESNET50, args.algorithm, args.threads, args.batch, args.seconds), sys.stdout)
        return
    from infold import _native

    results = []
    for isa in args.isa or _native.isa_names():
        command = [sys.executable, __file__, *args.models, "--one", "--threads", str(args.threads), "--batch", str(args.batch),
                   "--seconds", str(args.seconds), *(["--algorithm", args.algorithm] if args.algorithm else [])]
        done = subprocess.run(command, env={**os.environ, "INFOLD_ISA": isa}, stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout))
        show(results[-1])
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
