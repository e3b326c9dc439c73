"""Which instruction set runs, and how many CPUs."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infold import _native, host
from infold.errors import UnsupportedError


def test_the_best_instruction_set_by_default(monkeypatch):
    monkeypatch.delenv("INFOLD_ISA", raising=False)
    assert host.isa() == _native.isa_names()[0]


@pytest.mark.parametrize("isa", _native.isa_names())
def test_another_by_choice(isa, monkeypatch):
    monkeypatch.setenv("INFOLD_ISA", isa)
    assert host.isa() == isa


def test_what_this_cpu_cannot_run(monkeypatch):
    monkeypatch.setenv("INFOLD_ISA", "sse9")
    with pytest.raises(UnsupportedError, match=f"sse9.*{_native.isa_names()[-1]}"):
        host.isa()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is a matter of Linux")
def test_affinity_limits_the_cpus():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from infold import host; print(host.cpus())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "1"


V1 = {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "300000",
      "cpu/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize("files, groups, expected", [
    ({"cpu.max": "150000 100000"}, "", 2), ({"cpu.max": "50000 100000"}, "0::/", 1), ({"cpu.max": "max 100000"}, "0::/", 64),
    ({}, "", 64), ({"cpu.max": "rubbish"}, "", 64), ({"cpu.max": "0 0"}, "", 64),
    (V1, "", 3), (V1, "4:memory:/b\n2:cpu,cpuacct:/a\n", 3), (V1 | {"cpu/a/cpu.cfs_quota_us": "200000"}, "2:cpuacct,cpu:/a", 2),
    (V1, "3:cpuacct:/a\n1:name=systemd:/", 64), (V1, "2:cpu:/elsewhere", 3),
    ({"a/b/cpu.max": "500000 100000", "a/cpu.max": "300000 100000"}, "0::/a/b", 3),  # the group around has less
    ({"a/b/cpu.max": "500000 100000", "a/cpu.max": "max 100000"}, "0::/a/b", 5),
    ({"cpu.max": "400000 100000"}, "0::/seen/from/the/host", 4),  # mounted at the top of a container
])
def test_quota_of_the_control_group(files, groups, expected, monkeypatch, tmp_path):
    for name, text in {**{f"sys/fs/cgroup/{name}": text for name, text in files.items()}, "proc/self/cgroup": groups}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert host.cpus(tmp_path) == expected


def test_caches_are_what_one_core_can_use():
    """Linux lists them with the CPUs that share each; sysconf adds up the last ones of an AMD."""
    folders = list(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    if not folders:
        pytest.skip("the system does not list its caches")
    unit = {"K": 1 << 10, "M": 1 << 20}
    for folder in folders:
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and int(level) <= 3:
            assert _native.cache_bytes(int(level)) in (int(size[:-1]) * unit[size[-1]], 0)
