"""Every Torch7 layer with weights or windows against torch in float64, in onnxruntime, in infold, and after folding."""

from __future__ import annotations

import numpy as np
import pytest
from torch7_writer import check, dump, module, sequential, tensors, window

from infold.errors import InvalidModelError, ShapeError, UnsupportedError
from infold.importers import torch7

torch = pytest.importorskip("torch", reason="it is the oracle")
F = torch.nn.functional

RNG = np.random.default_rng(7)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def conv2d(
    name="SpatialConvolution", cin=4, cout=6, k=(3, 5), d=(1, 2), pad=(2, 1), bias=True, mm=False, groups=None, dilation=None
):
    """Fields of a convolution and the torch function; k, d, pad and dilation are (height, width)."""
    weight, b = random(cout, cin // (groups or 1), *k), random(cout) if bias else None
    fields = window(*k, d=d, pad=pad) | (dict(zip(("dilationH", "dilationW"), dilation)) if dilation else {})
    run = lambda x: F.conv2d(x, *tensors(weight, b), stride=d, padding=pad, dilation=dilation or 1, groups=groups or 1)  # noqa: E731
    fields |= {"weight": weight.reshape(cout, -1) if mm else weight, "bias": b, "groups": groups}
    return module(name, nInputPlane=cin, nOutputPlane=cout, **fields), run


CONVOLUTIONS = {
    "plain": conv2d(),
    "no bias": conv2d(bias=False),
    "MM": conv2d("SpatialConvolutionMM", mm=True),
    "2-d weight": conv2d(mm=True),
    "cudnn groups": conv2d("cudnn.SpatialConvolution", cin=6, groups=3),
    "depthwise": conv2d("cudnn.SpatialConvolution", cin=6, groups=6),
    "dilated": conv2d("SpatialDilatedConvolution", dilation=(2, 3), pad=(2, 4)),
}


@pytest.mark.parametrize("subject, run", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolution(subject, run):
    x = random(2, subject.fields["nInputPlane"], 11, 14)
    check(subject, x, run(*tensors(x)).numpy())


def test_early_padding_field():
    x, weight = random(1, 2, 6, 6), random(3, 2, 3, 3)
    subject = module("SpatialConvolutionMM", nInputPlane=2, nOutputPlane=3, **window(3, 3, d=1), padding=1,
                     weight=weight.reshape(3, -1), bias=random(3))
    check(subject, x, F.conv2d(*tensors(x, weight, subject.fields["bias"]), padding=1).numpy())


@pytest.mark.parametrize("groups", [None, 2])
def test_full_convolution(groups):
    x, weight, bias = random(2, 4, 5, 6), random(4, 6 // (groups or 1), 3, 4), random(6)
    subject = module("SpatialFullConvolution" if groups is None else "cudnn.SpatialFullConvolution", nInputPlane=4, nOutputPlane=6,
                     **window(3, 4, d=(2, 3), pad=(1, 2), adj=(1, 2)), weight=weight, bias=bias, groups=groups)
    expected = F.conv_transpose2d(
        *tensors(x, weight, bias), stride=(2, 3), padding=(1, 2), output_padding=(1, 2), groups=groups or 1
    )
    check(subject, x, expected.numpy())


def test_volumetric_convolution():
    x, weight, bias = random(1, 3, 5, 6, 7), random(4, 3, 2, 3, 3), random(4)
    subject = module("VolumetricConvolution", nInputPlane=3, nOutputPlane=4, **window(2, 3, 3, d=(1, 2, 1), pad=(0, 1, 2)),
                     weight=weight, bias=bias)
    check(subject, x, F.conv3d(*tensors(x, weight, bias), stride=(1, 2, 1), padding=(0, 1, 2)).numpy())


def test_temporal_convolution():
    x, weight, bias = random(2, 9, 5), random(7, 3 * 5), random(7)
    subject = module("TemporalConvolution", inputFrameSize=5, outputFrameSize=7, kW=3, dW=2, weight=weight, bias=bias)
    frames = torch.from_numpy(x).double().unfold(1, 3, 2).transpose(2, 3).flatten(2)  # each window as one row, time first
    check(subject, x, (frames @ tensors(weight)[0].T + tensors(bias)[0]).numpy())


def test_convolution_map():
    pairs = np.array([[1, 1], [2, 1], [3, 2], [1, 3], [3, 3], [3, 3]])
    x, taps, bias = random(1, 3, 7, 8), random(6, 3, 3), random(3)
    dense = np.zeros((3, 3, 3, 3))
    for (source, target), tap in zip(pairs, taps):
        dense[target - 1, source - 1] += tap
    subject = module("SpatialConvolutionMap", nInputPlane=3, nOutputPlane=3, **window(3, 3, d=(1, 2)), weight=taps, bias=bias,
                     connTable=pairs.astype(np.float32))
    check(subject, x, F.conv2d(*tensors(x, dense, bias), stride=(1, 2)).numpy())


def test_subsampling():
    x, weight, bias = random(2, 4, 8, 6), random(4), random(4)
    subject = module("SpatialSubSampling", nInputPlane=4, **window(3, 2, d=(1, 2)), weight=weight, bias=bias)
    sums = F.avg_pool2d(tensors(x)[0], (3, 2), (1, 2)) * 6
    check(subject, x, (sums * tensors(weight)[0].view(1, 4, 1, 1) + tensors(bias)[0].view(1, 4, 1, 1)).numpy())


@pytest.mark.parametrize("name, bias", [("Linear", True), ("Linear", False), ("LinearNoBias", False)])
def test_linear(name, bias):
    x, weight, b = random(3, 10), random(7, 10), random(7) if bias else None
    check(module(name, weight=weight, bias=b), x, F.linear(*tensors(x, weight, b)).numpy())


# BatchNormalization


def batch_norm(name, channels=5, affine=True, std=False):
    eps, mean, variance = 1e-3, random(channels), positive(channels)
    weight, bias = (random(channels), random(channels)) if affine else (None, None)
    stored = {"running_std": (1 / np.sqrt(variance + np.float64(eps))).astype(np.float32)} if std else {"running_var": variance}
    subject = module(name, eps=eps, affine=affine, running_mean=mean, weight=weight, bias=bias, **stored)
    return subject, lambda x: F.batch_norm(x, *tensors(mean, variance, weight, bias), eps=eps)


@pytest.mark.parametrize("std", [False, True], ids=["running_var", "running_std"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize(
    "name, shape",
    [
        ("BatchNormalization", (4, 5)),
        ("SpatialBatchNormalization", (2, 5, 3, 4)),
        ("VolumetricBatchNormalization", (2, 5, 2, 3, 2)),
        ("cudnn.SpatialBatchNormalization", (2, 5, 3, 4)),
    ],
)
def test_batch_norm(name, shape, affine, std):
    """Alone it has nothing to fold into."""
    subject, run = batch_norm(name, affine=affine, std=std)
    x = random(*shape)
    check(subject, x, run(*tensors(x)).numpy(), batchnorms=1)


@pytest.mark.parametrize("std", [False, True], ids=["running_var", "running_std"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_batch_norms_fold_into_what_is_before(affine, std):
    conv, conv_run = CONVOLUTIONS["cudnn groups"]
    bn, bn_run = batch_norm("cudnn.SpatialBatchNormalization", 6, affine, std)
    linear_weight, linear_bias = random(5, 6 * 5 * 3), random(5)
    last, last_run = batch_norm("BatchNormalization", 5, affine, std)
    network = sequential(
        conv, bn, module("cudnn.ReLU"), module("SpatialMaxPooling", **window(2, 2, d=2, pad=0)),
        module("View", size=(6 * 5 * 3,), numElements=90), module("Linear", weight=linear_weight, bias=linear_bias), last)
    x = random(3, 6, 9, 13)
    hidden = F.max_pool2d(F.relu(bn_run(conv_run(*tensors(x)))), 2)
    check(network, x, last_run(F.linear(hidden.flatten(1), *tensors(linear_weight, linear_bias))).numpy())


def test_instance_norm_and_affine():
    x, weight, bias = random(2, 4, 5, 6), random(4), random(4)
    check(
        module("InstanceNormalization", nOutput=4, eps=1e-5, weight=weight, bias=bias),
        x,
        F.instance_norm(tensors(x)[0], weight=tensors(weight)[0], bias=tensors(bias)[0]).numpy(),
        shape=(2, 4, 5, 6),
    )
    a, b = random(1, 4, 1, 1), random(1, 4, 1, 1)
    check(module("inn.SpatialConstAffine", a=a, b=b), x, x * a.astype(np.float64) + b, shape=(2, 4, 5, 6))


# What does not fit

BAD = {
    "weight of another size": (conv2d()[0], dict(weight=random(6, 4, 3, 4)), "weight.*must have shape"),
    "bias of another size": (conv2d()[0], dict(bias=random(7)), "bias.*must have shape"),
    "no kernel": (conv2d()[0], dict(kW=0), "'kW' must be an integer of at least 1"),
    "half a stride": (conv2d()[0], dict(dW=1.5), "'dW' must be an integer"),
    "negative padding": (conv2d()[0], dict(padH=-1), "'padH'"),
    "groups that do not divide": (conv2d()[0], dict(groups=5), "5 groups"),
    "giant planes": (conv2d()[0], dict(nOutputPlane=2**31 - 1), "must have shape"),
    "text for a number": (conv2d()[0], dict(kH="3"), "must be a finite number, not '3'"),
    "no weight": (conv2d()[0], dict(weight=None), "'weight' must be a tensor"),
    "variance of another size": (batch_norm("SpatialBatchNormalization")[0], dict(running_var=positive(4)), "running_var"),
    "negative eps": (batch_norm("SpatialBatchNormalization")[0], dict(eps=-1), "eps"),
}


@pytest.mark.parametrize("subject, change, message", BAD.values(), ids=BAD.keys())
def test_bad_fields(subject, change, message):
    broken = module(subject.name, **{**subject.fields, **change})
    with pytest.raises(InvalidModelError, match=message) as caught:
        torch7.load(dump(sequential(module("Identity"), broken)), shape=(1, 5 if "Norm" in subject.name else 4, 20, 20))
    assert "module 2 " in str(caught.value)


@pytest.mark.parametrize(
    "shape, message", [((1, 5, 20, 20), "must be 4, not 5"), ((1, 4), "2 dimensions"), ((1, 4, 1, 2), "too small")]
)
def test_inputs_that_do_not_fit(shape, message):
    with pytest.raises(ShapeError, match=message):
        torch7.load(dump(conv2d(pad=(0, 0))[0]), shape=shape)


def test_adaptive_pooling_needs_a_size():
    network = sequential(conv2d()[0], module("SpatialAdaptiveMaxPooling", W=2, H=2))
    with pytest.raises(UnsupportedError, match=r"module 2 \(nn.SpatialAdaptiveMaxPooling\).*give the input's shape"):
        torch7.load(dump(network))
