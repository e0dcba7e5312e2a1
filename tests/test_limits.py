"""Limits: what they mean, where they are refused, and what would have passed."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kldiv_cli.errors import UsageError
from kldiv_cli.limits import (
    Chain,
    Limit,
    Negation,
    Number,
    Reference,
    Verdict,
    judge,
    parse_limit,
    percentile_of,
)
from kldiv_cli.statistics import percentile_name
from kldiv_cli.streams import printable

repeatable = settings(derandomize=True, deadline=None, max_examples=150)

RUN = {"mean": 0.5, "p50": 0.25, "p99": 2.0, "p99.9": 4.0, "bce.mean": 0.125, "top1": 0.75, "zero": 0.0}
STORED = {"mean": 0.25, "p99.9": 3.0, "blocks.standard_error": 0.0625}


def bound_of(expression: str) -> float:
    return judge(parse_limit(f"mean < {expression}"), RUN, STORED).bound


def verdict_of(text: str, obtained: float) -> Verdict:
    return judge(parse_limit(text), {"mean": obtained}, None)


# What is read


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".5", 0.5),
        ("0", 0.0),
        ("0.0e9", 0.0),
        ("1E+3", 1000.0),
        ("007", 7.0),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("7 - 2 - 1", 4.0),
        ("16 / 4 / 2 * 3", 6.0),
        ("2 - 3 + 4", 3.0),
        ("-2 * -3", 6.0),
        ("--+-2", -2.0),
        ("1--1", 2.0),
        ("-(1 + 2)", -3.0),
        ("1e-3-1e-3", 0.0),
        ("10*p50", 2.5),
        ("p50-1", -0.75),
        ("p99.9", 4.0),
        ("bce.mean", 0.125),
        ("baseline", 0.25),
        ("baseline.mean", 0.25),
        ("baseline.p99.9", 3.0),
        ("baseline * 2 + 0.5", 1.0),
        ("baseline+3*baseline.blocks.standard_error", 0.4375),
        ("\t( ( p50 ) )\t", 0.25),
    ],
)
def test_an_expression_comes_to_what_it_would_on_paper(expression: str, value: float) -> None:
    assert bound_of(expression) == value


def test_a_limit_is_a_tree_without_blanks_and_parentheses() -> None:
    limit = parse_limit("\n p99.9<= -(baseline*2) + p50 \r\n")
    product = Chain(Reference("p99.9", stored=True), (("*", Number(2.0)),))
    assert limit == Limit(
        "p99.9<= -(baseline*2) + p50",
        "p99.9",
        "<=",
        Chain(Negation(product), (("+", Reference("p50")),)),
    )
    assert hash(limit) == hash(pickle.loads(pickle.dumps(limit)))


@pytest.mark.parametrize(
    ("text", "statistics", "stored"),
    [
        ("mean < 1", {"mean"}, set()),
        ("mean < baseline", {"mean"}, {"mean"}),
        ("mean < baseline.mean", {"mean"}, {"mean"}),
        ("mean < baseline.p99 + -(p50 * top1) / baseline", {"mean", "p50", "top1"}, {"p99", "mean"}),
        ("by_target.one.mean < kl.mean", {"by_target.one.mean", "kl.mean"}, set()),
        ("mean < baselines", {"mean", "baselines"}, set()),
        ("x1_.2_ == 0 * x1_.2", {"x1_.2_", "x1_.2"}, set()),
    ],
)
def test_a_limit_says_what_it_needs_of_the_run_and_of_the_baseline(
    text: str, statistics: set[str], stored: set[str]
) -> None:
    limit = parse_limit(text)
    assert limit.statistics == statistics
    assert limit.stored == stored


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


# What is refused, and where

COMPARISONS = "'<', '<=', '>', '>=' or '=='"
OPERAND = "a number, a name or '('"
MORE = "'+', '-', '*', '/' or the end"
INSIDE = "'+', '-', '*', '/' or ')'"
STATISTIC = "the name of a statistic"

REFUSED = [
    ("", 1, "the end", STATISTIC, "write it like 'mean < 1e-3'"),
    (" \t\n", 1, "the end", STATISTIC, "write it like"),
    ("mean", 5, "the end", COMPARISONS, "write it like"),
    ("  mean  ", 7, "the end", COMPARISONS, "write it like"),
    ("mean <", 7, "the end", OPERAND, "write it like"),
    ("mean <\n", 7, "the end", OPERAND, "write it like"),
    ("< 1", 1, "'<'", STATISTIC, "write the statistic first"),
    ("1e-3 > mean", 1, "'1e-3'", STATISTIC, "write the statistic first, like 'mean < 1e-3'"),
    ("0 < mean < 1", 1, "'0'", STATISTIC, "write the statistic first"),
    (" -mean < 1", 2, "'-'", STATISTIC, "write the statistic first"),
    ("(mean) < 1", 1, "'('", STATISTIC, "write the statistic first"),
    ("baseline < 1", 1, "'baseline'", f"{STATISTIC} of this run", "write the statistic first"),
    ("baseline.p50 < 1", 1, "'baseline.p50'", f"{STATISTIC} of this run", "write the statistic first"),
    ("Mean < 1", 1, "'Mean'", STATISTIC, "write it in lowercase, 'mean'"),
    ("mean < P99.9", 8, "'P99.9'", OPERAND, "write it in lowercase, 'p99.9'"),
    ("mean. < 1", 1, "'mean.'", STATISTIC, "write it like"),
    ("_mean < 1", 1, "'_mean'", STATISTIC, "write the statistic first"),
    ("é < 1", 1, "'é'", STATISTIC, "write it like"),
    ("mean 1", 6, "'1'", COMPARISONS, "write it like"),
    ("mean p50", 6, "'p50'", COMPARISONS, "write it like"),
    ("mean * 2 < 3", 6, "'*'", COMPARISONS, "write it like"),
    ("mean = 3", 6, "'='", COMPARISONS, "write '=='"),
    ("mean === 3", 6, "'==='", COMPARISONS, "write '=='"),
    ("mean <> 3", 6, "'<>'", COMPARISONS, "hold it to one side, with '<' or '>'"),
    ("mean != 3", 6, "'!='", COMPARISONS, "hold it to one side"),
    ("mean ≠ 3", 6, "'≠'", COMPARISONS, "hold it to one side"),
    ("mean ≤ 3", 6, "'≤'", COMPARISONS, "write '<='"),
    ("  mean ≥ 3", 8, "'≥'", COMPARISONS, "write '>='"),
    ("mean =< 3", 6, "'=<'", COMPARISONS, "write '<='"),
    ("mean => 3", 6, "'=>'", COMPARISONS, "write '>='"),
    ("mean << 3", 6, "'<<'", COMPARISONS, "write it like"),
    ("mean < = 3", 8, "'='", OPERAND, "write '=='"),
    ("mean < > 3", 8, "'>'", OPERAND, "write it like"),
    ("mean < 1 < 2", 10, "'<'", MORE, "write two limits, one a side"),
    ("mean < (1 < 2)", 11, "'<'", INSIDE, "write two limits, one a side"),
    ("mean < 1 p50", 10, "'p50'", MORE, "write it like"),
    ("mean < 1 2", 10, "'2'", MORE, "write it like"),
    ("mean < 1 nats", 10, "'nats'", MORE, "write it like"),
    ("mean < 1; top1 > 0", 9, "';'", MORE, "write it like"),
    ("mean < 1\nmax < 2", 9, r"'\n'", MORE, "write it like"),
    ("mean < 1)", 9, "')'", MORE, "write it like"),
    ("mean < (1", 10, "the end", INSIDE, "write it like"),
    ("mean < ((1)", 12, "the end", INSIDE, "write it like"),
    ("mean < ()", 9, "')'", OPERAND, "write it like"),
    ("mean < 1 +", 11, "the end", OPERAND, "write it like"),
    ("mean < 1 + * 2", 12, "'*'", OPERAND, "write it like"),
    ("mean < * 2", 8, "'*'", OPERAND, "write it like"),
    ("mean < 1 %", 10, "'%'", MORE, "write 1 % as 0.01"),
    ("mean < baseline + 5%", 20, "'%'", MORE, "write 1 % as 0.01"),
    ("mean < 2 ** 3", 10, "'**'", MORE, "write a power as a product"),
    ("mean < 2 ^ 3", 10, "'^'", MORE, "write a power as a product"),
    ("mean < 7 // 2", 10, "'//'", MORE, "write '/'"),
    ("mean < 2 × 3", 10, "'×'", MORE, "write '*'"),
    ("mean < −1", 8, "'−'", OPERAND, "write '-'"),
    ("mean < 0,5", 9, "','", MORE, "write a decimal point, like 0.5"),
    ("mean < 1_000", 8, "'1_000'", OPERAND, "write a number like 0.5"),
    ("mean < 2p50", 8, "'2p50'", OPERAND, "a product like 2 * p50"),
    ("mean < 1.2.3", 8, "'1.2.3'", OPERAND, "write a number like 0.5"),
    ("mean < 1e", 8, "'1e'", OPERAND, "write a number like 0.5"),
    ("mean < 1e+", 8, "'1e'", OPERAND, "write a number like 0.5"),
    ("mean < 0x10", 8, "'0x10'", OPERAND, "write a number like 0.5"),
    ("mean < .", 8, "'.'", OPERAND, "write it like"),
    ("mean < ١", 8, "'١'", OPERAND, "write it like"),
    ("mean < 1e999", 8, "'1e999'", "a number below 1.8e308", "write a smaller one"),
    ("mean < 2 + 1e-999", 12, "'1e-999'", "0 or a number above 2.5e-324", "write 0"),
    ("mean < mean", 8, "'mean'", "another statistic than that on the left", "write baseline"),
    ("mean < 2 * (1 + mean)", 17, "'mean'", "another statistic than that on the left", "write baseline"),
    ("mean < baseline.", 8, "'baseline.'", OPERAND, "write it like"),
    ("mean < baseline.9", 8, "'baseline.9'", "'baseline' or 'baseline.' and a name", "write it like"),
    ("mean < baseline.baseline", 8, "'baseline.baseline'", "'baseline' or 'baseline.' and a name", ""),
    ("mean < baseline p50", 17, "'p50'", MORE, "write it like"),
    ("mean < \x1b[31m1", 8, r"'\x1b'", OPERAND, "write it like"),
    ("mean\u2028< 1", 5, r"'\u2028'", COMPARISONS, "write it like"),
    ("mean\xa0< 1", 5, r"'\xa0'", COMPARISONS, "write it like"),
    ("mean < \ud800", 8, r"'\ud800'", OPERAND, "write it like"),
    ("mean < '1'", 8, "'''", OPERAND, "write it like"),
    ("😀😀 < 1", 1, "'😀'", STATISTIC, "write the statistic first"),
]


def message_of(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_limit(text)
    return str(caught.value)


@pytest.mark.parametrize(("text", "column", "found", "expected", "advice"), REFUSED)
def test_what_is_no_limit_is_refused_at_its_column_with_what_to_write(
    text: str, column: int, found: str, expected: str, advice: str
) -> None:
    message = message_of(text)
    where = f"limit '{printable(text)}', column {column}: found {found}, expected {expected}; "
    assert message.startswith(where)
    assert advice in message.removeprefix(where)
    assert message.isprintable()


def test_text_is_bounded() -> None:
    fits = "mean < " + "1" + "+1" * 246
    assert len(fits) == 500
    assert verdict_of(fits, 0).bound == 247
    says = "column 501: found 501 characters, expected at most 500; shorten it"
    assert message_of(fits + " ") == f"limit '{fits[:60]}…', {says}"


@pytest.mark.parametrize(("opening", "closing"), [("(", ")"), ("-", ""), ("+", ""), ("-(", ")")])
def test_depth_is_bounded(opening: str, closing: str) -> None:
    most = 50 // len(opening)
    assert verdict_of(f"mean < {opening * most}1{closing * most}", -2).passed
    message = message_of(f"mean < {opening * (most + 1)}1{closing * (most + 1)}")
    assert "column 58: found" in message
    assert "expected at most 50 nested parentheses and signs; simplify it" in message


def test_what_is_beside_each_other_is_not_deep() -> None:
    assert bound_of("+".join(["-(-1)"] * 80)) == 80


def test_the_longest_and_the_deepest_limits_can_be_shown_and_pickled() -> None:
    for text in ("mean < 1" + "+1*1" * 120, f"mean < {'(1+' * 50}1{')' * 50}", f"mean < {'-' * 50}1"):
        limit = parse_limit(text)
        assert repr(limit)
        assert pickle.loads(pickle.dumps(limit)) == limit


def test_a_long_token_is_cut_in_what_was_found() -> None:
    assert f"column 8: found '{'9' * 60}…', expected a number below" in message_of("mean < " + "9" * 400)


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


# Python as the oracle

NAMES = {"p50": 0.25, "p99": 7.5, "top1": -3.0, "baseline": 0.125}
OPERAND_TEXT = st.one_of(
    st.floats(1e-3, 1e3).map(repr),
    st.integers(0, 9).map(lambda n: f"{n}."),
    st.sampled_from(["0.5", ".5", "1e-3", "2E0", *NAMES]),
)
BLANK = st.sampled_from(["", " ", "\t", "  "])


def joined(operand: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(BLANK, st.sampled_from("+-*/"), BLANK, operand).map("".join)
    chain = st.tuples(operand, st.lists(pair, max_size=5).map("".join)).map("".join)
    return chain | chain.map("({})".format) | operand.map("-{}".format) | operand.map("+ {}".format)


EXPRESSIONS = st.recursive(OPERAND_TEXT, joined, max_leaves=20)


@repeatable
@given(EXPRESSIONS)
@example("1.-2.-3.")
@example("8./4./2.")
@example("2.-3.*4.+5.")
def test_an_expression_comes_to_what_python_makes_of_it(expression: str) -> None:
    assume(len(expression) < 480)
    limit = parse_limit(f"mean < {expression}")
    run = NAMES | {"mean": 1.0}
    try:
        expected = eval(expression.strip(), {}, NAMES)
    except ZeroDivisionError:
        with pytest.raises(UsageError, match="division by zero"):
            judge(limit, run, {"mean": 0.125})
        return
    verdict = judge(limit, run, {"mean": 0.125})
    assert verdict.bound == expected
    assert verdict.passed == (expected > 1.0)
    assert limit.statistics - {"mean"} == set(re.findall(r"p50|p99|top1", expression))
    assert bool(limit.stored) == ("baseline" in expression)


PIECES = ["mean", "p99.9", "baseline", "baseline.", "1", "1e-3", "e", "<=", "\n", "\x00", *".<=+-*/()% "]
WRITTEN = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
BEGUN = st.one_of(WRITTEN, st.text(max_size=30)).map("mean < {}".format)
DEEP = st.tuples(st.sampled_from(["(", "-", "+(", "1+("]), st.integers(0, 600)).map(
    lambda t: "mean < " + t[0] * t[1]
)


@repeatable
@given(st.one_of(st.text(), st.text(alphabet="mean<>=.01e+-*/() "), WRITTEN, BEGUN, DEEP))
def test_any_text_is_a_limit_or_refused_in_one_line_at_a_column_it_has(text: str) -> None:
    try:
        limit = parse_limit(text)
    except UsageError as error:
        message = str(error)
        assert message.isprintable()
        shown = text if len(text) <= 500 else f"{text[:60]}…"
        column = re.match(r", column (\d+): found ", message.removeprefix(f"limit '{printable(shown)}'"))
        assert column
        assert 1 <= int(column[1]) <= len(text) + 1
    else:
        assert parse_limit(limit.text) == limit
        assert limit.statistic in limit.statistics


# The names of percentiles


@pytest.mark.parametrize(
    ("name", "quantile"),
    [
        ("p0", 0.0),
        ("p100", 1.0),
        ("p50", 0.5),
        ("p99.9", 0.999),
        ("p0.1", 0.001),
        ("p99.999", 0.99999),
        ("p100.1", None),
        ("p-1", None),
        ("p", None),
        ("p.5", None),
        ("p50.", None),
        ("p50.0", None),
        ("p050", None),
        ("p5e1", None),
        ("p1_0", None),
        ("p 50", None),
        ("p٥", None),
        ("pinf", None),
        ("pnan", None),
        ("p" + "9" * 400, None),
        ("p0.0000000000001", None),
        ("mean", None),
        ("50", None),
        ("bce.p50", None),
        ("", None),
    ],
)
def test_the_name_of_a_percentile_tells_its_quantile_and_no_other_name_does(
    name: str, quantile: float | None
) -> None:
    assert percentile_of(name) == quantile


@repeatable
@given(st.floats(0, 1))
def test_every_percentile_can_be_asked_for_by_its_name(quantile: float) -> None:
    name = percentile_name(quantile)
    told = percentile_of(name)
    assert told is not None
    assert percentile_name(told) == name
    assert told == pytest.approx(quantile, abs=1e-14)
