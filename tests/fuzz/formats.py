"""Harnesses of the file formats: mutants are loaded, nothing more; but what is left of compiled models also runs."""

from __future__ import annotations

import base64
import copy
import io
import os
import random
import tempfile
import warnings
import zipfile
from pathlib import Path

import mutate
import onnx
import torch7_networks
from caffe_harness import Net
from campaign import Harness
from test_caffe_detection import detector
from test_compiled import header_of, signed
from torch7_writer import Writer, dump

import infold
from infold.errors import Error
from infold.importers import caffe, torch7
from infold.importers import onnx as onnx_importer


class OnnxBytes(Harness):
    """Serialised ONNX models whose bytes change."""

    name = "onnx-bytes"

    def prepare(self) -> None:
        import graphs

        self.seeds = [m.SerializeToString() for m, _ in graphs.small_models()]

    def trial(self, rng, second_opinion):
        onnx_importer.load(mutate.data(rng, rng.choice(self.seeds), rng.choice(self.seeds)))
        return "loaded", ""


class OnnxMessages(Harness):
    """ONNX models whose protobuf fields change."""

    name = "onnx-fields"
    prepare = OnnxBytes.prepare

    def trial(self, rng, second_opinion):
        model, other = (onnx.ModelProto.FromString(rng.choice(self.seeds)) for _ in range(2))
        mutate.message(rng, model, other)
        onnx_importer.load(model)
        return "loaded", ""


def caffe_nets() -> list[tuple[bytes, bytes]]:
    """(prototxt, caffemodel) of small nets, together with all common layers."""
    image = {"x": (2, 6, 8, 11)}
    conv = "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 pad: 1 stride: 2 group: 2 dilation: 2 }"
    deconv = "convolution_param { num_output: 4 kernel_size: 4 pad: 1 stride: 2 group: 2 }"
    nets = [
        Net(**image).layer("Convolution", params=conv, blobs=[(4, 3, 3, 2), (4,)])
        .layer("BatchNorm", ["y"], ["b"], blobs=[(4,), (4,), [3.5]]).layer("Scale", ["b"], ["s"], "scale_param { bias_term: true }",
                                                                           blobs=[(4,), (4,)])
        .layer("ReLU", ["s"], ["s"], "relu_param { negative_slope: 0.1 }")
        .layer("Pooling", ["s"], ["p"], "pooling_param { kernel_size: 3 stride: 2 pad: 1 }")
        .layer("InnerProduct", ["p"], ["f"], "inner_product_param { num_output: 5 }", blobs=[(5, 24), (5,)])
        .layer("Softmax", ["f"], ["out"]),
        Net(**image).layer("Deconvolution", params=deconv, blobs=[(6, 2, 4, 4), (4,)])
        .layer("PReLU", ["y"], ["q"], blobs=[(4,)])
        .layer("LRN", ["q"], ["l"], "lrn_param { local_size: 3 alpha: 0.7 beta: 0.6 k: 1.5 }")
        .layer("Tile", ["l"], ["t"], "tile_param { axis: 1 tiles: 3 }")
        .layer("Reduction", ["t"], ["r"], "reduction_param { operation: MEAN axis: 2 }"),
        Net(**image, z=(2, 6, 3, 11)).layer("Concat", ["x", "z"], ["c"], "concat_param { axis: 2 }")
        .layer("Slice", ["c"], ["a", "b"], "slice_param { axis: 1 slice_point: 2 }")
        .layer("Reshape", ["a"], ["r"], "reshape_param { shape { dim: 0 dim: -1 dim: 4 } }")
        .layer("Permute", ["b"], ["p"], "permute_param { order: 0 order: 2 order: 3 order: 1 }")
        .layer("Flatten", ["p"], ["f"], "flatten_param { axis: 1 end_axis: 2 }")
        .layer("Power", ["r"], ["w"], "power_param { power: 2 scale: 0.5 shift: 1.5 }"),
        Net(**image, z=(2, 6, 8, 11)).layer("Eltwise", ["x", "z"], ["e"], "eltwise_param { coeff: 0.5 coeff: -1 }")
        .layer("Crop", ["e", "z"], ["k"], "crop_param { axis: 2 offset: 0 offset: 0 }")
        .layer("Interp", ["k"], ["i"], "interp_param { height: 12 width: 17 }")
        .layer("ShuffleChannel", ["i"], ["h"], "shuffle_channel_param { group: 3 }")
        .layer("Upsample", ["h"], ["u"], "upsample_param { scale: 2 }").layer("MVN", ["u"], ["m"])
        .layer("ArgMax", ["m"], ["g"], "argmax_param { axis: 1 }"),
        Net(**image).layer("Normalize", ["x"], ["n"], "norm_param { across_spatial: false channel_shared: false }", blobs=[(6,)])
        .layer("Pooling", ["n"], ["p"], "pooling_param { pool: AVE global_pooling: true }").layer("Dropout", ["p"], ["d"])
        .layer("Bias", ["d"], ["b"], blobs=[(6,)]),
        detector(), detector(batch=2),
    ]  # fmt: skip
    return [(net.text.encode(), net.caffemodel) for net in nets]


class Prototxt(Harness):
    """The text of Caffe nets; their weights stay."""

    name = "prototxt"

    def prepare(self) -> None:
        warnings.simplefilter("ignore")
        self.seeds = caffe_nets()

    def trial(self, rng, second_opinion):
        text, weights = rng.choice(self.seeds)
        caffe.loads(mutate.text(rng, text, rng.choice(self.seeds)[0]), weights or None)
        return "loaded", ""


class Caffemodel(Prototxt):
    """The weights of Caffe nets, by bytes and by fields; the text stays."""

    name = "caffemodel"

    def prepare(self) -> None:
        super().prepare()
        self.seeds = [seed for seed in self.seeds if seed[1]]

    def trial(self, rng, second_opinion):
        from infold.importers.caffe_schema import MESSAGES

        text, weights = rng.choice(self.seeds)
        if rng.random() < 0.5:
            weights = mutate.data(rng, weights, rng.choice(self.seeds)[1])
        else:
            net = MESSAGES["NetParameter"].FromString(weights)
            mutate.message(rng, net, MESSAGES["NetParameter"].FromString(rng.choice(self.seeds)[1]))
            weights = net.SerializeToString()
        caffe.loads(text, weights)
        return "loaded", ""


class Torch7(Harness):
    """Torch7 files, binary and ASCII."""

    name = "t7"

    def prepare(self) -> None:
        small = [
            torch7_networks.sequential(torch7_networks.conv(3, 4), torch7_networks.norm(4), torch7_networks.pool("Max", 2, 2)),
            torch7_networks.gmodule([None, torch7_networks.conv(3, 4, 1), None], [(0, 1), (1, 2)], 1),
        ]
        networks = [*small, *small, torch7_networks.autoencoder(), torch7_networks.lenet(), torch7_networks.inception()]
        self.binary = [dump(n) for n in networks]
        self.text = [bytes(Writer(ascii=True).write(n).data) for n in small]

    def trial(self, rng, second_opinion):
        if rng.random() < 0.75:
            mutant = mutate.data(rng, rng.choice(self.binary), rng.choice(self.binary))
        else:
            mutant = mutate.text(rng, rng.choice(self.text), rng.choice(self.text))
        torch7.load(mutant, shape=rng.choice((None, (1, 3, 32, 32))))
        return "loaded", ""


class Pt2(Harness):
    """Archives of torch.export: the bytes of the zip file, and the records in it."""

    name = "pt2"

    def prepare(self) -> None:
        import torch

        module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
        buffer = io.BytesIO()
        torch.export.save(torch.export.export(module, (torch.ones(1, 3, 8, 8),)), buffer)
        self.seed = buffer.getvalue()
        with zipfile.ZipFile(buffer) as archive:
            self.records = {item.filename: archive.read(item) for item in archive.infolist()}
        torch.set_num_threads(1)

    def trial(self, rng, second_opinion):
        from infold.importers import _pt2

        if rng.random() < 0.5:
            _pt2.check(mutate.data(rng, self.seed, self.seed))
            return "loaded", ""
        records = dict(self.records)
        name = rng.choice(list(records))
        records[name] = (mutate.text if name.endswith(".json") else mutate.data)(rng, records[name])
        if rng.random() < 0.1:
            entry = rng.choice(("code.py", "data/weights/weight_9", "../x", "byteorder"))
            records[f"{name.partition('/')[0]}/{entry}"] = b"import os"
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for record, content in records.items():
                archive.writestr(record, content)
        _pt2.check(out.getvalue())
        return "loaded", ""


class Compiled(Harness):
    """Compiled models: bytes anywhere, or what the header says, under a right checksum. What still loads is run."""

    name = "infold"

    def prepare(self) -> None:
        import graphs

        self.folder = tempfile.TemporaryDirectory()
        seen, path = set(), Path(self.folder.name, "seed.infold")
        self.seeds = []
        for model, inputs in graphs.small_models():
            kinds = frozenset(node.op_type for node in model.graph.node)
            if kinds <= seen:
                continue
            try:
                infold.compile(model, path, fallback=len(kinds) > 3)
            except Error:  # one that needs Python
                continue
            seen |= kinds
            names = [port.name for port in infold.InferenceSession(path).get_inputs()]
            self.seeds.append((path.read_bytes(), dict(zip(names, inputs))))

    def trial(self, rng, second_opinion):
        (seed, feeds), small = rng.choice(self.seeds), True
        if rng.random() < 0.3:
            seed = mutate.data(rng, seed, rng.choice(self.seeds)[0])
        else:
            header, body = header_of(seed)
            for _ in range(rng.choice((1, 1, 2, 3))):
                small &= _bend(rng, header)
            seed = signed(header, mutate.data(rng, body, body) if rng.random() < 0.2 else body)
        path = Path(self.folder.name, f"{os.getpid()}.infold")
        path.unlink(missing_ok=True)  # a session may map the one before
        path.write_bytes(seed)
        session = infold.InferenceSession(path, infold.SessionOptions(1, max_memory=1 << 26))
        if not small:  # nothing bounds how often a step may go over the same memory
            return "loaded", ""
        session.run(None, feeds)
        return "ran without a second opinion", ""


def _bend(rng: random.Random, header: dict) -> bool:
    """One value anywhere in a header, or a parameter of a step, becomes another. Returns whether no parameter becomes large."""
    places, todo = [], [header]
    while todo:
        owner = todo.pop()
        for key, value in owner.items() if isinstance(owner, dict) else enumerate(owner):
            places.append((owner, key))
            if isinstance(value, (dict, list)):
                todo.append(value)
    parameters = [(owner, key) for owner, key in places if key == 1 and isinstance(owner[key], str) and len(owner[key]) > 60]
    owner, key = rng.choice(parameters if parameters and rng.random() < 0.4 else places)
    old, small = owner[key], True
    if (owner, key) in parameters:
        raw = bytearray(base64.b64decode(old))
        at = rng.randrange(len(raw) // 8) * 8
        number = mutate.integer(rng, int.from_bytes(raw[at : at + 8], "little", signed=True))
        raw[at : at + 8] = number.to_bytes(8, "little", signed=True)
        owner[key], small = base64.b64encode(raw).decode(), abs(number) < 1000
    elif isinstance(owner, list) and rng.random() < 0.3:
        if rng.random() < 0.5:
            owner.pop(key)
        else:
            owner.insert(rng.randrange(len(owner) + 1), old)
    elif isinstance(old, int) and rng.random() < 0.6:
        owner[key] = rng.choice((mutate.integer(rng, old), old + 4, old - 4, old + 64, 2 * old, -old))
    else:
        other, name = rng.choice(places)
        owner[key] = rng.choice((-1, 0, 1, 1 << 40, 1 << 63, -(1 << 70), None, "x", [], {}, 1.5, True, copy.deepcopy(other[name])))
    return small


def harnesses() -> list[Harness]:
    return [OnnxBytes(), OnnxMessages(), Prototxt(), Caffemodel(), Torch7(), Pt2(), Compiled()]
