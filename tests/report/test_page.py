"""The report as data and as a page; tests/report/browser.py looks at the page in a real browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from report_pages import HOSTILE, look, renamed
from session_harness import Net

import infold
from infold.report.page import render


class Reader(HTMLParser):
    """What a page is made of: tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def every(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def lenet() -> dict:
    return look(infold.load(files("infold.demo") / "lenet.onnx"), "onnxruntime", shapes={"image": (2, 1, 28, 28)})


def test_it_knows_everything(lenet: dict) -> None:
    assert lenet["fold"]["batchnorms"] == 4 and {item["name"] for item in lenet["fold"]["items"]} <= {
        row["before"]["name"] for row in lenet["graph"]["rows"] if row["before"]
    }
    assert lenet["bench"]["batch"] == 2 and lenet["bench"]["engines"]["infold"]["runs"] >= 6
    assert lenet["accuracy"]["ok"] and len(lenet["accuracy"]["layers"]) > 3
    assert sum(layer["share"] for layer in lenet["layers"]) == pytest.approx(1)
    assert lenet["machine"]["caches"]["L1"] > 0 and lenet["doctor"]["layers"]


def test_layers_have_operations_bytes_and_a_roof(lenet: dict) -> None:
    (first,) = (layer for layer in lenet["layers"] if layer["name"] == next(
        row["after"]["name"] for row in lenet["graph"]["rows"] if row["after"] and row["after"]["op_type"] == "Conv"))
    (row,) = (row for row in lenet["graph"]["rows"] if row["after"] and row["after"]["name"] == first["name"])
    model = onnx.load(files("infold.demo") / "lenet.onnx")
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] == 1)
    outputs = np.prod([int(n) for n in row["after"]["shape"].split("×")[2:]]) * 2
    assert first["flops"] == 2 * outputs * np.prod(weight.dims)
    assert first["bytes"] > 4 * (2 * 28 * 28 + np.prod(weight.dims))
    for layer in lenet["layers"]:
        assert layer["roof_gflops"] <= layer["peak_gflops"] * (1 + 1e-9)
        assert layer["least_ms"] >= 1e3 * layer["bytes"] / layer["bandwidth"] * (1 - 1e-9)


def test_memory_is_what_the_plan_says(lenet: dict) -> None:
    memory = lenet["memory"]
    for step, live in enumerate(memory["live"]):
        here = sorted((b["offset"], b["offset"] + b["bytes"]) for b in memory["blocks"] if b["first"] <= step <= b["last"])
        assert live == sum(end - begin for begin, end in here)
        assert all(before[1] <= after[0] for before, after in pairwise(here))
    assert max(b["offset"] + b["bytes"] for b in memory["blocks"]) <= memory["arena_bytes"] <= memory["unshared_bytes"] + 64 * len(
        memory["blocks"])
    assert memory["live"][memory["peak_step"]] == max(memory["live"])


def test_the_graph_has_every_node_once(lenet: dict) -> None:
    rows, graph = lenet["graph"]["rows"], onnx.load(files("infold.demo") / "lenet.onnx").graph
    assert [row["before"]["name"] for row in rows if row["before"]] == [
        node.name or node.output[0] for node in graph.node if node.op_type != "Constant"]
    assert len([row for row in rows if row["after"]]) == lenet["graph"]["nodes_after"]
    norms = [row for row in rows if row["before"] and row["before"]["op_type"] == "BatchNormalization"]
    assert len(norms) == 4 and all(row["fate"] in ("folded", "fused", "kept") and row["why"] for row in norms)


def test_nodes_without_names_stand_beside_themselves() -> None:
    net = Net(5)
    inner = net("Conv", net.input(1, 4, 6, 6), net.weight(4, 4, 3, 3))
    norm = net("BatchNormalization", inner, net.positive(4), net.normal(4), net.normal(4), net.positive(4))
    rows = look(net.model(net("Relu", norm)))["graph"]["rows"]
    assert [(row["before"]["op_type"], row["fate"], row["after"] and row["after"]["op_type"]) for row in rows] == [
        ("Conv", "same", "Conv"), ("BatchNormalization", "folded", None), ("Relu", "same", "Relu")]


def test_the_page_stands_alone(lenet: dict) -> None:
    page = render(lenet)
    reader = Reader(page)
    assert not reader.open
    for tag, attributes in reader.tags:
        for name in ("src", "href", "action", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:,")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in page and "@import" not in page and re.findall(r"https?://", page) == []
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = [attributes["href"][1:] for attributes in reader.every("a")]
    assert targets and set(targets) <= set(identifiers)


def test_charts_have_text(lenet: dict) -> None:
    reader = Reader(render(lenet))
    drawings = reader.every("svg")
    assert len(drawings) == 3 and all(len(drawing["aria-label"]) > 40 for drawing in drawings)
    assert all(attributes["aria-label"] for attributes in reader.every("a") if "data-name" in attributes)


def test_names_cannot_inject() -> None:
    document = look(renamed(HOSTILE), shapes={"image": (1, 1, 28, 28)})
    page = render({**document, "model": HOSTILE})
    reader = Reader(page)
    assert len(reader.every("script")) == 1 and not reader.every("img") and "49" + "&" not in reader.text
    assert HOSTILE in reader.text and not [n for _, a in reader.tags for n in a if n.startswith("on")]
    assert json.dumps(document)


def test_a_batchnorm_in_training_mode_is_the_doctors(tmp_path: Path) -> None:
    model = onnx.load(files("infold.demo") / "lenet.onnx")
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    norm.attribute.append(onnx.helper.make_attribute("training_mode", 1))
    with pytest.raises(infold.UnsupportedError, match="training mode"):
        look(infold.load(model))
    document = look(infold.load(model), shapes={"image": (2, 1, 28, 28)}, training_mode="running")
    assert document["doctor"]["findings"][0]["kind"] == "training-mode" and "training-mode" in render(document)


def test_a_fallback_is_named() -> None:
    node = onnx.helper.make_node("TfIdfVectorizer", ["t"], ["y"], "words", max_gram_length=1, max_skip_count=0, min_gram_length=1,
                                 mode="TF", ngram_counts=[0], ngram_indexes=[0, 1], pool_int64s=[2, 3])
    graph = onnx.helper.make_graph([node], "g", [onnx.helper.make_tensor_value_info("t", onnx.TensorProto.INT64, [6])],
                                   [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])])
    document = look(infold.load(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)))
    (layer,) = document["layers"]
    assert layer["name"] == "words" and not layer["native"] and "words" in Reader(render(document)).text
