"""Findings: what a user would want to know about the input or the options, in one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kldiv_cli.observations import Tally, unravel

__all__ = ["Finding", "Severity", "counted", "told"]

Severity = Literal["note", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about the input or the options that a user would want to know."""

    id: str
    severity: Severity
    message: str
    count: int | None = None
    place: tuple[int, ...] | None = None
    """Where the worst is, or the first of equal ones."""
    value: float | None = None
    option: str | None = None
    """The option that mends or changes it."""


def told(
    id: str,
    tally: Tally,
    shape: tuple[int, ...],
    noun: str,
    message: str,
    option: str | None,
    severity: Severity,
) -> Finding:
    place = unravel(tally.place, shape)
    text = message.format(
        count=counted(tally.count, noun),
        terms=counted(tally.count, "term"),
        place=list(place or ()),
        value=tally.value,
    )
    return Finding(
        id=id,
        severity=severity,
        message=text,
        count=tally.count,
        place=place,
        value=tally.value,
        option=option,
    )


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
