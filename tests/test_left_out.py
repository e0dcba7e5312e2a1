"""Tests of what is wrong at present (t-diag @ 216ba53): each fails until kldiv_cli is mended."""

from __future__ import annotations

import tracemalloc
from unittest import mock

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from test_misuse import ids, pieces_of

from kldiv_cli import evaluate
from kldiv_cli.alignment import align, rows_of
from kldiv_cli.kernels import SEGMENT


# 1 crash -> tests/test_masses.py, tests/test_misuse.py
def test_no_row_need_be_looked_at() -> None:
    from kldiv_cli.masses import mass_of_log_probs

    for width in (7, 2 * SEGMENT):
        obtained = mass_of_log_probs(np.zeros((3, width)), np.zeros(3, bool))
        assert obtained.shape == (3, -(-width // SEGMENT))
        assert np.isnan(obtained).all()


@pytest.mark.parametrize(("rows", "classes"), [(9, 131_072), (12, 150_000), (3, 400_000), (100, 50_000)])
def test_nothing_is_said_of_many_log_probabilities_of_a_large_vocabulary(rows: int, classes: int) -> None:
    rng = np.random.default_rng(1)
    x = log_softmax(rng.normal(0, 1, (rows, classes)).astype("f4"), -1)
    y = softmax(rng.normal(0, 1, (rows, classes)).astype("f4"), -1)
    assert evaluate(x, y).findings == ()


# 2 crash -> tests/test_misuse.py (add () to the shapes of test_no_wild_data_make_the_findings_fail)
def test_a_scalar_target_below_zero_is_told() -> None:
    assert "targets-logits" in ids(evaluate(np.float64(-0.3), np.float64(-0.2)))


# 3 uninitialised memory -> tests/test_no_false_findings.py (add "logits" to test_..._bce_of_a_softmax)
@pytest.mark.parametrize("rest", [1.0, 0.0])
def test_nothing_left_in_memory_is_taken_for_what_logit_targets_of_bce_add_up_to(rest: float) -> None:
    rng = np.random.default_rng(1)
    with mock.patch("numpy.empty", lambda shape, dtype=float, **k: np.full(shape, rest, dtype)):
        result = evaluate(
            rng.normal(0, 2, (20, 5)),
            rng.normal(0, 2, (20, 5)),
            loss="bce",
            log_softmax=1,
            targets_are="logits",
        )
    assert result.findings == ()


# 4 memory -> tests/test_probes.py
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


# 5 blocks change a finding -> tests/test_misuse.py
def test_a_softmax_of_probabilities_is_counted_alike_whatever_the_blocks() -> None:
    rng = np.random.default_rng(1)
    predictions = softmax(rng.normal(0, 2, (30_000, 10)), -1)
    predictions[20_000:] = rng.normal(0, 3, (10_000, 10))
    targets = softmax(rng.normal(0, 2, (30_000, 10)), -1)
    counts = set()
    for segments, block in [(32, 1 << 20), (32, 70_000), (1, 16 * SEGMENT), (1, 1000)]:
        with pieces_of(segments, block):
            found = evaluate(predictions, targets, log_softmax=-1, memory=1 << 40).findings
        counts.add(next(f.count for f in found if f.id == "softmax-of-probs"))
    assert counts == {20_000}


def test_one_row_of_nan_does_not_hide_a_softmax_of_probabilities() -> None:
    rng = np.random.default_rng(1)
    predictions = softmax(rng.normal(0, 2, (1000, 10)), -1)
    predictions[500] = np.nan
    targets = softmax(rng.normal(0, 2, (1000, 10)), -1)
    assert "softmax-of-probs" in ids(evaluate(predictions, targets, log_softmax=-1))


# 6 equal by chance -> tests/test_no_false_findings.py
@pytest.mark.parametrize(("dtype", "classes"), [("f2", 2), ("i1", 3)])
def test_nothing_is_said_of_logits_of_few_classes_that_are_equal_by_chance(dtype: str, classes: int) -> None:
    rng = np.random.default_rng(1)
    teacher = rng.normal(0, 3, (20_000, classes))
    student = -teacher + 2 * np.sign(teacher)  # of another opinion, each row
    for found in evaluate(
        student.astype(dtype), teacher.astype(dtype), log_softmax=-1, targets_are="logits"
    ).findings:
        assert not found.id.endswith("-padding")


# 7 misaligned -> tests/test_alignment.py, tests/test_no_false_findings.py
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_rows_of_a_model_that_says_the_same_of_all_are_left_alone(classes: int) -> None:
    labels = np.random.default_rng(4).integers(0, classes, 500)
    prior = np.log(np.bincount(labels, minlength=classes) + 0.5)
    for student in (np.tile(prior, (500, 1)), np.zeros((500, classes))):
        assert not align(rows_of(log_softmax(student, -1), np.eye(classes)[labels])).misaligned


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("spread", [0.01, 0.1])
@pytest.mark.parametrize("rows", [40, 400, 5000])
def test_nothing_is_said_of_an_untrained_model(classes: int, spread: float, rows: int) -> None:
    rng = np.random.default_rng(classes * rows)
    student, labels = rng.normal(0, spread, (rows, classes)), rng.integers(0, classes, rows)
    assert evaluate(student, labels, log_softmax=-1, targets_are="labels").findings == ()
    assert evaluate(student, softmax(rng.normal(0, 2, (rows, classes)), -1), log_softmax=-1).findings == ()


@pytest.mark.parametrize("spread", [0.0, 0.2, 2.0])
def test_nothing_is_said_where_the_targets_of_all_rows_are_alike(spread: float) -> None:
    """Any order is right then; 0 is an exactly flat target, as of a student that is to forget."""
    rng = np.random.default_rng(1)
    teacher = np.tile(spread * rng.normal(0, 1, 50), (300, 1))
    student = teacher + rng.normal(0, 0.5, teacher.shape)
    assert evaluate(student, softmax(teacher, -1), log_softmax=-1).findings == ()


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_said_of_forty_rows_of_a_student_that_is_somewhat_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    teacher = rng.normal(0, 2, (40, 3))
    student = teacher / 4 + rng.normal(0, 0.75, (40, 3))
    assert "misaligned" not in ids(evaluate(student, softmax(teacher, -1), log_softmax=-1))


@pytest.mark.parametrize("rows", [1000, 5000])
@pytest.mark.parametrize("targets_are", ["probs", "labels"])
def test_rows_in_another_order_are_found_in_a_thousand_classes(rows: int, targets_are: str) -> None:
    rng = np.random.default_rng(1)
    teacher = rng.normal(0, 5, (rows, 1000))
    student = (teacher + rng.normal(0, 1, teacher.shape))[rng.permutation(rows)]
    targets = teacher.argmax(-1) if targets_are == "labels" else softmax(teacher, -1)
    assert ids(evaluate(student, targets, log_softmax=-1, targets_are=targets_are)) == ["misaligned"]


# 8 bfloat16 -> tests/test_no_false_findings.py
def bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype("f4").view("u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view("f4")


@pytest.mark.parametrize("classes", [10, 1000])
def test_nothing_is_said_of_bfloat16_that_was_stored_as_float32(classes: int) -> None:
    rng = np.random.default_rng(1)
    teacher = rng.normal(0, 2, (100, classes))
    student = teacher + rng.normal(0, 1, teacher.shape)
    assert evaluate(bfloat16(student), bfloat16(softmax(teacher, -1)), log_softmax=-1).findings == ()
    assert evaluate(bfloat16(log_softmax(student, -1)), bfloat16(softmax(teacher, -1))).findings == ()


# 9 small ones
def test_the_option_of_unnormalised_log_probabilities_is_complete() -> None:
    x = np.log(np.full((4, 4), 0.1))
    assert evaluate(x, np.full((4, 4), 0.25)).findings[0].option == "--log-softmax 1"


def test_identical_data_with_nan_are_the_same_data() -> None:
    z = np.random.default_rng(1).normal(0, 1, (5, 4))
    z[0, 0] = np.nan
    assert "identical" in ids(evaluate(z, z.copy(), log_softmax=-1, targets_are="logits"))


def test_a_sigmoid_of_probabilities_is_told() -> None:
    rng = np.random.default_rng(1)
    p = rng.random((300, 4))
    y = (rng.random(p.shape) < p).astype("u1")
    assert evaluate(p, y, loss="bce", predictions_are="logits").findings != ()


def test_where_all_of_many_log_probabilities_are_0_none_is_padding() -> None:
    y = np.full((120_000, 10), 0.1)
    assert "predictions-padding" not in ids(evaluate(np.zeros(y.shape), y))


def test_padding_of_many_log_probabilities_is_counted_in_full_or_said_to_be_sampled() -> None:
    x = np.log(np.full((120_000, 10), 0.1))
    x[::2] = 0
    (found, *_) = evaluate(x, np.exp(np.log(np.full(x.shape, 0.1)))).findings
    assert found.count == 60_000 or "of every fourth" in found.message


def test_a_row_of_minus_infinity_is_not_said_to_be_minus_100() -> None:
    x = np.log(np.full((5, 4), 0.25))
    x[2] = -np.inf
    found = evaluate(x, np.full(x.shape, 0.25)).findings
    assert "-100" not in found[0].message
