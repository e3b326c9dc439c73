"""`infold serve`: a model behind the Open Inference Protocol."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from infold.cli import common


def serve(
    model: common.Model,
    name: Annotated[str | None, typer.Option(help="The model's name in requests.", show_default="the file's")] = None,
    host: Annotated[str, typer.Option(help="The interface to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port for REST; 0 takes a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=-1, max=65535, help="The port for gRPC; -1 for none.")] = 8081,
    max_batch: Annotated[int, typer.Option(min=1, help="The most rows of requests that run together; 1: none do.")] = 8,
    batch_wait: Annotated[float, typer.Option(min=0.0, help="Milliseconds to wait for more requests to run together.")] = 0.0,
    max_queue: Annotated[int, typer.Option(min=1, help="How many requests may wait; the next is refused (503).")] = 128,
    max_request: Annotated[float, typer.Option(min=0.001, help="MiB of a request; a larger one is refused (413).")] = 64.0,
    max_memory: Annotated[
        float | None, typer.Option(min=1.0, help="MiB that weights and a run may take.", show_default="no limit")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="How many runs there may be at a time.")] = 1,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds for running requests to end after SIGTERM.")] = 30.0,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    preprocess: common.Preprocessing = None,
    precision: common.Precision = "highest",
    threads: common.Threads = 0,
    training_mode: common.TrainingMode = "error",
) -> None:
    """Serve a model over REST and gRPC: the Open Inference Protocol (v2), on the KServe Python SDK."""
    import infold
    from infold.cli import files
    from infold.compiled import is_compiled
    from infold.errors import MissingDependencyError

    arguments, sys.argv = sys.argv, sys.argv[:1]  # kserve parses them when it is imported
    try:
        from infold.integrations.serve.batching import Batcher
        from infold.integrations.serve.model import ServedModel
        from infold.integrations.serve.server import Place
        from infold.integrations.serve.server import serve as run
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"serving needs {error.name}: pip install 'infold[serve]'") from None
    finally:
        sys.argv = arguments
    with common.working(f"Preparing {model}"):
        options = infold.SessionOptions(
            intra_op_num_threads=threads, precision=precision, training_mode=training_mode,
            max_memory=None if max_memory is None else round(max_memory * 2**20))
        session = infold.InferenceSession(model if is_compiled(model) else files.load(model, shapes, weights), options)
        batcher = Batcher(session, max_batch, max_queue, batch_wait / 1e3, parallel)
        served = ServedModel(name or model.stem, batcher, files.preprocessing(preprocess))
        rows = batcher.prepare()
    together = f"batches of up to {rows[-1]}" if rows else "each request alone" if batcher.max_batch == 1 else "batches as found"
    place = Place(host, port, None if grpc_port < 0 else grpc_port, round(max_request * 2**20), grace)
    run(served, place, lambda addresses: print(f"serving {served.name} at {addresses} ({together})", flush=True))
    if not batcher.idle:  # nothing stops a thread that computes
        common.err().print(f"infold: error: a run has not ended within {grace:g} seconds")
        os._exit(1)
