"""Runs Python where infold's AMX kernels can be tried: on AMX if this CPU has it, else with their instructions executed by
amx_trap.c. In such a process this file is the script: it sets the trap, then runs what its arguments name, as `python` would."""
from __future__ import annotations

import ctypes
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
COUNTS = ("permission", "configure", "release", "configured", "zero", "load", "store", "dot", "row", "cycles",
          "line", "missed", "cached", "overlapped")
FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")


def obstacle() -> str:
    """Why there is neither AMX nor the trap here; empty if there is one of them."""
    from infold import _native

    if "amx" in _native.isa_names():
        return ""
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or "avx512_bf16" not in _native.isa_names():
        return "needs AVX512-BF16, which the AMX kernels use besides tiles, on Linux"
    if os.environ.get("LD_PRELOAD"):
        return "another library is preloaded"
    return "" if shutil.which("objdump") and shutil.which(_compiler()[0]) else "needs a compiler and objdump"


@cache
def environment(folder: Path) -> dict[str, str]:
    """What a process in which AMX works needs in its environment; the trap is compiled in `folder`."""
    from infold import _native

    if "amx" in _native.isa_names():
        return dict(os.environ)
    library = folder / "amx_trap.so"
    if not library.exists():
        subprocess.run([*_compiler(), *FLAGS, HERE / "amx_trap.c", "-o", library, "-ldl"], check=True)
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", _native.__file__], check=True, capture_output=True, text=True)
    sites = re.findall(r"^ *([0-9a-f]+):\s+(?:cpuid|xgetbv)\b", code.stdout, re.M)
    return {**os.environ, "LD_PRELOAD": str(library), "AMX_TRAP_LIBRARY": _native.__file__, "AMX_TRAP_SITES": " ".join(sites)}


def trapped() -> bool:
    """Whether the instructions of this process are executed by amx_trap.c."""
    return "AMX_TRAP_SITES" in os.environ


def run(folder: Path, *arguments: object, capture_output: bool = True, **more: str) -> subprocess.CompletedProcess:
    """`python ARGUMENTS` in such a process; more: for its environment."""
    return subprocess.run([sys.executable, str(HERE / "amx_trap.py"), *map(str, arguments)], env={**environment(folder), **more},
                          capture_output=capture_output, text=True)


def counts() -> dict[str, int]:
    """How often each instruction was executed in this process, how many threads have tiles configured now, the cycles that
    amx_trap.c says tile instructions must have taken, and what its model of a cache says. Only under the trap."""
    out = (ctypes.c_int64 * len(COUNTS))()
    ctypes.CDLL(os.environ["LD_PRELOAD"]).amx_trap_counts(out)
    return dict(zip(COUNTS, out))


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def _patch() -> None:
    """In the process with the trap, before infold is imported."""
    symbol = ctypes.cast(ctypes.CDLL(os.environ["AMX_TRAP_LIBRARY"]).PyInit__native, ctypes.c_void_p)
    sites = [int(site, 16) for site in os.environ["AMX_TRAP_SITES"].split()]
    offsets = (ctypes.c_int64 * len(sites))(*sites)
    if not sites or ctypes.CDLL(os.environ["LD_PRELOAD"]).amx_trap_patch(symbol, offsets, ctypes.c_int64(len(sites))):
        raise OSError("the detection of the CPU in infold._native could not be replaced")


if __name__ == "__main__":
    if trapped():
        _patch()
    sys.argv = sys.argv[1:]
    if sys.argv[0] == "-m":
        sys.argv = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
