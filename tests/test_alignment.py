"""Whether rows belong together: what is counted of them, and when they are taken to be in another order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import entr, log_softmax, softmax

from kldiv_cli.alignment import FEWEST_ROWS, Alignment, Rows, align, rows_of

Floats = npt.NDArray[np.float64]


def of_logits(student: Floats, teacher: Floats) -> Rows:
    return rows_of(log_softmax(student, -1), softmax(teacher, -1))


def some(rows: int, classes: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (rows, classes)), rng.normal(0, 2, (rows, classes))


# What is counted


def test_rows_are_counted_as_numpy_counts_them() -> None:
    student, teacher = some(50, 6)
    log_p, y = log_softmax(student, -1), softmax(teacher, -1)
    p = np.exp(log_p)
    rows = rows_of(log_p, y)
    assert rows.count == 50
    assert rows.agreeing == np.count_nonzero(p.argmax(1) == y.argmax(1))
    assert rows.cross_entropy == pytest.approx(-(y * log_p).sum())
    assert rows.confidence == pytest.approx(p.max(1).sum())
    assert rows.entropy_predictions == pytest.approx(entr(p).sum())
    assert rows.entropy_targets == pytest.approx(entr(y).sum())
    assert rows.squares_predictions == pytest.approx((p * p).sum())
    assert rows.squares_targets == pytest.approx((y * y).sum())
    np.testing.assert_allclose(rows.predictions, p.sum(0))
    np.testing.assert_allclose(rows.targets, y.sum(0))
    assert rows.top_predictions.tolist() == np.bincount(p.argmax(1), minlength=6).tolist()
    assert rows.top_targets.tolist() == np.bincount(y.argmax(1), minlength=6).tolist()


@pytest.mark.parametrize("cut", [0, 1, 20, 50])
def test_the_rows_of_parts_add_up(cut: int) -> None:
    student, teacher = some(50, 6)
    whole = of_logits(student, teacher)
    parts = of_logits(student[:cut], teacher[:cut]).merge(of_logits(student[cut:], teacher[cut:]))
    for name in Rows._fields:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)


def test_targets_of_0_add_nothing_and_classes_that_are_ruled_out_cost_everything() -> None:
    log_p = np.log(np.array([[0.5, 0.5, 1e-300], [1.0, 1e-300, 1e-300]]))
    log_p[:, 2] = -np.inf
    zero = rows_of(log_p, np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    assert zero.cross_entropy == pytest.approx(np.log(2))
    assert rows_of(log_p, np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])).cross_entropy == np.inf


def test_agreement_and_chance_are_shares_of_the_rows() -> None:
    top_p, top_y = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    log_p = np.log(np.where(np.eye(3)[top_p] == 1, 0.8, 0.1))
    found = align(rows_of(log_p, np.eye(3)[top_y]))
    assert (found.rows, found.agreement) == (4, 0.5)
    assert found.chance == (2 * 1 + 1 * 3 + 1 * 0) / 16


def test_what_rows_say_is_compared_with_what_their_means_say() -> None:
    student, teacher = some(50, 6)
    log_p, y = log_softmax(student, -1), softmax(teacher, -1)
    p = np.exp(log_p)
    found = align(rows_of(log_p, y))
    assert found.confidence == pytest.approx(p.max(1).mean())
    of_means = -(y.mean(0) * np.log(p.mean(0))).sum()
    assert found.excess == pytest.approx(-(y * log_p).sum(1).mean() - of_means)
    assert found.information_predictions == pytest.approx(entr(p.mean(0)).sum() - entr(p).sum(1).mean())
    assert found.information_targets == pytest.approx(entr(y.mean(0)).sum() - entr(y).sum(1).mean())
    spread = (p.var(0, ddof=1) + y.var(0, ddof=1)).sum()
    apart = np.square(p.mean(0) - y.mean(0)).sum()
    assert found.distance == pytest.approx((apart - spread / 50) / spread)


def test_means_of_one_source_are_no_distance_apart_whatever_the_number_of_rows() -> None:
    for rows in (40, 400):
        distances = [align(of_logits(*some(rows, 10, seed))).distance for seed in range(200)]
        assert abs(np.mean(distances)) < 0.1 / rows


def test_rows_that_are_all_alike_say_nothing_and_are_infinitely_far_from_each_other() -> None:
    p, y = (np.tile([a, 1 - a], (100, 1)) for a in (0.25, 0.5))
    found = align(rows_of(np.log(p), y))
    assert found.information_predictions == pytest.approx(0, abs=1e-12)
    assert found.information_targets == pytest.approx(0, abs=1e-12)
    assert found.excess == pytest.approx(0, abs=1e-12)
    assert found.distance == math.inf


# What is taken for another order


def alignment(**changes: Any) -> Alignment:
    at_chance = Alignment(
        rows=400,
        agreement=0.1,
        chance=0.1,
        confidence=0.6,
        excess=1.5,
        information_predictions=1.0,
        information_targets=1.0,
        distance=0.0,
    )
    return at_chance._replace(**changes)


def above_chance(deviations: float) -> float:
    return 0.1 + deviations * math.sqrt(0.1 * 0.9 / 400)


def test_agreement_at_chance_of_predictions_that_are_right_on_the_whole_is_another_order() -> None:
    assert alignment().misaligned
    assert alignment(agreement=0.0).misaligned


@pytest.mark.parametrize(
    ("enough", "too_little"),
    [
        pytest.param({"rows": FEWEST_ROWS}, {"rows": FEWEST_ROWS - 1}, id="too few rows"),
        pytest.param({"agreement": above_chance(2.99)}, {"agreement": above_chance(3.01)}, id="above chance"),
        pytest.param(
            {"chance": 0.0, "agreement": 3 / 400},
            {"chance": 0.0, "agreement": 4 / 400},
            id="above a chance of none",
        ),
        pytest.param(
            {"rows": 100, "confidence": 2 * 0.191},
            {"rows": 100, "confidence": 2 * 0.189},
            id="few rows of predictions that dare little",
        ),
        pytest.param(
            {"rows": 200, "confidence": 0.2},
            {"rows": 199, "confidence": 0.2},
            id="too few rows of predictions that dare little",
        ),
        pytest.param({"excess": 0.26}, {"excess": 0.25}, id="no worse than their mean"),
        pytest.param({"excess": 0.26}, {"excess": -1.0}, id="better than their mean"),
        pytest.param(
            {"information_predictions": 0.26}, {"information_predictions": 0.25}, id="predictions all alike"
        ),
        pytest.param({"information_targets": 0.26}, {"information_targets": 0.25}, id="targets all alike"),
        pytest.param({"distance": 0.24}, {"distance": 0.25}, id="means apart"),
        pytest.param({"distance": -0.02}, {"distance": math.inf}, id="means infinitely far apart"),
        pytest.param({"distance": -0.02}, {"distance": math.nan}, id="means of nan"),
    ],
)
def test_each_sign_is_needed(enough: dict[str, Any], too_little: dict[str, Any]) -> None:
    assert alignment(**enough).misaligned
    assert not alignment(**too_little).misaligned


CLASSES = [10, 30, 100]


def pairs(classes: int, scale: float, balanced: bool, rows: int = 500) -> tuple[Floats, Floats]:
    """A good student, and its teacher; classes that are not balanced follow a steep prior."""
    rng = np.random.default_rng(classes)
    prior = np.zeros(classes) if balanced else -0.75 * scale * np.log(np.arange(1, classes + 1))
    teacher = prior + rng.normal(0, scale, (rows, classes))
    return teacher + rng.normal(0, 0.3 * scale, teacher.shape), teacher


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("scale", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("balanced", [True, False])
def test_rows_in_another_order_are_found(classes: int, scale: float, balanced: bool) -> None:
    student, teacher = pairs(classes, scale, balanced)
    order = np.random.default_rng(1).permutation(len(student))
    assert align(of_logits(student[order], teacher)).misaligned
    assert align(of_logits(np.roll(student, 1, axis=0), teacher)).misaligned
    assert align(of_logits(student[::-1], teacher)).misaligned


@pytest.mark.parametrize("classes", [2, 3, *CLASSES, 1000])
@pytest.mark.parametrize("scale", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("balanced", [True, False])
def test_rows_of_a_good_model_are_left_alone(classes: int, scale: float, balanced: bool) -> None:
    student, teacher = pairs(classes, scale, balanced)
    assert not align(of_logits(student, teacher)).misaligned


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("sure", [2.0, 5.0, 10.0])
def test_rows_of_a_model_that_is_right_in_three_of_ten_are_left_alone(classes: int, sure: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, classes, 500)
    said = np.where(rng.random(500) < 0.3, labels, rng.integers(0, classes, 500))
    student = rng.normal(0, 0.5, (500, classes)) + sure * np.eye(classes)[said]
    assert not align(rows_of(log_softmax(student, -1), np.eye(classes)[labels])).misaligned


def test_rows_whose_targets_are_all_one_class_are_left_alone() -> None:
    student = np.random.default_rng(5).normal(0, 2, (500, 10))
    assert not align(rows_of(log_softmax(student, -1), np.eye(10)[np.zeros(500, int)])).misaligned


@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
def test_rows_of_one_common_class_are_left_alone(share: float) -> None:
    rng = np.random.default_rng(13)
    labels = np.where(rng.random(500) < share, 0, rng.integers(1, 10, 500))
    student = np.log(np.bincount(labels, minlength=10) + 1.0) + rng.normal(0, 0.3, (500, 10))
    assert not align(rows_of(log_softmax(student, -1), np.eye(10)[labels])).misaligned


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_rows_of_a_model_that_says_the_same_of_all_are_left_alone(classes: int) -> None:
    labels = np.random.default_rng(4).integers(0, classes, 500)
    prior = np.log(np.bincount(labels, minlength=classes) + 0.5)
    for student in (np.tile(prior, (500, 1)), np.zeros((500, classes))):
        assert not align(rows_of(log_softmax(student, -1), np.eye(classes)[labels])).misaligned


def test_fewer_rows_than_tell_anything_are_left_alone() -> None:
    student, teacher = pairs(10, 2.0, True, FEWEST_ROWS - 1)
    assert not align(of_logits(np.roll(student, 1, axis=0), teacher)).misaligned
