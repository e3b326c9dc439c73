"""Whole models: what exporters really write, folded and compared in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from passes_harness import fold_and_compare, model, normal, operators

from infold import passes

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize(
    "name, folded, remaining, convolutions",
    [
        ("resnet50", 53, 0, 53),
        ("shufflenet", 49, 0, 49),
        ("inception_v2", 69, 0, 69),
        ("densenet121", 59, 62, 121),
        ("squeezenet", 0, 0, 26),
    ],
)
def test_light_models(name, folded, remaining, convolutions):
    subject = ir.load(LIGHT / f"light_{name}.onnx")
    x = next(value for value in subject.graph.inputs if not value.is_initializer())
    feeds = {x.name: normal(np.random.default_rng(0), *x.shape.numpy())}
    result, report = fold_and_compare(subject, feeds)
    assert (report.folded, report.remaining) == (folded, remaining)
    assert operators(result)["Conv"] == convolutions and operators(result)["ConstantOfShape"] == 0


def export(module, x, **options) -> ir.Model:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
            torch.nn.init.normal_(layer.running_mean)
            torch.nn.init.uniform_(layer.running_var, 0.1, 2)
    program = torch.onnx.export(
        module.eval(), (x,), input_names=["x"], output_names=["y"], dynamo=True, verbose=False, **options
    )
    return ir.from_proto(program.model_proto)  # serialised: weights that no longer belong to torch


@pytest.mark.zoo
@pytest.mark.timeout(300)
def test_torch_exports_as_traced():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU())
            self.depthwise = nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8, eps=1e-3), nn.Hardswish()
            )
            self.up = nn.Sequential(
                nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2, bias=False), nn.BatchNorm2d(6), nn.Mish()
            )
            self.head = nn.Sequential(
                nn.Dropout(), nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.GELU(approximate="tanh")
            )

        def forward(self, x):
            x = self.up(self.depthwise(self.stem(x)))
            first, second = x.chunk(2, dim=1)
            return self.head(torch.cat([second, first], 1).mean((2, 3)))

    subject = export(Network(), torch.randn(2, 3, 8, 8), optimize=False, opset_version=18)
    assert operators(subject)["BatchNormalization"] == 4 and operators(subject)["CastLike"] > 0
    feeds = {"x": normal(np.random.default_rng(0), 2, 3, 8, 8)}
    result, report = fold_and_compare(subject, feeds, tolerance=1e-5)
    assert (report.batchnorms, report.folded, report.remaining) == (4, 4, 0)
    assert not {"CastLike", "Expand", "Shape", "Pad", "SplitToSequence", "Constant"} & set(operators(result))
    result, _ = fold_and_compare(subject, feeds, tolerance=1e-5, rule=passes.prepare)
    assert {name for name in operators(result) if name.startswith("infold::")} <= {
        "infold::Silu",
        "infold::Mish",
        "infold::Gelu",
        "infold::GeluTanh",
        "infold::HardSwish",
    }
    assert {"infold::Silu", "infold::Gelu", "infold::GeluTanh"} <= set(operators(result))


@pytest.mark.zoo
@pytest.mark.timeout(300)
def test_torch_exports_with_open_dimensions():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    dim = torch.export.Dim
    subject = export(
        network,
        torch.randn(2, 3, 16, 16),
        optimize=False,
        dynamic_shapes=({0: dim("n"), 2: dim("h", min=8), 3: dim("w", min=8)},),
    )
    for shape in ((1, 3, 9, 12), (3, 3, 16, 10)):
        result, report = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), *shape)}, tolerance=1e-5)
    assert report.folded == 1 and operators(result)["Expand"] == 0


def test_functions_are_inlined_and_folded():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[2,3,6,6] x) => (float[2,4,4,4] y) { c = Conv(x, w) y = custom.Norm(c, s, b, m, v) }",
        {
            "w": normal(rng, 4, 3, 3, 3),
            "s": normal(rng, 4),
            "b": normal(rng, 4),
            "m": normal(rng, 4),
            "v": np.ones(4, np.float32),
        },
    )
    proto = ir.to_proto(subject)
    proto.opset_import.add(domain="custom", version=1)
    proto.functions.append(
        onnx.parser.parse_function(
            '<opset_import: ["": 17], domain: "custom"> Norm (x, s, b, m, v) => (y) { y = '
            'BatchNormalization(x, s, b, m, v) }'
        )
    )
    result, report = fold_and_compare(ir.from_proto(proto), {"x": normal(rng, 2, 3, 6, 6)})
    assert (
        operators(result) == {"Conv": 1}
        and report.folded == 1
        and not result.functions
        and "custom" not in result.opset_imports
    )


def test_functions_of_another_operator_set_stay():
    proto = ir.to_proto(model("g (float[2,3] x) => (float[2,3] y) { a = Identity(x) y = custom.Minus(a) }"))
    proto.opset_import.add(domain="custom", version=1)
    proto.functions.append(
        onnx.parser.parse_function('<opset_import: ["": 13], domain: "custom"> Minus (x) => (y) { y = Neg(x) }')
    )
    subject = ir.from_proto(proto)
    result, _ = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 3)})
    assert operators(result) == {"custom::Minus": 1}
