"""A `.pt2` archive of torch.export, examined before torch reads it: nothing in it may run code.

torch.export.load unpickles parts of an archive, resolves the operators of its graph to any attribute of the torch
package, evaluates symbolic expressions as Python, and loads compiled code. What gets past this module are archives
whose pickles torch's restricted unpickler accepts, with ATen operators, plain arithmetic, and no compiled parts.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

from infold.errors import InvalidModelError, UnsupportedError, first_line

_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.\w+(\.\w+)?|torch\._?sym_\w+|_operator\.\w+|math\.\w+"
)
_EXPRESSION = re.compile(
    r"(?:[A-Z]\w*\(|'\w+'|[a-z_]+=(?:True|False)|[a-z]+\d+|-?(?:int_)?oo|True|False|\d+(?:\.\d+)?|[\s,()+*/<>=!&|%~-])*"
)
_RECORDS = re.compile(
    r"models/model\.json|data/(weights|constants|sample_inputs)/[\w.-]+|extra/.*|\.data/\w+"
    r"|archive_format|archive_version|byteorder|version"
)
_MAX_DEPTH = 200


def check(data: bytes) -> None:
    """Refuse an archive that is damaged, of an old format, or that could run code.

    Raises:
        InvalidModelError: not an archive of torch.export, or damaged.
        UnsupportedError: it holds something that could run code when loaded; the message names it.
    """
    from torch.export.pt2_archive import PT2ArchiveReader

    try:
        archive = PT2ArchiveReader(io.BytesIO(data))
        names = archive.get_file_names()
        documents = {name: json.loads(archive.read_bytes(name)) for name in names if name.endswith(".json")}
    except (RuntimeError, AssertionError, LookupError, ValueError) as error:
        raise InvalidModelError(f"not an archive of torch.export.save, or of one before torch 2.8: {first_line(error)}") from None
    if len(set(names)) != len(names) or "models/model.json" not in names:
        raise InvalidModelError("the archive must hold one exported program, models/model.json, and no name twice")
    for name in names:
        if not _RECORDS.fullmatch(name):
            raise UnsupportedError(f"the archive holds {name!r}, which is no part of an exported program's graph and weights")
    pickles = {name for name in names if name.startswith("data/") and name.endswith(".pt")}
    for name, document in documents.items():
        if name.startswith("data/"):
            pickles |= _payloads(name, document)
        else:
            _check_graph(document, name, 0)
    for name in pickles & set(names):
        _check_pickle(name, archive)


def _payloads(name: str, document: Any) -> set[str]:
    """The records that a configuration of weights or constants wants to have unpickled."""
    folder = name.rpartition("/")[0]
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("path_name"), str) for entry in config.values()
    ):
        raise InvalidModelError(f"{name} is damaged")
    for key, entry in config.items():
        if not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise UnsupportedError(f"constant {key!r} of the archive is a Python or TorchScript object ({entry['path_name']})")
    return {f"{folder}/{entry['path_name']}" for entry in config.values() if entry.get("use_pickle")}


def _check_graph(value: Any, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidModelError(f"{where} is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, list):
        for item in value:
            _check_graph(item, where, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "target" and isinstance(item, str) and not _TARGET.fullmatch(item):
                raise UnsupportedError(f"the program calls {item!r}, which is no operator of PyTorch's core")
            if key == "expr_str" and not (
                isinstance(item, str) and _EXPRESSION.fullmatch(item) and not re.search(r"\)\s*\(", item)
            ):
                raise UnsupportedError(f"the program has a symbolic expression that is more than arithmetic: {str(item)[:80]!r}")
            _check_graph(item, where, depth + 1)


def _check_pickle(name: str, archive: Any) -> None:
    import torch

    try:
        if data := archive.read_bytes(name):
            torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # of any type: damage may make any instruction of any other
        raise UnsupportedError(f"{name} is a pickle of more than tensors: {first_line(error)}") from None
