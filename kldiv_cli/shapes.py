"""Which shapes belong together: predictions and targets, labels, weights, and what broadcasts."""

from __future__ import annotations

import numpy as np

from kldiv_cli.errors import AxisError, FormatError, ShapeMismatch
from kldiv_cli.functional import normalize_axis
from kldiv_cli.sources import BroadcastSource, ExpandedSource, Inputs, SliceSource, Source
from kldiv_cli.spec import Spec

__all__ = ["check_label_shape", "fit", "map_shape"]


def map_shape(spec: Spec, inputs: Inputs) -> tuple[int, ...]:
    """The shape of the per-element losses.

    Raises
    ------
    ShapeMismatch
        The shapes do not belong together under `spec`.
    AxisError
        There is no such axis.
    """
    predictions, targets = _trimmed(spec, inputs)
    if spec.broadcast and spec.targets_are != "labels":
        shape = _broadcast_shape(predictions, targets)
        _check_softmax(spec, inputs, shape, _axis(spec, predictions, shape))
        return shape
    axis = _axis(spec, predictions, predictions.shape)
    if spec.targets_are == "labels":
        check_label_shape(predictions, targets, axis)
    elif targets.shape != predictions.shape:
        raise ShapeMismatch(
            f"{spec.roles[0]} {predictions.address} {predictions.shape} and {spec.roles[1]} "
            f"{targets.address} {targets.shape}: expected equal shapes"
            f"{_shape_hint(spec, predictions, targets, axis)}"
        )
    return predictions.shape


def fit(spec: Spec, inputs: Inputs) -> Inputs:
    """The inputs stretched to one shape, but for labels."""
    shape = map_shape(spec, inputs)
    predictions, targets = _trimmed(spec, inputs)
    labels = spec.targets_are == "labels"
    return Inputs(
        predictions=_stretched(predictions, shape),
        targets=targets if labels else _stretched(targets, shape),
        weight=_factor("weight", inputs.weight, shape),
        pos_weight=_factor("pos_weight", inputs.pos_weight, shape),
        mask=_mask(inputs.mask, shape, normalize_axis(spec.axis, len(shape))),
    )


def _trimmed(spec: Spec, inputs: Inputs) -> tuple[Source, Source]:
    """Predictions and targets, the longer of them cut along the axis where that was asked for."""
    predictions, targets = inputs.predictions, inputs.targets
    if not spec.trim_axis or predictions.ndim != targets.ndim or not predictions.shape:
        return predictions, targets
    axis = _axis(spec, predictions, predictions.shape)
    length = min(predictions.shape[axis], targets.shape[axis])
    return _cut(predictions, axis, length), _cut(targets, axis, length)


def _cut(source: Source, axis: int, length: int) -> Source:
    if source.shape[axis] == length:
        return source
    whole = [slice(0, extent) for extent in source.shape]
    return SliceSource(source, source.address, (*whole[:axis], slice(0, length), *whole[axis + 1 :]))


def _mask(source: Source | None, shape: tuple[int, ...], axis: int) -> Source | None:
    """A mask of all dimensions; along the axis it stays of length 1 where one value is for a distribution."""
    if source is None:
        return None
    if shape and source.shape == shape[:axis] + shape[axis + 1 :]:
        return ExpandedSource(source, axis)
    stretched = _factor("mask", source, shape)
    own = axis - (len(shape) - source.ndim)
    if stretched is None or not shape or (own >= 0 and source.shape[own] == shape[axis]):
        return stretched
    return BroadcastSource(source, (*shape[:axis], 1, *shape[axis + 1 :]))


def _axis(spec: Spec, predictions: Source, shape: tuple[int, ...]) -> int:
    try:
        return normalize_axis(spec.axis, len(shape))
    except AxisError as error:
        raise AxisError(f"{predictions.address}: {error}, shape {shape}") from None


def check_label_shape(predictions: Source, targets: Source, axis: int) -> None:
    """Refuse labels that are not one integer a distribution."""
    shape = predictions.shape
    expected = shape[:axis] + shape[axis + 1 :]
    if not shape:
        raise ShapeMismatch(f"{predictions.address}: 0 dimensions, expected an axis of classes for labels")
    if targets.shape != expected:
        raise ShapeMismatch(
            f"labels {targets.address} {targets.shape}: expected {expected}, "
            f"the shape of the outputs {shape} without axis {axis}; choose it with --axis"
        )
    if targets.dtype.kind not in "iu":
        raise FormatError(f"{targets.address}: {targets.dtype}, expected integer labels")


def _broadcast_shape(predictions: Source, targets: Source) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(predictions.shape, targets.shape)
    except ValueError:
        raise ShapeMismatch(
            f"predictions {predictions.address} {predictions.shape} and targets {targets.address} "
            f"{targets.shape}: these do not broadcast to one shape"
        ) from None


def _check_softmax(spec: Spec, inputs: Inputs, shape: tuple[int, ...], axis: int) -> None:
    """Refuse to stretch logits along the axis their softmax is taken over: it would be of the copies."""
    logits = [(inputs.predictions, spec.log_softmax), (inputs.targets, spec.targets_softmax)]
    for source, softmax in logits:
        own = axis - (len(shape) - source.ndim)
        stretched = shape and (own < 0 or source.shape[own] != shape[axis])
        if softmax and stretched:
            raise ShapeMismatch(
                f"{source.address} {source.shape}: can't be stretched along axis {axis}, over which "
                f"its softmax is taken, to {shape}"
            )


def _shape_hint(spec: Spec, predictions: Source, targets: Source, axis: int) -> str:
    shape, other = predictions.shape, targets.shape
    of_models = spec.roles != ("predictions", "targets")
    if not of_models and other == shape[:axis] + shape[axis + 1 :] and targets.dtype.kind in "iu":
        return "; if these are class labels, say --targets-are labels"
    differing = [d for d, (a, b) in enumerate(zip(shape, other, strict=False)) if a != b]
    shorter = min(shape[axis], other[axis]) if differing == [axis] else 0
    if shorter > 1 and len(shape) == len(other):
        return (
            f"; axis {axis} has {shape[axis]} and {other[axis]} entries, is one padded? "
            f"--trim-axis cuts it to {shorter}"
        )
    try:
        np.broadcast_shapes(shape, other)
    except ValueError:
        return ""
    return "" if of_models else "; --broadcast stretches them as NumPy does"


def _stretched(source: Source, shape: tuple[int, ...]) -> Source:
    return source if source.shape == shape else BroadcastSource(source, shape)


def _factor(name: str, source: Source | None, shape: tuple[int, ...]) -> Source | None:
    if source is None:
        return None
    try:
        fits = np.broadcast_shapes(source.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeMismatch(
            f"{name} {source.address} {source.shape}: expected a shape that broadcasts to {shape}"
        )
    return _stretched(source, shape)
