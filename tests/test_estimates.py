from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from comparisons import covariance_of_means, error_of_mean
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kldiv_cli.estimates import (
    Estimate,
    Share,
    correlation_of,
    covariance_of,
    difference_of,
    exp_of,
    mean_of,
    root_of,
    share_of,
)
from kldiv_cli.statistics import no_spread, sketch_of

Array = npt.NDArray[np.float64]


def mean(values: Any) -> Estimate:
    return mean_of(sketch_of(np.asarray(values, np.float64), spread=no_spread))


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Array, Array]:
    """Two quantities of the same rows, much correlated."""
    a = rng.gamma(2, 1, 501)
    return a, a + 0.3 * rng.standard_normal(501)


def test_a_mean_has_the_standard_error_of_scipy_and_of_moments(pair: tuple[Array, Array]) -> None:
    estimate = mean(pair[0])
    assert estimate.value == pytest.approx(np.mean(pair[0]), rel=1e-15)
    assert estimate.standard_error == pytest.approx(stats.sem(pair[0]), rel=1e-13)
    assert estimate.standard_error == pytest.approx(error_of_mean(pair[0]), rel=1e-12)


def test_the_mean_of_one_value_has_no_error_and_of_none_is_unknown() -> None:
    assert str(mean([3.5])) == "Estimate(value=3.5, standard_error=nan)"
    assert str(mean([])) == "Estimate(value=nan, standard_error=nan)"


@pytest.mark.parametrize(("values", "value"), [([1, math.inf], math.inf), ([1, math.nan], math.nan)])
def test_the_error_of_what_is_not_finite_is_unknown(values: list[float], value: float) -> None:
    np.testing.assert_equal(tuple(mean(values)), (value, math.nan))


def test_values_that_do_not_vary_have_the_error_0() -> None:
    assert mean([0.25] * 7) == Estimate(0.25, 0.0)


@pytest.mark.parametrize("constant", [1.0296530140645737, 0.1, 9.6])
def test_values_that_do_not_vary_have_the_error_0_whatever_they_are(constant: float) -> None:
    assert mean([constant] * 50) == Estimate(constant, 0.0)


@pytest.mark.parametrize(("count", "of"), [(0, 2), (1, 2), (7, 9), (9, 9), (400, 1001)])
def test_a_share_is_binomial(count: int, of: int) -> None:
    p = count / of
    assert share_of(count, of) == pytest.approx((count, p, math.sqrt(p * (1 - p) / (of - 1))))


def test_a_share_is_the_mean_of_flags(rng: np.random.Generator) -> None:
    flags = (rng.random(77) < 0.3).astype(np.float64)
    assert share_of(int(flags.sum()), 77)[1:] == pytest.approx(tuple(mean(flags)), rel=1e-12)


def test_the_share_of_one_has_no_error_and_of_none_is_unknown() -> None:
    np.testing.assert_equal(share_of(1, 1), Share(1, 1.0, math.nan))
    np.testing.assert_equal(share_of(0, 0), Share(0, math.nan, math.nan))


def test_a_root_mean_square_has_half_the_relative_error_of_the_square(pair: tuple[Array, Array]) -> None:
    change = pair[1] - pair[0]
    root = np.sqrt(np.mean(change**2))
    found = root_of(mean(change**2))
    assert found == pytest.approx((root, 0.5 / root * stats.sem(change**2)), rel=1e-12)


def test_the_root_of_0_is_0_without_an_error() -> None:
    assert root_of(Estimate(0.0, 0.0)) == Estimate(0.0, 0.0)


def test_the_root_of_0_does_not_know_an_error_that_the_square_does_not_know() -> None:
    assert math.isnan(root_of(Estimate(0.0, math.nan)).standard_error)


def test_the_root_of_the_unknown_is_unknown() -> None:
    np.testing.assert_equal(root_of(Estimate(math.nan, math.nan)), Estimate(math.nan, math.nan))
    np.testing.assert_equal(root_of(Estimate(math.inf, math.nan)), Estimate(math.inf, math.nan))


def test_a_perplexity_has_the_error_of_its_logarithm_times_itself() -> None:
    assert exp_of(Estimate(2.0, 0.1)) == pytest.approx((math.exp(2), 0.1 * math.exp(2)), rel=1e-15)
    np.testing.assert_equal(exp_of(Estimate(math.inf, math.nan)), Estimate(math.inf, math.nan))
    assert exp_of(Estimate(-math.inf, 0.0)).value == 0


def test_a_perplexity_too_large_for_a_float_is_infinite_without_a_warning() -> None:
    assert exp_of(Estimate(1000.0, 1.0)) == Estimate(math.inf, math.inf)


def test_covariance_and_correlation_are_those_of_numpy(pair: tuple[Array, Array]) -> None:
    a, b = pair
    covariance = covariance_of(mean(a), mean(b), mean(b - a))
    assert covariance == pytest.approx(np.cov(a, b)[0, 1] / a.size, rel=1e-12)
    assert covariance == pytest.approx(covariance_of_means(a, b), rel=1e-11)
    assert correlation_of(mean(a), mean(b), covariance) == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)


@pytest.mark.parametrize(("factor", "correlation"), [(1.0, 1.0), (2.0, 1.0), (-0.5, -1.0)])
def test_what_goes_up_and_down_together_is_wholly_correlated(
    pair: tuple[Array, Array], factor: float, correlation: float
) -> None:
    a, b = pair[0], factor * pair[0]
    covariance = covariance_of(mean(a), mean(b), mean(b - a))
    assert correlation_of(mean(a), mean(b), covariance) == pytest.approx(correlation, rel=1e-12)


def test_the_same_twice_has_a_correlation_of_exactly_1(pair: tuple[Array, Array]) -> None:
    a = mean(pair[0])
    assert correlation_of(a, a, covariance_of(a, a, mean(0 * pair[0]))) == 1.0


def test_what_does_not_vary_has_no_correlation(pair: tuple[Array, Array]) -> None:
    a, b = mean(pair[0]), mean(0 * pair[0])
    covariance = covariance_of(a, b, mean(-pair[0]))
    assert covariance == pytest.approx(0, abs=1e-15)
    assert math.isnan(correlation_of(a, b, covariance))


def test_the_difference_of_perplexities_has_the_error_of_llama_cpp(pair: tuple[Array, Array]) -> None:
    a, b = pair
    before, after = math.exp(a.mean()), math.exp(b.mean())
    error_before, error_after = before * error_of_mean(a), after * error_of_mean(b)
    shared = 2 * before * after * covariance_of_means(a, b)
    covariance = covariance_of(mean(a), mean(b), mean(b - a))
    found = difference_of(exp_of(mean(a)), exp_of(mean(b)), covariance)
    assert found == pytest.approx(
        (after - before, math.sqrt(error_before**2 + error_after**2 - shared)), rel=1e-11
    )


def test_the_difference_of_a_perplexity_from_itself_is_0_with_no_error(pair: tuple[Array, Array]) -> None:
    a = mean(pair[0])
    assert difference_of(exp_of(a), exp_of(a), covariance_of(a, a, Estimate(0.0, 0.0))) == Estimate(0.0, 0.0)


def test_the_difference_of_perplexities_whose_squares_are_too_large_is_known() -> None:
    large = exp_of(Estimate(400.0, 10.0))
    assert difference_of(large, large, 50.0).value == 0


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(1e-6, 1e3), st.floats(-1, 1), st.floats(0, 20)
)
def test_a_correlation_lies_within_1_and_an_error_is_never_below_0(
    seed: int, count: int, scale: float, slope: float, offset: float
) -> None:
    random = np.random.default_rng(seed)
    a = random.standard_normal(count) + offset
    b = slope * a + scale * random.standard_normal(count)
    covariance = covariance_of(mean(a), mean(b), mean(b - a))
    assert abs(correlation_of(mean(a), mean(b), covariance)) <= 1 + 1e-6
    assert covariance == pytest.approx(np.cov(a, b)[0, 1] / count, rel=1e-6, abs=1e-9 * (1 + scale) ** 2)
    assert difference_of(Estimate(1.0, 0.1), Estimate(2.0, 0.1), covariance).standard_error >= 0
