"""Torch7's elementwise and rearranging modules against torch in float64 or NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from torch7_writer import Obj, check, dump, module, run, sequential, table, window

from infold.errors import InvalidModelError, ShapeError, UnsupportedError
from infold.importers import torch7

torch = pytest.importorskip("torch", reason="it is the oracle")
F = torch.nn.functional

RNG = np.random.default_rng(8)
X = (RNG.standard_normal((2, 3, 4, 5)) * 2).astype(np.float32)
T = torch.from_numpy(X).double()
SLOPES = RNG.standard_normal(3).astype(np.float32)
PLANE = RNG.standard_normal((3, 4, 5)).astype(np.float32)


def joined(name: str, *branches: str, **fields: object) -> Obj:
    """What becomes of the tables that these modules make."""
    return sequential(table(*map(module, branches)), module(name, **fields))


def split(*modules: Obj) -> Obj:
    """The channels as a table, and what follows."""
    return sequential(module("SplitTable", dimension=2), *modules)


POINTWISE = {
    "ReLU": (module("ReLU"), F.relu(T)),
    "cudnn.ReLU": (module("cudnn.ReLU"), F.relu(T)),
    "ReLU6": (module("ReLU6"), F.relu6(T)),
    "LeakyReLU": (module("LeakyReLU", negval=0.2), F.leaky_relu(T, 0.2)),
    "PReLU": (module("PReLU", nOutputPlane=3, weight=SLOPES), F.prelu(T, torch.from_numpy(SLOPES).double())),
    "PReLU shared": (module("PReLU", nOutputPlane=0, weight=SLOPES[:1]), F.prelu(T, torch.from_numpy(SLOPES[:1]).double())),
    "RReLU": (module("RReLU", lower=0.1, upper=0.3), F.rrelu(T, 0.1, 0.3)),
    "ELU": (module("ELU", alpha=1.5), F.elu(T, 1.5)),
    "Sigmoid": (module("Sigmoid"), torch.sigmoid(T)),
    "Tanh": (module("cudnn.Tanh"), torch.tanh(T)),
    "HardTanh": (module("HardTanh", min_val=-0.5, max_val=1.5), F.hardtanh(T, -0.5, 1.5)),
    "Clamp": (module("Clamp", min_val=0.1, max_val=0.7), T.clamp(0.1, 0.7)),
    "ClippedReLU": (module("cudnn.ClippedReLU", ceiling=0.8), T.clamp(0, 0.8)),
    "SoftPlus": (module("SoftPlus", beta=1), F.softplus(T)),
    "SoftPlus beta": (module("SoftPlus", beta=3), F.softplus(T, 3)),
    "SoftSign": (module("SoftSign"), F.softsign(T)),
    "LogSigmoid": (module("LogSigmoid"), F.logsigmoid(T)),
    "TanhShrink": (module("TanhShrink"), F.tanhshrink(T)),
    "HardShrink": (module("HardShrink", **{"lambda": 0.7}), F.hardshrink(T, 0.7)),
    "SoftShrink": (module("SoftShrink", **{"lambda": 0.7}), F.softshrink(T, 0.7)),
    "Threshold": (module("Threshold", threshold=0.3, val=-2), F.threshold(T, 0.3, -2)),
    "Threshold as max": (module("Threshold", threshold=0.3, val=0.3), F.threshold(T, 0.3, 0.3)),
    "Threshold as ReLU": (module("Threshold", threshold=0, val=0), F.relu(T)),
    "Square": (module("Square"), T**2),
    "Power": (module("Power", pow=3), T**3),
    "Abs": (module("Abs"), T.abs()),
    "Exp": (module("Exp"), T.exp()),
    "MulConstant": (module("MulConstant", constant_scalar=-1.5), T * -1.5),
    "AddConstant": (module("AddConstant", constant_scalar=2), T + 2),
    "Mul": (module("Mul", weight=SLOPES[:1]), T * float(SLOPES[0])),
    "CMul channels": (module("CMul", weight=SLOPES.reshape(1, 3, 1, 1)), T * torch.from_numpy(SLOPES).double().view(1, 3, 1, 1)),
    "CMul sample": (module("CMul", weight=PLANE), T * torch.from_numpy(PLANE).double()),
    "CMul flat": (module("CMul", weight=PLANE.reshape(-1)), T * torch.from_numpy(PLANE).double()),
    "CAdd": (module("CAdd", bias=PLANE), T + torch.from_numpy(PLANE).double()),
    "SoftMax": (module("SoftMax"), T.softmax(1)),
    "LogSoftMax": (module("LogSoftMax"), T.log_softmax(1)),
    "SoftMin": (module("SoftMin"), (-T).softmax(1)),
    "SpatialSoftMax": (module("cudnn.SpatialSoftMax"), T.softmax(1)),
    "Sum": (module("Sum", dimension=2), T.sum(1)),
    "Sum of samples": (module("Sum", dimension=1, nInputDims=3, sizeAverage=True, squeeze=False), T.mean(1, keepdim=True)),
    "Mean": (module("Mean", dimension=-1), T.mean(-1)),
    "Max": (module("Max", dimension=3), T.amax(2)),
    "Min": (module("Min", dimension=2, nInputDims=3), T.amin(2)),
    "Dropout": (sequential(module("Dropout", p=0.4, v2=True), module("Abs")), T.abs()),
    "Dropout 1": (module("Dropout", p=0.4), T * 0.6),
    "SpatialDropout": (module("SpatialDropout", p=0.25), T * 0.75),
    # Rearrangement
    "View": (module("View", size=(60,), numElements=60), T.reshape(2, 60)),
    "View of sample": (module("View", size=(-1,), numElements=1), T.reshape(2, 60)),
    "View with dims": (module("View", size=(-1,), numElements=1, numInputDims=3), T.reshape(2, 60)),
    "View free": (module("View", size=(-1, 20), numElements=20), T.reshape(6, 20)),
    "View regroups": (module("View", size=(30,), numElements=30), T.reshape(4, 30)),
    "View of the whole": (module("View", size=(4, 30), numElements=120), T.reshape(4, 30)),
    "View of leading": (module("View", size=(-1, 2), numElements=2, numInputDims=2), T.reshape(6, 10, 2)),
    "Reshape": (module("Reshape", size=(12, 5), nelement=60), T.reshape(2, 12, 5)),
    "Reshape batch": (module("Reshape", size=(60,), nelement=60, batchMode=True), T.reshape(2, 60)),
    "Reshape whole": (module("Reshape", size=(6, 20), nelement=120, batchMode=False), T.reshape(6, 20)),
    "Reshape whole by count": (module("Reshape", size=(6, 20), nelement=120), T.reshape(6, 20)),
    "Transpose": (module("Transpose", permutations=[[2, 3], [3, 4]]), T.transpose(1, 2).transpose(2, 3)),
    "Transpose sample": (module("Transpose", permutations=[[1, 3]], numInputDims=3), T.transpose(1, 3)),
    "Select": (module("Select", dimension=2, index=3), T[:, 2]),
    "Select last": (module("Select", dimension=-1, index=-1), T[..., -1]),
    "Narrow": (module("Narrow", dimension=3, index=2, length=2), T[:, :, 1:3]),
    "Narrow to the end": (module("Narrow", dimension=-1, index=3, length=-1), T[..., 2:]),
    "Narrow short of it": (module("Narrow", dimension=4, index=2, length=-2), T[..., 1:-1]),
    "Unsqueeze": (sequential(module("Unsqueeze", pos=1, numInputDims=3), module("Squeeze", dim=1, numInputDims=4), module("Abs")),
                  T.abs()),
    "Squeeze": (sequential(module("Select", dimension=2, index=1), module("Unsqueeze", pos=2), module("Squeeze"), module("Exp")),
                T[:, 0].exp()),
    "ZeroPadding": (module("SpatialZeroPadding", pad_l=1, pad_r=2, pad_t=3, pad_b=0), F.pad(T, (1, 2, 3, 0))),
    "Cropping": (module("SpatialZeroPadding", pad_l=-1, pad_r=0, pad_t=1, pad_b=-2), F.pad(T, (-1, 0, 1, -2))),
    "ReflectionPadding": (module("SpatialReflectionPadding", pad_l=2, pad_r=1, pad_t=3, pad_b=1),
                          F.pad(T, (2, 1, 3, 1), "reflect")),
    "ReplicationPadding": (module("SpatialReplicationPadding", pad_l=2, pad_r=1, pad_t=0, pad_b=4),
                           F.pad(T, (2, 1, 0, 4), "replicate")),
    "Padding end": (module("Padding", dim=1, pad=2, nInputDim=3, value=-1, index=1), F.pad(T, (0, 0, 0, 0, 0, 2), value=-1)),
    "Padding begin": (module("Padding", dim=3, pad=-2, index=1), F.pad(T, (0, 0, 2, 0))),
    "Nearest": (module("SpatialUpSamplingNearest", scale_factor=2), F.interpolate(T, scale_factor=2)),
    "Bilinear": (module("SpatialUpSamplingBilinear", scale_factor=3),
                 F.interpolate(T, scale_factor=3, mode="bilinear", align_corners=True)),
    "Bilinear to size": (module("SpatialUpSamplingBilinear", oheight=7, owidth=6),
                         F.interpolate(T, (7, 6), mode="bilinear", align_corners=True)),
    # Tables
    "CAddTable": (joined("CAddTable", "Abs", "Exp", "Identity"), T.abs() + T.exp() + T),
    "CSubTable": (joined("CSubTable", "Abs", "Exp"), T.abs() - T.exp()),
    "CDivTable": (joined("CDivTable", "Tanh", "Exp"), T.tanh() / T.exp()),
    "CMulTable": (joined("CMulTable", "Tanh", "Exp"), T.tanh() * T.exp()),
    "CMaxTable": (joined("CMaxTable", "Tanh", "Square"), T.tanh().maximum(T**2)),
    "JoinTable": (joined("JoinTable", "Tanh", "Exp", dimension=1, nInputDims=3), torch.cat([T.tanh(), T.exp()], 1)),
    "SplitTable": (sequential(module("SplitTable", dimension=1, nInputDims=3), module("NarrowTable", offset=2, length=2),
                              module("JoinTable", dimension=3)), torch.cat([T[:, 1], T[:, 2]], 2)),
    "SelectTable": (split(module("SelectTable", index=-1)), T[:, 2]),
    "ParallelTable": (split(module("ParallelTable", [module("Exp"), module("Abs"), module("Tanh")]), module("CAddTable")),
                      T[:, 0].exp() + T[:, 1].abs() + T[:, 2].tanh()),
    "Parallel": (module("Parallel", [module("Exp"), module("Tanh")], inputDimension=2, outputDimension=3),
                 torch.cat([T[:, 0].exp(), T[:, 1].tanh()], 2)),
    "FlattenTable": (sequential(table(module("Exp"), table(module("Tanh"), module("Abs"))), module("FlattenTable"),
                                module("JoinTable", dimension=2)), torch.cat([T.exp(), T.tanh(), T.abs()], 1)),
    "DepthConcat": (module("DepthConcat", [module("Exp"), module("Narrow", dimension=3, index=2, length=3),
                                           module("SpatialZeroPadding", pad_l=0, pad_r=0, pad_t=-1, pad_b=-2)], dimension=2),
                    torch.cat([T.exp(), F.pad(T[:, :, 1:], (0, 0, 0, 1)), F.pad(T[:, :, 1:2], (0, 0, 1, 2))], 1)),
    "SpatialLPPooling": (module("SpatialLPPooling", [
        module("Square"), module("SpatialAveragePooling", **window(2, 2, d=1), divide=False), module("Sqrt")]),
        F.lp_pool2d(T, 2, 2, 1)),
    "DataParallelTable": (module("DataParallelTable", [module("Exp")], dimension=1), T.exp()),
}


@pytest.mark.parametrize("subject, expected", POINTWISE.values(), ids=POINTWISE.keys())
def test_module(subject, expected):
    check(subject, X, expected.numpy(), shape=X.shape)


NEEDS_SIZES = ("CMul flat", "View of leading", "View of the whole", "Reshape whole by count", "Squeeze", "DepthConcat",
               "View regroups")


@pytest.mark.parametrize("name", [name for name in POINTWISE if name not in NEEDS_SIZES])
def test_module_on_a_dynamic_input(name):
    """All but the channels unknown: the same result, now and for another batch."""
    subject, expected = POINTWISE[name]
    model = torch7.load(dump(subject), shape=("N", 3, None, None))
    [found] = run(model, X)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    if name not in ("View free", "Reshape whole"):
        [first] = run(model, X[:1])
        np.testing.assert_allclose(first, expected.numpy()[:1], rtol=1e-4, atol=1e-5)


def test_sequence_of_vectors():
    """LogSoftMax of vectors is over their elements; of three dimensions, over the first, an image's channels."""
    vectors = X.reshape(6, 20)
    check(module("LogSoftMax"), vectors, torch.from_numpy(vectors).double().log_softmax(1).numpy(), shape=vectors.shape)
    image = X[0]
    check(module("SoftMax"), image, torch.from_numpy(image).double().softmax(0).numpy(), shape=image.shape)


REFUSED = {
    "tensor for a table": (module("CAddTable"), InvalidModelError, "needs a table"),
    "table for a tensor": (joined("Tanh", "Exp", "Abs"), InvalidModelError, "gets a table of 2"),
    "three to subtract": (split(module("CSubTable")), InvalidModelError, "two tensors"),
    "entry beyond": (split(module("SelectTable", index=4)), InvalidModelError, "index 4 of a table of 3"),
    "entries beyond": (split(module("NarrowTable", offset=2, length=3)), InvalidModelError, "entries 2 to 4"),
    "too many branches": (split(module("ParallelTable", [module("Exp")] * 4)), InvalidModelError, "4 modules for a table of 3"),
    "dimension beyond": (module("Select", dimension=5, index=1), ShapeError, "dimension 5"),
    "index beyond": (module("Select", dimension=2, index=4), ShapeError, "index 4"),
    "narrow beyond": (module("Narrow", dimension=3, index=3, length=3), ShapeError, "3 elements from 3"),
    "view that does not fit": (module("View", size=(7,), numElements=7), ShapeError, "as \\[7\\]"),
    "reshape that does not fit": (module("Reshape", size=(7, 9), nelement=63), ShapeError, "does not fit the sizes"),
    "view of two unknowns": (module("View", size=(-1, -1)), InvalidModelError, "sizes"),
    "giant view": (module("View", size=(2**40,)), InvalidModelError, "list of dimensions"),
    "reflection beyond": (module("SpatialReflectionPadding", pad_l=5, pad_r=0, pad_t=0, pad_b=0), ShapeError, "padding"),
    "cropped away": (module("SpatialZeroPadding", pad_l=-5, pad_r=0, pad_t=0, pad_b=0), ShapeError, "padding"),
    "padding inside": (module("Padding", dim=2, pad=1, index=2), UnsupportedError, "in the middle"),
    "another weight": (module("CMul", weight=PLANE[:2]), InvalidModelError, "weight"),
    "weights that do not broadcast": (module("CMul", weight=np.ones((1, 2, 1, 1), np.float32)), ShapeError, "Mul"),
    "slopes of another size": (module("PReLU", weight=SLOPES[:2]), ShapeError, "must be 2, not 3"),
    "join of different sizes": (
        sequential(table(module("Exp"), module("Narrow", dimension=3, index=1, length=1)), module("JoinTable", dimension=4)),
        ShapeError, "Concat"),
    "giant split": (sequential(module("Unsqueeze", pos=1), module("SpatialAdaptiveMaxPooling", W=2, H=2)),
                    ShapeError, "5 dimensions, 4 expected"),
    "giant pooling": (module("SpatialAdaptiveMaxPooling", W=2**30, H=2), UnsupportedError, "pooling of 4x5 to 2x1073741824"),
}


@pytest.mark.parametrize("subject, error, message", REFUSED.values(), ids=REFUSED.keys())
def test_refused(subject, error, message):
    with pytest.raises(error, match=message):
        torch7.load(dump(subject), shape=X.shape)
