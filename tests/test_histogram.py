"""Bins of constant relative width, and what they merge to."""

from __future__ import annotations

import math
import pickle

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.histogram import (
    Bins,
    GrowingHistogram,
    Histogram,
    bins_from,
    histogram_of,
    octave_counts,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
wide = settings(repeatable, max_examples=12)
"""For arrays as wide as all octaves."""

Array = npt.NDArray[np.float64]

SMALLEST_NORMAL = 2.0**-1022
NORMAL = st.builds(
    lambda sign, fraction, exponent: sign * math.ldexp(fraction, exponent),
    st.sampled_from([-1, 1]),
    st.floats(1.0, 2.0, exclude_max=True),
    st.integers(-1022, 1023),
)
"""Every exponent is as likely as any other."""
FINITE = st.one_of(st.floats(-2.0, 2.0), NORMAL, st.sampled_from([0.0, -0.0, 5e-324, -5e-324]))


def all_ranks(histogram: Histogram, count: int) -> Array:
    return histogram.ranked(np.arange(count))


@repeatable
@given(st.lists(st.one_of(NORMAL, st.just(0.0)), min_size=1, max_size=40))
def test_every_rank_is_within_half_a_bin_of_the_sorted_value(values: list[float]) -> None:
    array = np.array(values)
    obtained, expected = all_ranks(histogram_of(array), array.size), np.sort(array)
    assert (np.abs(obtained - expected) <= 2.0**-11 * np.abs(expected)).all()
    assert (np.sign(obtained) == np.sign(expected)).all()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_numbers_too_small_for_all_their_digits_are_off_by_no_more_than_the_smallest_bin(sign: float) -> None:
    values = sign * np.array([5e-324, 1e-320, 3e-310, SMALLEST_NORMAL / 3, SMALLEST_NORMAL])
    obtained = all_ranks(histogram_of(values), values.size)
    assert (np.abs(obtained - np.sort(values)) <= 2.0**-1033).all()


def test_the_largest_number_has_a_bin_without_overflow() -> None:
    largest = float(np.finfo(np.float64).max)
    (obtained,) = all_ranks(histogram_of(np.array([largest])), 1)
    assert abs(obtained / largest - 1) <= 2.0**-11


def test_zeros_of_both_signs_are_counted_apart_and_exactly() -> None:
    histogram = histogram_of(np.array([0.0, -0.0, 1.0, -1.0, 0.0]))
    assert histogram.zeros == 3
    assert all_ranks(histogram, 5)[1:4].tolist() == [0.0, 0.0, 0.0]


def test_numbers_of_one_bin_are_not_told_apart_and_those_of_two_are() -> None:
    same = histogram_of(np.array([1.0, 1.0 + 2.0**-11]))
    assert same.above.counts.tolist() == [2]
    apart = histogram_of(np.array([1.0, 1.0 + 2.0**-10]))
    assert apart.above.counts.tolist() == [1, 1]


@repeatable
@given(st.lists(NORMAL, max_size=30), st.lists(st.integers(0, 2), min_size=30, max_size=30))
def test_parts_merge_in_any_order_to_the_histogram_of_the_whole(
    values: list[float], split: list[int]
) -> None:
    array, part = np.array(values), np.array(split[: len(values)], int)
    a, b, c = (histogram_of(array[part == k]) for k in range(3))
    whole = histogram_of(array)
    assert a.merge(b).merge(c) == whole
    assert c.merge(a.merge(b)) == whole
    assert b.merge(c.merge(a)) == whole


@repeatable
@given(st.lists(NORMAL, max_size=30))
def test_the_octaves_of_a_histogram_are_those_of_the_values_above_0(values: list[float]) -> None:
    array = np.array(values)
    assert histogram_of(array).octaves == octave_counts(array[array > 0])


def test_an_empty_histogram_merges_without_effect() -> None:
    some = histogram_of(np.array([1.5, -2.0, 0.0]))
    assert Histogram().merge(some) == some == some.merge(Histogram())
    assert histogram_of(np.empty(0)) == Histogram()


def test_bins_are_equal_only_with_the_same_counts_in_the_same_place() -> None:
    counts = np.array([1, 2])
    assert Bins(3, counts) == Bins(3, counts.copy())
    assert not Bins(3, counts) != Bins(3, counts.copy())  # noqa: SIM202 - the operator itself
    assert Bins(3, counts) != Bins(4, counts)
    assert Bins(3, counts) != Bins(3, counts[::-1])
    assert Bins(3, counts) != (3, counts)


def test_values_far_apart_merge_with_nothing_between() -> None:
    far = histogram_of(np.array([2.0**-300])).merge(histogram_of(np.array([2.0**300])))
    assert far.above.counts.sum() == 2
    assert np.log2(all_ranks(far, 2)).round().tolist() == [-300.0, 300.0]


def test_a_strided_array_is_left_as_it_was() -> None:
    wide = np.array([[1.0, -9.0], [-2.0, -9.0], [0.0, -9.0]])
    column = wide[:, 0]
    column.flags.writeable = False
    assert histogram_of(column) == histogram_of(np.array([1.0, -2.0, 0.0]))
    assert column.tolist() == [1.0, -2.0, 0.0]


# Few values, many histograms


@wide
@given(st.lists(st.lists(FINITE, max_size=8), max_size=4))
def test_histograms_added_in_place_are_those_merged(lists: list[list[float]]) -> None:
    histograms = [histogram_of(np.array(values, np.float64)) for values in lists]
    growing, merged = GrowingHistogram(), Histogram()
    for histogram in histograms:
        growing.add(histogram)
        merged = merged.merge(histogram)
    assert growing.histogram == merged
    assert histograms == [histogram_of(np.array(values, np.float64)) for values in lists]


def test_a_histogram_that_was_taken_does_not_grow_any_more() -> None:
    growing, histogram = GrowingHistogram(), histogram_of(np.array([0.5, 0.75]))
    growing.add(histogram)
    taken = growing.histogram
    growing.add(histogram)
    assert (taken, histogram) == (histogram_of(np.array([0.5, 0.75])),) * 2


@wide
@given(st.lists(FINITE, max_size=8))
def test_bins_are_sent_by_what_they_hold_and_arrive_as_they_were(values: list[float]) -> None:
    histogram = histogram_of(np.array(values, np.float64))
    sent = pickle.dumps(histogram)
    assert len(sent) < 2000
    found = pickle.loads(sent)
    assert found == histogram
    assert found.above.counts.dtype == np.int64
    for bins in histogram:
        if isinstance(bins, Bins) and bins.counts.size:
            assert bins_from(*bins.filled) == bins


def test_empty_bins_around_others_are_sent_too() -> None:
    bins = Bins(3, np.array([0, 2, 0, 2**40, 0]))
    assert pickle.loads(pickle.dumps(bins)) == bins
