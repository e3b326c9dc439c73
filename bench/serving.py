"""What serving adds to a run: latency through `infold serve`, beside the same runs in this process; the table of docs/serving.md.

    python bench/serving.py [MODEL.onnx ...] [--requests N] [--threads N]

All traffic stays on 127.0.0.1. Without models: the network of the demo.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tritonclient.grpc
import tritonclient.http

import infold
from infold.report.inputs import inputs_of, random_inputs

SERVE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(9)), daemon=True).start()  # where its parent is killed it ends, too
from infold.cli import main
main()
"""
START = 120  # seconds that a server may take to be there, and to be gone
TYPES = {"float32": "FP32", "float16": "FP16", "float64": "FP64", "bool": "BOOL", "object": "BYTES"}


class Server(NamedTuple):
    """A running `infold serve`."""

    name: str
    http: str
    grpc: str
    process: subprocess.Popen
    line: str

    def client(self, protocol: str) -> tritonclient.http.InferenceServerClient | tritonclient.grpc.InferenceServerClient:
        """protocol: "http" or "grpc"."""
        module = getattr(tritonclient, protocol)
        return module.InferenceServerClient(getattr(self, protocol))

    def stop(self) -> int:
        """Send SIGTERM and wait; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START)


@contextmanager
def served(model: Path, *options: object) -> Iterator[Server]:
    """A server of a model on free ports of 127.0.0.1, stopped at the end in any case."""
    command = [sys.executable, "-c", SERVE, "serve", model, "--port", 0, "--grpc-port", 0, *options]
    with tempfile.TemporaryFile("w+") as complaints:
        pipe = subprocess.PIPE
        process = subprocess.Popen(list(map(str, command)), stdin=pipe, stdout=pipe, stderr=complaints, text=True)
        try:
            line = process.stdout.readline()
            if not line.startswith("serving "):
                process.wait(START)
                complaints.seek(0)
                raise RuntimeError(f"no server: exit code {process.returncode}: {complaints.read()}")
            _, name, _, http, grpc, *_ = line.split()
            yield Server(name, http.removeprefix("http://"), grpc.removeprefix("grpc://"), process, line)
        finally:
            process.kill()
            process.wait(START)
            process.stdin.close()
            process.stdout.close()


def ask(server: Server, client: object, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One request; the outputs by name."""
    module = tritonclient.http if isinstance(client, tritonclient.http.InferenceServerClient) else tritonclient.grpc
    inputs = []
    for name, array in feeds.items():
        datatype = TYPES.get(array.dtype.name) or array.dtype.name.upper()
        inputs.append(module.InferInput(name, array.shape, datatype))
        inputs[-1].set_data_from_numpy(array)
    result = client.infer(server.name, inputs)
    outputs = result.get_response()["outputs"] if module is tritonclient.http else result.get_response().outputs
    names = [output["name"] if isinstance(output, dict) else output.name for output in outputs]
    return {name: result.as_numpy(name) for name in names}


def many(server: Server, protocol: str, clients: int, feeds: Sequence[Mapping[str, np.ndarray]],
         take: Callable[[int, dict[str, np.ndarray]], None] = lambda index, outputs: None) -> tuple[list[float], float]:
    """Send all feeds from some clients, each sending its next request when it has its result.

    Returns: seconds of each request, and of all together.
    """
    numbers = itertools.count()

    def work(_: int) -> list[float]:
        spent, client = [], server.client(protocol)
        while (index := next(numbers)) < len(feeds):
            start = time.perf_counter()
            outputs = ask(server, client, feeds[index])
            spent.append(time.perf_counter() - start)
            take(index, outputs)
        client.close()
        return spent

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        spent = [seconds for one in pool.map(work, range(clients)) for seconds in one]
    return spent, time.perf_counter() - start


def rows(path: Path, requests: int, threads: int) -> Iterator[str]:
    """Lines of the table for one model: the runs in this process, then the ways through a server."""
    session = infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=threads))
    model = inputs_of(session)
    shapes = {value.name: [dim if isinstance(dim, int) else 1 for dim in value.shape] for value in model.graph.inputs}
    feeds = [random_inputs(model, shapes, seed=seed) for seed in range(8)] * -(-requests // 8)
    session.run(None, feeds[0])
    alone = []
    for one in feeds[:requests]:
        start = time.perf_counter()
        session.run(None, one)
        alone.append(time.perf_counter() - start)
    base = np.percentile(alone, [50, 99])
    yield f"| {path.stem} | in process | 1 | {base[0] * 1e3:.2f} | {base[1] * 1e3:.2f} | | | {requests / sum(alone):.0f} |"
    with served(path, "--threads", threads) as server:
        for protocol, clients in itertools.product(("http", "grpc"), (1, 2, 4)):
            many(server, protocol, clients, feeds[:20])
            spent, whole = many(server, protocol, clients, feeds[:requests])
            at = np.percentile(spent, [50, 99])
            numbers = " | ".join(f"{seconds * 1e3:.2f}" for seconds in (*at, *(at - base)))
            yield f"| {path.stem} | {protocol} | {clients} | {numbers} | {requests / whole:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("| model | way | clients | p50 ms | p99 ms | added p50 | added p99 | requests/s |")
    print("|---|---|---|---|---|---|---|---|")
    for path in options.models or [Path(str(files("infold.demo") / "lenet.onnx"))]:
        for line in rows(path, options.requests, options.threads):
            print(line, flush=True)


if __name__ == "__main__":
    main()
