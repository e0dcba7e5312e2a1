"""What is counted, how counts merge, and what is said of them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from kldiv_cli.diagnosis import find, find_reduction
from kldiv_cli.findings import Finding
from kldiv_cli.observations import Observations, Tally, unravel
from kldiv_cli.reductions import divisors_of, reduce_sum
from kldiv_cli.spec import Loss

TALLIES = [
    Tally(),
    Tally(2, 5, 0.5),
    Tally(1, 3, -2.0),
    Tally(4, 9, -2.0),
    Tally(7, 0, math.inf),
    Tally(3),
]
"""Places differ, as those of one array do."""

NAMES = list(Observations._fields)


def findings(
    observations: Observations | None = None,
    *,
    loss: Loss = "kl",
    shape: tuple[int, ...] = (4, 3),
    axis: int = 1,
    zero_policy: str = "limit",
    itemsize: int = 8,
) -> tuple[Finding, ...]:
    scalars = reduce_sum(1.0, divisors_of(shape, axis), batchmean=loss == "kl")
    observed = Observations() if observations is None else observations
    return find(observed, scalars, shape, axis, zero_policy=zero_policy, softmax=False, itemsize=itemsize)


def only(*args: Any, **kwargs: Any) -> Finding:
    (finding,) = findings(*args, **kwargs)
    return finding


# Tallies


@pytest.mark.parametrize("merge", [Tally.merge_first, Tally.merge_least])
def test_merging_tallies_is_associative_and_commutative(merge: Any) -> None:
    for a, b in itertools.product(TALLIES, repeat=2):
        if a is not b:
            assert merge(a, b) == merge(b, a)
    for a, b, c in itertools.permutations(TALLIES, 3):
        assert merge(merge(a, b), c) == merge(a, merge(b, c))


@pytest.mark.parametrize("merge", [Tally.merge_first, Tally.merge_least])
@pytest.mark.parametrize("tally", TALLIES)
def test_an_empty_tally_changes_nothing(merge: Any, tally: Tally) -> None:
    assert merge(tally, Tally()) == tally
    assert merge(Tally(), tally) == tally


def test_merge_first_adds_the_counts_and_keeps_the_first_place() -> None:
    assert Tally(2, 5, 0.5).merge_first(Tally(1, 3, 9.0)) == Tally(3, 3, 9.0)


def test_merge_least_adds_the_counts_and_keeps_the_smallest_value() -> None:
    assert Tally(2, 5, -0.5).merge_least(Tally(1, 3, -0.25)) == Tally(3, 5, -0.5)


def test_merge_least_takes_the_first_of_equal_values() -> None:
    assert Tally(1, 8, -0.5).merge_least(Tally(1, 3, -0.5)) == Tally(2, 3, -0.5)


@pytest.mark.parametrize("name", NAMES)
def test_observations_merge_each_field_with_its_own_kind(name: str) -> None:
    early, low = Tally(1, 2, -1.0), Tally(1, 7, -3.0)
    merged = Observations(**{name: early}).merge(Observations(**{name: low}))
    kept = low if name == "negative_distributions" else early
    assert getattr(merged, name) == Tally(2, kept.place, kept.value)
    assert all(getattr(merged, other) == Tally() for other in NAMES if other != name)


def test_merging_observations_is_associative_and_commutative() -> None:
    a, b, c = (
        Observations(**{name: TALLIES[(k + shift) % len(TALLIES)] for k, name in enumerate(NAMES)})
        for shift in (0, 1, 2)
    )
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(Observations()) == a


# Findings


@pytest.mark.parametrize("loss", ["kl", "bce"])
def test_there_is_no_finding_on_data_as_it_should_be(loss: Loss) -> None:
    assert findings(loss=loss) == ()


def test_empty_arrays_are_a_warning() -> None:
    finding = only(shape=(0, 3))
    assert (finding.id, finding.severity, finding.count) == ("empty", "warning", 0)
    assert finding.message == "the arrays are empty: there is nothing to measure"


def test_terms_that_are_zero_by_the_limit_are_a_note_that_names_the_other_policy() -> None:
    finding = only(Observations(zero_terms=Tally(2, 4, 0.0)))
    assert finding == Finding(
        id="zero-terms",
        severity="note",
        message="2 terms 0 by the limit, first at [1, 1]: PyTorch gives nan there; "
        "--zero-policy torch does too",
        count=2,
        place=(1, 1),
        value=0.0,
        option="--zero-policy torch",
    )


def test_terms_that_are_nan_only_by_the_policy_are_a_warning_that_names_the_limit() -> None:
    finding = only(Observations(zero_terms=Tally(2, 4, math.nan)), zero_policy="torch")
    assert (finding.id, finding.severity) == ("zero-terms", "warning")
    assert finding.option == "--zero-policy limit"
    assert "first at [1, 1]" in finding.message
    assert "--zero-policy limit gives 0" in finding.message


@pytest.mark.parametrize(
    ("name", "id", "value", "option", "says"),
    [
        ("infinite_terms", "infinite-terms", math.inf, None, "rules out what the target holds possible"),
        (
            "nan_terms",
            "nan-terms",
            math.nan,
            None,
            "nan or infinite, or a probability is below 0",
        ),
        ("clamped_terms", "clamped-terms", 100.0, "--predictions-are logits", "is not the true loss"),
        ("targets_outside", "targets-outside", 2.0, None, "targets outside [0, 1]"),
    ],
)
def test_a_count_becomes_a_warning_with_its_first_place_and_value(
    name: str, id: str, value: float, option: str | None, says: str
) -> None:
    finding = only(Observations(**{name: Tally(3, 7, value)}), loss="bce")
    assert (finding.id, finding.severity, finding.count, finding.place) == (id, "warning", 3, (2, 1))
    assert finding.value is value
    assert finding.option == option
    assert "3 terms" in finding.message
    assert "first" in finding.message
    assert "[2, 1]" in finding.message
    assert says in finding.message


def test_one_term_is_spoken_of_in_the_singular() -> None:
    finding = only(Observations(infinite_terms=Tally(1, 0, math.inf)))
    assert finding.message.startswith("1 term infinite, first inf at [0, 0]:")


@pytest.mark.parametrize(("itemsize", "rounding"), [(2, 2.0**-7), (4, 2.0**-20), (8, 2.0**-40)])
def test_a_negative_divergence_is_a_note_within_the_rounding_of_the_storage_and_a_warning_beyond(
    itemsize: int, rounding: float
) -> None:
    within = only(Observations(negative_distributions=Tally(1, 2, -rounding)), itemsize=itemsize)
    beyond = only(Observations(negative_distributions=Tally(1, 2, -1.01 * rounding)), itemsize=itemsize)
    assert (within.id, within.severity) == ("negative-kl", "note")
    assert "within the rounding of the storage type" in within.message
    assert (beyond.id, beyond.severity) == ("negative-kl", "warning")
    assert "not normalised" in beyond.message


def test_a_negative_divergence_is_placed_among_the_distributions() -> None:
    observed = Observations(negative_distributions=Tally(2, 5, -0.5))
    finding = next(f for f in findings(observed, shape=(2, 7, 4), axis=1) if f.id == "negative-kl")
    assert finding.place == (1, 1)
    assert finding.message.startswith("KL below 0 in 2 distributions, least -0.5 at [1, 1]:")


def test_the_divergence_of_a_lone_distribution_has_no_place_but_itself() -> None:
    observed = Observations(negative_distributions=Tally(1, 0, -0.5))
    finding = next(f for f in findings(observed, shape=(5,), axis=0) if f.id == "negative-kl")
    assert (finding.count, finding.place, finding.value) == (1, (), -0.5)
    assert finding.message.startswith("KL below 0 in 1 distribution, ")


def test_several_findings_come_in_the_order_of_the_list() -> None:
    observed = Observations(
        infinite_terms=Tally(1, 0, math.inf), nan_terms=Tally(1, 1, math.nan), zero_terms=Tally(1, 2, 0.0)
    )
    assert [f.id for f in findings(observed)] == ["zero-terms", "infinite-terms", "nan-terms"]


# The reduction that was asked for


def remarked(
    reduction: str | None, shape: tuple[int, ...] = (4, 3), axis: int = 1, loss: Loss = "kl"
) -> tuple[Finding, ...]:
    scalars = reduce_sum(1.0, divisors_of(shape, axis), batchmean=loss == "kl")
    return find_reduction(loss, reduction, scalars, shape)


def test_asking_for_the_mean_of_kl_is_a_note_that_names_distmean() -> None:
    (finding,) = remarked("mean")
    assert finding == Finding(
        id="which-mean",
        severity="note",
        message="mean divides by all 12 elements, as in PyTorch; the mean KL divergence of the "
        "4 distributions is --reduction distmean",
        option="--reduction distmean",
    )


@pytest.mark.parametrize(
    ("shape", "axis", "batch", "distributions"),
    [
        pytest.param((2, 8, 5), 2, 2, 16, id="a sequence"),
        pytest.param((2, 5, 8), 1, 2, 16, id="classes in the middle"),
        pytest.param((5,), 0, 5, 1, id="a vector"),
        pytest.param((5, 8), 0, 5, 8, id="classes down a matrix"),
    ],
)
def test_asking_for_a_batchmean_that_is_not_distmean_is_a_note_with_both_divisors(
    shape: tuple[int, ...], axis: int, batch: int, distributions: int
) -> None:
    (finding,) = remarked("batchmean", shape, axis)
    assert (finding.id, finding.severity) == ("which-mean", "note")
    assert finding.option == "--reduction distmean"
    assert f"divides by the first dimension, {batch}," in finding.message
    assert f"{distributions} distribution{'s' * (distributions != 1)} is" in finding.message


@pytest.mark.parametrize(("shape", "axis"), [((4, 3), 1), ((3, 1, 5), 2), ((), 0), ((3, 3), 0), ((1,), 0)])
def test_a_batchmean_that_is_distmean_is_not_remarked_on(shape: tuple[int, ...], axis: int) -> None:
    assert remarked("batchmean", shape, axis) == ()


@pytest.mark.parametrize("reduction", [None, "none", "sum", "distmean"])
def test_no_other_reduction_is_remarked_on(reduction: str | None) -> None:
    assert remarked(reduction, (2, 8, 5), 2) == ()


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_the_mean_of_bce_is_what_it_says(reduction: str) -> None:
    assert remarked(reduction, (2, 8, 5), 2, "bce") == ()


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
