"""What counts of some rows, by mask and by ignored targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.errors import DomainError
from kldiv_cli.selection import EVERYTHING, Selection, select
from kldiv_cli.spec import Spec

AnyArray = npt.NDArray[Any]

TARGETS = np.array([[0.5, 0.25, 0.25], [-100.0, -100.0, -100.0], [0.5, -100.0, 0.5], [1.0, 0.0, 0.0]])
LABELS = np.array([2, -100, 0, 1])


def rows_of(selection: Selection) -> list[int] | None:
    return None if selection.rows is None else selection.rows.tolist()


def elements_of(selection: Selection) -> list[list[bool]] | None:
    return None if selection.elements is None else selection.elements.tolist()


def masked(mask: npt.ArrayLike, targets: AnyArray = TARGETS, ignore: float | None = None) -> Selection:
    return select(Spec(mask=True, ignore_value=ignore), targets, np.asarray(mask), "m.npy")


def test_without_mask_and_ignored_value_everything_counts() -> None:
    assert select(Spec(), TARGETS, None, "") == EVERYTHING == Selection(None, None)


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", "f8", ">f4"])
def test_a_mask_of_one_dimension_chooses_rows(dtype: str) -> None:
    chosen = masked(np.array([1, 0, 1, 0]).astype(dtype))
    assert (rows_of(chosen), elements_of(chosen)) == ([0, 2], None)


@pytest.mark.parametrize("dtype", ["?", "u1", "f4"])
def test_a_mask_of_all_columns_chooses_elements_of_all_rows(dtype: str) -> None:
    mask = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, 0]])
    chosen = masked(mask.astype(dtype))
    assert (rows_of(chosen), elements_of(chosen)) == (None, (mask == 1).tolist())


def test_a_mask_of_one_column_chooses_the_elements_of_a_window_of_length_1() -> None:
    chosen = masked(np.array([[1], [0], [1], [0]]), TARGETS[:, :1])
    assert (rows_of(chosen), elements_of(chosen)) == (None, [[True], [False], [True], [False]])


def test_nan_may_be_ignored() -> None:
    chosen = select(Spec(ignore_value=math.nan), np.array([[0.5, math.nan]]), None, "")
    assert elements_of(chosen) == [[True, False]]


@pytest.mark.parametrize("mask", [np.ones(4), np.ones((4, 3), bool)])
def test_a_mask_of_ones_is_none(mask: AnyArray) -> None:
    assert masked(mask) == EVERYTHING


def test_a_mask_of_zeros_chooses_nothing() -> None:
    assert rows_of(masked(np.zeros(4))) == []
    assert elements_of(masked(np.zeros((4, 3)))) == [[False] * 3] * 4


def test_an_ignored_value_among_the_targets_leaves_elements_out() -> None:
    chosen = select(Spec(ignore_value=-100.0), TARGETS, None, "")
    assert (rows_of(chosen), elements_of(chosen)) == (None, (TARGETS != -100).tolist())


@pytest.mark.parametrize("dtype", ["i1", "i8", ">i4"])
def test_an_ignored_label_leaves_its_row_out(dtype: str) -> None:
    chosen = select(Spec(ignore_value=-100.0, targets_are="labels"), LABELS.astype(dtype), None, "")
    assert (rows_of(chosen), elements_of(chosen)) == ([0, 2, 3], None)


def test_a_label_that_its_dtype_can_not_hold_is_nowhere() -> None:
    labels = np.array([0, 156], np.uint8)
    assert select(Spec(ignore_value=-100.0, targets_are="labels"), labels, None, "") == EVERYTHING


def test_a_value_is_compared_as_it_is_stored() -> None:
    """0.1 is another number in float32: what counts is what was written for it."""
    chosen = select(Spec(ignore_value=0.1), np.array([[0.1, 0.5]], np.float32), None, "")
    assert elements_of(chosen) == [[False, True]]


def test_an_ignored_value_that_is_nowhere_changes_nothing() -> None:
    assert select(Spec(ignore_value=7.0), TARGETS, None, "") == EVERYTHING


def test_mask_and_ignored_labels_choose_what_both_leave() -> None:
    spec = Spec(mask=True, ignore_value=-100.0, targets_are="labels")
    of_rows = select(spec, LABELS, np.array([1, 1, 0, 1]), "m.npy")
    assert (rows_of(of_rows), elements_of(of_rows)) == ([0, 3], None)
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 1, 1]])
    of_elements = select(spec, LABELS, mask, "m.npy")
    assert rows_of(of_elements) == [0, 2, 3]
    assert elements_of(of_elements) == (mask[[0, 2, 3]] == 1).tolist()


def test_mask_and_ignored_targets_choose_what_both_leave() -> None:
    of_rows = masked([0, 1, 1, 1], ignore=-100.0)
    assert rows_of(of_rows) == [1, 2, 3]
    assert elements_of(of_rows) == (TARGETS != -100)[1:].tolist()
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 1, 1]])
    of_elements = masked(mask, ignore=-100.0)
    assert rows_of(of_elements) is None
    assert elements_of(of_elements) == ((mask == 1) & (TARGETS != -100)).tolist()


@pytest.mark.parametrize("odd", [2.0, -1.0, 0.5, math.nan, math.inf, 255.0])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
def test_a_mask_of_other_values_than_0_and_1_is_refused_with_the_value(
    odd: float, shape: tuple[int, ...]
) -> None:
    mask = np.ones(shape)
    mask[2] = odd
    with pytest.raises(DomainError, match=r"mask m\.npy: holds ") as refusal:
        masked(mask)
    assert f"holds {odd}, expected 1 (or true) where something counts, else 0" in str(refusal.value)


def test_what_is_given_is_left_as_it_was() -> None:
    mask, targets = np.array([1, 0, 1, 1]), TARGETS.copy()
    for array in (mask, targets):
        array.flags.writeable = False
    masked(mask, targets, -100.0)
    assert (targets == TARGETS).all()
