"""What a gate holds statistics to: the records that ``p99 < 0.05`` is parsed to, and what they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from kldiv_cli.statistics import percentile_name

__all__ = [
    "BASELINE",
    "Chain",
    "Comparison",
    "Expression",
    "Limit",
    "Negation",
    "Number",
    "Operator",
    "Reference",
    "Side",
    "percentile_of",
    "references",
]

Comparison = Literal["<", "<=", ">", ">=", "=="]
Operator = Literal["+", "-", "*", "/"]
Side = Literal["upper", "lower", "exact"]

BASELINE: Final = "baseline"
"""What stored values are written with."""
_SIDES: Final[dict[Comparison, Side]] = {
    "<": "upper",
    "<=": "upper",
    ">": "lower",
    ">=": "lower",
    "==": "exact",
}


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A statistic, of this run or as the baseline stores it."""

    name: str
    stored: bool = False

    def __str__(self) -> str:
        return f"{BASELINE}.{self.name}" if self.stored else self.name


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

        >>> from kldiv_cli.limit_parser import parse_limit
        >>> sorted(parse_limit("p99 < 10 * p50 + baseline").statistics)
        ['p50', 'p99']
        """
        return frozenset({self.statistic} | {r.name for r in references(self.bound) if not r.stored})

    @property
    def stored(self) -> frozenset[str]:
        """What the baseline must have; empty where none is needed."""
        return frozenset(r.name for r in references(self.bound) if r.stored)

    @property
    def side(self) -> Side:
        """Whether the bound is the most, the least or all that is allowed."""
        return _SIDES[self.comparison]


def references(expression: Expression) -> Iterator[Reference]:
    """All that an expression names, from left to right."""
    match expression:
        case Number():
            return
        case Reference():
            yield expression
        case Negation(operand):
            yield from references(operand)
        case Chain(first, rest):
            yield from references(first)
            for _, operand in rest:
                yield from references(operand)
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
