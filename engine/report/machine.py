"""What this machine is, as far as it matters for speed."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import _native, host

PACKAGES = ("infold", "numpy", "onnx", "onnx-ir", "onnxruntime", "openvino")
GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"


def facts() -> dict:
    """CPU, instruction sets, caches, threads, the versions of what infold works with (None: not installed), and what would make
    it faster."""
    return {
        "cpu": cpu_name(),
        "isas": _native.isa_names(),
        "isa": host.isa(),
        "caches": caches(),
        "threads": host.cpus(),
        "versions": {package: _version(package) for package in PACKAGES},
        "faster": advice(),
    }


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    lines = _text("/proc/cpuinfo").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def caches() -> dict[str, int]:
    """Bytes of the data caches that the kernels block for, by level: L1, L2, L3."""
    return {f"L{level}": _native.cache_bytes(level) for level in (1, 2, 3)}


def advice() -> list[str]:
    """What the user could do to be faster on this machine, or elsewhere."""
    found, isa, usable = [], host.isa(), _native.isa_names()
    if isa != usable[0]:
        found.append(f"INFOLD_ISA={isa} keeps infold from the {usable[0]} kernels of this CPU: unset it")
    widest = _native.isa_info(usable[0])["kernels"]
    if widest == "scalar":
        found.append("infold has only its portable kernels for this CPU")
    elif widest == "avx2":
        found.append("a CPU with AVX-512 has vectors of twice the width")
    cpus, all_cpus = host.cpus(), os.cpu_count() or 1
    if cpus < all_cpus:
        found.append(f"the affinity mask or the cgroup's quota gives this process {cpus} of {all_cpus} CPUs")
    if _native.isa_info(isa)["bf16_macs"]:
        found.append('precision="medium" computes products of bf16 numbers with this CPU\'s own instructions (errors of 2e-3)')
    governor = _text(GOVERNOR).strip()
    if governor not in ("", "performance"):
        found.append(f"the CPU's frequency governor is {governor!r}: \'performance\' is steadier, and faster for short runs")
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
