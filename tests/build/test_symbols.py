"""Code compiled for one ISA must not be called on a CPU without it: nothing but `*_<isa>` leaves an ISA's object."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("nm") is None, reason="nm, of binutils, is not installed")


def defined(path: Path) -> list[str]:
    """The external symbols that an object or library defines."""
    lines = subprocess.run(["nm", "-g", "--defined-only", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[2] for line in lines if len(line.split()) == 3]


def test_an_isa_object_defines_only_symbols_of_its_isa(tree: Path) -> None:
    objects = list(tree.glob("build/native-*/src_c/isa/*.o"))
    sources = {path.stem for path in (tree / "src_c" / "isa").glob("*.c")}
    assert {path.stem for path in objects} <= sources and "scalar" in {path.stem for path in objects}
    for path in objects:
        symbols = defined(path)
        assert symbols and not [name for name in symbols if not name.endswith(f"_{path.stem}")], f"{path.name}: {symbols}"


def test_a_kernel_that_forgets_its_suffix_is_noticed(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "avx2.c"
    source.write_text("int gemm_avx2(void) { return 1; }\nint gemm(void) { return 2; }\n")
    subprocess.run(["cc", "-c", source, "-o", tmp_path / "avx2.o"], check=True)
    assert sorted(defined(tmp_path / "avx2.o")) == ["gemm", "gemm_avx2"]
