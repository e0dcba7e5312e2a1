"""The text of a limit, such as ``p99 < 10 * p50``, to a `Limit`.

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
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, TypeVar, get_args

from kldiv_cli.errors import UsageError
from kldiv_cli.limits import (
    BASELINE,
    Chain,
    Comparison,
    Expression,
    Limit,
    Negation,
    Number,
    Operator,
    Reference,
)
from kldiv_cli.streams import excerpt, printable

__all__ = ["parse_limit"]

_LONGEST: Final = 500
_DEEPEST: Final = 50
_COMPARISONS: Final[tuple[Comparison, ...]] = get_args(Comparison)
_LEVELS: Final[tuple[tuple[Operator, ...], ...]] = (("+", "-"), ("*", "/"))
"""From the loosest to the tightest."""


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
_SIGNS: Final = (*get_args(Operator), "(", ")")
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
    return _Token("sign" if text in _SIGNS else "stray", text, column)


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
            name = token.text.removeprefix(BASELINE).removeprefix(".") or self.statistic
            if _is_baseline(name) or not _NAME.fullmatch(name):
                raise self._error(token, f"'{BASELINE}' or '{BASELINE}.' and a name")
            self._take()
            return Reference(name, stored=True)
        if token.text == self.statistic:
            advice = f"write {BASELINE} for its stored value"
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
    return name.split(".")[0] == BASELINE


def _word_advice(word: str) -> str | None:
    """How a misspelt name or number may be meant."""
    if _NAME.fullmatch(word.lower()):
        return f"write it in lowercase, '{excerpt(word.lower())}'"
    if word[0] in "0123456789":
        return "write a number like 0.5 or 1e-3, a product like 2 * p50"
    return None
