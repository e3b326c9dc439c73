"""The Torch7 format: files of real Torch7, and every kind of value written back and read, binary and ASCII."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch7_writer import Obj, Storage, View, Writer, dump

from infold.errors import InvalidModelError
from infold.importers import torch7_reader
from infold.importers.torch7_reader import Function, Key, Object, Table, read

REAL = Path(__file__).parent / "data" / "torch7"
FORMS = [{}, {"ascii": True}, {"long": "<i4"}]


def real(name: str) -> object:
    return read((REAL / f"{name}.t7").read_bytes())


def test_tensors_of_real_torch():
    np.testing.assert_array_equal(real("doubletensor"), [[1, 2, 3], [4, 5, 6.9]])
    tensor = real("floattensor")
    assert tensor.shape == (2, 3, 4) and tensor.dtype == np.float32
    assert tensor[0, 0, 0] == np.float32(0.8635312) and tensor[1, 2, 3] == np.float32(0.13664843)


def test_tables_of_real_torch():
    assert dict(real("hello=123")) == {"hello": 123}
    assert real("list_table").sequence() == ["hello", "world", "third item", 123]
    assert dict(real("map_table1")) == {0: "zero", 1: "hello", 2: "world", 3: "third item", 4: 123}
    assert real("map_table2")["a"] == "non number key"


def test_cycles_of_real_torch():
    table = real("recursive_kv_table")
    assert list(table.items()) == [(table, table)]
    a = real("recursive_class")
    assert a.name == "A" and a.fields["a"] is a


def test_functions_are_never_run():
    function = real("function_upvals")
    assert isinstance(function, Function) and function.bytecode.startswith(b"\x1bLJ")
    assert function.upvalues[1]["name"] == "asdf" and function.upvalues[1]["value"] == 123
    assert len(real("function").bytecode) == 218


def test_classes_of_real_torch():
    assert real("custom_class").name == "Blah" and not real("custom_class").fields
    assert dict(real("tds_hash").fields) == {2: 3, 10: 11, 1: 2}
    assert real("tds_vec").fields.sequence() == [123, 456]
    module = real("gmodule_with_linear_identity")
    assert [child.name for child in module.fields["modules"].sequence()] == [
        "nn.Identity",
        "nn.Identity",
        "nn.Linear",
        "nn.CAddTable",
    ]
    assert module.fields["forwardnodes"][1].fields["data"] is module.fields["innode"].fields["data"]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_round_trip(form):
    shared = np.arange(6, dtype=np.float32).reshape(2, 3)
    storage = Storage(np.arange(12.0))
    value = {
        "nil": None,
        "yes": True,
        "no": False,
        "half": 0.5,
        "inf": float("inf"),
        "text": "BatchNorm\n wörld",
        "": "empty",
        "list": [1, "two", [3.5]],
        "a": shared,
        "b": shared,
        "bytes": np.array([10, 13, 32, 255], np.uint8),
        "long": np.array([2**31 - 1, -7]),
        "half tensor": np.array([1, 2], np.float16),
        "none": np.zeros(0, np.float32),
        "transposed": View(storage, (2, 3), (1, 2), 3),
        "same": View(storage, (4,), (0,), 12),
        "object": Obj("nn.Old", {"x": 1}, None),
        "versioned": Obj("nn.New", {}, "V 2"),
        True: "key",
        7: "seven",
    }
    found = read(dump(value, **form))
    assert (
        found["nil"] is None and found["yes"] is True and found["no"] is False and found["half"] == 0.5 and found["inf"] == np.inf
    )
    assert found["text"] == value["text"] and found[""] == "empty" and found[7] == "seven"
    assert found["list"].sequence()[:2] == [1, "two"] and found["list"][3].sequence() == [3.5]
    assert found["a"] is found["b"] and not found["a"].flags.writeable
    for name in ("a", "bytes", "long", "half tensor", "none"):
        np.testing.assert_array_equal(found[name], value[name])
    np.testing.assert_array_equal(found["transposed"], [[2, 4, 6], [3, 5, 7]])
    np.testing.assert_array_equal(found["same"], [11, 11, 11, 11])
    assert (found["object"].name, found["object"].version) == ("nn.Old", 0)
    assert (found["versioned"].name, found["versioned"].version) == ("nn.New", 2)
    assert [key.value for key in found if isinstance(key, Key)] == [True]


def test_values_after_the_first_are_left_alone():
    assert read(dump("first") + b"rest") == "first"


numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def as_lua(value: object) -> object:
    if isinstance(value, Table):
        return {key: as_lua(entry) for key, entry in value.items()}
    return value


def as_written(value: object) -> object:
    if isinstance(value, (list, dict)):
        return {key: as_written(entry) for key, entry in (enumerate(value, 1) if isinstance(value, list) else value.items())}
    return value


@settings(max_examples=60, deadline=None)
@given(value=plain, form=st.sampled_from(FORMS))
def test_plain_data_survives(value, form):
    assert as_lua(read(dump(value, **form))) == as_written(value)


def test_deep_nesting_needs_no_recursion(monkeypatch):
    writer = Writer()
    for index in range(1, 20_001):
        writer.int(3, index, 1)
        writer.write("x")
    writer.write(5)
    value, depth = read(writer.data), 0
    while isinstance(value, Table):
        value, depth = value["x"], depth + 1
    assert (value, depth) == (5, 20_000)
    monkeypatch.setattr(torch7_reader, "_MAX_DEPTH", 10_000)
    with pytest.raises(InvalidModelError, match="nested more than 10000 deep"):
        read(writer.data)


def tensor(shape, strides, offset=1, storage=None):
    return dump(View(storage or Storage(np.arange(6.0)), shape, strides, offset))


BAD = {
    "empty": (b"", "begins neither"),
    "another format": (b"\x08\x07\x12\x04", "begins neither"),
    "unknown type": (Writer().write([1]).data[:-12] + b"\x09\0\0\0", "unknown type number 9"),
    "truncated": (dump("hello")[:-1], "byte 8: 5 bytes expected, 4 left"),
    "negative string": (b"\x02\0\0\0\xff\xff\xff\xff", "byte 8: -1 bytes expected"),
    "giant string": (b"\x02\0\0\0\xff\xff\xff\x7f", "2147483647 bytes expected, 0 left"),
    "negative table": (b"\x03\0\0\0\x01\0\0\0\xff\xff\xff\xff", "byte 12: -1 elements"),
    "giant table": (b"\x03\0\0\0\x01\0\0\0\xff\xff\xff\x7f", "2147483647 elements, though 0 bytes"),
    "nil key": (b"\x03\0\0\0\x01\0\0\0\x01\0\0\0" + b"\0" * 8, "key that is nil"),
    "nan key": (dump({float("nan"): 1}), "not a number"),
    "past the storage": (tensor((2, 4), (4, 1)), r"ends at element 8 of a storage of 6"),
    "offset past the storage": (tensor((6,), (1,), 2), "ends at element 7"),
    "offset zero": (tensor((6,), (1,), 0), "offset 0"),
    "negative size": (tensor((-2, -3), (3, 1)), r"shape \[-2, -3\]"),
    "negative stride": (tensor((6,), (-1,), 6), r"strides \[-1\]"),
    "overflowing product": (tensor((2**62, 4), (2**62, 1)), "ends at element"),
    "no storage": (dump(View(None, (2,), (1,))), "storage of 0"),
    "ascii words": (b"1\nabc\n", "could not convert"),
    "ascii too few": (dump(np.arange(3.0), ascii=True).replace(b"0 1 2", b"0 1"), "3 numbers expected in this line, 2 found"),
    "ascii beyond int": (b"3\n99999999999999999999\n", "byte 2"),
}


@pytest.mark.parametrize("data, message", BAD.values(), ids=BAD.keys())
def test_bad_files(data, message):
    with pytest.raises(InvalidModelError, match=message):
        read(bytes(data))


def test_overlong_counts_cost_nothing():
    """Sizes are compared with the bytes that are left before anything is allocated."""
    storage = Writer()
    storage.int(4, 1)
    storage.header("torch.FloatStorage")
    storage.longs(2**62)
    rank = Writer()
    rank.int(4, 1)
    rank.header("torch.FloatTensor")
    rank.int(2**31 - 1)
    for writer in (storage, rank):
        with pytest.raises(InvalidModelError, match=r"byte \d+"):
            read(writer.data)


def test_storage_of_a_tensor_must_be_one():
    """A tensor is no storage: its elements may lie far apart."""
    writer = Writer()
    for index, shape in ((1, (3,)), (2, (3,))):
        writer.int(4, index)
        writer.header("torch.DoubleTensor")
        writer.int(1)
        writer.longs(*shape, 2, 1)
    writer.write(Storage(np.arange(6.0)))
    with pytest.raises(InvalidModelError, match="whose storage is none"):
        read(writer.data)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_truncation_is_an_error(form):
    data = dump(
        {"w": np.arange(6.0).reshape(2, 3), "n": [1, "two"], "o": Obj("nn.Linear", {"bias": np.ones(2, np.float32)})}, **form
    )
    read(data)
    # The last characters of an ASCII file may be a line break that nothing needs.
    for length in range(len(data) - (1 if form.get("ascii") else 0)):
        with pytest.raises(InvalidModelError):
            read(data[:length])


@pytest.mark.parametrize("path", sorted(REAL.glob("*.t7")), ids=lambda path: path.stem)
@pytest.mark.parametrize("seed", range(3))
def test_mutations_are_read_or_refused(path, seed):
    rng = np.random.default_rng(seed)
    original = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        data = original.copy()
        places = rng.integers(0, len(data), rng.integers(1, 5))
        data[places] = rng.choice([0, 1, 2, 4, 127, 128, 255, rng.integers(256)], len(places))
        try:
            value = read(data.tobytes())
        except InvalidModelError as error:
            assert "byte" in str(error) or "not a Torch7 file" in str(error)
        else:
            assert value is None or isinstance(value, (bool, int, float, str, np.ndarray, Table, Object, Function))
