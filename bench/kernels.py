"""How close the convolution kernels come to the machine's peak: every distinct convolution of ResNet-50, layer by layer and ISA by ISA.

    python bench/kernels.py [--isa avx512 ...] [--threads 1] [--batch 1] [--seconds 0.2] [--json out.json]

For each layer: best time of many runs through a session (folded bias and ReLU included), GFLOP/s, and the fraction of the
peak, which is measured in the same run, between layers, with multiply-adds on registers alone. Ratios mean something on any
machine; times only on this one, and only while nothing else runs.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

RESNET50 = [  # (count, in channels, out channels, kernel, stride, input size)
    (1, 3, 64, 7, 2, 224), (1, 64, 64, 1, 1, 56), (3, 64, 64, 3, 1, 56), (4, 64, 256, 1, 1, 56), (2, 256, 64, 1, 1, 56),
    (1, 256, 128, 1, 1, 56), (1, 128, 128, 3, 2, 56), (4, 128, 512, 1, 1, 28), (1, 256, 512, 1, 2, 56), (3, 512, 128, 1, 1, 28),
    (3, 128, 128, 3, 1, 28), (1, 512, 256, 1, 1, 28), (1, 256, 256, 3, 2, 28), (6, 256, 1024, 1, 1, 14), (1, 512, 1024, 1, 2, 28),
    (5, 1024, 256, 1, 1, 14), (5, 256, 256, 3, 1, 14), (1, 1024, 512, 1, 1, 14), (1, 512, 512, 3, 2, 14), (3, 512, 2048, 1, 1, 7),
    (1, 1024, 2048, 1, 2, 14), (2, 2048, 512, 1, 1, 7), (2, 512, 512, 3, 1, 7),
]


def layer_model(channels: int, filters: int, kernel: int, stride: int, size: int, batch: int):
    """Conv with bias, then ReLU, as a ModelProto."""
    import numpy as np
    import onnx
    from onnx import helper

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((filters, channels, kernel, kernel)).astype(np.float32) / (channels * kernel * kernel) ** 0.5
    out = (size + 2 * (kernel // 2) - kernel) // stride + 1
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4),
         helper.make_node("Relu", ["c"], ["y"], "relu")], "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, channels, size, size])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, filters, out, out])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(np.zeros(filters, np.float32), "b")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def measure(threads: int, batch: int, seconds: float) -> dict:
    """All layers on the ISA of this process (INFOLD_ISA)."""
    import numpy as np

    import infold
    from infold import _native, host

    isa, rows, peaks = host.isa(), [], []
    options = infold.SessionOptions(intra_op_num_threads=threads)
    for count, channels, filters, kernel, stride, size in RESNET50:
        peaks.append(_native.peak_flops(isa, 0.02))
        session = infold.InferenceSession(layer_model(channels, filters, kernel, stride, size, batch), options)
        x = {"x": np.random.default_rng(1).standard_normal((batch, channels, size, size)).astype(np.float32)}
        best, until = {}, time.perf_counter() + seconds
        while not best or time.perf_counter() < until:
            for record in session.profile(x, runs=3):
                if record.kernel == "conv":
                    best = record.to_dict() if not best or record.ms < best["ms"] else best
        rows.append({"layer": f"{channels}->{filters} {kernel}x{kernel}/{stride} @{size}", "count": count, "ms": best["ms"],
                     "gflops": best["gflops"]})
    peak = max(peaks) * threads / 1e9
    for row in rows:
        row["of_peak"] = row["gflops"] / peak
    total = sum(r["count"] * r["ms"] for r in rows)
    work = sum(r["count"] * r["ms"] * r["gflops"] for r in rows)
    return {"isa": isa, "threads": threads, "batch": batch, "peak_gflops": peak, "layers": rows, "total_ms": total,
            "total_gflops": work / total, "total_of_peak": work / total / peak}


def show(result: dict) -> None:
    print(f"\n{result['isa']}, {result['threads']} thread(s), batch {result['batch']}: measured peak {result['peak_gflops']:.0f} GFLOP/s")
    for r in result["layers"]:
        print(f"  {r['count']} x {r['layer']:<26} {r['ms']:8.3f} ms {r['gflops']:8.1f} GFLOP/s {100 * r['of_peak']:6.1f} %")
    print(f"  all 53 convolutions          {result['total_ms']:8.3f} ms {result['total_gflops']:8.1f} GFLOP/s "
          f"{100 * result['total_of_peak']:6.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", nargs="*", help="ISAs to measure (default: all of this CPU)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.2, help="time per layer")
    parser.add_argument("--json", help="write the results there")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        json.dump(measure(args.threads, args.batch, args.seconds), sys.stdout)
        return
    from infold import _native

    results = []
    for isa in args.isa or _native.isa_names():
        command = [sys.executable, __file__, "--one", "--threads", str(args.threads), "--batch", str(args.batch),
                   "--seconds", str(args.seconds)]
        done = subprocess.run(command, env={**os.environ, "INFOLD_ISA": isa}, stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout))
        show(results[-1])
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
