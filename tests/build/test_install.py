"""The wheel and the editable install: everything under `infold`, nothing under the names of the source folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


def output(*command: str | os.PathLike, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def wheel(tree: Path, form: str, folder: Path) -> Path:
    """Have the build back end make a wheel: `form` is "wheel" or "editable"."""
    call = f"from setuptools import build_meta; build_meta.build_{form}({str(folder)!r})"
    output(sys.executable, "-c", call, cwd=tree)
    (made,) = folder.glob("infold-*.whl")
    return made


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fresh environment with infold alone in it: its interpreter and its site-packages."""
    folder = tmp_path_factory.mktemp(request.param)
    made = wheel(tree, request.param, folder)
    output(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    output(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", made, cwd=folder)
    return python, Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))", cwd=folder).strip())


def run(python: Path, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in the fresh environment, the dependencies (but no other infold) lent by this one."""
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("platlib")}
    return subprocess.run([python, "-c", code], cwd=cwd, capture_output=True, text=True, env=environment)


def test_no_source_folder_lands_in_site_packages(installed: tuple[Path, Path]) -> None:
    names = {path.name for path in installed[1].iterdir()}
    assert not names & {"engine", "importers", "src_c", "tests", "bench", "setup.py"}
    assert any(name.startswith("infold-") for name in names)


@pytest.mark.parametrize("name", ["engine", "importers"])
def test_source_folders_cannot_be_imported(installed: tuple[Path, Path], tree: Path, tmp_path: Path, name: str) -> None:
    for cwd in (tmp_path, tree):
        done = run(installed[0], f"import {name}", cwd)
        assert done.returncode != 0 and ("ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr), cwd


def test_the_package_is_complete(installed: tuple[Path, Path], tree: Path, tmp_path: Path) -> None:
    folders = {path.parent for path in tree.glob("engine/**/*.py")}
    names = sorted(".".join(("infold", *path.relative_to(tree / "engine").parts)) for path in folders)
    done = run(
        installed[0],
        "import importlib\n"
        f"for name in {[*names, 'infold.importers', 'infold._native']}: importlib.import_module(name)\n"
        "from importlib.resources import files\n"
        "assert files('infold').joinpath('py.typed').is_file()\n"
        "assert files('infold.demo').joinpath('lenet.onnx').is_file()\n"
        "assert all(files('infold.report.page').joinpath(f'page.{kind}').is_file() for kind in ('html', 'css', 'js'))",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_the_command_is_installed(installed: tuple[Path, Path], tmp_path: Path) -> None:
    help_text = output(installed[0].with_name("infold"), "--help", cwd=tmp_path, PYTHONPATH=sysconfig.get_path("platlib"))
    assert "verify" in help_text


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_clang_builds_it_too(tree: Path, tmp_path: Path) -> None:
    output(sys.executable, "setup.py", "-q", "build_clib", "build_ext", "--build-lib", tmp_path, cwd=tree, CC="clang")
    assert list(tmp_path.glob("infold/_native*.so"))
