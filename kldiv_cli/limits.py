"""Limits, what a gate holds statistics to: ``p99 < 0.05`` is parsed to a `Limit` and judged to a `Verdict`.

.. code-block:: ebnf

    limit      = name, comparison, expression ;
    comparison = "<" | "<=" | ">" | ">=" | "==" ;
    expression = product, { ( "+" | "-" ), product } ;
    product    = factor, { ( "*" | "/" ), factor } ;
    factor     = ( "+" | "-" ), factor | "(", expression, ")" | number | stored | name ;
    stored     = "baseline", [ ".", name ] ;
    name       = letter, { letter | digit | "_" }, { ".", part } ;
    part       = ( letter | digit | "_" ), { letter | digit | "_" } ;
    number     = ( digits, [ ".", [ digits ] ] | ".", digits ), [ ( "e" | "E" ), [ "+" | "-" ], digits ] ;
    digits     = digit, { digit } ;

Letters are a to z, digits 0 to 9; spaces and tabs may stand between any two. ``baseline`` alone is the
stored value of the statistic on the left, and no statistic is called so.

A limit that can't be judged is an error and never passes: a name that is nowhere, a bound that is
not finite, anywhere on the way to it, and the statistic compared with itself.
"""

from __future__ import annotations

import decimal
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeVar, assert_never, get_args

from kldiv_cli.errors import UsageError
from kldiv_cli.spelling import mistaken
from kldiv_cli.statistics import percentile_name
from kldiv_cli.streams import excerpt, printable

__all__ = [
    "Chain",
    "Comparison",
    "Expression",
    "Limit",
    "Negation",
    "Number",
    "Operator",
    "Reference",
    "Side",
    "Verdict",
    "judge",
    "parse_limit",
    "percentile_of",
]

Comparison = Literal["<", "<=", ">", ">=", "=="]
Operator = Literal["+", "-", "*", "/"]
Side = Literal["upper", "lower", "exact"]

_BASELINE: Final = "baseline"
_LONGEST: Final = 500
_DEEPEST: Final = 50
_DIGITS: Final = 3


# What a limit is


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A statistic, of this run or as the baseline stores it."""

    name: str
    stored: bool = False

    def __str__(self) -> str:
        return f"{_BASELINE}.{self.name}" if self.stored else self.name


@dataclass(frozen=True, slots=True)
class Negation:
    operand: Expression


@dataclass(frozen=True, slots=True)
class Chain:
    """Operations of one precedence from left to right: as deep as its parentheses, however long."""

    first: Expression
    rest: tuple[tuple[Operator, Expression], ...]


Expression = Number | Reference | Negation | Chain


@dataclass(frozen=True, slots=True)
class Limit:
    """What a statistic is held to."""

    text: str
    """As written, without the blanks around it."""
    statistic: str
    """On the left."""
    comparison: Comparison
    bound: Expression

    @property
    def statistics(self) -> frozenset[str]:
        """What must be computed in this run.

        >>> sorted(parse_limit("p99 < 10 * p50 + baseline").statistics)
        ['p50', 'p99']
        """
        return frozenset({self.statistic} | {r.name for r in _references(self.bound) if not r.stored})

    @property
    def stored(self) -> frozenset[str]:
        """What the baseline must have; empty where none is needed."""
        return frozenset(r.name for r in _references(self.bound) if r.stored)

    @property
    def side(self) -> Side:
        """Whether the bound is the most, the least or all that is allowed."""
        return _SIDES[self.comparison]


_COMPARISONS: Final[tuple[Comparison, ...]] = get_args(Comparison)
_SIDES: Final[dict[Comparison, Side]] = {
    "<": "upper",
    "<=": "upper",
    ">": "lower",
    ">=": "lower",
    "==": "exact",
}
_COMPARE: Final[dict[Comparison, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_APPLY: Final[dict[Operator, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_LEVELS: Final[tuple[tuple[Operator, ...], ...]] = (("+", "-"), ("*", "/"))
"""From the loosest to the tightest."""


def _references(expression: Expression) -> Iterator[Reference]:
    """All that an expression names, from left to right."""
    match expression:
        case Number():
            return
        case Reference():
            yield expression
        case Negation(operand):
            yield from _references(operand)
        case Chain(first, rest):
            yield from _references(first)
            for _, operand in rest:
                yield from _references(operand)
        case _:
            assert_never(expression)


def percentile_of(name: str) -> float | None:
    """Tell the quantile of a percentile by its name, None if it is not the name of one.

    >>> percentile_of("p99.9"), percentile_of("p100.1"), percentile_of("mean")
    (0.999, None, None)
    """
    if not name.startswith("p"):
        return None
    try:
        quantile = float(f"{name[1:]}e-2")
    except ValueError:
        return None
    return quantile if 0 <= quantile <= 1 and percentile_name(quantile) == name else None


# Text to tokens


class _Token(NamedTuple):
    kind: Literal["name", "number", "comparison", "sign", "stray", "end"]
    text: str
    column: int
    """The first is 1."""


_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_NUMBER: Final = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")
_RUNS: Final = (frozenset("<>=!"), frozenset("*"), frozenset("/"))
"""Characters that are read together, so that ``**`` is told as it is written."""
_BLANKS: Final = " \t"
_AROUND: Final = " \t\r\n"


def _tokens(text: str) -> Iterator[_Token]:
    """Cut text up; what the grammar does not know is `stray`, for the parser to refuse in its place."""
    end = len(text.rstrip(_AROUND))
    start = len(text) - len(text.lstrip(_AROUND))
    while start < end:
        stop = _token_end(text, start)
        if text[start] not in _BLANKS:
            yield _token(text[start:stop], start + 1)
        start = stop
    yield _Token("end", "", end + 1)


def _token(text: str, column: int) -> _Token:
    if _NUMBER.fullmatch(text):
        return _Token("number", text, column)
    if _NAME.fullmatch(text):
        return _Token("name", text, column)
    if text in _COMPARISONS:
        return _Token("comparison", text, column)
    return _Token("sign" if text in _APPLY or text in "()" else "stray", text, column)


def _token_end(text: str, start: int) -> int:
    if text[start] in _WORD:
        number = _NUMBER.match(text, start)
        return _run_end(text, number.end() if number else start, _WORD)
    for characters in _RUNS:
        if text[start] in characters:
            return _run_end(text, start, characters)
    return start + 1


def _run_end(text: str, start: int, characters: frozenset[str]) -> int:
    while start < len(text) and text[start] in characters:
        start += 1
    return start


# Tokens to a limit


@functools.lru_cache(maxsize=1000)  # The pairs of a suite share most of theirs.
def parse_limit(text: str) -> Limit:
    """Read a limit.

    Raises
    ------
    UsageError
        The text is no limit, longer than 500 characters or more than 50 parentheses and signs deep;
        the columns it tells are those of the text as given, the first is 1.

    Examples
    --------
    >>> limit = parse_limit("mean < baseline * 1.10 + 1e-6")
    >>> limit.statistic, limit.comparison, sorted(limit.stored)
    ('mean', '<', ['mean'])
    >>> parse_limit("mean < 1 %")
    Traceback (most recent call last):
        ...
    kldiv_cli.errors.UsageError: limit 'mean < 1 %', column 10: found '%', expected '+', '-', '*', '/' or
    the end; write 1 % as 0.01
    """
    if len(text) > _LONGEST:
        raise UsageError(
            f"limit '{excerpt(text)}', column {_LONGEST + 1}: found {len(text)} characters, "
            f"expected at most {_LONGEST}; shorten it"
        )
    return _Parser(text).limit()


_LIKE: Final = "write it like 'mean < 1e-3'"
_LEFT_FIRST: Final = f"write the statistic first, like {_LIKE.removeprefix('write it like ')}"
_INEQUALITY: Final = "hold it to one side, with '<' or '>'"
_POWER: Final = "write a power as a product, like p50 * p50"
_ADVICE: Final[dict[str, str]] = {
    "%": "write 1 % as 0.01",
    "**": _POWER,
    "^": _POWER,
    "//": "write '/'",
    "=": "write '=='",
    "===": "write '=='",
    "=<": "write '<='",
    "≤": "write '<='",
    "=>": "write '>='",
    "≥": "write '>='",
    "<>": _INEQUALITY,
    "!=": _INEQUALITY,
    "≠": _INEQUALITY,
    "×": "write '*'",
    "÷": "write '/'",
    "−": "write '-'",
    ",": "write a decimal point, like 0.5",
}
"""For what is written elsewhere but not here."""

_Choice = TypeVar("_Choice", bound=str)


class _Parser:
    """Recursive descent: a method a rule, at `token` where it begins, behind its end where it returns."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.token = next(self.tokens)
        self.statistic = ""
        self.depth = 0

    def limit(self) -> Limit:
        self.statistic = self._left()
        comparison = self._comparison()
        bound = self._expression()
        self._expect("end", "", "the end")
        return Limit(self.text.strip(_AROUND), self.statistic, comparison, bound)

    def _left(self) -> str:
        expected = "the name of a statistic"
        if self.token.kind != "name":
            begun = self.token.kind == "end" or self.token.text[0].isalpha()
            raise self._error(self.token, expected, _LIKE if begun else _LEFT_FIRST)
        if _is_baseline(self.token.text):
            raise self._error(self.token, f"{expected} of this run", _LEFT_FIRST)
        return self._take().text

    def _comparison(self) -> Comparison:
        comparison = self._take_one_of(_COMPARISONS)
        if comparison is None:
            raise self._error(self.token, "'<', '<=', '>', '>=' or '=='")
        return comparison

    def _expression(self, level: int = 0) -> Expression:
        if level == len(_LEVELS):
            return self._factor()
        first = self._expression(level + 1)
        rest: list[tuple[Operator, Expression]] = []
        while (operation := self._take_one_of(_LEVELS[level])) is not None:
            rest.append((operation, self._expression(level + 1)))
        return Chain(first, tuple(rest)) if rest else first

    def _factor(self) -> Expression:
        token = self.token
        if token.kind == "number":
            return self._number()
        if token.kind == "name":
            return self._reference()
        if token.text not in ("+", "-", "("):
            raise self._error(token, "a number, a name or '('")
        if self.depth == _DEEPEST:
            raise self._error(token, f"at most {_DEEPEST} nested parentheses and signs", "simplify it")
        self.depth += 1
        inner = self._parenthesis() if token.text == "(" else self._signed()
        self.depth -= 1
        return inner

    def _parenthesis(self) -> Expression:
        self._take()
        inner = self._expression()
        self._expect("sign", ")", "')'")
        return inner

    def _signed(self) -> Expression:
        negative = self._take().text == "-"
        operand = self._factor()
        return Negation(operand) if negative else operand

    def _number(self) -> Number:
        value = float(self.token.text)
        if math.isinf(value):
            raise self._error(self.token, "a number below 1.8e308", "write a smaller one")
        if value == 0 and re.match(r"[0.]*[1-9]", self.token.text):
            raise self._error(self.token, "0 or a number above 2.5e-324", "write 0 if it is meant")
        self._take()
        return Number(value)

    def _reference(self) -> Reference:
        token = self.token
        if _is_baseline(token.text):
            name = token.text.removeprefix(_BASELINE).removeprefix(".") or self.statistic
            if _is_baseline(name) or not _NAME.fullmatch(name):
                raise self._error(token, f"'{_BASELINE}' or '{_BASELINE}.' and a name")
            self._take()
            return Reference(name, stored=True)
        if token.text == self.statistic:
            advice = f"write {_BASELINE} for its stored value"
            raise self._error(token, "another statistic than that on the left", advice)
        return Reference(self._take().text)

    def _expect(self, kind: str, text: str, shown: str) -> None:
        """Take what ends an expression, which might also have gone on."""
        if (self.token.kind, self.token.text) != (kind, text):
            advice = "write two limits, one a side" if self.token.kind == "comparison" else _LIKE
            raise self._error(self.token, f"'+', '-', '*', '/' or {shown}", advice)
        self._take()

    def _take_one_of(self, choices: tuple[_Choice, ...]) -> _Choice | None:
        taken = next((choice for choice in choices if choice == self.token.text), None)
        if taken is not None:
            self._take()
        return taken

    def _take(self) -> _Token:
        taken = self.token
        self.token = next(self.tokens, taken)
        return taken

    def _error(self, token: _Token, expected: str, advice: str = _LIKE) -> UsageError:
        if token.kind == "stray":
            advice = _ADVICE.get(token.text) or _word_advice(token.text) or advice
        found = "the end" if token.kind == "end" else f"'{excerpt(token.text)}'"
        return UsageError(
            f"limit '{printable(self.text)}', column {token.column}: "
            f"found {found}, expected {expected}; {advice}"
        )


def _is_baseline(name: str) -> bool:
    return name.split(".")[0] == _BASELINE


def _word_advice(word: str) -> str | None:
    """How a misspelt name or number may be meant."""
    if _NAME.fullmatch(word.lower()):
        return f"write it in lowercase, '{excerpt(word.lower())}'"
    if word[0] in "0123456789":
        return "write a number like 0.5 or 1e-3, a product like 2 * p50"
    return None


# A limit to a verdict


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a statistic keeps to its limit, and how far it is from it."""

    limit: Limit
    obtained: float
    bound: float
    """What the right side comes to; always finite."""
    passed: bool

    @property
    def excess(self) -> float:
        """How far beyond the bound, as a share of it: above 0 if and only if it failed, to sort by.

        inf where nothing was obtained to compare, and beyond a bound of 0; the smallest number at a
        bound that must not be reached.
        """
        if not self.passed and (math.isnan(self.obtained) or self.bound == 0):
            return math.inf
        if self.bound == 0:
            return -math.inf if self._beyond else 0.0
        share = self._beyond / abs(self.bound)
        return share if self.passed else max(share, math.ulp(0.0))

    @property
    def margin(self) -> float:
        """The room left, negative where it is missing, as a share of the bound: 0.37 is 37 %.

        nan where the bound is 0 or nan was obtained.

        >>> judge(parse_limit("mean < 0.5"), {"mean": 0.375}, None).margin
        0.25
        """
        return math.nan if self.bound == 0 else 0.0 - self._beyond / abs(self.bound)

    @property
    def _beyond(self) -> float:
        """The distance to the bound, negative on the side that is allowed."""
        difference = self.obtained - self.bound
        match self.limit.side:
            case "upper":
                return difference
            case "lower":
                return -difference
            case "exact":
                return abs(difference)
            case side:
                assert_never(side)

    @property
    def would_pass(self) -> str | None:
        """The nearest limit of three digits that what was obtained would pass; of all digits for ``==``.

        None where it passed, and where no limit would do: for nan and inf.

        >>> judge(parse_limit("mean < 1e-3"), {"mean": 0.0012287}, None).would_pass
        'mean < 0.00123'
        """
        if self.passed or not math.isfinite(self.obtained):
            return None
        comparison, allowed = self.limit.comparison, self.obtained
        if allowed == 0 and comparison in ("<", ">"):
            comparison = "<=" if comparison == "<" else ">="  # Nothing above 0 is near it but 5e-324.
        elif comparison in ("<", ">"):
            allowed = math.nextafter(allowed, math.inf if comparison == "<" else -math.inf)
        bound = allowed if comparison == "==" else _rounded(allowed, self.limit.side)
        return f"{self.limit.statistic} {comparison} {_written(bound)}" if math.isfinite(bound) else None


def _rounded(value: float, side: Side) -> float:
    """Three digits, away from what is not allowed; all of them where those would overflow."""
    rounding = decimal.ROUND_CEILING if side == "upper" else decimal.ROUND_FLOOR
    context = decimal.Context(prec=_DIGITS, rounding=rounding)
    rounded = float(context.create_decimal(repr(value)))
    return rounded if math.isfinite(rounded) else value


def _written(value: float) -> str:
    return repr(value + 0.0).removesuffix(".0")


def judge(limit: Limit, obtained: Mapping[str, float], baseline: Mapping[str, float] | None) -> Verdict:
    """Hold the statistics of a run, by name, to a limit; nan passes none.

    Raises
    ------
    UsageError
        A name is not in `obtained` or `baseline`, or the bound is not finite.

    Examples
    --------
    >>> limit = parse_limit("mean <= baseline * 1.5")
    >>> verdict = judge(limit, {"mean": 0.25}, {"mean": 0.125})
    >>> verdict.passed, verdict.bound
    (False, 0.1875)
    """
    value = float(_look_up(limit, limit.statistic, obtained, "statistic"))
    names = {r: _named_value(limit, r, obtained, baseline) for r in _references(limit.bound)}
    try:
        bound = _evaluate(limit.bound, names)
    except ArithmeticError as error:
        problem = "a division by zero" if isinstance(error, ZeroDivisionError) else "an overflow"
        values = ", ".join(f"{name} is {value!r}" for name, value in names.items())
        raise UsageError(
            f"{_where(limit)}: found {problem}, expected a finite bound; {values or 'write another one'}"
        ) from None
    return Verdict(limit, value, bound, _COMPARE[limit.comparison](value, bound))


def _named_value(
    limit: Limit, reference: Reference, obtained: Mapping[str, float], baseline: Mapping[str, float] | None
) -> float:
    if not reference.stored:
        value = float(_look_up(limit, reference.name, obtained, "statistic"))
    elif baseline is None:
        raise UsageError(
            f"{_where(limit)}: found no baseline, expected one that has '{reference.name}'; "
            "give one, or a number in its place"
        )
    else:
        value = float(_look_up(limit, reference.name, baseline, "stored statistic"))
    if not math.isfinite(value):
        raise UsageError(
            f"{_where(limit)}: {reference} is {value}, expected a finite number; write one in its place"
        )
    return value


def _look_up(limit: Limit, name: str, values: Mapping[str, float], kind: str) -> float:
    if name in values:
        return values[name]
    instead = mistaken(name, values) if values else ", there are none; record some"
    raise UsageError(f"{_where(limit)}: found no {kind} '{name}'{instead}")


def _evaluate(expression: Expression, names: Mapping[Reference, float]) -> float:
    """The value of an expression; an ArithmeticError where any step on the way is not finite."""
    match expression:
        case Number(value):
            return value
        case Reference():
            return names[expression]
        case Negation(operand):
            return -_evaluate(operand, names)
        case Chain(first, rest):
            value = _evaluate(first, names)
            for operation, operand in rest:
                value = _APPLY[operation](value, _evaluate(operand, names))
                if not math.isfinite(value):
                    raise OverflowError
            return value
        case _:
            assert_never(expression)


def _where(limit: Limit) -> str:
    return f"limit '{printable(limit.text)}'"
