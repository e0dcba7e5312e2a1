"""Limits held to statistics: what passes, by how much, and what would have passed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kldiv_cli.errors import UsageError
from kldiv_cli.limit_parser import parse_limit
from kldiv_cli.verdicts import Verdict, judge

repeatable = settings(derandomize=True, deadline=None, max_examples=150)

RUN = {"mean": 0.5, "p50": 0.25, "p99": 2.0, "p99.9": 4.0, "bce.mean": 0.125, "top1": 0.75, "zero": 0.0}
STORED = {"mean": 0.25, "p99.9": 3.0, "blocks.standard_error": 0.0625}


def verdict_of(text: str, obtained: float) -> Verdict:
    return judge(parse_limit(text), {"mean": obtained}, None)


# What passes


@pytest.mark.parametrize(
    ("comparison", "side", "below", "equal", "above"),
    [
        ("<", "upper", True, False, False),
        ("<=", "upper", True, True, False),
        (">", "lower", False, False, True),
        (">=", "lower", False, True, True),
        ("==", "exact", False, True, False),
    ],
)
def test_each_comparison_passes_on_its_side_only(
    comparison: str, side: str, below: bool, equal: bool, above: bool
) -> None:
    text = f"mean {comparison} 0.5"
    assert parse_limit(text).side == side
    near = (math.nextafter(0.5, 0), 0.5, math.nextafter(0.5, 1))
    assert [verdict_of(text, value).passed for value in near] == [below, equal, above]


# What can't be judged


def refusal_of(text: str, obtained: Mapping[str, float], baseline: Mapping[str, float] | None) -> str:
    with pytest.raises(UsageError) as caught:
        judge(parse_limit(text), obtained, baseline)
    message = str(caught.value)
    assert message.isprintable()
    return message.removeprefix(f"limit '{text}': ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("maen < 1", "found no statistic 'maen'; did you mean 'mean'?"),
        ("xyz < 1", "found no statistic 'xyz', expected one of "),
        ("mean < p98", "found no statistic 'p98'; did you mean 'p99'?"),
        ("mean < inf", "found no statistic 'inf', expected"),
        (
            "top1 < baseline",
            "found no stored statistic 'top1', expected one of blocks.standard_error, mean, p99.9",
        ),
        ("mean < baseline.p99", "did you mean 'p99.9'?"),
    ],
)
def test_a_name_that_is_nowhere_is_refused_with_those_that_there_are(text: str, says: str) -> None:
    assert says in refusal_of(text, RUN, STORED)


def test_many_names_are_not_all_told_and_shown_as_text() -> None:
    message = refusal_of("mean < 1", {f"x\x1b{k}": 0.0 for k in range(10, 65)}, None)
    assert message.endswith(r"x\x1b58, x\x1b59, …")
    assert r"x\x1b60" not in message


def test_where_there_are_no_statistics_that_is_said() -> None:
    assert refusal_of("mean < 1", {}, None) == "found no statistic 'mean', there are none; record some"


def test_a_baseline_that_is_needed_must_be_there() -> None:
    assert refusal_of("mean < 2 * baseline.p50", RUN, None) == (
        "found no baseline, expected one that has 'p50'; give one, or a number in its place"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["mean < p50", "mean > 0 * p50", "mean > 1 / p50", "mean == p50"])
def test_a_bound_from_a_value_of_this_run_that_is_not_finite_is_refused(text: str, value: float) -> None:
    message = refusal_of(text, {"mean": 1.0, "p50": value}, None)
    assert message == f"p50 is {value}, expected a finite number; write one in its place"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["mean < baseline", "mean > 1 / baseline", "mean <= 1 + 0 * baseline.mean"])
def test_a_bound_from_a_stored_value_that_is_not_finite_is_refused(text: str, value: float) -> None:
    message = refusal_of(text, RUN, {"mean": value})
    assert message == f"baseline.mean is {value}, expected a finite number; write one in its place"


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("1 / 0", "found a division by zero, expected a finite bound; write another one"),
        ("p50 / (p50 - p50)", "found a division by zero, expected a finite bound; p50 is 0.25"),
        ("0 / zero", "found a division by zero, expected a finite bound; zero is 0.0"),
        ("1e308 * 10", "found an overflow, expected a finite bound; write another one"),
        ("-1e308 - 1e308", "found an overflow, expected a finite bound; write another one"),
        ("1 / (1e200 * 1e200)", "found an overflow, expected a finite bound; write another one"),
        (
            "baseline * 1e200 * 1e200 + p50",
            "an overflow, expected a finite bound; baseline.mean is 0.25, p50",
        ),
    ],
)
def test_an_operation_whose_value_is_not_finite_is_refused_wherever_it_stands(
    expression: str, says: str
) -> None:
    assert says in refusal_of(f"mean < {expression}", RUN, STORED)


def test_numbers_of_numpy_are_refused_as_python_s_are() -> None:
    with np.errstate(all="ignore"):
        run = {"mean": np.float64(1.0), "zero": np.float64(0.0)}
        assert "zero is 0.0" in refusal_of("mean < 1 / zero", run, None)
    assert type(judge(parse_limit("mean < zero"), run, None).obtained) is float


@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "=="])
def test_nan_passes_nothing(comparison: str) -> None:
    verdict = verdict_of(f"mean {comparison} 1", math.nan)
    assert not verdict.passed
    assert verdict.excess == math.inf
    assert math.isnan(verdict.margin)
    assert verdict.would_pass is None


@pytest.mark.parametrize(
    ("text", "obtained", "passed"),
    [
        ("mean < 1", math.inf, False),
        ("mean > 1", math.inf, True),
        ("mean < 1", -math.inf, True),
        ("mean >= 1", -math.inf, False),
        ("mean == 1", math.inf, False),
    ],
)
def test_infinity_compares_as_usual(text: str, obtained: float, passed: bool) -> None:
    verdict = verdict_of(text, obtained)
    assert verdict.passed is passed
    assert verdict.excess == (-math.inf if passed else math.inf)
    assert verdict.margin == (math.inf if passed else -math.inf)
    assert verdict.would_pass is None


# How far off

LEAST = math.ulp(0.0)


@pytest.mark.parametrize(
    ("text", "obtained", "excess", "margin"),
    [
        ("mean < 0.5", 0.375, -0.25, 0.25),
        ("mean < 0.5", 0.75, 0.5, -0.5),
        ("mean < 0.5", 0.5, LEAST, 0.0),
        ("mean <= 0.5", 0.5, 0.0, 0.0),
        ("mean > 0.5", 0.75, -0.5, 0.5),
        ("mean > 0.5", 0.375, 0.25, -0.25),
        ("mean > 0.5", 0.5, LEAST, 0.0),
        ("mean < -0.5", -0.75, -0.5, 0.5),
        ("mean < -0.5", 0.0, 1.0, -1.0),
        ("mean >= -0.5", -0.75, 0.5, -0.5),
        ("mean == 0.5", 0.5, 0.0, 0.0),
        ("mean == 0.5", 0.75, 0.5, -0.5),
        ("mean == 0.5", 0.25, 0.5, -0.5),
        ("mean < 0", 0.0, math.inf, math.nan),
        ("mean < 0", 5e-324, math.inf, math.nan),
        ("mean < 0", -1.0, -math.inf, math.nan),
        ("mean <= 0", 0.0, 0.0, math.nan),
        ("mean > 0", 1.0, -math.inf, math.nan),
        ("mean == 0", 0.0, 0.0, math.nan),
        ("mean == 0", 1e-9, math.inf, math.nan),
        ("mean < -1e308", 1.7e308, math.inf, -math.inf),
    ],
)
def test_the_distance_to_a_bound_is_told_as_a_share_of_it(
    text: str, obtained: float, excess: float, margin: float
) -> None:
    verdict = verdict_of(text, obtained)
    assert verdict.excess == excess
    assert verdict.margin == margin or (math.isnan(verdict.margin) and math.isnan(margin))
    assert math.copysign(1, verdict.margin) == 1 or verdict.margin < 0, "no -0.0"


# What would have passed


@pytest.mark.parametrize(
    ("text", "obtained", "would_pass"),
    [
        ("mean < 1e-3", 0.0012287, "mean < 0.00123"),
        ("mean < 1e-3", 0.00123, "mean < 0.00124"),
        ("mean <= 1e-3", 0.00123, "mean <= 0.00123"),
        ("mean < 0.1", 0.3, "mean < 0.301"),
        ("mean <= 0.05", 0.1, "mean <= 0.1"),
        ("mean <= 0.05", 0.9991, "mean <= 1"),
        ("mean < 1e-7", 1.2345e-6, "mean < 1.24e-06"),
        ("mean < 1", 123456.0, "mean < 124000"),
        ("mean < 1", 1.2345e30, "mean < 1.24e+30"),
        ("mean >= 0.99", 0.98765, "mean >= 0.987"),
        ("mean > 0.99", 0.987, "mean > 0.986"),
        ("mean > 2", 1.0, "mean > 0.999"),
        ("mean < -1", -0.0012287, "mean < -0.00122"),
        ("mean > 1", -0.0012287, "mean > -0.00123"),
        ("mean >= 1", -0.00123, "mean >= -0.00123"),
        ("mean < 0", 0.0, "mean <= 0"),
        ("mean < 0", -0.0, "mean <= 0"),
        ("mean > 1", 0.0, "mean >= 0"),
        ("mean <= -1", 0.0, "mean <= 0"),
        ("mean < -1", -5e-324, "mean < 0"),
        ("mean == 1", 0.1 + 0.2, "mean == 0.30000000000000004"),
        ("mean == 1", -0.0, "mean == 0"),
        ("mean == 1", 2.0, "mean == 2"),
        ("mean <= 1", 1.7976931348623157e308, "mean <= 1.7976931348623157e+308"),
        ("mean < 1", 1.7976931348623157e308, None),
        ("mean < 1", 0.5, None),
    ],
)
def test_a_failed_verdict_names_the_nearest_limit_of_three_digits(
    text: str, obtained: float, would_pass: str | None
) -> None:
    assert verdict_of(text, obtained).would_pass == would_pass


FINITE = st.floats(allow_nan=False, allow_infinity=False)
COMPARE = st.sampled_from(["<", "<=", ">", ">=", "=="])


@repeatable
@given(COMPARE, FINITE, FINITE)
@example("<", 5e-324, 0.0)
@example("<", 1e-320, 0.0)
@example(">", -5e-324, 0.0)
@example("<", 0.3, 0.1)
def test_what_would_pass_passes_and_is_near(comparison: str, obtained: float, bound: float) -> None:
    verdict = verdict_of(f"mean {comparison} {bound!r}", obtained)
    if verdict.passed or abs(obtained) == 1.7976931348623157e308:
        return
    assert verdict.would_pass is not None
    again = verdict_of(verdict.would_pass, obtained)
    assert again.passed
    assert again.limit.side == verdict.limit.side
    assert abs(again.bound - obtained) <= max(0.0101 * abs(obtained), 1e-323)
    if comparison != "==" and abs(obtained) < 1.79e308:
        written = verdict.would_pass.split()[-1]
        assert len(Decimal(written).normalize().as_tuple().digits) <= 3


@repeatable
@given(COMPARE, st.floats(allow_nan=True), st.one_of(FINITE, st.just(0.0)))
def test_an_excess_above_zero_and_a_failure_are_the_same(
    comparison: str, obtained: float, bound: float
) -> None:
    verdict = verdict_of(f"mean {comparison} {bound!r}", obtained)
    assert (verdict.excess > 0) is not verdict.passed
    assert not verdict.margin > 0 or verdict.passed
    assert not verdict.margin < 0 or not verdict.passed
