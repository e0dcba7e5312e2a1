"""Findings: what a user would want to know about the input or the options, in one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from kldiv_cli.observations import Tally, unravel

__all__ = ["IDS", "Finding", "Severity", "counted", "told"]

Severity = Literal["note", "warning", "error"]
"""A warning says that a number may not be what it is taken for; where one fails a check it is an error."""

IDS: Final = frozenset(
    [
        "predictions-probs",
        "predictions-logits",
        "predictions-unnormalised",
        "predictions-padding",
        "targets-probs",
        "targets-logits",
        "targets-log-probs",
        "targets-unnormalised",
        "targets-padding",
        "targets-outside",
        "softmax-of-probs",
        "softmax-of-target-probs",
        "sigmoid-of-probs",
        "wrong-axis",
        "misaligned",
        "identical",
        "empty",
        "zero-terms",
        "infinite-terms",
        "nan-terms",
        "infinite-kl",
        "nan-kl",
        "nonfinite",
        "clamped-terms",
        "saturated",
        "negative-kl",
        "negative-bce",
        "zero-loss",
        "low-precision",
        "which-mean",
        "inputs-changed",
        "dtype-changed",
        "predictions-unchanged",
    ]
)
"""Of all findings there are."""


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
