from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kldiv_cli.errors import AxisError, FormatError, ShapeMismatch
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
