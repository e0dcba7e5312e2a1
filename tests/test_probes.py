"""The second look: what an array looks like, and a sample of rows side by side."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax, softmax

from kldiv_cli import evaluate
from kldiv_cli.alignment import FEWEST_ROWS, Alignment
from kldiv_cli.job import Job
from kldiv_cli.likeness import Likeness
from kldiv_cli.probes import alignment_of, is_bfloat16, look_at
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
    assert 65_536 // 10 // 2 <= found.rows <= 65_536 // 10
    assert 0.3 < found.agreement < 0.6


@pytest.mark.parametrize(("classes", "most"), [(10, 6553), (100, 655), (128, 512), (1000, 512)])
def test_a_sample_is_of_so_many_rows_or_elements_whichever_is_more(classes: int, most: int) -> None:
    row = np.random.default_rng(1).normal(0, 2, classes)
    found = aligned(np.broadcast_to(row, (20_000, classes)), np.zeros(20_000, int), targets_are="labels")
    assert found is not None
    assert most // 2 <= found.rows <= most


def test_rows_of_labels_are_compared_in_little_memory() -> None:
    classes = 8192
    logits = np.broadcast_to(np.random.default_rng(1).normal(0, 2, classes).astype("f4"), (1024, classes))
    labels = np.arange(1024)
    tracemalloc.start()
    try:
        evaluate(logits, labels, log_softmax=-1, targets_are="labels", workers=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 128 << 20


@pytest.mark.parametrize("label", [-1, 10, 2**40])
def test_labels_that_are_no_class_are_a_target_of_nothing(label: int) -> None:
    student = logits()[0]
    student[:, 9] += 20
    found = aligned(student, np.full(400, label), log_softmax=1, targets_are="labels")
    assert found is not None
    assert (found.rows, found.agreement) == (400, 0.0)
    last = aligned(student, np.full(400, 9), log_softmax=1, targets_are="labels")
    assert last is not None
    assert last.agreement == 1.0


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


# bfloat16 stored as float32


def bfloat16(values: Floats) -> AnyArray:
    """Values of no more digits than bfloat16 has, cut off."""
    return (values.astype("f4").view("u4") & np.uint32(0xFFFF0000)).view("f4")


def has_few_digits(values: AnyArray) -> bool:
    return is_bfloat16(ArraySource(values, "predictions"))


@pytest.mark.parametrize("shape", [(9,), (40, 7), (3, 5, 4), (2, 70_000), (70_000, 2)])
@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_float32_of_the_digits_of_bfloat16_is_told_from_float32(
    shape: tuple[int, ...], dtype: str, order: Any
) -> None:
    z = np.random.default_rng(1).normal(0, 2, shape)
    assert has_few_digits(np.asarray(bfloat16(z), dtype, order=order))
    assert not has_few_digits(np.asarray(z, dtype, order=order))


@pytest.mark.parametrize("dtype", ["f2", "f8", "i4", "u4", "?"])
def test_only_float32_may_hold_bfloat16(dtype: str) -> None:
    assert not has_few_digits(bfloat16(np.random.default_rng(1).normal(0, 2, (40, 7))).astype(dtype))


def test_float16_stored_as_float32_is_no_bfloat16() -> None:
    z = np.random.default_rng(1).normal(0, 2, (40, 7))
    assert not has_few_digits(z.astype("f2").astype("f4"))


def test_one_value_of_more_digits_is_none_of_bfloat16() -> None:
    z = bfloat16(np.random.default_rng(1).normal(0, 2, (40, 7)))
    z[3, 2] = 0.1
    assert not has_few_digits(z)


def test_values_that_are_short_in_every_type_are_no_bfloat16() -> None:
    rng = np.random.default_rng(1)
    one_hot = np.eye(10, dtype="f4")[rng.integers(0, 10, 100)]
    for values in (one_hot, np.zeros((40, 7), "f4"), rng.integers(0, 8, (40, 7)).astype("f4")):
        assert not has_few_digits(values)
    assert not has_few_digits(np.array(1.5, "f4"))


@pytest.mark.parametrize("shape", [(0,), (0, 7), (7, 0)])
def test_nothing_is_no_bfloat16(shape: tuple[int, ...]) -> None:
    assert not has_few_digits(np.zeros(shape, "f4"))
