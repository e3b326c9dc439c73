"""The kernel tests on aarch64, under qemu-user: `python tests/aarch64.py`, on an x86-64 Debian with the packages qemu-user and
gcc-aarch64-linux-gnu. Arguments go to pytest.

Debian's Python for arm64 and PyPI's wheels for it are unpacked under build/aarch64, without root and without touching the system;
infold is compiled by the cross compiler, run by that Python's setuptools. Exits non-zero if a test failed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "aarch64"
SYSTEM, SITE, INFOLD, PYTHON = BUILD / "system", BUILD / "site", BUILD / "lib", BUILD / "python"
INTERPRETER = "python3.11"  # Debian 12's
DEBIAN = [INTERPRETER, "lib" + INTERPRETER + "-dev", "python3-distutils", "libstdc++6"]
WHEELS = [
    "cython>=3",
    "hypothesis>=6.100",
    "numpy>=2",
    "onnx>=1.21",
    "onnx-ir>=0.1.16",
    "pytest>=8",
    "pytest-timeout",
    "rich",
    "setuptools>=77",
    "typer",
]
CROSS = "aarch64-linux-gnu-"
KERNELS = ["tests/native", "-k", "neon"]


def call(*command: object, **environment: str) -> None:
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, env=os.environ | environment)


def unpack_debian() -> None:
    """The interpreter and the libraries it needs: apt with a state of its own, in which nothing is installed."""
    state = BUILD / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": 1,
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    call(*apt, "update")
    call(*apt, "install", "-y", "--no-install-recommends", "--download-only", *DEBIAN)
    for package in (state / "cache" / "archives").glob("*.deb"):
        call("dpkg-deb", "-x", package, SYSTEM)
    PYTHON.write_text(
        f'#!/bin/sh\nexec qemu-aarch64 -L {shlex.quote(str(SYSTEM))} {shlex.quote(str(SYSTEM / "usr/bin" / INTERPRETER))} "$@"\n'
    )
    PYTHON.chmod(0o755)


def install_wheels() -> None:
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 26, 27, 28, 34)]
    call(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--upgrade",
        "--disable-pip-version-check",
        "--target",
        SITE,
        "--only-binary=:all:",
        "--python-version=3.11",
        "--implementation=cp",
        *platforms,
        *WHEELS,
    )


def build() -> None:
    includes = [
        SYSTEM / "usr/include" / INTERPRETER,
        SYSTEM / "usr/include/aarch64-linux-gnu" / INTERPRETER,
        SYSTEM / "usr/include",
    ]
    call(
        PYTHON,
        "setup.py",
        "-q",
        "build",
        "--build-base",
        BUILD / "objects",
        "--build-lib",
        INFOLD,
        CC=CROSS + "gcc",
        AR=CROSS + "ar",
        LDSHARED=CROSS + "gcc -shared",
        CFLAGS=" ".join(f"-idirafter {path}" for path in includes),
        PYTHONPATH=str(SITE),
        PYTHONNOUSERSITE="1",
    )


def main() -> int:
    if not PYTHON.exists():
        unpack_debian()
    stamp = BUILD / "wheels"
    if not stamp.exists() or stamp.read_text() != "\n".join(WHEELS):
        install_wheels()
        stamp.write_text("\n".join(WHEELS))
    build()
    return subprocess.call(
        [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(sys.argv[1:] or KERNELS)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{INFOLD}:{SITE}", "PYTHONNOUSERSITE": "1"},
    )


if __name__ == "__main__":
    sys.exit(main())
