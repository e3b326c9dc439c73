"""SSD's detection layers: PriorBox, a constant once shapes are known; DetectionOutput, decoded and suppressed in ONNX.

Source: prior_box_layer.cpp, detection_output_layer.cpp and bbox_util.cpp of SSD's Caffe.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from google.protobuf.message import Message

from infold.errors import UnsupportedError
from infold.importers.caffe_graph import INT_MAX, Site, layer

_MAX_PRIORS = 1 << 22
_MAX_RATIOS = 1 << 10
_MAX_BATCH = 64


@layer("PriorBox")
def prior_box(site: Site) -> ir.Value:
    """Boxes around every cell of the first bottom, in units of the image (the second bottom), and their variances.

    Returns a constant of shape (1, 2, cells × boxes × 4).
    """
    param, (features, picture) = site.layer.prior_box_param, site.take(2)
    height, width = site.image(features)[2:]
    image_h, image_w = (
        getattr(param, f"img_{side}") or param.img_size or size for side, size in zip("hw", site.image(picture)[2:])
    )
    step_h, step_w = (
        getattr(param, f"step_{side}") or param.step or image / cells
        for side, image, cells in zip("hw", (image_h, image_w), (height, width))
    )
    sizes = _box_sizes(site, param, _MAX_PRIORS // (height * width))
    centre_y = (np.arange(height)[:, None, None] + param.offset) * step_h
    centre_x = (np.arange(width)[None, :, None] + param.offset) * step_w
    half_w, half_h = sizes.T / 2
    corners = (
        (centre_x - half_w) / image_w,
        (centre_y - half_h) / image_h,
        (centre_x + half_w) / image_w,
        (centre_y + half_h) / image_h,
    )
    boxes = np.stack(np.broadcast_arrays(*corners), -1).reshape(-1)
    if param.clip:
        boxes = boxes.clip(0, 1)
    variances = list(param.variance) or [0.1]
    if len(variances) not in (1, 4) or min(variances) <= 0:
        site.fail(f"the variances {variances} must be one or four positive numbers")
    result = np.stack([boxes, np.resize(variances, boxes.size)])[None]
    return site.node("Identity", [site.constant(result, "boxes")])


def _box_sizes(site: Site, param: Message, limit: int) -> np.ndarray:
    """Return the widths and heights of one cell's boxes, in pixels: shape (boxes, 2), at most `limit` of them."""
    ratios = [1.0]
    if len(param.aspect_ratio) > _MAX_RATIOS:
        site.fail(f"has {len(param.aspect_ratio)} aspect ratios; the limit is {_MAX_RATIOS}", UnsupportedError)
    for ratio in param.aspect_ratio:
        if ratio <= 0:
            site.fail(f"the aspect ratio {ratio} must be positive")
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1 / ratio] if param.flip else [ratio]
    smallest, largest = list(param.min_size), list(param.max_size)
    if (
        not smallest
        or min(smallest) <= 0
        or (largest and (len(largest) != len(smallest) or any(big <= small for small, big in zip(smallest, largest))))
    ):
        site.fail(f"min_size {smallest} must be positive, max_size {largest} empty or as many and larger")
    if len(smallest) * len(ratios) + len(largest) > limit:
        site.fail(f"would make more than {_MAX_PRIORS} boxes", UnsupportedError)
    sizes = []
    for index, small in enumerate(smallest):
        sizes.append((small, small))
        if largest:
            sizes.append((math.sqrt(small * largest[index]),) * 2)
        sizes += [(small * math.sqrt(ratio), small / math.sqrt(ratio)) for ratio in ratios[1:]]
    return np.array(sizes)


@layer("DetectionOutput")
def detection_output(site: Site) -> ir.Value:
    """Boxes decoded, suppressed per class, and the best kept: rows (image, label, score, xmin, ymin, xmax, ymax).

    The result has the shape (1, 1, detections, 7), and no rows where Caffe would write one of -1 to say "nothing".
    """
    param, (loc, conf, prior) = site.layer.detection_output_param, site.take(3)
    if not param.share_location or not param.normalized_bbox or param.nms_param.eta != 1:
        site.fail(
            "boxes of their own for each class, boxes in pixels and adaptive suppression (eta) are not supported", UnsupportedError
        )
    batch, priors, classes = site.shape(loc)[0], math.prod(site.shape(prior)) // 8, param.num_classes
    wanted = {
        "locations": (loc, batch * priors * 4),
        "confidences": (conf, batch * priors * classes),
        "priors": (prior, 8 * priors),
    }
    for what, (value, size) in wanted.items():
        if math.prod(site.shape(value)) != size:
            site.fail(
                f"the {what} {value.name!r} of shape {list(site.shape(value))} do not fit {priors} priors of {classes} classes"
            )
    labels = [label for label in range(classes) if label != param.background_label_id]
    if not labels:
        site.fail("there is no class but the background")
    if batch > _MAX_BATCH:
        site.fail(f"a batch of {batch} images; the limit is {_MAX_BATCH}", UnsupportedError)
    boxes = _decode(site, param, site.reshape(loc, (batch, priors, 4), "loc"), prior, priors)
    scores = site.node("Transpose", [site.reshape(conf, (batch, priors, classes), "conf")], "scores", perm=[0, 2, 1])
    if len(labels) < classes:
        scores = site.node("Gather", [scores, site.constant(labels, "labels")], "foreground", axis=1)
    limit = param.nms_param.top_k
    if 0 <= limit < priors:
        scores = _best_candidates(site, scores, limit)
    threshold = param.confidence_threshold if param.HasField("confidence_threshold") else np.finfo(np.float32).min
    limits = [
        site.constant([min(limit if limit >= 0 else priors, INT_MAX)], "per_class"),
        site.constant([param.nms_param.nms_threshold], "iou"),
        site.constant([threshold], "threshold"),
    ]
    selected = site.node("NonMaxSuppression", [boxes, scores, *limits], "suppress", shape=("selected", 3))
    return _Rows(site, boxes, scores, labels, selected).table(batch, param.keep_top_k)


def _decode(site: Site, param: Message, loc: ir.Value, prior: ir.Value, priors: int) -> ir.Value:
    """Return the boxes (batch, priors, 4) that the locations mean: corners, in units of the image."""
    rows = site.reshape(prior, (2, priors, 4), "priors")
    anchor, variance = site.nodes("Split", [rows, site.constant([1, 1], "parts")], 2, "variance", axis=0)
    if not param.variance_encoded_in_target:
        loc = site.node("Mul", [loc, variance], "offsets")
    if param.code_type == 1:
        return site.node("Add", [anchor, loc], "decode")
    halves = site.constant([2, 2], "halves")
    low, high = site.nodes("Split", [anchor, halves], 2, "corners", axis=2)
    size = site.node("Sub", [high, low], "size")
    if param.code_type == 3:
        sizes = site.node("Concat", [size, size], "sizes", axis=2)
        return site.node("Add", [anchor, site.node("Mul", [loc, sizes], "scaled")], "decode")
    half = site.constant(0.5, "half")
    centre = site.node("Mul", [site.node("Add", [low, high], "sum"), half], "centre")
    move, grow = site.nodes("Split", [loc, halves], 2, "moves", axis=2)
    middle = site.node("Add", [site.node("Mul", [move, size], "move"), centre], "middle")
    extent = site.node("Mul", [site.node("Exp", [grow], "grow"), size], "extent")
    radius = site.node("Mul", [extent, half], "radius")
    ends = [site.node("Sub", [middle, radius], "low"), site.node("Add", [middle, radius], "high")]
    return site.node("Concat", ends, "decode", axis=2)


def _best_candidates(site: Site, scores: ir.Value, count: int) -> ir.Value:
    """Return the scores with all but the best `count` of each class lowered beyond every threshold."""
    if count < 1:
        site.fail(f"top_k of nms_param is {count}, must be at least 1 (or -1 for all)")
    values = site.nodes("TopK", [scores, site.constant([count], "top_k")], 2, "best", axis=2)[0]
    least = site.node("ReduceMin", [values, site.constant([2], "last_axis")], "least", keepdims=1)
    is_best = site.node("GreaterOrEqual", [scores, least], "is_best")
    return site.node("Where", [is_best, scores, site.constant(np.finfo(np.float32).min, "lowest")], "candidates")


class _Rows:
    """The table of detections, from the (image, class, box) triples that suppression selected."""

    def __init__(self, site: Site, boxes: ir.Value, scores: ir.Value, labels: list[int], selected: ir.Value) -> None:
        self._site, self._boxes, self._scores, self._labels, self._selected = site, boxes, scores, labels, selected

    def table(self, batch: int, keep: int) -> ir.Value:
        """Return the rows of all images, at most `keep` of each (-1: all), as (1, 1, rows, 7)."""
        tables = (
            [self._image(index, keep, batch) for index in range(batch)] if keep >= 0 else [self._describe(self._selected, "all")]
        )
        rows = tables[0] if len(tables) == 1 else self._site.node("Concat", tables, "images", axis=0)
        axes = self._site.constant([0, 1], "outer_axes")
        return self._site.node("Unsqueeze", [rows, axes], shape=(1, 1, "detections", 7))

    def _image(self, index: int, keep: int, batch: int) -> ir.Value:
        """Return one image's best rows, by class and then by score, as they were selected."""
        site, name = self._site, f"image{index}"
        chosen = self._selected
        if batch > 1:
            image = site.node("Gather", [chosen, site.constant(0, f"{name}/first")], f"{name}/images", axis=1)
            equal = site.node("Equal", [image, site.constant(index, f"{name}/number")], f"{name}/equal")
            chosen = site.node("Compress", [chosen, equal], f"{name}/chosen", axis=0)
        rows = self._describe(chosen, name)
        score = site.node("Gather", [rows, site.constant(2, f"{name}/column")], f"{name}/score", axis=1)
        found = site.node("Shape", [score], f"{name}/found")
        count = site.node("Min", [found, site.constant([keep], f"{name}/keep")], f"{name}/count")
        best = site.nodes("TopK", [score, count], 2, f"{name}/best", axis=0, largest=1, sorted=1)[1]
        order = site.nodes("TopK", [best, count], 2, f"{name}/order", axis=0, largest=0, sorted=1)[0]
        return site.node("Gather", [rows, order], f"{name}/rows", axis=0)

    def _describe(self, chosen: ir.Value, name: str) -> ir.Value:
        """Return the rows (image, label, score, box) of selected triples."""
        site, labels = self._site, np.asarray(self._labels, np.float32)
        parts = site.constant([1, 1, 1], f"{name}/parts")
        image, label, box = site.nodes("Split", [chosen, parts], 3, f"{name}/split", axis=1)
        score = site.node("GatherND", [self._scores, chosen], f"{name}/scores")
        place = site.node("Concat", [image, box], f"{name}/place", axis=1)
        corners = site.node("GatherND", [self._boxes, place], f"{name}/boxes")
        named = site.node("Gather", [site.constant(labels, f"{name}/labels"), label], f"{name}/label")
        number = site.node("Cast", [image], f"{name}/image", to=ir.DataType.FLOAT)
        column = site.node("Unsqueeze", [score, site.constant([1], f"{name}/score_axis")], f"{name}/score_column")
        return site.node("Concat", [number, named, column, corners], f"{name}/table", axis=1)
