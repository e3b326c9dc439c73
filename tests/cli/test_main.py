"""What holds for every command: help, one-line errors, exit codes, and a quick start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import infold

COMMANDS = ("run", "fold", "verify", "bench", "profile", "report", "convert", "info", "demo")
ON_A_MODEL = (("run",), ("fold",), ("verify",), ("bench",), ("profile",), ("report",), ("convert", "-o", "out.onnx"), ("info",))


def complains(result, *words: str) -> bool:
    """One line on standard error that has every word, nothing on standard output, exit code 2."""
    lines = result.err.splitlines()
    return (
        result.code == 2
        and not result.out
        and len(lines) == 1
        and all(word in lines[0] for word in ("infold: error:", *words))
    )


def test_without_arguments_it_lists_the_commands(cli: Callable) -> None:
    result = cli()
    assert result.code == 0 and all(command in result.out for command in COMMANDS)


def test_the_version(cli: Callable) -> None:
    assert cli("--version") == (0, f"infold {infold.__version__}\n", "")


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "infold", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"infold {infold.__version__}\n")


def test_a_missing_file_is_told_in_words(cli: Callable, lenet: Path) -> None:
    assert complains(cli("run", lenet, "--input", "none.npy"), "none.npy: No such file or directory")


def test_nobody_is_led_to_unpickle(cli: Callable, lenet: Path) -> None:
    result = cli("run", lenet, "--input", f"image={__file__}")
    assert complains(result, "not an .npy or .npz file") and "allow_pickle" not in result.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli: Callable, command: str) -> None:
    result = cli(command, "--help")
    assert result.code == 0 and "--json" in result.out and f"infold {command}" in result.out


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom infold.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'onnx', 'onnx_ir', 'onnxruntime', 'numpy', 'matplotlib', 'torch'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run",),
        ("fold", "m.onnx", "--nonsense"),
        ("bench", "m.onnx", "--threads", "0"),
        ("run", "m.onnx", "--threads", "many"),
        ("convert", "m.onnx"),
    ],
)
def test_wrong_usage(cli: Callable, arguments: tuple[str, ...]) -> None:
    assert complains(cli(*arguments))


@pytest.mark.parametrize("command", ON_A_MODEL, ids=lambda command: command[0])
def test_a_missing_model(cli: Callable, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert complains(cli(command[0], tmp_path / "absent.onnx", *command[1:]), "absent.onnx")


@pytest.mark.parametrize("command", ON_A_MODEL, ids=lambda command: command[0])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_that_is_no_model(cli: Callable, tmp_path: Path, command: tuple[str, ...], as_json: bool) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(bytes(range(256)) * 4)
    assert complains(cli(command[0], path, *command[1:], *(["--json"] if as_json else [])), "noise.onnx")
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_module_and_the_script_are_the_same_program() -> None:
    script = Path(sys.executable).with_name("infold")
    done = subprocess.run([script, "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "infold: error: No such command 'nonsense'.\n"
