"""Whether statistics keep to a `Limit`, how far they are from it, and which one they would have kept to.

A limit that can't be judged is an error and never passes: a name that is nowhere, a bound that is
not finite, anywhere on the way to it, and the statistic compared with itself.
"""

from __future__ import annotations

import decimal
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from kldiv_cli.errors import UsageError
from kldiv_cli.limits import (
    Chain,
    Comparison,
    Expression,
    Limit,
    Negation,
    Number,
    Operator,
    Reference,
    Side,
    references,
)
from kldiv_cli.spelling import mistaken
from kldiv_cli.streams import printable

__all__ = ["Verdict", "judge"]

_DIGITS: Final = 3
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

        >>> from kldiv_cli.limit_parser import parse_limit
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

        >>> from kldiv_cli.limit_parser import parse_limit
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
    >>> from kldiv_cli.limit_parser import parse_limit
    >>> limit = parse_limit("mean <= baseline * 1.5")
    >>> verdict = judge(limit, {"mean": 0.25}, {"mean": 0.125})
    >>> verdict.passed, verdict.bound
    (False, 0.1875)
    """
    value = float(_look_up(limit, limit.statistic, obtained, "statistic"))
    names = {r: _named_value(limit, r, obtained, baseline) for r in references(limit.bound)}
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
