"""Torch7 files whose tree of modules cannot be (unknown classes, cycles, giants, mutations) get their typed errors."""

from __future__ import annotations

import numpy as np
import pytest
from torch7_networks import autoencoder, conv, gmodule, inception, linear, norm, random, resnet, sequential
from torch7_writer import Obj, Storage, View, dump, module, table

import infold
from infold.errors import Error, InvalidModelError, UnsupportedError
from infold.importers import torch7


def test_unknown_modules_are_named_by_their_path():
    network = sequential(
        conv(3, 4), table(module("Identity"), sequential(module("ReLU"), module("stn.AffineTransform")))
    )
    with pytest.raises(UnsupportedError, match=r"module 2\.2\.2 \(stn\.AffineTransform\): there is no conversion"):
        torch7.load(dump(network))


def test_a_module_inside_itself():
    network = sequential(conv(3, 3))
    network.fields["modules"].append(network)
    with pytest.raises(InvalidModelError, match=r"module 2 .*contains itself"):
        torch7.load(dump(network))


def test_deep_and_wide_trees_end():
    deep = conv(3, 3)
    for _ in range(300):
        deep = sequential(deep)
    with pytest.raises(Error, match="100 levels"):
        torch7.load(dump(deep), shape=(1, 3, 8, 8))
    wide = module("Identity")
    for _ in range(60):
        wide = sequential(wide, wide)
    with pytest.raises(Error, match="10000 modules"):
        torch7.load(dump(wide), shape=(1, 3))
    with pytest.raises(UnsupportedError):
        torch7.load(dump(wide))


def test_overlapping_weights_are_bounded():
    """A few bytes of tensors that repeat one storage cannot become gigabytes."""
    row = Storage(random(4096))
    layers = [module("LinearNoBias", weight=View(row, (4096, 4096), (0, 1), 1)) for _ in range(40)]
    for index, layer in enumerate(layers):
        layer.fields["weight"] = View(row, (4096, 4096 - index), (0, 1), 1)
    networks = [
        sequential(module("Narrow", dimension=2, index=1, length=4096 - index), layer) for index, layer in enumerate(layers)
    ]
    with pytest.raises(InvalidModelError, match="many times larger than the file"):
        torch7.load(dump(sequential(*networks)), shape=(1, 4096))


@pytest.mark.parametrize(
    "value, message",
    [
        (5, "networks"),
        ({"a": linear(2, 2), "b": linear(2, 2)}, "2 networks"),
        (Obj("nn.Linear", 3), "no table of fields"),
        (Obj("nn.Sequential", {"modules": 3}), "no table of modules"),
        (sequential(3), "no Torch object"),
        (Obj("nn.gModule", {}), "no list"),
        (module("DataParallelTable", []), "no module in it"),
    ],
)
def test_files_without_a_network(value, message):
    with pytest.raises(Error, match=message):
        torch7.load(dump(value), shape=(1, 2))


def test_paths_are_named(tmp_path):
    with pytest.raises(InvalidModelError, match=r"missing\.t7: cannot be opened"):
        torch7.load(tmp_path / "missing.t7")
    (tmp_path / "empty.t7").write_bytes(b"")
    with pytest.raises(InvalidModelError, match="empty"):
        torch7.load(tmp_path / "empty.t7")
    (tmp_path / "short.t7").write_bytes(dump(resnet())[:-100])
    with pytest.raises(InvalidModelError, match=r"short.t7: Torch7 file, byte \d+"):
        torch7.load(tmp_path / "short.t7")
    with pytest.raises(InvalidModelError, match="is a directory"):
        torch7.load(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_networks_load_or_are_refused(seed):
    """What loads is a legal model."""
    rng = np.random.default_rng(seed)
    network = [resnet, inception, autoencoder, lambda: gmodule([None, conv(3, 4), norm(4), None], [(0, 1), (1, 2), (2, 3)], 1)][
        seed
    ]()
    original = np.frombuffer(dump(network), np.uint8)
    structure = [i for i in range(len(original) - 4) if original[i : i + 4].max() < 128][:4000]
    loaded = 0
    for _ in range(120):
        data = original.copy()
        places = rng.choice(structure, rng.integers(1, 4))
        data[places] = rng.choice([0, 1, 2, 3, 4, 5, 63, 64, 127, 128, 191, 255], len(places))
        try:
            model = torch7.load(data.tobytes(), shape=(1, 3, 32, 32))
        except Error as error:
            assert str(error)
        else:
            loaded += 1
            if loaded % 20 == 1:
                try:
                    infold.InferenceSession(model, infold.SessionOptions(max_memory=1 << 28)).run(
                        None, {"input": random(1, 3, 32, 32)}
                    )
                except Error as error:
                    assert str(error)
    assert loaded
