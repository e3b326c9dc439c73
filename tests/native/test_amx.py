"""The AMX kernels as compiled: on AMX, or on a CPU without it under a trap that executes their instructions (amx_trap.c)."""
from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
from pathlib import Path

import amx_trap
import numpy as np
import onnx_ir as ir
import pytest
from native_harness import normal
from test_bf16 import product

sys.path.insert(0, str(Path(__file__).parents[1]))
from session_harness import Net

import infold
from infold import _native

HERE = Path(__file__)
obstacle = amx_trap.obstacle()
pytestmark = pytest.mark.skipif(bool(obstacle), reason=obstacle)
trapped = pytest.mark.skipif("amx" in _native.isa_names(), reason="this CPU has AMX, whose instructions nobody counts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("amx")


def in_amx(folder: Path, name: str, **environment: str) -> dict:
    """What the function `name` of this module returns in a process where AMX works."""
    done = amx_trap.run(folder, HERE, name, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("file", "which"), [
    ("native/test_bf16.py", "not peak and not pack and not start and not (depth and 300) and not (tile and 3)"),
    ("ops/test_precision.py", "split or kept")])
def test_what_every_instruction_set_must_pass(file, which, folder):
    """Every tile, edge, thread and guard page, the instruction bit for bit, and whole networks."""
    done = amx_trap.run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE.parents[1] / file, "-k",
                        f"(amx and not emulated) and {which}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def network(width: int = 40):
    """Everything a tile meets: windows, strides, groups, a residual, a prologue, widths and heights that fill no tile."""
    net = Net(12)
    x = net("Relu", net("Conv", net.input(2, 5, 17, 15), net.weight(width, 5, 3, 3), net.normal(width), pads=[1] * 4))
    y = net("Conv", x, net.weight(width, width // 4, 3, 3), net.normal(width), group=4, pads=[2] * 4, dilations=[2, 2])
    x = net("Relu", net("Add", x, y))
    scale, shift, mean, variance = (np.full(width, a, np.float32) for a in (1, 0.3, 0.1, 4))
    # the prologue multiplies by 1/2: exact, so that it does not matter whether float32 kernels have a fused multiply-add
    x = net("Relu", net("BatchNormalization", x, *map(net.constant, (scale, shift, mean, variance)), epsilon=0.0))
    x = net("Conv", x, net.weight(70, width, 1, 1), net.normal(70), strides=[2, 2])
    x = net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return net.model(net("Gemm", net("Flatten", x), net.weight(33, 70 * 4 * 4), net.normal(33), transB=1)), net.feeds


LEVELS = {"highest": "bf16x6", "high": "bf16x3", "medium": "bf16"}


def outputs(model, feeds, isa: str, level: str, threads: int = 1) -> np.ndarray:
    os.environ["INFOLD_ISA"] = isa
    options = infold.SessionOptions(precision=level, algorithms={"*": LEVELS[level]}, intra_op_num_threads=threads, tuned=False)
    subject = infold.InferenceSession(model, options)
    used = [record.kernel for record in subject.profile(feeds, runs=1)]
    assert used.count("conv_bf16") == 4, used
    return subject.run(None, feeds)[0]


def same_as_emulated() -> dict:
    """Largest differences from amx-emulated, relative to the largest output, and how many numbers were not zero."""
    rng, worst, live = np.random.default_rng(3), 0.0, 0
    pairs = [(product("amx-emulated", x, w, terms, threads=threads), product("amx", x, w, terms, threads=threads))
             for m, k, columns in ((1, 5, 3), (16, 32, 16), (17, 300, 33), (49, 270, 64), (70, 64, 17))
             for x, w in [(normal(rng, m, k), normal(rng, k, columns))] for terms in (1, 2, 3) for threads in (1, 2)]
    model, feeds = network()
    for level in LEVELS:
        expected = outputs(model, feeds, "amx-emulated", level)
        pairs += [(expected, outputs(model, feeds, "amx", level, threads)) for threads in (1, 2)]
    for expected, got in pairs:
        worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
        live += int(np.count_nonzero(expected))
    return {"worst": worst, "live": live}


def test_same_numbers_as_the_emulation(folder):
    """Bit for bit under the trap. The manual fixes the order of a silicon's sums too, but nobody has tried it with this; a sum in
    another order may round to another bf16 number."""
    found = in_amx(folder, "same_as_emulated")
    assert found["live"] > 10000 and found["worst"] <= (2**-8 if "amx" in _native.isa_names() else 0)


def counted_run() -> dict:
    """Counts of one step of 49 x 300 times 300 x 70 numbers, and what runs of a network on two threads leave configured."""
    rng, left = np.random.default_rng(4), []
    x, w = normal(rng, 49, 300), normal(rng, 300, 70)
    before = amx_trap.counts()
    product("amx", x, w, 1, block=64)
    after = amx_trap.counts()
    model, feeds = network()
    for level in LEVELS:
        outputs(model, feeds, "amx", level, threads=2)
        left.append(amx_trap.counts()["configured"])
    return {"step": {k: after[k] - before[k] for k in after}, "left": left, "all": amx_trap.counts()}


@trapped
def test_nothing_stays_configured(folder):
    """Each thread configures its tiles and releases them before its share of a step is over: what stays would be saved at every
    switch of threads. The permission is asked for once in a process. The work is what the shape says: 49 rows are 4 tiles of
    13 rows, 70 columns 5, of 10 products."""
    found = in_amx(folder, "counted_run")
    step, everything = found["step"], found["all"]
    assert step["configure"] == step["release"] >= 1 and step["dot"] == 4 * 5 * 10
    assert step["row"] == 52 * 5 * 10
    assert found["left"] == [0, 0, 0]
    assert everything["configure"] == everything["release"] > 20 and everything["configured"] == 0
    assert everything["permission"] == 1


@trapped
def test_counts_of_a_model(folder, tmp_path):
    """bench/amx.py: 98 pixels times 256 x 256 numbers are 7 tiles of 14 rows, at each level; all of it is of use, by rows."""
    net = Net(13)
    model = net.model(net("Conv", net.input(2, 256, 7, 7), net.weight(256, 256, 1, 1), net.normal(256)))
    ir.save(model, tmp_path / "net.onnx")
    done = amx_trap.run(folder, HERE.parents[2] / "bench" / "amx.py", tmp_path / "net.onnx", "--json", tmp_path / "counts.json",
                        INFOLD_ISA="amx")
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads((tmp_path / "counts.json").read_text())
    for level, products in (("medium", 1), ("high", 3), ("highest", 6)):
        found = counts[f"net:{level}"]
        assert found["dot"] == products * 7 * 16 * 8 and found["row"] == 14 * found["dot"]
        assert found["on_amx"] == found["by_rows"] == 1 and found["of_use"] == 14 / 16 and 0.5 < found["of_peak"] < 1


@trapped
def test_blocks_of_depth_stay_in_the_first_level(folder, tmp_path):
    """A model of that cache says what is asked of the second: 1024 numbers of depth at once would be 64 bytes a cycle and more."""
    net = Net(14)
    ir.save(net.model(net("Conv", net.input(2, 1024, 7, 7), net.weight(256, 1024, 1, 1), net.normal(256))), tmp_path / "net.onnx")
    done = amx_trap.run(folder, HERE.parents[2] / "bench" / "amx.py", tmp_path / "net.onnx", "--precision", "medium", "--json",
                        tmp_path / "counts.json", INFOLD_ISA="amx")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "counts.json").read_text())["net:medium"]
    assert found["dot"] == 7 * 16 * 32 and 30 < found["from_second"] < 55
    assert found["of_peak_cached"] < found["of_peak_overlapped"] < 1


def forked() -> dict:
    """A child of a process with a session and a pool of threads goes on computing, with tiles of its own."""
    model, feeds = network()
    expected = outputs(model, feeds, "amx", "high", threads=2)
    child = os.fork()
    if child == 0:
        same = np.array_equal(outputs(model, feeds, "amx", "high", threads=2), expected)
        os._exit(0 if same else 1)
    status = os.waitpid(child, 0)[1]
    return {"status": os.waitstatus_to_exitcode(status), "same": np.array_equal(outputs(model, feeds, "amx", "high"), expected)}


def test_fork(folder):
    assert in_amx(folder, "forked") == {"status": 0, "same": True}


def names() -> dict:
    return {"names": _native.isa_names(), "asked": amx_trap.counts()["permission"]}


@trapped
@pytest.mark.parametrize("missing", ["cpuid", "xcr0", "permission", "nothing"])
def test_amx_needs_chip_system_and_permission(missing, folder):
    """Without one of them the next best is taken, and the permission is asked for last."""
    found = in_amx(folder, "names", AMX_TRAP_WITHOUT=missing)
    assert ("amx" in found["names"]) == (missing == "nothing") and "avx512_bf16" in found["names"]
    assert found["asked"] == (missing in ("permission", "nothing"))


CONFIG = bytes([1] + [0] * 15) + b"\x40\0" * 8 + bytes(16) + bytes([16] * 8 + [0] * 8)
SMALL = bytes([1] + [0] * 15) + b"\x10\0" * 8 + bytes(16) + bytes([3] * 8 + [0] * 8)
LDTILECFG, TILERELEASE, RET = b"\xc4\xe2\x78\x49\x07", b"\xc4\xe2\x78\x49\xc0", b"\xc3"  # of what rdi points to
DOT = b"\xc4\xe2\x4a\x5c\xc4"  # tmm0 += tmm4 * tmm6
FAULTS = {
    "no configuration": (CONFIG, b"\xc4\xe2\x7b\x49\xc0"),
    "palette": (b"\2" + CONFIG[1:], LDTILECFG),
    "first row": (CONFIG[:1] + b"\1" + CONFIG[2:], LDTILECFG),
    "reserved": (CONFIG[:2] + b"\1" + CONFIG[3:], LDTILECFG),
    "bytes of a row": (CONFIG[:16] + b"\x41" + CONFIG[17:], LDTILECFG),
    "rows": (CONFIG[:48] + b"\x11" + CONFIG[49:], LDTILECFG),
    "rows without bytes": (CONFIG[:16] + b"\0" + CONFIG[17:], LDTILECFG),
    "tile 8": (CONFIG[:32] + b"\4" + CONFIG[33:], LDTILECFG),
    "released": (CONFIG, LDTILECFG + TILERELEASE + DOT),
    "a tile twice": (CONFIG, LDTILECFG + b"\xc4\xe2\x5a\x5c\xc4"),
    "shapes": (SMALL, LDTILECFG + DOT),
    "no stride": (CONFIG, LDTILECFG + b"\xc4\xe2\x7b\x4b\x07"),
    "W": (CONFIG, LDTILECFG + b"\xc4\xe2\xca\x5c\xc4"),
    "unknown": (CONFIG, LDTILECFG + b"\xc4\xe2\x49\x5c\xc4"),
}


def call(code: bytes, *arguments) -> None:
    """Run machine code: arguments in rdi, rsi, rdx."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code + RET)
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arguments))(ctypes.addressof(ctypes.c_char.from_buffer(memory)))(*arguments)


def faults() -> dict:
    """The signal that ends a process for each of FAULTS."""
    ends = {}
    for name, (config, code) in FAULTS.items():
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            call(code, ctypes.create_string_buffer(config, 64))
            os._exit(0)
        ends[name] = -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ends


@trapped
def test_the_trap_refuses_what_the_manual_does(folder):
    assert in_amx(folder, "faults") == dict.fromkeys(FAULTS, int(signal.SIGABRT))


def addressing() -> dict:
    """Small tiles loaded and stored through every form of address; 3 rows of 16 bytes, and what lies around them."""
    data, found = np.arange(4096, dtype=np.uint8), {}
    load, store = b"\xc4\xe2\x7b\x4b", b"\xc4\xe2\x7a\x4b\x0c\x32"  # tmm1; store to [rdx + rsi]
    forms = {"sib": (b"\x0c\x37", 0, 1), "disp8": (b"\x4c\x37\xf0", -16, 1), "disp32": (b"\x8c\x37\x00\x01\0\0", 256, 1),
             "scale": (b"\x4c\x77\x08", 8, 2), "hint": (b"\x0c\x37", 0, 1)}
    for name, (address, offset, scale) in forms.items():
        out, start, stride = np.zeros((8, 32), np.uint8), 512, 32
        opcode = b"\xc4\xe2\x79\x4b" if name == "hint" else load
        config = ctypes.create_string_buffer(SMALL, 64)
        call(LDTILECFG, config)
        call(opcode + address + store, data.ctypes.data + start, stride, out.ctypes.data)
        call(TILERELEASE)
        expected = np.zeros_like(out)
        for row in range(3):
            at = start + offset + row * stride * scale
            expected[row, :16] = data[at:at + 16]
        found[name] = bool(np.array_equal(out, expected) and out.any())
    return found


def test_addresses(folder):
    assert all(in_amx(folder, "addressing").values())


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
