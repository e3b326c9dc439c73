"""Build of the native part; all metadata is in pyproject.toml.

`infold._native` is one Cython extension linked with static libraries: `infold_core` (dispatch and drivers, baseline
flags) and one library for each ISA file, the only objects compiled with that ISA's flags. CC, CFLAGS and
LDFLAGS are honoured; the target machine is asked of the compiler, so a cross compiler picks its own ISA files.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shlex
import subprocess
import sysconfig
import tarfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.sdist import sdist

os.chdir(Path(__file__).parent)

# One extension for every CPython from 3.11 on (the stable ABI), which free-threaded builds do not have.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")
OPTIMISE = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O3"]
NO_DEBUG = [] if "-g" in os.environ.get("CFLAGS", "").split() else ["-g0"]  # over CPython's own -g: 11 of 13 MB, and folder names
COMMON = ["-std=c11", *OPTIMISE, *NO_DEBUG, "-Wall", "-Wextra", "-fvisibility=hidden"]
CORE = [*COMMON, "-ffp-contract=off", "-pthread"]
KERNEL = [*COMMON, "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mavx2"]
EMULATED = {"dot_emulated": [], "amx_emulated": []}
ISA = {
    "x86_64": {
        "scalar": [],
        "avx2": ["-mavx2", "-mfma", "-mf16c"],
        "avx512": AVX512,
        "avx512_bf16": [*AVX512, "-mavx512bf16"],
        "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
        **EMULATED,
    },
    # GCC would load all of A ahead of the products, and spill the sums for want of registers; clang does not know the option.
    "aarch64": {"scalar": [], **EMULATED, "neon": ["-fno-schedule-insns", "-Wno-ignored-optimization-argument"]},
}


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def target() -> str:
    """The machine the compiler builds for: x86_64, aarch64, ..."""
    triple = subprocess.run([*compiler(), "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    machine = triple.split("-")[0].strip()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


class BuildLibraries(build_clib):
    """Compiles only what changed, several objects at a time, in a directory of its own per compiler and flags.

    The directory is under build/ even for an editable install (whose temporary directory would forget the objects), and
    locked: two builds in one checkout wait for each other.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        flags = [os.environ.get(name, "") for name in ("CFLAGS", "CPPFLAGS", "LDFLAGS")]
        key = hashlib.sha256(repr((compiler(), flags, sysconfig.get_config_var("CFLAGS"))).encode()).hexdigest()[:8]
        self.build_clib = self.build_temp = os.path.join("build", f"native-{target()}-{key}")

    def build_libraries(self, libraries) -> None:
        os.makedirs(self.build_temp, exist_ok=True)
        with open(os.path.join(self.build_temp, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stale = [(source, info) for _, info in libraries for source in info["sources"] if self._stale(source, info)]
            with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
                list(pool.map(lambda job: self._compile(*job), stale))
            for name, info in libraries:
                archive = self.compiler.library_filename(name, output_dir=self.build_clib)
                objects = [self._object(source) for source in info["sources"]]
                if os.path.exists(archive) and os.path.getmtime(archive) < max(
                    map(os.path.getmtime, [*objects, "setup.py"])
                ):
                    os.remove(archive)  # `ar` would keep the members whose sources are gone
                self.compiler.create_static_lib(objects, name, output_dir=self.build_clib)

    def _object(self, source: str) -> str:
        return self.compiler.object_filenames([source], output_dir=self.build_temp)[0]

    def _stale(self, source: str, info: dict) -> bool:
        built = self._object(source)
        inputs = [source, *info["obj_deps"][""]]
        return (
            bool(self.force)
            or not os.path.exists(built)
            or os.path.getmtime(built) < max(map(os.path.getmtime, inputs))
        )

    def _compile(self, source: str, info: dict) -> None:
        self.compiler.compile(
            [source], output_dir=self.build_temp, include_dirs=["src_c"], extra_postargs=info["cflags"]
        )


class Source(sdist):
    """An archive that depends on the sources alone: SOURCE_DATE_EPOCH, if set, is the time of every file in it."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None) -> str:
        if format != "gztar" or "SOURCE_DATE_EPOCH" not in os.environ:
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        epoch = int(os.environ["SOURCE_DATE_EPOCH"])

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            mode = 0o755 if member.isdir() else 0o644
            return member.replace(mtime=epoch, mode=mode, uid=0, gid=0, uname="", gname="", deep=False)

        path = base_name + ".tar.gz"
        with (
            open(path, "wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=plain)  # folders in the order of names
        return path


def libraries() -> list[tuple[str, dict]]:
    """The static libraries in link order: what calls stands before what is called."""
    headers = [*sorted(glob("src_c/**/*.h", recursive=True)), "setup.py"]

    def library(name: str, sources: list[str], cflags: list[str]) -> tuple[str, dict]:
        return name, {"sources": sources, "cflags": cflags, "obj_deps": {"": headers}}

    core = library("infold_core", ["src_c/dispatch.c", *sorted(glob("src_c/drivers/*.c"))], CORE)
    flags = ISA.get(target(), {"scalar": [], **EMULATED})
    present = [(isa, f"src_c/isa/{isa}.c") for isa in flags if os.path.exists(f"src_c/isa/{isa}.c")]
    return [core, *(library(f"infold_{isa}", [source], KERNEL + flags[isa]) for isa, source in present)]


native = Extension(
    "infold._native",
    ["engine/_native.pyx"],  # includes _program.pxi
    include_dirs=["src_c"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else [],
    py_limited_api=STABLE_ABI,
    extra_compile_args=["-fvisibility=hidden", *NO_DEBUG],
    extra_link_args=["-pthread"],
)

for built in Path("engine").glob("_native.cpython-*"):
    if STABLE_ABI:  # an in-place build for one CPython, which would be found before the one for all
        built.unlink()

[native] = cythonize([native], build_dir="build", language_level=3)
native.depends = sorted(
    glob("src_c/**/*.[ch]", recursive=True)
)  # set after cythonize, which would copy them into build/

packages = ["infold", *(f"infold.{name}" for name in find_packages("engine"))]
packages += ["infold.importers", *(f"infold.importers.{name}" for name in find_packages("importers"))]

setup(
    packages=packages,
    package_dir={"infold": "engine", "infold.importers": "importers"},
    libraries=libraries(),
    ext_modules=[native],
    cmdclass={"build_clib": BuildLibraries, "sdist": Source},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
