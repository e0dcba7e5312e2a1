"""What distributions add up to, by row and segment, against NumPy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax, softmax

from kldiv_cli import kernels
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.masses import CONSTANT, mark_constant, mass_of_log_probs, mass_of_logits, mass_of_probs

Floats = npt.NDArray[np.float64]

WIDTHS = [1, 2, 10, SEGMENT - 1, SEGMENT, 3 * SEGMENT]
"""Of pieces: whole segments, or less than one."""

widths = pytest.mark.parametrize("width", WIDTHS)


def by_segment(values: Floats) -> Floats:
    """Sums of each row by segment, one after the other."""
    cuts = range(0, values.shape[1], SEGMENT)
    return np.array([[row[start : start + SEGMENT].sum() for start in cuts] for row in values])


@widths
def test_probabilities_add_up_by_segment(width: int, rng: np.random.Generator) -> None:
    p = softmax(rng.normal(0, 3, (5, width)), -1)
    obtained = mass_of_probs(p)
    assert obtained.shape == (5, -(-width // SEGMENT))
    np.testing.assert_allclose(obtained, by_segment(p), rtol=1e-12)
    np.testing.assert_allclose(obtained.sum(axis=1), 1, rtol=1e-12)


@widths
def test_log_probabilities_add_up_to_the_rounding_of_float32(width: int, rng: np.random.Generator) -> None:
    x = log_softmax(rng.normal(0, 3, (5, width)), -1)
    x[2] += 0.5
    obtained = mass_of_log_probs(x, None)
    assert obtained.dtype == np.float64
    np.testing.assert_allclose(obtained, by_segment(np.exp(x)), rtol=2e-5)


@widths
def test_only_the_rows_looked_at_are_added_up(width: int, rng: np.random.Generator) -> None:
    x = log_softmax(rng.normal(0, 3, (6, width)), -1)
    looked_at = np.array([True, False, False, True, True, False])
    obtained = mass_of_log_probs(x, looked_at)
    np.testing.assert_array_equal(obtained[looked_at], mass_of_log_probs(x[looked_at], None))
    assert np.isnan(obtained[~looked_at]).all()
    np.testing.assert_array_equal(mass_of_log_probs(x, np.full(6, True)), mass_of_log_probs(x, None))


@widths
def test_no_row_need_be_looked_at(width: int) -> None:
    obtained = mass_of_log_probs(np.zeros((3, width)), np.zeros(3, bool))
    assert obtained.shape == (3, -(-width // SEGMENT))
    assert np.isnan(obtained).all()


def test_log_probabilities_far_above_zero_add_up_to_infinity_without_a_word() -> None:
    assert mass_of_log_probs(np.full((2, 3), 1000.0), None).tolist() == [[math.inf], [math.inf]]


def test_odd_log_probabilities_have_odd_sums() -> None:
    x = np.array([[0.0, -math.inf], [-math.inf, -math.inf], [math.nan, -1.0], [math.inf, 0.0], [-100, -100]])
    with np.errstate(all="ignore"):
        obtained = mass_of_log_probs(x, None)[:, 0]
    assert obtained[:2].tolist() == [1.0, 0.0]
    assert math.isnan(obtained[2])
    assert obtained[3] == math.inf
    assert 0 < obtained[4] < 1e-30


@widths
def test_logits_within_the_unit_interval_add_up_as_probabilities_do(
    width: int, rng: np.random.Generator
) -> None:
    z = softmax(rng.normal(0, 3, (5, width)), -1)
    np.testing.assert_array_equal(mass_of_logits(z), mass_of_probs(z))


@pytest.mark.parametrize("odd", [-1e-9, 1 + 1e-9, 30.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("width", [10, 2 * SEGMENT])
@pytest.mark.parametrize("row", [0, 3])
def test_other_logits_have_no_sum(odd: float, width: int, row: int, rng: np.random.Generator) -> None:
    z = rng.random((4, width)) / width
    z[row, width // 2] = odd
    obtained = mass_of_logits(z)
    assert obtained.shape == (4, -(-width // SEGMENT))
    assert np.isnan(obtained[row, width // 2 // SEGMENT])
    others = np.arange(4) != row
    np.testing.assert_array_equal(obtained[others], mass_of_probs(z[others]))


@pytest.mark.parametrize("column", [0, 1, 3, 8, 9])
def test_an_odd_logit_in_any_column_takes_the_sum_of_its_row_alone(
    column: int, rng: np.random.Generator
) -> None:
    z = softmax(rng.normal(0, 3, (4, 10)), -1)
    z[2, column] = -0.5
    obtained = mass_of_logits(z)[:, 0]
    assert np.isnan(obtained).tolist() == [False, False, True, False]
    np.testing.assert_allclose(obtained[[0, 1, 3]], 1)


def marks_of(length: int, fill: float, rng: np.random.Generator) -> Floats:
    """The marks of three rows of logits, of which only the first are all equal."""
    z = np.full((3, length), fill)
    z[1] = rng.normal(0, 1, length) + fill
    z[2, 0] += 0.001
    starts = range(0, length, SEGMENT)
    parts = [
        kernels.partition(z[:, s : s + SEGMENT].copy(), np.empty((3, min(SEGMENT, length - s))))
        for s in starts
    ]
    peaks, sums = (np.stack(values, axis=1) for values in zip(*parts, strict=True))
    _, log_sum = kernels.merge_partition(peaks, sums)
    mass = np.zeros((3, len(starts)))
    mark_constant(mass, log_sum, length)
    return mass


FILLS = [0.0, -100.0, 5.5, 1e4, -1e-3, 1 / 3]


@pytest.mark.parametrize("length", [16, 17, 1000, SEGMENT, 2 * SEGMENT, 50_257])
@pytest.mark.parametrize("fill", FILLS)
def test_equal_logits_are_marked_and_no_others(length: int, fill: float, rng: np.random.Generator) -> None:
    mass = marks_of(length, fill, rng)
    assert (mass[0] == CONSTANT).all()
    assert (mass[1:] == 0).all()


@pytest.mark.parametrize("length", [1, 2, 7, 15])
@pytest.mark.parametrize("fill", FILLS)
def test_a_few_logits_may_be_equal_by_chance(length: int, fill: float, rng: np.random.Generator) -> None:
    assert (marks_of(length, fill, rng) == 0).all()
