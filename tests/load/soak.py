"""All scenarios over and over, for as long as is asked, and whether the process grows: `python tests/load/soak.py --minutes 10`; or
some of them once, as often as is asked: `python tests/load/soak.py forks=1000 interrupts=1000`.

What was done is added to build/soak.json. Memory is the resident set after a collection, at the end of each round over every
scenario; the first rounds warm allocators and caches up.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import scenarios  # noqa: E402 - found by the line above

COUNTS = {"threads": 12, "forks": 30, "interrupts": 20, "allocations": 200, "arenas": 60, "run_failing": 1000, "changing_inputs": 5}
STATE = Path(__file__).parents[2] / "build" / "soak.json"
ALONE = "allocations"  # CPython 3.11 loses an argument for whose cell in a closure it finds no memory, and with it the session
WARM = 3  # rounds
GROWTH = 8 << 20  # bytes from the end of the warm rounds on: more is a leak, less is how allocators breathe


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("once", nargs="*", metavar="SCENARIO=COUNT", help="one round of these alone: " + ", ".join(COUNTS))
    options = parser.parse_args()
    counts = {name: int(count) for name, _, count in (item.partition("=") for item in options.once)} or COUNTS
    if unknown := counts.keys() - COUNTS:
        parser.error(f"no scenario {min(unknown)!r}")
    began, total, sizes = time.monotonic(), {}, []
    while not sizes or (not options.once and (time.monotonic() < began + 60 * options.minutes or len(sizes) <= WARM)):
        for name, count in counts.items():
            scenario = getattr(scenarios, name)
            for what, number in (scenarios.run_alone(name, count) if name == ALONE else scenario(count)).items():
                total[what] = max(total.get(what, 0), number) if what.endswith("ms") else total.get(what, 0) + number
        sizes.append(resident())
        print(f"{(time.monotonic() - began) / 60:6.1f} min  {sizes[-1] / 2**20:7.1f} MiB  {total}", flush=True)
    if options.once:
        return 0
    grown = min(sizes[-3:]) - min(sizes[WARM - 1 : WARM + 2])
    state = json.loads(options.state.read_text()) if options.state.exists() else {}
    for what, number in {**total, "minutes": (time.monotonic() - began) / 60}.items():
        state[what] = max(state.get(what, 0), number) if what.endswith("ms") else state.get(what, 0) + number
    state["bytes grown"] = max(grown, state.get("bytes grown", 0))
    options.state.parent.mkdir(parents=True, exist_ok=True)
    partial = options.state.with_suffix(".part")
    partial.write_text(json.dumps(state, indent=1))
    partial.replace(options.state)
    print(f"{grown} bytes grown in {len(sizes) - WARM} rounds")
    return int(grown > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
