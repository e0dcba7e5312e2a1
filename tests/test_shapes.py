from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import AxisError, FormatError, ShapeMismatch, UsageError
from kldiv_cli.shapes import fit, map_shape
from kldiv_cli.sources import ArraySource, Inputs
from kldiv_cli.spec import resolve_spec


def inputs(predictions: tuple[int, ...], targets: tuple[int, ...], dtype: str = "f8") -> Inputs:
    return Inputs(ArraySource(np.zeros(predictions), "q.npy"), ArraySource(np.zeros(targets, dtype), "p.npy"))


def shape_of(
    predictions: tuple[int, ...], targets: tuple[int, ...], dtype: str = "f8", **options: Any
) -> Any:
    return map_shape(resolve_spec(**options), inputs(predictions, targets, dtype))


@pytest.mark.parametrize(
    ("predictions", "targets", "options", "says"),
    [
        ((2, 3), (3, 2), {}, "expected equal shapes"),
        ((2, 3), (1, 3), {}, "--broadcast stretches them"),
        ((2, 10), (2, 8), {}, r"is one padded\? --trim-axis cuts it to 8"),
        ((2, 3), (4, 3), {"broadcast": True}, "do not broadcast to one shape"),
        ((2, 1), (2, 3), {"broadcast": True, "log_softmax": 1}, "can't be stretched along axis 1"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused_with_what_may_mend_it(
    predictions: tuple[int, ...], targets: tuple[int, ...], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ShapeMismatch, match=says):
        shape_of(predictions, targets, **options)


@pytest.mark.parametrize(
    ("predictions", "targets", "axis", "shape"),
    [
        ((2, 10), (2, 8), -1, (2, 8)),
        ((2, 8), (2, 10), -1, (2, 8)),
        ((10, 3), (7, 3), 0, (7, 3)),
        ((2, 3, 4), (2, 5, 4), 1, (2, 3, 4)),
        ((2, 3), (2, 3), -1, (2, 3)),
        ((4,), (1,), 0, (1,)),
        ((2, 0), (2, 3), 1, (2, 0)),
        ((), (), -1, ()),
    ],
)
def test_trimming_cuts_the_longer_of_both_along_the_axis(
    predictions: tuple[int, ...], targets: tuple[int, ...], axis: int, shape: tuple[int, ...]
) -> None:
    spec, pair = resolve_spec(trim_axis=True, axis=axis), inputs(predictions, targets)
    assert map_shape(spec, pair) == shape
    fitted = fit(spec, pair)
    assert (fitted.predictions.shape, fitted.targets.shape) == (shape, shape)
    assert (fitted.predictions.address, fitted.targets.address) == ("q.npy", "p.npy")


def test_trimming_keeps_what_comes_first() -> None:
    array = np.arange(12.0).reshape(3, 4)
    pair = Inputs(ArraySource(array), ArraySource(np.zeros((3, 2))))
    fitted = fit(resolve_spec(trim_axis=True), pair).predictions
    assert fitted.read((slice(1, 3), slice(0, 2)), Buffer()).tolist() == [[4.0, 5.0], [8.0, 9.0]]


def test_trimming_mends_no_other_difference() -> None:
    with pytest.raises(ShapeMismatch, match="expected equal shapes"):
        shape_of((2, 10), (3, 8), trim_axis=True)
    with pytest.raises(ShapeMismatch, match="expected equal shapes"):
        shape_of((10,), (3, 8), trim_axis=True)
    with pytest.raises(AxisError, match="axis 2 is out of range"):
        shape_of((2, 10), (2, 8), trim_axis=True, axis=2)


def test_labels_are_not_trimmed() -> None:
    with pytest.raises(UsageError, match="trim_axis: does not go with labels"):
        shape_of((2, 3), (2,), "i8", targets_are="labels", trim_axis=True)


@pytest.mark.parametrize(
    ("shape", "axis", "mask", "fitted"),
    [
        ((2, 3, 4), 2, (2, 3), (2, 3, 1)),
        ((2, 3, 4), 1, (2, 4), (2, 1, 4)),
        ((2, 3, 4), 0, (3, 4), (1, 3, 4)),
        ((2, 3, 4), 2, (2, 3, 4), (2, 3, 4)),
        ((2, 3, 4), 2, (2, 1, 1), (2, 3, 1)),
        ((2, 3, 4), 2, (1, 3, 1), (2, 3, 1)),
        ((2, 3, 4), 2, (3, 1), (2, 3, 1)),
        ((2, 3, 4), 2, (4,), (2, 3, 4)),
        ((2, 3, 4), 2, (1, 1, 4), (2, 3, 4)),
        ((2, 3, 4), 2, (1,), (2, 3, 1)),
        ((2, 3, 4), 2, (), (2, 3, 1)),
        ((2, 3, 4), 0, (4,), (1, 3, 4)),
        ((2, 3, 4), 0, (1, 3, 1), (1, 3, 4)),
        ((2, 3, 4), 1, (3, 1), (2, 3, 4)),
        ((4, 4), 1, (4,), (4, 1)),
        ((4, 1), 1, (4, 1), (4, 1)),
        ((5,), 0, (), (1,)),
        ((5,), 0, (5,), (5,)),
        ((), 0, (), ()),
    ],
)
def test_a_mask_has_the_shape_without_the_axis_or_one_that_broadcasts(
    shape: tuple[int, ...], axis: int, mask: tuple[int, ...], fitted: tuple[int, ...]
) -> None:
    """One value for a distribution stays one; what has the shape without the axis is taken for that first."""
    values = np.arange(np.prod(mask, dtype=int)).reshape(mask)
    pair = inputs(shape, shape)._replace(mask=ArraySource(values, "m.npy"))
    source = fit(resolve_spec(axis=axis, mask=True), pair).mask
    assert source is not None
    assert (source.shape, source.address) == (fitted, "m.npy")
    without_axis = shape and mask == shape[:axis] + shape[axis + 1 :]
    expected = np.expand_dims(values, axis) if without_axis else values
    read = source.read(tuple(slice(0, length) for length in fitted), Buffer())
    assert read.shape == fitted
    assert (np.broadcast_to(read, shape) == np.broadcast_to(expected, shape)).all()


@pytest.mark.parametrize("mask", [(2, 3, 4, 1), (5,), (2,), (2, 4), (2, 1), (1, 2, 3, 4)])
def test_a_mask_of_another_shape_is_refused(mask: tuple[int, ...]) -> None:
    pair = inputs((2, 3, 4), (2, 3, 4))._replace(mask=ArraySource(np.ones(mask), "m.npy"))
    with pytest.raises(
        ShapeMismatch, match=r"mask m\.npy .*: expected a shape that broadcasts to \(2, 3, 4\)"
    ):
        fit(resolve_spec(mask=True), pair)


def test_a_mask_goes_with_the_trimmed_shape() -> None:
    pair = inputs((2, 10), (2, 8))._replace(mask=ArraySource(np.ones((2, 8)), "m.npy"))
    mask = fit(resolve_spec(mask=True, trim_axis=True), pair).mask
    assert mask is not None
    assert mask.shape == (2, 8)


def test_a_mask_goes_with_labels_and_with_broadcast_inputs() -> None:
    labels = inputs((2, 3, 4), (2, 3), "i8")._replace(mask=ArraySource(np.ones((2, 3)), "m.npy"))
    mask = fit(resolve_spec(mask=True, targets_are="labels"), labels).mask
    stretched = inputs((3,), (2, 1))._replace(mask=ArraySource(np.ones(2), "m.npy"))
    other = fit(resolve_spec(mask=True, broadcast=True), stretched).mask
    assert mask is not None
    assert other is not None
    assert (mask.shape, other.shape) == ((2, 3, 1), (2, 1))


def test_class_labels_taken_for_targets_are_recognised() -> None:
    with pytest.raises(ShapeMismatch, match="--targets-are labels"):
        shape_of((2, 3), (2,), "i8")


def test_labels_have_the_shape_without_the_axis_and_are_integers() -> None:
    assert shape_of((2, 3, 4), (2, 4), "i8", targets_are="labels", axis=1) == (2, 3, 4)
    with pytest.raises(ShapeMismatch, match=r"expected \(2, 3\)"):
        shape_of((2, 3, 4), (2, 4), "i8", targets_are="labels")
    with pytest.raises(FormatError, match="expected integer labels"):
        shape_of((2, 3), (2,), "f4", targets_are="labels")


def test_an_axis_that_is_not_there_is_named_with_file_and_shape() -> None:
    with pytest.raises(AxisError, match=r"q.npy: axis 2 is out of range for 2 dimensions, shape \(2, 3\)"):
        shape_of((2, 3), (2, 3), axis=2)


def test_inputs_are_fitted_to_the_shape_of_the_map() -> None:
    fitted = fit(resolve_spec(broadcast=True), inputs((3,), (2, 1)))
    assert [source.shape for source in fitted.all()] == [(2, 3), (2, 3)]


def test_a_weight_must_broadcast_to_the_map_and_not_the_map_to_it() -> None:
    spec = resolve_spec(losses=("bce",), weight=True)
    for shape in ((3,), (2, 1), ()):
        pair = inputs((2, 3), (2, 3))._replace(weight=ArraySource(np.ones(shape), "w.npy"))
        assert fit(spec, pair).all()[2].shape == (2, 3)
    wider = inputs((2, 3), (2, 3))._replace(weight=ArraySource(np.ones((4, 2, 3)), "w.npy"))
    with pytest.raises(ShapeMismatch, match=r"weight w\.npy"):
        fit(spec, wider)
