"""Which models a script measures, as its arguments say: names in the zoo, paths, or the whole zoo."""
from __future__ import annotations

import argparse
from pathlib import Path


def parser(description: str) -> argparse.ArgumentParser:
    """With the arguments that every script over models takes: `names` and `--zoo`."""
    out = argparse.ArgumentParser(description=description.splitlines()[0])
    out.add_argument("names", nargs="*", help="names in the zoo or paths of .onnx files; default the whole zoo")
    out.add_argument("--zoo", type=Path, default=Path("build/zoo"))
    return out


def variants(zoo: Path, name: str) -> dict[str, Path]:
    """The files of a model by kind: raw and opt for a name, the file itself for a path.

    Raises: SystemExit for a model that is not there.
    """
    if name.endswith(".onnx"):
        return {"given": Path(name)}
    found = {kind: path for kind in ("raw", "opt") if (path := zoo / kind / f"{name}.onnx").exists()}
    if not found:
        raise SystemExit(f"no model {name!r} in {zoo}")
    return found


def models(options: argparse.Namespace) -> dict[str, dict[str, Path]]:
    """The files of each model chosen, by name and kind."""
    return {name: variants(options.zoo, name) for name in options.names or sorted({p.stem for p in options.zoo.glob("*/*.onnx")})}
