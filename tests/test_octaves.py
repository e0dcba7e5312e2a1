"""Losses by octave: from the values, from a histogram of them, and in whole evaluations."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cases import SEEDS, SINGLE, Case, Cut, any_cases, cases, counted, cuts, evaluated, repeatable, run
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.histogram import Histogram
from kldiv_cli.octaves import Octaves, octaves_from, octaves_of
from kldiv_cli.reductions import exact_sum
from kldiv_cli.spread import binned
from kldiv_cli.statistics import Kept, Sketch, sketch_of

Array = npt.NDArray[np.float64]

LARGEST, LEAST = float(np.finfo(np.float64).max), 5e-324
SPECIAL = st.sampled_from([0.0, -0.0, -1.0, LEAST, -LEAST, LARGEST, math.inf, -math.inf, math.nan])
POWERS = st.builds(
    lambda exponent, above: math.nextafter(math.ldexp(1.0, exponent), math.inf if above else 0.0),
    st.integers(-1074, 1023),
    st.booleans(),
)
"""Next to where octaves meet; every exponent is as likely as any other, those of subnormals too."""
VALUES = st.lists(st.one_of(SPECIAL, POWERS, st.floats()), max_size=40).map(lambda v: np.array(v, float))


def octaves_by_hand(values: Array) -> Octaves:
    """By the standard library, one value after another."""
    ks = [math.frexp(v)[1] - 1 for v in values.ravel().tolist() if 0 < v < math.inf]
    first, last = min(ks, default=0), max(ks, default=-1)
    return Octaves(
        below=sum(v <= 0 for v in values.ravel().tolist()),
        first=first,
        counts=tuple(ks.count(k) for k in range(first, last + 1)),
        infinite=sum(v == math.inf for v in values.ravel().tolist()),
        nan=sum(math.isnan(v) for v in values.ravel().tolist()),
    )


def kept(values: Array, counted: npt.NDArray[np.bool_] | None = None) -> Kept:
    keeper = Kept(values.shape, selected=counted is not None)
    keeper.write(tuple(slice(0, length) for length in values.shape), values, counted)
    return keeper


# Values


@repeatable(120)
@given(VALUES)
def test_every_value_is_counted_in_its_octave(values: Array) -> None:
    octaves = octaves_of(values)
    assert octaves == octaves_by_hand(values)
    assert octaves.total == values.size
    assert not octaves.counts or octaves.counts[0] > 0 < octaves.counts[-1]


def test_an_octave_goes_from_a_power_of_two_to_below_the_next() -> None:
    assert octaves_of(np.array([1.0, math.nextafter(2.0, 0.0)])) == Octaves(first=0, counts=(2,))
    assert octaves_of(np.array([2.0, math.nextafter(1.0, 0.0)])) == Octaves(first=-1, counts=(1, 0, 1))


def test_the_least_and_the_largest_number_are_in_the_first_and_the_last_octave() -> None:
    octaves = octaves_of(np.array([LEAST, LARGEST]))
    assert (octaves.first, octaves.first + len(octaves.counts) - 1) == (-1074, 1023)
    assert len(octaves.counts) == 2098


def test_what_has_no_octave_is_counted_beside_them() -> None:
    values = np.array([0.0, -0.0, -3.0, -math.inf, math.inf, math.nan, -math.nan])
    assert octaves_of(values) == Octaves(below=4, infinite=1, nan=2)
    assert octaves_of(np.empty(0)) == Octaves()
    assert Octaves().total == 0


@repeatable(75)
@given(VALUES, SEEDS)
def test_parts_merge_in_any_order_to_the_octaves_of_the_whole(values: Array, seed: int) -> None:
    part = np.random.default_rng(seed).integers(0, 3, values.size)
    parts = [octaves_of(values[part == k]) for k in range(3)]
    for a, b, c in itertools.permutations(parts):
        assert a.merge(b).merge(c) == octaves_of(values) == a.merge(b.merge(c))


def test_octaves_can_be_pickled() -> None:
    octaves = octaves_of(np.array([0.1, 3.0, math.nan]))
    assert pickle.loads(pickle.dumps(octaves)) == octaves


# All values, and too many of them


@repeatable(120)
@given(VALUES, SEEDS)
def test_a_sketch_has_exactly_the_octaves_of_the_values(values: Array, seed: int) -> None:
    part = np.random.default_rng(seed).integers(0, 3, values.size)
    with np.errstate(all="ignore"):
        sketches = [sketch_of(values[part == k]) for k in range(3)]
    assert sketches[2].merge(sketches[0]).merge(sketches[1]).octaves() == octaves_of(values)


def test_a_sketch_has_the_octaves_of_numbers_that_share_a_bin_next_to_0() -> None:
    """From 2**-1032 on bins lie in one octave each; below there is one for 42 of them."""
    values = np.array([math.ldexp(1.0, k) for k in range(-1074, -1015)])
    sketch = sketch_of(values).merge(sketch_of(values[40:45]))
    assert sketch.octaves() == octaves_of(np.concatenate([values, values[40:45]]))
    assert binned(sketch.spread).least.counts.sum() == 44


def test_an_empty_sketch_has_none() -> None:
    assert Sketch().octaves() == Octaves()
    assert octaves_from(Histogram(), exact_sum(np.empty(0))) == Octaves()


@pytest.mark.parametrize("share", [None, 0.0, 0.4, 1.0])
def test_kept_values_have_the_octaves_of_those_that_count(share: float | None) -> None:
    """More of them than are looked at at once."""
    rng = np.random.default_rng(10)
    values = np.exp(rng.normal(0, 9, (100, 401)))
    values[rng.random(values.shape) < 0.01] = math.nan
    chosen = None if share is None else rng.random(values.shape) < share
    keeper = kept(values, chosen)
    assert keeper.octaves() == octaves_of(values if chosen is None else values[chosen])
    assert keeper.octaves() == octaves_of(values if chosen is None else values[chosen])


# Whole evaluations


@repeatable(60)
@given(any_cases(SINGLE), cuts(), st.integers(1, 3))
def test_the_histogram_is_of_the_losses_of_what_counts(case: Case, cut: Cut, workers: int) -> None:
    """One segment a distribution, so that NumPy adds up the same terms."""
    case = case._replace(options=case.options | {"histogram": True})
    outcome = run(case.options, case.inputs(), cut=cut._replace(segment=1 << 12), workers=workers)
    (evaluation,) = outcome.evaluations
    assert outcome.map is not None
    if evaluation.loss == "bce":
        losses = outcome.map[counted(case)]
    else:
        chosen = counted(case)
        terms = np.ascontiguousarray(np.moveaxis(np.where(chosen, outcome.map, 0.0), case.axis, -1))
        with np.errstate(invalid="ignore"):
            losses = terms.sum(axis=-1)[chosen.any(axis=case.axis)]
    histogram = evaluation.statistics.histogram
    assert histogram == octaves_by_hand(losses)
    assert histogram is not None
    assert histogram.total == evaluation.statistics.count


@repeatable(60)
@given(cases())
def test_there_is_a_histogram_only_where_it_is_asked_for_and_it_changes_nothing_else(case: Case) -> None:
    plain = run(case.options | {"histogram": False}, case.inputs())
    asked = run(case.options | {"histogram": True}, case.inputs())
    for one, other in zip(plain.evaluations, asked.evaluations, strict=True):
        assert one.statistics.histogram is None
        assert other.statistics.histogram is not None
        without = other.statistics._replace(histogram=None)
        assert repr((one.scalars, one.statistics, one.worst)) == repr((other.scalars, without, other.worst))


@pytest.mark.parametrize("options", [{}, {"cut": Cut(limit=0)}])
def test_infinite_and_undefined_losses_are_in_the_histogram(options: dict[str, Any]) -> None:
    p = np.array([[0.0, 1.0], [0.5, 0.5], [math.nan, 1.0], [0.25, 0.75]])
    y = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    spec = {"predictions_are": "probs", "histogram": True}
    (evaluation,) = run(spec, {"predictions": p, "targets": y}, **options).evaluations
    assert evaluation.statistics.histogram == Octaves(below=1, first=0, counts=(1,), infinite=1, nan=1)


def test_nothing_that_counts_has_an_empty_histogram() -> None:
    p = np.full((3, 2), 0.5)
    mask = np.zeros(3, bool)
    (evaluation,) = evaluated(p, p, predictions_are="probs", mask=mask, histogram=True).evaluations
    assert evaluation.statistics.histogram == Octaves()
