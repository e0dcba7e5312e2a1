"""What limits are read to, and where they are refused."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kldiv_cli.errors import UsageError
from kldiv_cli.limit_parser import parse_limit
from kldiv_cli.limits import Chain, Limit, Negation, Number, Reference
from kldiv_cli.streams import printable
from kldiv_cli.verdicts import Verdict, judge

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
