from __future__ import annotations

import math
from fractions import Fraction
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kldiv_cli.errors import UsageError
from kldiv_cli.reductions import (
    ExactSum,
    Reduction,
    check_reduction,
    divisors_of,
    exact_sum,
    legacy_reduction,
    reduce_sum,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=80)

LARGEST = float(np.finfo(np.float64).max)
SMALLEST = 5e-324


def finite_floats() -> st.SearchStrategy[float]:
    """Every exponent is as likely as any other, so that sums span the whole range of float64."""
    scaled = st.builds(
        math.ldexp,
        st.floats(-2.0, 2.0, allow_subnormal=False),
        st.integers(-1074, 1022),
    )
    return st.one_of(scaled, st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e3, 1e3))


def with_cancellation(values: list[float], drop: int) -> list[float]:
    """All values and all but `drop` of their negatives."""
    return values + [-value for value in values[drop:]]


def rounded(values: list[float]) -> float:
    """The exact sum of finite values, rounded once; beyond the largest float it is infinite."""
    total = sum(map(Fraction, values), Fraction(0))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def array(values: list[float]) -> npt.NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


@repeatable
@given(st.lists(finite_floats(), max_size=60))
@example([SMALLEST])
@example([SMALLEST] * 50 + [LARGEST, -LARGEST])
@example([1.0, 2.0**-53, 2.0**-106])
@example([LARGEST, 2.0**969])
@example([LARGEST, 2.0**970])
@example([1e308, 1e308, -1e308])
@example([-0.0, -0.0])
def test_exact_sum_rounds_the_true_sum_once(values: list[float]) -> None:
    assert exact_sum(array(values)).value == rounded(values)


@repeatable
@given(st.lists(finite_floats(), max_size=60))
def test_exact_sum_equals_fsum_wherever_fsum_has_an_answer(values: list[float]) -> None:
    try:
        expected = math.fsum(values)
    except OverflowError:
        return
    assert exact_sum(array(values)).value == expected


@repeatable
@given(
    st.lists(finite_floats(), min_size=1, max_size=40), st.integers(0, 3), st.randoms(use_true_random=False)
)
def test_exact_sum_loses_nothing_to_cancellation(values: list[float], drop: int, random: object) -> None:
    terms = with_cancellation(values, min(drop, len(values)))
    random.shuffle(terms)  # type: ignore[attr-defined]
    assert exact_sum(array(terms)).value == rounded(terms)


@pytest.mark.parametrize("size", [1, 2, 3, 1023, 1024, 4097, 100_000])
@pytest.mark.parametrize("spread", [0, 30, 300])
def test_exact_sum_of_a_long_array_equals_fsum(size: int, spread: int) -> None:
    rng = np.random.default_rng(size + spread)
    values = rng.standard_normal(size) * 10.0 ** rng.integers(-spread, spread + 1, size)
    assert exact_sum(values).value == math.fsum(values.tolist())


@repeatable
@given(
    st.lists(st.one_of(finite_floats(), st.sampled_from([math.inf, -math.inf, math.nan])), max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
    st.randoms(use_true_random=False),
)
def test_merging_any_split_in_any_order_gives_the_identical_sum(
    values: list[float], cuts: list[int], random: object
) -> None:
    random.shuffle(shuffled := list(values))  # type: ignore[attr-defined]
    parts = [exact_sum(part) for part in np.split(array(shuffled), sorted(min(c, len(values)) for c in cuts))]
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged = ExactSum()
    for part in parts:
        merged = merged.merge(part)
    assert merged == exact_sum(array(values))


@repeatable
@given(st.lists(st.floats(), max_size=40))
def test_infinities_and_nans_add_up_as_in_a_plain_sum(values: list[float]) -> None:
    special = [value for value in values if not math.isfinite(value)]
    expected = sum(special) if special else rounded(values)
    assert same(exact_sum(array(values)).value, expected)


def test_infinities_and_nans_are_counted() -> None:
    values = array([math.inf, 1.0, -math.inf, math.inf, math.nan, 2.0])
    assert exact_sum(values) == ExactSum(exact_sum(array([3.0])).scaled, 2, 1, 1)


def test_infinities_of_both_signs_make_a_nan_however_far_apart_they_were_summed() -> None:
    parts = [exact_sum(array([value])) for value in (math.inf, 7.0, -math.inf)]
    assert math.isnan(parts[0].merge(parts[1]).merge(parts[2]).value)


def test_a_sum_that_overflows_on_the_way_comes_back() -> None:
    assert exact_sum(array([LARGEST] * 3 + [-LARGEST] * 2)).value == LARGEST


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_finite_sum_beyond_the_largest_float_is_infinite(sign: float) -> None:
    assert exact_sum(array([sign * LARGEST] * 2)).value == sign * math.inf


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_exact_sum_takes_any_shape(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).standard_normal(shape)
    assert exact_sum(np.asarray(values)).value == math.fsum(np.ravel(values).tolist())


def test_exact_sum_takes_strided_and_read_only_arrays_and_leaves_them_alone() -> None:
    values = np.random.default_rng(2).standard_normal((20, 30))
    before = values.copy()
    values.flags.writeable = False
    assert exact_sum(values.T[::3, ::-2]) == exact_sum(before.T[::3, ::-2].copy())
    assert np.array_equal(values, before)


@pytest.mark.parametrize(
    ("shape", "axis", "mean", "batchmean", "distmean"),
    [
        ((), 0, 12.0, 12.0, 12.0),
        ((4,), 0, 3.0, 3.0, 12.0),
        ((4, 3), 1, 1.0, 3.0, 3.0),
        ((4, 3), 0, 1.0, 3.0, 4.0),
        ((2, 3, 4), 2, 0.5, 6.0, 2.0),
        ((2, 3, 4), 0, 0.5, 6.0, 1.0),
    ],
)
def test_reductions_divide_by_elements_first_dimension_and_distributions(
    shape: tuple[int, ...], axis: int, mean: float, batchmean: float, distmean: float
) -> None:
    scalars = reduce_sum(12.0, divisors_of(shape, axis), batchmean=True)
    assert (scalars.sum, scalars.mean, scalars.batchmean, scalars.distmean) == (
        12.0,
        mean,
        batchmean,
        distmean,
    )


@repeatable
@given(st.lists(st.integers(1, 9), max_size=4), st.integers(0, 3), st.floats(-1e6, 1e6))
def test_divisors_are_named_beside_the_values(lengths: list[int], axis: int, total: float) -> None:
    shape = tuple(lengths)
    axis = min(axis, max(0, len(shape) - 1))
    scalars = reduce_sum(total, divisors_of(shape, axis), batchmean=True)
    assert scalars.elements == math.prod(shape)
    assert scalars.distributions * (shape[axis] if shape else 1) == scalars.elements
    assert scalars.mean == total / scalars.elements
    assert scalars.batchmean == total / scalars.batch
    assert scalars.distmean == total / scalars.distributions


def test_batchmean_is_absent_where_the_loss_has_none() -> None:
    assert reduce_sum(1.0, divisors_of((2, 2), 1), batchmean=False).batchmean is None


@pytest.mark.parametrize(
    ("shape", "mean", "batchmean", "distmean"),
    [
        ((0,), math.nan, math.nan, 0.0),
        ((0, 5), math.nan, math.nan, math.nan),
        ((2, 0), math.nan, 0.0, 0.0),
        ((2, 0, 3), math.nan, 0.0, math.nan),
    ],
)
def test_empty_arrays_have_the_means_that_pytorch_gives_them(
    shape: tuple[int, ...], mean: float, batchmean: float, distmean: float
) -> None:
    scalars = reduce_sum(0.0, divisors_of(shape, len(shape) - 1), batchmean=True)
    assert scalars.sum == 0.0
    assert same(scalars.mean, mean)
    assert same(cast("float", scalars.batchmean), batchmean)
    assert same(scalars.distmean, distmean)


@pytest.mark.parametrize(
    ("size_average", "reduce", "expected"),
    [
        (None, None, None),
        (None, True, "mean"),
        (True, None, "mean"),
        (True, True, "mean"),
        (False, None, "sum"),
        (False, True, "sum"),
        (None, False, "none"),
        (True, False, "none"),
        (False, False, "none"),
    ],
)
def test_legacy_flags_mean_what_pytorch_took_them_for(
    size_average: bool | None, reduce: bool | None, expected: Reduction | None
) -> None:
    assert legacy_reduction(size_average, reduce) == expected


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean", "distmean"])
def test_kl_has_every_reduction(reduction: str) -> None:
    check_reduction(reduction, ("kl",))


def test_an_unknown_reduction_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'average': expected one of none, sum, mean, batchmean, distmean"):
        check_reduction("average", ("kl",))


@pytest.mark.parametrize("losses", [("bce",), ("kl", "bce")])
def test_batchmean_is_refused_for_bce(losses: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="batchmean: KL only"):
        check_reduction("batchmean", losses)
