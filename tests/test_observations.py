"""What is counted, and how counts merge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.observations import Observations, Tally, unravel

TALLIES = [
    Tally(),
    Tally(2, 5, 0.5),
    Tally(1, 3, -2.0),
    Tally(4, 9, -2.0),
    Tally(7, 0, math.inf),
    Tally(2, 6, -math.inf),
    Tally(3),
]
"""Places differ, as those of one array do."""

NAMES = list(Observations._fields)
LEAST = {"targets_below_zero", "negative_distributions"}
GREATEST = {"predictions_above_zero", "targets_above_zero"}
FARTHEST = {"predictions_unnormalised", "targets_unnormalised"}
ANY = {"logits_outside"}
"""What is there or not, 1 or 0, without a place."""

Merge = Callable[[Tally, Tally], Tally]
MERGES: list[Merge] = [Tally.merge_first, Tally.merge_least, Tally.merge_greatest, Tally.merge_farthest]
merges = pytest.mark.parametrize("merge", MERGES)


@st.composite
def parts(draw: st.DrawFn) -> list[Tally]:
    """One value at each place of a small array, in any order."""
    values = draw(
        st.lists(st.sampled_from([-3.0, -1.0, 0.5, 1.0, 1.5, 3.0, math.inf]), min_size=1, max_size=8)
    )
    tallies = [Tally(1, place, value) for place, value in enumerate(values)]
    return draw(st.permutations([*tallies, Tally()]))


# Tallies


@merges
def test_merging_tallies_is_associative_and_commutative(merge: Merge) -> None:
    for a, b in itertools.product(TALLIES, repeat=2):
        if a is not b:
            assert merge(a, b) == merge(b, a)
    for a, b, c in itertools.permutations(TALLIES, 3):
        assert merge(merge(a, b), c) == merge(a, merge(b, c))


@merges
@pytest.mark.parametrize("tally", TALLIES)
def test_an_empty_tally_changes_nothing(merge: Merge, tally: Tally) -> None:
    assert merge(tally, Tally()) == tally
    assert merge(Tally(), tally) == tally


@settings(derandomize=True, deadline=None)
@given(parts())
def test_merging_keeps_the_best_value_and_of_equal_ones_the_first(tallies: list[Tally]) -> None:
    known = [tally for tally in tallies if tally.value is not None]
    ranks: list[tuple[Merge, Callable[[Tally], float]]] = [
        (Tally.merge_first, lambda tally: 0.0),
        (Tally.merge_least, lambda tally: tally.value or 0.0),
        (Tally.merge_greatest, lambda tally: -(tally.value or 0.0)),
        (Tally.merge_farthest, lambda tally: -abs((tally.value or 0.0) - 1)),
    ]
    for merge, rank in ranks:
        best = min(known, key=lambda tally: (rank(tally), tally.place))
        assert reduce(merge, tallies) == Tally(len(known), best.place, best.value)


def test_merge_first_adds_the_counts_and_keeps_the_first_place() -> None:
    assert Tally(2, 5, 0.5).merge_first(Tally(1, 3, 9.0)) == Tally(3, 3, 9.0)


def test_merge_least_adds_the_counts_and_keeps_the_smallest_value() -> None:
    assert Tally(2, 5, -0.5).merge_least(Tally(1, 3, -0.25)) == Tally(3, 5, -0.5)


def test_merge_greatest_adds_the_counts_and_keeps_the_largest_value() -> None:
    assert Tally(2, 5, 0.5).merge_greatest(Tally(1, 3, 0.25)) == Tally(3, 5, 0.5)


def test_merge_any_tells_whether_there_is_one_and_counts_nothing() -> None:
    there, none = Tally(1), Tally()
    assert there.merge_any(there) == there.merge_any(none) == none.merge_any(there) == there
    assert none.merge_any(none) == none


@pytest.mark.parametrize(("below", "kept"), [(0.5, 0.5), (0.75, 1.375)])
def test_merge_farthest_keeps_what_is_farthest_from_one_on_either_side(below: float, kept: float) -> None:
    merged = Tally(2, 5, below).merge_farthest(Tally(1, 3, 1.375))
    assert (merged.count, merged.value) == (3, kept)


# Observations


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ANY])
def test_observations_merge_each_field_with_its_own_kind(name: str) -> None:
    early, low, high = Tally(1, 2, -1.0), Tally(1, 7, -3.0), Tally(1, 9, 4.5)
    others = Observations(**{name: low}).merge(Observations(**{name: high}))
    merged = others.merge(Observations(**{name: early}))
    kept = low if name in LEAST | FARTHEST else high if name in GREATEST else early
    assert getattr(merged, name) == Tally(3, kept.place, kept.value)
    assert all(getattr(merged, other) == Tally() for other in NAMES if other != name)


@pytest.mark.parametrize("name", sorted(ANY))
@pytest.mark.parametrize("counts", list(itertools.product((0, 1), repeat=3)))
def test_observations_merge_what_is_there_or_not(name: str, counts: tuple[int, ...]) -> None:
    merged = reduce(Observations.merge, [Observations(**{name: Tally(count)}) for count in counts])
    assert merged == Observations(**{name: Tally(max(counts))})


def test_merging_observations_is_associative_and_commutative() -> None:
    def some(k: int, name: str) -> Tally:
        tally = TALLIES[k % len(TALLIES)]
        return Tally(min(tally.count, 1)) if name in ANY else tally

    a, b, c = (
        Observations(**{name: some(k + shift, name) for k, name in enumerate(NAMES)}) for shift in (0, 1, 2)
    )
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(Observations()) == a
    assert Observations().merge(a) == a


# Places


@pytest.mark.parametrize(
    ("place", "shape", "index"),
    [(None, (2, 3), None), (0, (), ()), (5, (2, 3), (1, 2)), (23, (2, 3, 4), (1, 2, 3)), (4, (5,), (4,))],
)
def test_unravel_gives_one_plain_integer_a_dimension(
    place: int | None, shape: tuple[int, ...], index: tuple[int, ...] | None
) -> None:
    found = unravel(place, shape)
    assert found == index
    assert found is None or all(type(i) is int for i in found)


def test_unravel_is_the_inverse_of_numpys_ravel() -> None:
    shape = (3, 4, 5)
    for index in np.ndindex(shape):
        assert unravel(int(np.ravel_multi_index(index, shape)), shape) == index
