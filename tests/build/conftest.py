"""A copy of the sources, built from nothing: what these tests find comes from no earlier build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "engine", "importers", "src_c")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the C libraries of every ISA built."""
    folder = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_clib"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
