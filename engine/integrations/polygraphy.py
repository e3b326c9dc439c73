"""infold as a runner of Polygraphy, NVIDIA's tool that compares inference engines layer by layer.

`polygraphy run model.onnx --infold --onnxrt` finds it by the entry point `polygraphy.run.plugins`; scripts use `InfoldRunner`.
"""

from __future__ import annotations

from polygraphy.backend.base import BaseLoader, BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.tools.args import ModelArgs, OnnxLoadArgs
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs, BaseRunnerArgs
from polygraphy.tools.script import Script, make_invocable

import infold
from infold.api import PRECISIONS


class SessionFromModel(BaseLoader):
    """Makes an `infold.InferenceSession` when called.

    model: a path, bytes, or a callable that returns one of them. threads: 0 means every CPU; precision: as in SessionOptions.
    """

    def __init__(self, model: object, threads: int = 0, precision: str = "highest") -> None:
        self.model, self.threads, self.precision = model, threads, precision

    def call_impl(self) -> infold.InferenceSession:
        model = self.model() if callable(self.model) else self.model
        return infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=self.threads, precision=self.precision))


class InfoldRunner(OnnxrtRunner):
    """Runs inference with an `infold.InferenceSession`, or with what a callable returns; the calls are those of onnxruntime's."""

    def __init__(self, session: object, name: str | None = None) -> None:
        BaseRunner.__init__(self, name=name, prefix="infold-runner")
        self._sess = session


class InfoldSessionArgs(BaseArgs):
    """
    infold Session: creating an infold inference session

    Depends on:

        - OnnxLoadArgs
        - ModelArgs
    """

    def add_parser_args_impl(self) -> None:
        self.group.add_argument("--infold-threads", help="Threads; 0 means every CPU this process may use.", type=int, default=None)
        self.group.add_argument("--infold-precision", help="The level of precision.", choices=PRECISIONS, default=None)

    def parse_impl(self, args: object) -> None:
        self.threads = args_util.get(args, "infold_threads")
        self.precision = args_util.get(args, "infold_precision")

    def add_to_script_impl(self, script: Script) -> str:
        loads = self.arg_groups[OnnxLoadArgs]
        whole = loads.must_use_onnx_loader()  # outputs marked, shapes changed: not the file as it is
        model = loads.add_to_script(script, serialize_model=True) if whole else self.arg_groups[ModelArgs].path
        script.add_import(imports=["SessionFromModel"], frm=__name__)
        return script.add_loader(
            make_invocable("SessionFromModel", model, threads=self.threads, precision=self.precision), "make_infold_session"
        )


class InfoldRunnerArgs(BaseRunnerArgs):
    """
    infold Inference: running inference with infold.

    Depends on:

        - InfoldSessionArgs
    """

    def get_name_opt_impl(self) -> tuple[str, str]:
        return "infold", "infold"

    def add_to_script_impl(self, script: Script) -> None:
        script.add_import(imports=["InfoldRunner"], frm=__name__)
        script.add_runner(make_invocable("InfoldRunner", self.arg_groups[InfoldSessionArgs].add_to_script(script)))


def argument_groups() -> list[BaseArgs]:
    """What the plugin adds to `polygraphy run`."""
    return [InfoldSessionArgs(), InfoldRunnerArgs()]
