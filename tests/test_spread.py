"""How values lie: all of them while they are few, else by bin; the same in any order and grouping."""

from __future__ import annotations

import pickle
from functools import reduce

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli import spread
from kldiv_cli.histogram import histogram_of
from kldiv_cli.spread import FewValues, GrowingSpread, Spread, binned, few_values, merge_spreads

Array = npt.NDArray[np.float64]
repeatable = settings(derandomize=True, deadline=None, max_examples=50)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PARTS = st.lists(st.lists(st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324]), NUMBERS), max_size=6))
LIMITS = st.integers(0, 20)


def arrays(parts: list[list[float]]) -> list[Array]:
    return [np.array(part, np.float64) for part in parts]


@repeatable
@given(st.lists(NUMBERS, min_size=1), st.randoms(use_true_random=False))
def test_few_values_are_found_by_rank_whatever_they_came_in(values: list[float], random: object) -> None:
    ordered = np.sort(np.array(values))
    random.shuffle(values)  # type: ignore[attr-defined]
    found = few_values(np.array(values))
    assert found.count == len(values)
    assert np.array_equal(found.ranked(np.arange(len(values))), ordered)
    assert found == few_values(ordered)


def test_zeros_of_either_sign_are_the_same() -> None:
    assert few_values(np.array([0.0, -0.0])) == few_values(np.array([-0.0, 0.0]))


@repeatable
@given(PARTS, LIMITS, st.randoms(use_true_random=False))
def test_no_order_of_merging_changes_what_is_kept(
    parts: list[list[float]], limit: int, random: object
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spread, "LIMIT", limit)
        spreads: list[Spread] = [few_values(part) for part in arrays(parts)]
        expected = reduce(merge_spreads, spreads, FewValues())
        random.shuffle(spreads)  # type: ignore[attr-defined]
        assert reduce(merge_spreads, spreads, FewValues()) == expected
    whole = np.concatenate([np.empty(0), *arrays(parts)])
    assert expected.count == whole.size
    if whole.size <= limit:
        assert expected == few_values(whole)
    assert binned(expected) == histogram_of(whole)


@repeatable
@given(PARTS, LIMITS, st.integers(0, 2**16))
def test_growing_in_place_comes_to_what_merging_does(
    parts: list[list[float]], limit: int, which: int
) -> None:
    """Some of the parts, by the bits of a number, are known by bin only."""
    spreads = [
        histogram_of(part) if which >> k & 1 else few_values(part) for k, part in enumerate(arrays(parts))
    ]
    growing = GrowingSpread(limit)
    for each in spreads:
        growing.add(each)
    merged = reduce(merge_spreads, spreads, FewValues())
    few = all(isinstance(each, FewValues) for each in spreads) and merged.count <= limit
    expected = merged if few else binned(merged)
    with growing.lent() as found:
        assert found == expected
    growing.add(few_values(np.array([0.5])))
    with growing.lent() as found:
        assert found.count == merged.count + 1


def test_nothing_can_be_added_to_what_is_lent() -> None:
    growing = GrowingSpread()
    growing.add(few_values(np.array([0.5])))
    with growing.lent(), pytest.raises(BufferError):
        growing.add(few_values(np.array([0.25])))
    growing.add(few_values(np.array([0.25])))
    with growing.lent() as found:
        assert found == few_values(np.array([0.25, 0.5]))


def test_much_is_binned_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "BINNED_AT_ONCE", 5)
    growing, values = GrowingSpread(12), np.linspace(-1, 1, 101)
    for start in range(0, 101, 3):
        growing.add(few_values(values[start : start + 3]))
        assert len(growing._values) <= 12
    with growing.lent() as found:
        assert found == histogram_of(values)


def test_values_come_back_from_another_process() -> None:
    found = few_values(np.array([3.0, 1.0]))
    assert pickle.loads(pickle.dumps(found)) == found
