"""The second look: what an array looks like, and a sample of rows side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax, softmax

from kldiv_cli.alignment import FEWEST_ROWS, Alignment
from kldiv_cli.job import Job
from kldiv_cli.likeness import Likeness
from kldiv_cli.probes import alignment_of, look_at
from kldiv_cli.shapes import fit
from kldiv_cli.sources import ArraySource, Inputs
from kldiv_cli.spec import resolve_spec

AnyArray = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def logits(rows: int = 400, classes: int = 10) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(rows)
    teacher = rng.normal(0, 2, (rows, classes))
    return teacher + rng.normal(0, 0.5, teacher.shape), teacher


def aligned(
    predictions: AnyArray, targets: AnyArray, mask: AnyArray | None = None, **options: Any
) -> Alignment | None:
    spec = resolve_spec(mask=mask is not None, **options)
    inputs = Inputs(
        ArraySource(predictions, "predictions"),
        ArraySource(targets, "targets"),
        mask=None if mask is None else ArraySource(mask, "mask"),
    )
    axis = spec.axis % predictions.ndim
    return alignment_of(Job(spec=spec, shape=predictions.shape, axis=axis, inputs=fit(spec, inputs)))


@pytest.mark.parametrize(
    ("space", "axis"), [("logits", None), ("log-probs", 0), ("log-probs", 1), ("probs", 0), ("probs", 1)]
)
def test_an_array_is_looked_at_for_its_space_and_axis(space: str, axis: int | None) -> None:
    z = logits()[0]
    values = z if axis is None else softmax(z, axis) if space == "probs" else log_softmax(z, axis)
    assert look_at(ArraySource(values, "predictions")) == Likeness(space, axis)  # type: ignore[arg-type]


SPACES = [
    (predictions_are, targets_are)
    for predictions_are in ("log-probs", "probs", "logits")
    for targets_are in ("probs", "log-probs", "logits", "labels")
]


def in_space(z: Floats, space: str, axis: int) -> AnyArray:
    if space == "labels":
        return np.asarray(z.argmax(axis))
    return z if space == "logits" else np.asarray((softmax if space == "probs" else log_softmax)(z, axis))


@pytest.mark.parametrize(("predictions_are", "targets_are"), SPACES)
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_are_compared_in_any_space_and_along_any_axis(
    predictions_are: str, targets_are: str, axis: int
) -> None:
    student, teacher = (z if axis else z.T for z in logits())
    predictions, targets = in_space(student, predictions_are, axis), in_space(teacher, targets_are, axis)
    options: dict[str, Any] = {"predictions_are": predictions_are, "targets_are": targets_are, "axis": axis}
    found = aligned(predictions, targets, **options)
    assert found is not None
    agreement = float((student.argmax(axis) == teacher.argmax(axis)).mean())
    assert (found.rows, found.agreement) == (400, agreement)
    assert not found.misaligned
    rolled = aligned(np.roll(predictions, 1, axis=1 - axis), targets, **options)
    assert rolled is not None
    assert rolled.misaligned


def test_a_temperature_divides_the_logits_of_a_sample() -> None:
    student, teacher = logits()
    cold = aligned(student, teacher, log_softmax=1, targets_are="logits", temperature=4.0)
    divided = aligned(student / 4, teacher / 4, log_softmax=1, targets_are="logits")
    assert cold == divided


@pytest.mark.parametrize("rows", [0, 1, FEWEST_ROWS - 1])
def test_few_rows_are_not_judged(rows: int) -> None:
    student, teacher = logits(400)
    found = aligned(student[:rows], softmax(teacher, 1)[:rows], log_softmax=1)
    assert found is None or not found.misaligned


def test_there_is_nothing_to_agree_on_in_one_class() -> None:
    assert aligned(np.zeros((400, 1)), np.ones((400, 1))) is None


def test_a_large_vocabulary_of_few_rows_is_not_looked_at_once_more() -> None:
    student, teacher = logits(40, 3000)
    assert aligned(student, softmax(teacher, 1), log_softmax=1) is None


def test_of_many_rows_a_sample_is_taken_from_the_first_to_the_last() -> None:
    """Rows agree in the first half only, and a sample from both tells."""
    student, teacher = logits(20_000)
    student[10_000:] = -teacher[10_000:]
    found = aligned(student, softmax(teacher, 1), log_softmax=1)
    assert found is not None
    assert 256 <= found.rows <= 512
    assert 0.3 < found.agreement < 0.6


def test_masked_rows_and_ignored_labels_are_not_compared() -> None:
    student, teacher = logits()
    mask = np.arange(400) % 4 == 0
    wrong = student.copy()
    wrong[~mask] = -student[~mask]
    found = aligned(wrong, softmax(teacher, 1), mask, log_softmax=1)
    assert found is not None
    agreement = float((student.argmax(1) == teacher.argmax(1))[mask].mean())
    assert (found.rows, found.agreement) == (100, agreement)
    labels = np.where(mask, teacher.argmax(1), -100)
    of_labels = aligned(wrong, labels, log_softmax=1, targets_are="labels", ignore_value=-100)
    assert of_labels is not None
    assert (of_labels.rows, of_labels.agreement) == (100, agreement)


def test_rows_with_nan_are_not_compared() -> None:
    student, teacher = logits()
    student[::5, 3] = np.nan
    found = aligned(student, softmax(teacher, 1), log_softmax=1)
    assert found is not None
    assert found.rows == 320
    student[:] = np.nan
    assert aligned(student, softmax(teacher, 1), log_softmax=1) is None


def test_single_elements_that_do_not_count_leave_no_rows_to_compare() -> None:
    student, teacher = logits()
    mask = np.random.default_rng(1).random(student.shape) < 0.5
    assert aligned(student, softmax(teacher, 1), mask, log_softmax=1) is None
