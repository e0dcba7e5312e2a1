"""Correct data of every kind, on which there is nothing to say: neither a warning nor a note."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, log_softmax, softmax

import kldiv_cli

AnyArray = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

evaluate = partial(kldiv_cli.evaluate, workers=1)
"""Threads take longer to start than most of these arrays take to be read."""

STORAGE = ("<f2", "<f4", ">f4", "<f8")
COMPUTED = {"f2": "f4", "f4": "f4", "f8": "f8"}
"""What a softmax is computed in, that is then rounded to the storage type."""
VOCABULARIES = (2, 3, 10, 257, 1000, 4096, 4097, 32_000, 50_257, 150_000)


class Place(NamedTuple):
    shape: tuple[int, ...]
    axis: int


PLACES = [
    Place((10,), 0),
    Place((2,), 0),
    Place((30, 10), 1),
    Place((10, 30), 0),
    Place((200, 3), 1),
    Place((2, 30), 0),
    Place((4, 5, 6), 2),
    Place((4, 25, 3), 1),
    Place((6, 3, 4), 0),
    Place((2, 3, 5, 3), 1),
    Place((2, 3, 2, 40), -1),
]


def logits_of(
    kind: str, shape: tuple[int, ...], rng: np.random.Generator, axis: int = -1
) -> tuple[Floats, Floats]:
    """A student that has learnt something of its teacher, with each distribution well apart from its own."""
    scale = {"flat": 0.0, "narrow": 0.1, "wide": 2.0, "peaked": 8.0}[kind]
    teacher = rng.normal(0, scale, shape) if scale else np.zeros(shape)
    doubt = 4
    student = teacher / doubt + rng.normal(0, 0.75, shape)
    while (close := kl_of(student, teacher, axis) < 0.02).any():
        doubt *= 2
        student = np.where(close, teacher / doubt + rng.normal(0, 0.75, shape), student)
    return student, teacher


def kl_of(student: Floats, teacher: Floats, axis: int) -> Floats:
    y = softmax(teacher, axis)
    terms = y * (log_softmax(teacher, axis) - log_softmax(student, axis))
    return np.asarray(terms.sum(axis, keepdims=True))


def as_space(logits: Floats, space: str, axis: int, dtype: str) -> AnyArray:
    """Values of a space as a model gives them out, stored in a dtype."""
    z = logits.astype(COMPUTED[dtype[-2:]])
    if space == "labels":
        return np.asarray(z.argmax(axis))
    if space != "logits":
        z = (softmax if space == "probs" else log_softmax)(z, axis)
    return np.asarray(z).astype(dtype)


def told(predictions: AnyArray, targets: AnyArray, **options: Any) -> list[str]:
    result = evaluate(predictions, targets, **options)
    assert math.isfinite(result.sum)
    return [f"{found.severity}: {found.message}" for found in result.findings]


# KL


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        *itertools.product(["<f2", "<f4", "<f8"], ["flat", "narrow", "wide", "peaked"]),
        (">f4", "wide"),
    ],
)
@pytest.mark.parametrize("targets_are", ["probs", "log-probs", "logits", "labels"])
@pytest.mark.parametrize("predictions_are", ["log-probs", "probs", "logits"])
def test_nothing_is_said_of_a_student_and_its_teacher(
    dtype: str, predictions_are: str, targets_are: str, kind: str
) -> None:
    seed = STORAGE.index(dtype) * 1000 + len(predictions_are) * 100 + len(targets_are) * 10 + len(kind)
    rng = np.random.default_rng(seed)
    for k, place in enumerate(PLACES):
        student, teacher = logits_of(kind, place.shape, rng, place.axis)
        predictions = as_space(student, predictions_are, place.axis, dtype)
        targets = as_space(teacher, targets_are, place.axis, dtype)
        temperature = 2.0 if k % 3 == 0 and "logits" in (predictions_are, targets_are) else None
        options = {"axis": place.axis, "temperature": temperature}
        assert (
            told(predictions, targets, predictions_are=predictions_are, targets_are=targets_are, **options)
            == []
        ), place


@pytest.mark.parametrize("kind", ["flat", "wide"])
@pytest.mark.parametrize("classes", VOCABULARIES)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nothing_is_said_of_any_vocabulary(dtype: str, classes: int, kind: str) -> None:
    rng = np.random.default_rng(classes)
    student, teacher = logits_of(kind, (3, classes), rng)
    spaces = itertools.product(["log-probs", "probs", "logits"], ["probs", "log-probs", "logits"])
    for predictions_are, targets_are in spaces:
        if classes > 30_000 and (predictions_are, targets_are) not in ALL_IN_THREE:
            continue
        if dtype == "f2" and predictions_are == "probs" and classes > 30_000:
            continue
        predictions, targets = (
            as_space(student, predictions_are, -1, dtype),
            as_space(teacher, targets_are, -1, dtype),
        )
        assert told(predictions, targets, predictions_are=predictions_are, targets_are=targets_are) == []


ALL_IN_THREE = [("log-probs", "probs"), ("probs", "logits"), ("logits", "log-probs")]
"""Each space once on either side."""


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("targets_are", ["probs", "log-probs"])
def test_nothing_is_said_of_more_than_is_added_up_in_full(dtype: str, targets_are: str) -> None:
    rng = np.random.default_rng(9)
    student, teacher = logits_of("wide", (4200, 257), rng)
    predictions, targets = (
        as_space(student, "log-probs", -1, dtype),
        as_space(teacher, targets_are, -1, dtype),
    )
    assert told(predictions, targets, targets_are=targets_are) == []


@pytest.mark.parametrize("storage", [("f2", "f4"), ("f4", "f2"), ("f8", "f4"), ("f4", "f8")])
@pytest.mark.parametrize("spaces", [("log-probs", "probs"), ("logits", "probs"), ("probs", "log-probs")])
def test_nothing_is_said_of_two_storage_types(storage: tuple[str, str], spaces: tuple[str, str]) -> None:
    student, teacher = logits_of("wide", (300, 20), np.random.default_rng(8))
    predictions, targets = (
        as_space(student, spaces[0], 1, storage[0]),
        as_space(teacher, spaces[1], 1, storage[1]),
    )
    assert told(predictions, targets, predictions_are=spaces[0], targets_are=spaces[1]) == []


def bfloat16(values: AnyArray) -> AnyArray:
    """Rounded to bfloat16, and stored as float32."""
    bits = values.astype("f4").view("u4")
    return np.asarray(((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view("f4"))


@pytest.mark.parametrize("classes", [10, 1000, 32_000])
@pytest.mark.parametrize("predictions_are", ["log-probs", "probs", "logits"])
@pytest.mark.parametrize("targets_are", ["probs", "log-probs", "logits"])
def test_nothing_is_said_of_bfloat16_that_was_stored_as_float32(
    classes: int, predictions_are: str, targets_are: str
) -> None:
    rng = np.random.default_rng(1)
    student, teacher = logits_of("wide", (100 if classes < 10_000 else 4, classes), rng)
    predictions = bfloat16(as_space(student, predictions_are, -1, "f4"))
    targets = bfloat16(as_space(teacher, targets_are, -1, "f4"))
    assert told(predictions, targets, predictions_are=predictions_are, targets_are=targets_are) == []


# Targets of other kinds


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i8", "?"])
@pytest.mark.parametrize("predictions_are", ["log-probs", "probs", "logits"])
def test_nothing_is_said_of_one_hot_targets(dtype: str, predictions_are: str) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 10, 300)
    student = rng.normal(0, 1, (300, 10)) + 2 * np.eye(10)[labels]
    predictions = as_space(student, predictions_are, -1, "f4")
    assert told(predictions, np.eye(10)[labels].astype(dtype), predictions_are=predictions_are) == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("classes", [10, 1000, 32_000])
def test_nothing_is_said_of_smoothed_labels(dtype: str, classes: int) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, classes, 20)
    targets = np.full((20, classes), 0.1 / classes)
    targets[np.arange(20), labels] += 0.9
    student = rng.normal(0, 1, (20, classes))
    student[np.arange(20), labels] += 5
    assert told(student.astype(dtype), targets.astype(dtype), log_softmax=-1) == []


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "u8"])
@pytest.mark.parametrize("kind", ["narrow", "wide", "peaked"])
def test_nothing_is_said_of_labels_of_any_integer(dtype: str, kind: str) -> None:
    student, teacher = logits_of(kind, (4, 7, 30), np.random.default_rng(4))
    labels = as_space(teacher, "labels", 2, "f8").astype(dtype)
    assert told(student.astype("f4"), labels, log_softmax=2, targets_are="labels") == []


@pytest.mark.parametrize("dtype", ["i1", "i4", "u2"])
def test_nothing_is_said_of_whole_numbers_as_logits(dtype: str) -> None:
    rng = np.random.default_rng(5)
    teacher = rng.integers(0, 9, (200, 50))
    student = np.clip(teacher + rng.integers(-3, 4, teacher.shape), 0, 9)
    assert told(student.astype(dtype), teacher.astype(dtype), log_softmax=-1, targets_are="logits") == []


@pytest.mark.parametrize(("dtype", "classes"), [("f2", 2), ("f2", 3), ("i1", 3)])
def test_nothing_is_said_of_logits_of_few_classes_that_are_equal_by_chance(dtype: str, classes: int) -> None:
    rng = np.random.default_rng(1)
    teacher = rng.normal(0, 3, (20_000, classes)).astype(dtype)
    student = (teacher / 2 + 2 * np.sign(teacher)).astype(dtype)
    student[:20] = teacher[:20] = 0
    assert told(student, teacher, log_softmax=-1, targets_are="logits") == []


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("targets_are", ["probs", "logits"])
def test_nothing_is_said_of_logits_in_the_thousands(dtype: str, targets_are: str) -> None:
    rng = np.random.default_rng(6)
    tops = rng.integers(0, 20, 25)
    teacher = rng.normal(0, 1e3, (25, 20)) + 1e4 * np.eye(20)[tops]
    student = rng.normal(0, 1e3, (25, 20)) + 1e4 * np.eye(20)[(tops + 1) % 20]
    targets = as_space(teacher, targets_are, -1, dtype)
    assert told(student.astype(dtype), targets, log_softmax=-1, targets_are=targets_are) == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nothing_is_said_of_texts_that_end_in_one_sure_token(dtype: str) -> None:
    rng = np.random.default_rng(7)
    student, teacher = logits_of("wide", (8, 20, 50), rng)
    teacher[:, 12:, 0], student[:, 12:, 0] = 25.0, 3.0
    targets = as_space(teacher, "probs", -1, dtype)
    assert told(student.astype(dtype), targets, log_softmax=-1) == []
    assert told(as_space(student, "log-probs", -1, dtype), targets) == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nothing_is_said_of_targets_that_rule_classes_out(dtype: str) -> None:
    student, teacher = logits_of("wide", (300, 40), np.random.default_rng(10))
    teacher[:, ::7] = -math.inf
    targets = as_space(teacher, "probs", -1, dtype)
    assert told(student.astype(dtype), targets, log_softmax=-1) == []
    assert told(as_space(student, "probs", -1, dtype), targets, predictions_are="probs") == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("rows", [1, 5, 200])
def test_nothing_is_said_of_distributions_of_one_class(dtype: str, rows: int) -> None:
    ones, zeros = np.ones((rows, 1), dtype), np.zeros((rows, 1), dtype)
    logits = np.random.default_rng(1).normal(0, 1, (rows, 1)).astype(dtype)
    assert told(zeros, ones) == []
    assert told(logits, ones, log_softmax=-1) == []
    assert told(logits, zeros[:, 0].astype(int), log_softmax=-1, targets_are="labels") == []


# Models that know little


@pytest.mark.parametrize("rows", [2, 3, 7, 31])
@pytest.mark.parametrize("classes", [3, 10, 1000])
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0])
def test_nothing_is_said_of_a_few_rows_of_a_model_that_knows_nothing(
    rows: int, classes: int, spread: float
) -> None:
    rng = np.random.default_rng(rows * classes)
    student = np.tile(rng.normal(0, 1, classes), (rows, 1)) + rng.normal(0, 1, (rows, classes)) * spread
    labels = rng.integers(0, classes, rows)
    assert told(student.astype("f4"), labels, log_softmax=-1, targets_are="labels") == []
    assert told(as_space(student, "log-probs", -1, "f4"), labels, targets_are="labels") == []


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("targets_are", ["labels", "probs"])
def test_nothing_is_said_of_targets_that_are_all_one_class(
    classes: int, spread: float, targets_are: str
) -> None:
    rng = np.random.default_rng(12)
    student = np.tile(rng.normal(0, 1, classes), (400, 1)) + rng.normal(0, 1, (400, classes)) * spread
    labels = np.full(400, 1)
    targets = labels if targets_are == "labels" else np.eye(classes, dtype="f4")[labels]
    assert told(student.astype("f4"), targets, log_softmax=-1, targets_are=targets_are) == []


@pytest.mark.parametrize("share", [0.95, 0.99, 0.999])
def test_nothing_is_said_of_a_model_that_always_says_the_common_class(share: float) -> None:
    rng = np.random.default_rng(13)
    labels = np.where(rng.random(2000) < share, 0, rng.integers(1, 10, 2000))
    prior = np.log(np.bincount(labels, minlength=10) + 1.0)
    student = prior + rng.normal(0, 0.3, (2000, 10))
    assert told(student.astype("f4"), labels, log_softmax=-1, targets_are="labels") == []


@pytest.mark.parametrize("right", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("sure", [2.0, 6.0])
@pytest.mark.parametrize(("rows", "classes"), [(2000, 10), (2000, 100), (1000, 1000)])
def test_nothing_is_said_of_a_model_that_is_often_wrong(
    right: float, sure: float, rows: int, classes: int
) -> None:
    rng = np.random.default_rng(14)
    labels = rng.integers(0, classes, rows)
    said = np.where(rng.random(rows) < right, labels, rng.integers(0, classes, rows))
    student = rng.normal(0, 0.5, (rows, classes))
    student[np.arange(rows), said] += sure
    assert told(student.astype("f4"), labels, log_softmax=-1, targets_are="labels") == []


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("spread", [0.01, 0.1])
@pytest.mark.parametrize("rows", [40, 400, 5000])
def test_nothing_is_said_of_an_untrained_model(classes: int, spread: float, rows: int) -> None:
    rng = np.random.default_rng(classes * rows)
    student, labels = rng.normal(0, spread, (rows, classes)), rng.integers(0, classes, rows)
    assert told(student, labels, log_softmax=-1, targets_are="labels") == []
    assert told(student, softmax(rng.normal(0, 2, (rows, classes)), -1), log_softmax=-1) == []


@pytest.mark.parametrize("spread", [0.0, 0.2, 2.0])
def test_nothing_is_said_where_the_targets_of_all_rows_are_alike(spread: float) -> None:
    """Any order is right then; 0 is an exactly flat target, as of a student that is to forget."""
    rng = np.random.default_rng(1)
    teacher = np.tile(spread * rng.normal(0, 1, 50), (300, 1))
    student = teacher + rng.normal(0, 0.5, teacher.shape)
    assert told(student, softmax(teacher, -1), log_softmax=-1) == []


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_said_of_forty_rows_of_a_student_that_is_somewhat_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    teacher = rng.normal(0, 2, (40, 3))
    student = teacher / 4 + rng.normal(0, 0.75, (40, 3))
    assert told(student, softmax(teacher, -1), log_softmax=-1) == []


# BCE


@pytest.mark.parametrize("predictions_are", ["probs", "log-probs", "logits"])
@pytest.mark.parametrize("targets_are", ["bits", "probs", "logits"])
@pytest.mark.parametrize("dtype", STORAGE)
def test_nothing_is_said_of_single_events(dtype: str, predictions_are: str, targets_are: str) -> None:
    rng = np.random.default_rng(15)
    for place in PLACES:
        logits = rng.normal(0, 1, place.shape)
        kinds = {
            "probs": expit(logits),
            "log-probs": np.log(expit(logits)),
            "logits": logits,
            "bits": rng.random(place.shape) < 0.5,
        }
        predictions = kinds[predictions_are].astype(dtype)
        targets = (kinds[targets_are] if targets_are == "bits" else np.flip(kinds[targets_are])).astype(dtype)
        space = "probs" if targets_are == "bits" else targets_are
        assert (
            told(predictions, targets, loss="bce", predictions_are=predictions_are, targets_are=space) == []
        )


@pytest.mark.parametrize("targets_are", ["probs", "log-probs", "logits", "labels"])
@pytest.mark.parametrize("dtype", STORAGE)
def test_nothing_is_said_of_bce_of_a_softmax(dtype: str, targets_are: str) -> None:
    for place in PLACES:
        student, teacher = logits_of("wide", place.shape, np.random.default_rng(16), place.axis)
        targets = as_space(teacher, targets_are, place.axis, dtype)
        assert (
            told(student.astype(dtype), targets, loss="bce", log_softmax=place.axis, targets_are=targets_are)
            == []
        )


@pytest.mark.parametrize("rest", [1.0, 0.0])
def test_nothing_left_in_memory_is_taken_for_what_logit_targets_of_bce_add_up_to(rest: float) -> None:
    student, teacher = logits_of("wide", (20, 5), np.random.default_rng(1))
    with mock.patch("numpy.empty", lambda shape, dtype=float, **_: np.full(shape, rest, dtype)):
        assert told(student, teacher, loss="bce", log_softmax=1, targets_are="logits") == []


# What does not count


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("predictions_are", ["log-probs", "probs", "logits"])
@pytest.mark.parametrize("rubbish", [0.0, -100.0, 7.0, math.nan, math.inf, -math.inf])
def test_nothing_is_said_of_what_is_masked(dtype: str, predictions_are: str, rubbish: float) -> None:
    rng = np.random.default_rng(17)
    student, teacher = logits_of("wide", (6, 40, 12), rng)
    predictions = as_space(student, predictions_are, -1, dtype)
    targets = as_space(teacher, "probs", -1, dtype)
    mask = rng.random((6, 40)) < 0.7
    predictions[~mask], targets[~mask] = rubbish, rubbish
    assert told(predictions, targets, predictions_are=predictions_are, mask=mask) == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nothing_is_said_of_ignored_labels_and_targets(dtype: str) -> None:
    rng = np.random.default_rng(18)
    student, teacher = logits_of("wide", (200, 12), rng)
    padded = rng.random(200) < 0.3
    labels = np.where(padded, -100, teacher.argmax(-1))
    options: dict[str, Any] = {"log_softmax": -1, "ignore_value": -100}
    assert told(student.astype(dtype), labels, targets_are="labels", **options) == []
    targets = as_space(teacher, "probs", -1, dtype)
    targets[padded] = -100
    assert told(student.astype(dtype), targets, **options) == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nothing_is_said_of_elements_that_are_masked(dtype: str) -> None:
    rng = np.random.default_rng(19)
    student, teacher = logits_of("wide", (100, 12), rng)
    mask = rng.random((100, 12)) < 0.8
    predictions, targets = as_space(student, "log-probs", -1, dtype), as_space(teacher, "probs", -1, dtype)
    result = evaluate(predictions, targets, mask=mask)
    assert [found.id for found in result.findings if found.id != "negative-kl"] == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("longer", ["predictions", "targets"])
def test_nothing_is_said_of_a_vocabulary_that_is_trimmed(dtype: str, longer: str) -> None:
    student, teacher = logits_of("wide", (50, 32), np.random.default_rng(20))
    arrays = {"predictions": student.astype(dtype), "targets": teacher.astype(dtype)}
    arrays[longer] = np.pad(arrays[longer], [(0, 0), (0, 8)])
    assert told(*arrays.values(), log_softmax=-1, targets_are="logits", trim_axis=True) == []
