"""The doctor's rules. A new one is a function under `@rule` that says what is wrong with a BatchNormalization, or None.

The message says what was found and why it hurts; the remedy, given to `@rule`, what to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..passes.context import is_op, node_name
from .doctor_neighbours import from_its_data, twins
from .patient import Norm, Patient

TINY = 1e-3  # of epsilon: a variance below is that of a channel that never changed
HUGE_GAIN = 1e3
LARGE_EPSILON = 1e-2

Severity = Literal["error", "warning", "info"]
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing the doctor has to say of a BatchNormalization: `message` tells what it is and why it hurts."""

    severity: Severity
    node: str
    kind: str
    message: str
    remedy: str


Rule = Callable[[Norm, Patient], Iterator[Finding]]
RULES: list[Rule] = []


def rule(kind: str, severity: Severity, remedy: str) -> Callable[[Callable[[Norm, Patient], str | None]], Rule]:
    """Register a rule; its result, if any, is the message of a finding of this kind."""

    def register(examine: Callable[[Norm, Patient], str | None]) -> Rule:
        def findings(norm: Norm, patient: Patient) -> Iterator[Finding]:
            message = examine(norm, patient)
            if message is not None:
                yield Finding(severity, norm.name, kind, message, remedy)

        RULES.append(findings)
        return findings

    return register


# Where the statistics come from


@rule(
    "training-mode",
    "error",
    "Export the model after model.eval(); or run it with --training-mode running if the running statistics in "
    "the file are good, after `infold recalibrate` if they are not.",
)
def training_mode(norm: Norm, patient: Patient) -> str | None:
    if norm.training:
        return (
            "it was exported in training mode: it normalises with the mean and variance of whatever batch it is given,"
            " so the result for an image depends on its neighbours, and for a batch of one says little; no weights can"
            " absorb it"
        )


@rule(
    "no-tracked-statistics",
    "warning",
    "Train with track_running_stats=True, or estimate statistics over data and export those; if the "
    "batch is meant to decide, always run the batch size that was trained with.",
)
def no_tracked_statistics(norm: Norm, patient: Patient) -> str | None:
    if from_its_data(norm):
        return (
            "no statistics were tracked: its mean and variance are computed from the very data it normalises, so the"
            " result for an image depends on its batch, the statistics cost passes over the tensor, and no weights can"
            " absorb it"
        )


@rule(
    "not-constant",
    "warning",
    "Store statistics and parameters as initializers that are not graph inputs: re-export, or fix the inputs.",
)
def parameters_not_constant(norm: Norm, patient: Patient) -> str | None:
    wrong = norm.not_constant()
    if wrong and not from_its_data(norm):
        return (
            ", ".join(f"its {what} {why}" for what, why in wrong.items())
            + ": what changes from run to run cannot be folded, and a wrong value goes unnoticed"
        )


@rule(
    "never-updated",
    "warning",
    "Check that the model was trained in training mode and that the checkpoint was loaded with its buffers"
    " (running_mean, running_var; Keras: moving_mean, moving_variance); else `infold recalibrate` estimates them from"
    " data.",
)
def never_updated(norm: Norm, patient: Patient) -> str | None:
    if norm.untouched and not norm.training:
        return (
            f"mean 0 and variance {norm.variance.flat[0]:g} in every channel are what a new layer starts with: the"
            " statistics were never updated, or not loaded with the weights, and the layer does not normalise"
        )


@rule("frozen-twin", "warning", "Freeze both branches or neither, and train or recalibrate the one that was left out.")
def frozen_twin(norm: Norm, patient: Patient) -> str | None:
    if norm.training:
        return None
    for twin in twins(norm, patient):
        if twin.training:
            return (
                f"it is frozen, but its twin {twin.name!r} in the parallel branch is in training mode: one follows each"
                " batch, the other does not, and what they are joined to no longer fits"
            )
        if norm.untouched and not twin.untouched and twin.mean is not None:
            return (
                f"its statistics are a new layer's, those of its twin {twin.name!r} in the parallel branch are trained:"
                " the branch was frozen or replaced, and its outputs have another scale"
            )
    return None


# What the numbers say


@rule(
    "not-finite",
    "error",
    "Go back to a checkpoint from before training diverged; lower the learning rate or the half precision that "
    "overflowed; `infold recalibrate` mends the statistics if the weights are sound.",
)
def not_finite(norm: Norm, patient: Patient) -> str | None:
    wrong = {what: int((~np.isfinite(array)).sum()) for what, array in norm.parameters.items() if array is not None}
    wrong = {what: count for what, count in wrong.items() if count and not (norm.training and what in ("mean", "variance"))}
    if wrong:
        return (
            "NaN or infinity in "
            + ", ".join(f"{count} channels of its {what}" for what, count in wrong.items())
            + ": the channels are NaN, and so is everything behind them"
        )


@rule(
    "negative-variance",
    "error",
    "The file is damaged or the statistics were merged wrongly (E[x²]−E[x]² in float32, a scale factor "
    "applied twice): recompute them with `infold recalibrate`.",
)
def negative_variance(norm: Norm, patient: Patient) -> str | None:
    if norm.variance is None or norm.training:
        return None
    below, impossible = (norm.variance < 0).sum(), (norm.variance + norm.epsilon <= 0).sum()
    if impossible:
        return (
            f"variance + epsilon is not positive in {impossible} of {norm.variance.size} channels (smallest variance "
            f"{np.nanmin(norm.variance):.3g}): 1/sqrt of it is NaN or infinite"
        )
    if below:
        return (
            f"the variance is negative in {below} of {norm.variance.size} channels (smallest"
            f" {norm.variance.min():.3g}): no data has such a variance, and only epsilon keeps the result finite"
        )
    return None


@rule(
    "tiny-variance",
    "warning",
    "Look at the layer before: a dead unit, or statistics of constant pictures. Remove the channels, or "
    "`infold recalibrate` on real data.",
)
def tiny_variance(norm: Norm, patient: Patient) -> str | None:
    if norm.variance is None or norm.training or norm.untouched:
        return None
    tiny = (norm.variance >= 0) & (norm.variance + norm.epsilon > 0) & (norm.variance < TINY * norm.epsilon)
    if tiny.any():
        return (
            f"the variance is next to nothing in {tiny.sum()} of {norm.variance.size} channels (smallest"
            f" {norm.variance[tiny].min():.3g}, epsilon {norm.epsilon:.3g}): they were constant in training, and an"
            f" input that is not is divided by as little as {np.sqrt(norm.variance[tiny].min() + norm.epsilon):.3g}"
        )
    return None


@rule(
    "huge-gain",
    "warning",
    "Check the layer on real data; weight decay on the scale, a larger epsilon in training or recalibrated "
    "statistics tame it. Keep it out of half precision and of quantization per tensor.",
)
def huge_gain(norm: Norm, patient: Patient) -> str | None:
    if norm.gain is None or norm.training or not (norm.gain > HUGE_GAIN).any():
        return None
    worst = int(np.argmax(norm.gain))
    return (
        f"|scale|/sqrt(variance+epsilon) is {norm.gain[worst]:.3g} in channel {worst}"
        f" ({int((norm.gain > HUGE_GAIN).sum())} channels above {HUGE_GAIN:g}): rounding errors of the input grow by"
        " that factor"
    )


@rule(
    "constant-layer",
    "warning",
    "A branch that ends like this was initialised to zero and not trained (zero-init residual), or pruned "
    "away whole: train it or remove it.",
)
def constant_layer(norm: Norm, patient: Patient) -> str | None:
    if norm.scale is not None and not norm.scale.any():
        return "the scale is 0 in every channel: the output does not depend on the input, and all work before it is for nothing"


@rule("dead-channels", "info", "Nothing, if the network was pruned on purpose; the channels and their filters can be removed.")
def dead_channels(norm: Norm, patient: Patient) -> str | None:
    if norm.scale is not None and norm.scale.any() and not norm.scale.all():
        return (
            f"the scale is 0 in {int((norm.scale == 0).sum())} of {norm.scale.size} channels: they are constant, and"
            " the filters before them compute for nothing"
        )


@rule(
    "bias-mixup",
    "warning",
    "Keep one convention: frameworks store the unbiased variance (n/(n−1)) as running variance, and normalise a "
    "training batch with the biased one.",
)
def variance_convention(norm: Norm, patient: Patient) -> str | None:
    for other in patient.norms:
        if other is norm:
            return None
        if factor := _constant_factor(norm, other):
            larger = max(factor, 1 / factor)
            return (
                f"same means as {other.name!r}, and variances that differ by the one factor {larger:.6g} = n/(n−1) for"
                f" n = {larger / (larger - 1):.0f}: one holds the unbiased, the other the biased variance of the same"
                " data"
            )
    return None


# How it is set up


@rule("odd-epsilon", "warning", "Compare with the framework's own value (PyTorch 1e-5, Keras 1e-3, Caffe 1e-5) and re-export.")
def odd_epsilon(norm: Norm, patient: Patient) -> str | None:
    if norm.epsilon <= 0:
        return f"epsilon is {norm.epsilon:g}: nothing protects a channel of variance 0 from a division by zero"
    if norm.epsilon > LARGE_EPSILON:
        return f"epsilon is {norm.epsilon:g}, as large as variances are: it changes the result, and is seldom what was trained with"
    usual, count = Counter(other.epsilon for other in patient.norms).most_common(1)[0]
    if norm.epsilon != usual and count >= 3 and count >= 0.9 * len(patient.norms):
        given = "epsilon is" if "epsilon" in norm.node.attributes else "no epsilon is given, so that ONNX's default applies:"
        return (
            f"{given} {norm.epsilon:g}, but {usual:g} in {count} of the model's {len(patient.norms)}"
            " BatchNormalizations: lost or mistaken in a conversion, it shifts the scale of channels with a small"
            " variance"
        )
    return None


@rule("missing-epsilon", "info", "Check the value that was trained with (Keras: 1e-3) and write it into the model.")
def missing_epsilon(norm: Norm, patient: Patient) -> str | None:
    producer = (patient.context.model.producer_name or "").lower()
    if "epsilon" not in norm.node.attributes and any(name in producer for name in ("keras", "tf2onnx", "tensorflow")):
        return "no epsilon is given, so that ONNX's default 1e-5 applies, where Keras and TensorFlow train with 1e-3"
    return None


@rule("not-spatial", "warning", "Re-export with operator set 9 or later, whose BatchNormalization is per channel.")
def not_spatial(norm: Norm, patient: Patient) -> str | None:
    if not norm.spatial and (
        norm.mean is None or norm.mean.ndim > 1 or (norm.source.shape is not None and len(norm.source.shape) > 2)
    ):
        return (
            "spatial=0: every position has statistics of its own, which ties the model to one image size, is not what"
            " frameworks train, and is not understood by most runtimes"
        )


@rule("two-in-a-row", "info", "Remove one of them; folding merges them anyway.")
def two_in_a_row(norm: Norm, patient: Patient) -> str | None:
    before = patient.norm(norm.source.producer())
    if before is not None:
        return (
            f"it directly follows the BatchNormalization {before.name!r}: the second has nothing to normalise, unless a"
            " layer between them was lost"
        )


@rule("redundant-bias", "info", "Train with bias=False before a BatchNormalization; folding merges the two anyway.")
def redundant_bias(norm: Norm, patient: Patient) -> str | None:
    layer = norm.source.producer()
    if is_op(layer, "Conv", "ConvTranspose") and len(layer.inputs) > 2:
        bias = patient.context.array(layer.inputs[2])
        if bias is not None and bias.any():
            return (
                f"{layer.op_type} {node_name(layer)!r} before it has a bias: the mean subtracted here cancels it in"
                " training, so that it learns nothing"
            )
    return None


# Helpers


def _constant_factor(one: Norm, other: Norm) -> float | None:
    """Of two layers with equal means: the factor between their variances, if it is n/(n−1) in all channels."""
    arrays = (one.mean, one.variance, other.mean, other.variance)
    if any(array is None for array in arrays) or one.mean.shape != other.mean.shape or one.mean.size < 4 or not one.mean.any():
        return None
    if not all(np.isfinite(array).all() for array in arrays) or (one.variance <= 0).any() or (other.variance <= 0).any():
        return None
    ratio = one.variance / other.variance
    factor = float(np.median(ratio))
    larger = max(factor, 1 / factor)
    same_means = np.allclose(one.mean, other.mean, rtol=1e-5, atol=1e-7)
    if same_means and larger <= 2 and abs(larger - 1) > 1e-5 and np.allclose(ratio, factor, rtol=2e-6 + 1e-2 * (larger - 1)):
        return factor
    return None
