"""Mutations: of bytes, of the numbers in a text, of protobuf messages by reflection. Everything is drawn from the given
generator."""

from __future__ import annotations

import random
import re
import struct

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = [
    *(-1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 64, 127, 128, 255, 1000, 65535, 2**24),
    *(sign * (2**bits + more) for sign in (1, -1) for bits in (31, 32, 40, 62) for more in (-1, 0, 1)),
    *(2**63 - 1, -(2**63)),
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 1e30, 3.5e38, -1e30, 1e300, float("nan"), float("inf"), float("-inf")]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]\w*")


def integer(rng: random.Random, old: int = 0) -> int:
    if rng.random() < 0.3:
        return max(-(2**63), min(2**63 - 1, old + rng.choice((-2, -1, 1, 2))))
    return rng.choice(INTEGERS)


def data(rng: random.Random, seed: bytes, other: bytes = b"") -> bytes:
    """One to eight changes of single bytes, numbers, pieces: flipped, replaced, cut, doubled, moved, taken from `other`."""
    out = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not out:
            break
        kind, at = rng.randrange(9), rng.randrange(len(out))
        size = min(len(out) - at, rng.choice((1, 2, 4, 8, 16, 64, 1000)))
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:  # a number
            code = rng.choice(["<i", "<q", ">i", ">q", "<f", "<d"])
            value = rng.choice(FLOATS[:-4]) if code[1] in "fd" else integer(rng)
            with_room = struct.pack(code, max(min(value, 3e38), -3e38)) if code[1] in "fd" else value.to_bytes(
                16, "little" if code[0] == "<" else "big", signed=True)
            piece = with_room[: struct.calcsize(code)] if code[0] == "<" else with_room[-struct.calcsize(code):]
            out[at : at + len(piece)] = piece
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            del out[at:]
        elif kind == 5:
            out[at:at] = out[at : at + size] * rng.choice((1, 1, 1, 100))
        elif kind == 6:
            to = rng.randrange(len(out))
            out[to : to + size] = out[at : at + size]
        elif kind == 7 and other:
            source = rng.randrange(len(other))
            out[at : at + size] = other[source : source + size]
        else:
            out[at:at] = bytes(rng.randrange(256) for _ in range(size))
    return bytes(out)


def text(rng: random.Random, seed: bytes, other: bytes = b"") -> bytes:
    """Numbers become edge cases, words change places, brackets go or come, lines are doubled, moved or cut; or bytes change."""
    out = seed
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind = rng.randrange(8)
        if kind < 3 and (found := list(_NUMBER.finditer(out))):
            new = rng.choice(FLOATS) if rng.random() < 0.2 else integer(rng)
            out = _replace(out, rng.choice(found), str(new).encode())
        elif kind == 3 and (found := list(_WORD.finditer(out))):
            out = _replace(out, rng.choice(found), rng.choice(found)[0])
        elif kind == 4 and (found := list(re.finditer(rb"[{}\"':]", out))):
            out = _replace(out, rng.choice(found), rng.choice((b"", b"{", b"}", b'"', b"{" * 1000)))
        elif kind == 5 and (lines := out.splitlines(True)):
            source = other if other and rng.random() < 0.3 else out
            lines.insert(rng.randrange(len(lines)), rng.choice(source.splitlines(True) or [b""]))
            out = b"".join(lines)
        elif kind == 6 and (lines := out.splitlines(True)):
            del lines[rng.randrange(len(lines))]
            out = b"".join(lines)
        else:
            out = data(rng, out, other)
    return out


def _replace(text: bytes, match: re.Match, new: bytes) -> bytes:
    return text[: match.start()] + new + text[match.end() :]


def message(rng: random.Random, root: Message, other: Message | None = None) -> None:
    """One to four changes of fields anywhere in the message, in place: other values, or repeated ones dropped, doubled, moved."""
    donors = fields(other) if other is not None else []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        slots = fields(root)
        if not slots:
            return
        owner, field = rng.choice(slots)
        _change(rng, owner, field, [d for d in donors if d[1] is field] if donors else [], slots)


def fields(root: Message) -> list[tuple[Message, FieldDescriptor]]:
    """All (message, field set in it) of a tree."""
    out, todo = [], [root]
    while todo:
        owner = todo.pop()
        for field, value in owner.ListFields():
            out.append((owner, field))
            if field.message_type is not None:
                todo.extend(value if field.is_repeated else [value])
    return out


def _change(rng: random.Random, owner: Message, field: FieldDescriptor, donors: list, slots: list) -> None:
    name = field.name
    if not field.is_repeated:
        if field.message_type is not None:
            owner.ClearField(name) if rng.random() < 0.5 or not donors else getattr(owner, name).CopyFrom(
                getattr(rng.choice(donors)[0], name))
        elif rng.random() < 0.1:
            owner.ClearField(name)
        else:
            setattr(owner, name, _value(rng, field, getattr(owner, name), slots))
        return
    values = getattr(owner, name)
    at, kind = rng.randrange(len(values)), rng.randrange(6)
    if field.message_type is not None:
        copies = [type(v).FromString(v.SerializeToString()) for v in values]
    else:
        copies = list(values)
        if kind < 3:
            copies[at] = _value(rng, field, copies[at], slots)
    if kind == 3:
        del copies[at]
    elif kind == 4:
        copies.insert(rng.randrange(len(copies) + 1), copies[at])
    elif kind == 5:
        copies.insert(rng.randrange(len(copies)), copies.pop(at))
    elif field.message_type is not None and donors:
        copies[at] = rng.choice(getattr(rng.choice(donors)[0], name))
    owner.ClearField(name)
    getattr(owner, name).extend(copies)


def _value(rng: random.Random, field: FieldDescriptor, old, slots: list):
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_STRING:
        same = [value for owner, f in slots if f.type == FieldDescriptor.TYPE_STRING
                for value in (getattr(owner, f.name) if f.is_repeated else [getattr(owner, f.name)])]
        return rng.choice((rng.choice(same), rng.choice(same), "", old + "x", "../" + old, "x" * 1000))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return data(rng, old, old)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice((*FLOATS, -old, old * 2))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return not old
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    value, bits = integer(rng, old), 32 if "32" in _CPP[kind] else 64
    signed = not _CPP[kind].startswith("U")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return max(low, min(high, value))


_CPP = {getattr(FieldDescriptor, f"CPPTYPE_{name}"): name for name in ("INT32", "INT64", "UINT32", "UINT64")}
