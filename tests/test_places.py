from __future__ import annotations

import math

import numpy as np
import pytest

from kldiv_cli.observations import Tally
from kldiv_cli.places import Places


def test_an_element_is_placed_by_its_row_column_and_block() -> None:
    """Rows run over all dimensions but the axis; the piece begins at row 3, column 2 of the block."""
    shape, axis = (4, 5, 6), 1
    block = (slice(1, 4), slice(0, 5), slice(2, 6))
    values = np.zeros((2, 3))
    mask = np.array([[False, False, True], [False, True, False]])
    tally = Places(shape, axis, block, top=3, left=2).tally(mask, values)
    first = np.ravel_multi_index((1 + 0, 4, 2 + 3), shape)
    second = np.ravel_multi_index((1 + 1, 3, 2 + 0), shape)
    assert tally == Tally(2, int(min(first, second)), 0.0)


def test_the_first_element_is_the_first_of_the_array_not_of_the_rows() -> None:
    """Along axis 0 a later column of an earlier row stands behind an earlier column of a later one."""
    places = Places((2, 3), 0, (slice(0, 2), slice(0, 3)))
    mask = np.array([[False, True], [True, False], [False, False]])
    assert places.tally(mask, np.arange(6.0).reshape(3, 2)) == Tally(2, 1, 2.0)


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.5, 0.5]])
def test_nothing_is_outside_the_unit_interval(values: list[float]) -> None:
    assert Places((2,), 0, (slice(0, 2),)).outside(np.array([values])) == Tally()


def test_nan_is_outside_the_unit_interval_and_above_zero() -> None:
    places = Places((2,), 0, (slice(0, 2),))
    outside = places.outside(np.array([[0.5, math.nan]]))
    assert (outside.count, outside.place) == (1, 1)
    assert places.above_zero(np.array([[math.nan, -1.0]])).place == 0


def test_rows_that_are_chosen_are_placed_where_they_were_in_the_block() -> None:
    """Of rows 0 to 5 of a block of (2, 3) distributions, rows 1, 3 and 4 are looked at."""
    shape, axis = (4, 6, 5), 2
    block = (slice(1, 3), slice(2, 5), slice(0, 5))
    places = Places(shape, axis, block, chosen=np.array([1, 3, 4]))
    rows = [(1, 3), (2, 2), (2, 3)]
    found = places.distributions(np.arange(3))
    assert found.tolist() == [np.ravel_multi_index(row, shape[:2]) for row in rows]
    lower = places._replace(top=1, left=3)
    found = lower.elements(np.array([0, 1]), np.array([1, 0]))
    assert found.tolist() == [np.ravel_multi_index(i, shape) for i in ((2, 2, 4), (2, 3, 3))]
    assert [i.tolist() for i in places.outer(np.array([2]))] == [[2], [3]]


def test_chosen_distributions_are_counted_and_the_first_of_the_array_found() -> None:
    """Rows of a block along axis 0 of a transposed order; the chosen ones are 2 and 3 of 4."""
    places = Places((3, 2, 2), 0, (slice(0, 3), slice(0, 2), slice(0, 2)), chosen=np.array([2, 3]))
    losses = np.array([-1.0, -2.0])
    assert places.first_distribution(np.array([0, 1]), losses) == Tally(2, 2, -1.0)
    assert places.least_distribution(np.array([0, 1]), losses) == Tally(2, 3, -2.0)


def test_a_scalar_has_one_place() -> None:
    assert Places((), 0, ()).tally(np.array([[True]]), np.array([[2.0]])) == Tally(1, 0, 2.0)


def test_the_least_distribution_is_the_first_of_equal_ones() -> None:
    places = Places((2, 5, 3), 1, (slice(1, 2), slice(0, 5), slice(0, 3)))
    losses = np.array([-1.0, -2.0, -2.0])
    assert places.least_distribution(np.arange(3), losses) == Tally(3, 3 + 1, -2.0)
    assert places.least_distribution(np.arange(0), losses) == Tally()
