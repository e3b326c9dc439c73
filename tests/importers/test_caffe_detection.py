"""SSD's layers against OpenCV: prior boxes in all their forms, and detections decoded, suppressed and ranked."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from caffe_harness import Net, check

import infold
from infold.errors import InvalidModelError, UnsupportedError
from infold.importers import caffe

VARIANCE = "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 "
PRIORS = "prior_box_param { min_size: 20 max_size: 35 aspect_ratio: 2 aspect_ratio: 3 flip: true clip: false " + VARIANCE + "}"


@pytest.mark.parametrize(
    "params",
    [
        "min_size: 20",
        "min_size: 20 max_size: 30 aspect_ratio: 2 flip: true",
        "min_size: 20 aspect_ratio: 2 aspect_ratio: 0.5 flip: false",
        "min_size: 20 step: 8 offset: 0.25",
        "min_size: 20 step_h: 9 step_w: 11",
        "min_size: 70 clip: true",
        "min_size: 20 max_size: 30 aspect_ratio: 2 aspect_ratio: 2 aspect_ratio: 1 flip: true",
    ],
)
def test_prior_boxes(params):
    net = Net(x=(1, 6, 5, 7), image=(1, 3, 60, 80))
    # without flip and clip OpenCV takes them as false; Caffe's defaults are true and false
    given = params + ("" if "flip" in params else " flip: false") + (" " if "clip" in params else " clip: false ") + VARIANCE
    check(net.layer("PriorBox", ["x", "image"], params=f"prior_box_param {{ {given} }}"))


def test_prior_boxes_of_several_sizes_in_an_image_of_given_size():
    net = Net(x=(1, 6, 1, 2), image=(1, 3, 60, 80))
    net.layer("PriorBox", ["x", "image"], params="prior_box_param { min_size: 10 min_size: 20 img_h: 100 img_w: 200 }")
    boxes, variances = net.load().graph.initializers["y_priorbox/boxes"].const_value.numpy()[0]
    centres = [[50, 50], [50, 50], [150, 50], [150, 50]]
    expected = [
        [(x - s / 2) / 200, (y - s / 2) / 100, (x + s / 2) / 200, (y + s / 2) / 100] for (x, y), s in zip(centres, [10, 20] * 2)
    ]
    np.testing.assert_allclose(boxes.reshape(4, 4), expected, rtol=1e-6)
    assert (variances == np.float32(0.1)).all()


def detector(batch=1, classes=4, params="", nms="nms_threshold: 0.45 top_k: 40", keep=30, code="CENTER_SIZE", priors=PRIORS):
    for default in ("share_location: true", "background_label_id: 0"):  # OpenCV has no defaults for them
        params += "" if default.split(":")[0] in params else f" {default}"
    net = Net(x=(1, 6, 4, 5), image=(1, 3, 60, 80), loc=(batch, 480), conf=(batch, 120 * classes))
    net.layer("PriorBox", ["x", "image"], ["prior"], priors)
    return net.layer(
        "DetectionOutput",
        ["loc", "conf", "prior"],
        ["y"],
        f"detection_output_param {{ num_classes: {classes} "
        f"code_type: {code} keep_top_k: {keep} nms_param {{ {nms} }} confidence_threshold: 0.3 {params} }}",
    )


def feeds(net):
    values = net.feeds()
    values["loc"] *= 0.5
    scores = np.exp(2 * values["conf"].reshape(-1, 120, values["conf"].shape[1] // 120))
    values["conf"] = (scores / scores.sum(-1, keepdims=True)).reshape(values["conf"].shape)
    return values


def run(net, values):
    """The rows of onnxruntime and of infold."""
    model = net.load()
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    values = {value.name: values[value.name] for value in model.graph.inputs}
    results = (
        onnxruntime.InferenceSession(proto.SerializeToString()).run(None, values)[0],
        infold.InferenceSession(model).run(None, values)[0],
    )
    assert all(result.shape[:2] == (1, 1) and result.shape[3] == 7 for result in results)
    return [result[0, 0] for result in results]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 3},
        {"code": "CORNER"},
        {"keep": 5},
        {"keep": -1},
        {"batch": 2, "keep": -1},
        {"nms": "nms_threshold: 0.3 top_k: 7"},
        {"nms": "nms_threshold: 0.3"},
        {"params": "background_label_id: 2"},
        {"params": "background_label_id: 99"},
        {"classes": 2},
    ],
    ids=str,
)
def test_detections(options):
    net = detector(**options)
    values = feeds(net)
    # OpenCV writes beyond its memory where keep_top_k is -1
    ideal = detector(**options | {"keep": 1000} if options.get("keep") == -1 else options).opencv(values)[0].reshape(-1, 7)
    ideal = ideal[ideal[:, 2] > 0]  # OpenCV fills up with rows of zeros, and does not sort by class as Caffe does
    ideal = ideal[np.lexsort((-ideal[:, 2], ideal[:, 1], ideal[:, 0]))]
    assert len(ideal) >= 5
    for rows in run(net, values):
        assert rows.shape == ideal.shape
        np.testing.assert_allclose(rows, ideal, rtol=2e-5, atol=2e-6)


def test_corners_in_units_of_the_prior():
    """The third code, which OpenCV lacks: without offsets all codes mean the prior itself."""
    nets = [detector(code=code) for code in ("CORNER_SIZE", "CENTER_SIZE")]
    values = feeds(nets[0])
    values["loc"][:] = 0
    first, second = (run(net, values)[0] for net in nets)
    np.testing.assert_allclose(first, second, atol=1e-6)
    values["loc"][:] = 1  # each corner moves by the variance, in units of the prior's size
    moved = run(nets[0], values)[0]
    assert len(moved) and not np.allclose(moved[:, 3:], first[: len(moved), 3:], atol=1e-3)


def test_forms_that_opencv_lacks():
    """Offsets that have their variances already mean as much as variances of 1; no background, as one beyond all."""
    ones = PRIORS.replace(VARIANCE, "variance: 1")
    for given, same in (
        ({"params": "variance_encoded_in_target: true"}, {"priors": ones}),
        ({"params": "background_label_id: -1"}, {"params": "background_label_id: 99"}),
    ):
        values = feeds(detector())
        first, second = (run(detector(**options), values)[0] for options in (given, same))
        assert len(first) > 5
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_nothing_found():
    net = detector(params="", keep=10)
    values = feeds(net)
    values["conf"][:] = 0.1
    assert [rows.shape for rows in run(net, values)] == [(0, 7)] * 2


@pytest.mark.parametrize(
    "params, nms", [("share_location: false", "top_k: 9"), ("", "eta: 0.9"), ("normalized_bbox: false", "top_k: 9")]
)
def test_forms_that_are_not_supported(params, nms):
    with pytest.raises(UnsupportedError, match="'y_detectionoutput'"):
        detector(params=params, nms=nms).load()


def test_too_many_boxes():
    net = Net(x=(1, 1, 9000, 9000), image=(1, 3, 60, 80)).layer("PriorBox", ["x", "image"], params=PRIORS)
    with pytest.raises(UnsupportedError, match=r"'y_priorbox'.*more than 4194304 boxes"):
        net.load()


def test_classes_that_do_not_fit():
    net = detector()
    for text, message in (("num_classes: 2147483648", "confidences 'conf'"), ("num_classes: 3", "confidences 'conf'")):
        with pytest.raises(InvalidModelError, match=f"'y_detectionoutput'.*{message}"):
            caffe.loads(net.text.replace("num_classes: 4", text))
    with pytest.raises(InvalidModelError, match="no class but the background"):
        detector(classes=1).load()
