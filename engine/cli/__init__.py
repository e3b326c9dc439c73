"""The command line: one command per file, assembled here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from infold.cli import (
    batch,
    bench,
    compile,
    convert,
    demo,
    doctor,
    exec,
    fold,
    info,
    loadgen,
    profile,
    recalibrate,
    report,
    run,
    serve,
    tune,
    verify,
)

CommandLineError = typer.BadParameter.__mro__[2]  # the root of typer's usage errors, which has no stable name of its own

app = typer.Typer(
    name="infold",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        import infold

        print(f"infold {infold.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Fold a trained CNN's BatchNorm layers away and run what is left on the CPU."""


for command in (
    run.run,
    batch.batch,
    fold.fold,
    verify.verify,
    bench.bench,
    profile.profile,
    report.report,
    doctor.doctor,
    recalibrate.recalibrate,
    convert.convert,
    compile.compile,
    tune.tune,
    serve.serve,
    exec.exec,
    loadgen.loadgen,
    info.info,
    demo.demo,
):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 good, 1 the check says no, 2 wrong usage or unreadable input, 130 interrupted.

    arguments: what follows the program's name; default `sys.argv[1:]`. Always raises SystemExit.
    """
    from infold.errors import Error

    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(args=arguments, prog_name="infold", standalone_mode=False)
    except CommandLineError as error:
        code = _complain(error.format_message())
    except OSError as error:
        code = _complain(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except Error as error:
        code = _complain(str(error) or type(error).__name__)
    except (KeyboardInterrupt, typer.Abort):
        print("infold: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> int:
    print(f"infold: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
