"""Misuse and its traces: counted block by block, merged, and told as findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from kldiv_cli.reductions import Scalars
from kldiv_cli.spec import Loss

__all__ = ["Finding", "Observations", "Severity", "Tally", "find", "find_reduction", "unravel"]

Severity = Literal["note", "warning"]

_COARSEST = {2: 2.0**-7, 4: 2.0**-20}
"""A distribution's KL may be this far below 0 by the rounding of its storage type (by item size)."""
_FINE = 2.0**-40


class Tally(NamedTuple):
    """How many there were, and the first or the worst of them."""

    count: int = 0  # type: ignore[assignment]
    place: int | None = None
    """Index into the flattened array."""
    value: float | None = None

    def merge_first(self, other: Tally) -> Tally:
        first = self if _place(self) <= _place(other) else other
        return Tally(self.count + other.count, first.place, first.value)

    def merge_least(self, other: Tally) -> Tally:
        """Keep the smallest value, of equal ones the first."""
        ranked = sorted((t for t in (self, other) if t.value is not None), key=_by_value)
        least = ranked[0] if ranked else self
        return Tally(self.count + other.count, least.place, least.value)


def _place(tally: Tally) -> float:
    return float("inf") if tally.place is None else tally.place


def _by_value(tally: Tally) -> tuple[float, float]:
    return (tally.value if tally.value is not None else float("inf"), _place(tally))


class Observations(NamedTuple):
    """What was counted along the way for one loss."""

    zero_terms: Tally = Tally()
    """Terms that are 0 (or their limit) by the zero policy and nan without it."""
    infinite_terms: Tally = Tally()
    nan_terms: Tally = Tally()
    clamped_terms: Tally = Tally()
    labels_outside: Tally = Tally()
    """Labels that are no class along the axis; their places are distributions."""
    predictions_outside: Tally = Tally()
    targets_outside: Tally = Tally()
    negative_distributions: Tally = Tally()
    """Distributions with a KL divergence below 0; the worst of them is kept."""

    def merge(self, other: Observations) -> Observations:
        merged: dict[str, Any] = {}
        for name, ours, theirs in zip(self._fields, self, other, strict=True):
            least = name == "negative_distributions"
            merged[name] = ours.merge_least(theirs) if least else ours.merge_first(theirs)
        return Observations(**merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about the input or the options that a user would want to know."""

    id: str
    severity: Severity
    message: str
    count: int | None = None
    place: tuple[int, ...] | None = None
    value: float | None = None
    option: str | None = None
    """The option that mends or changes it."""


def find(
    observations: Observations,
    scalars: Scalars,
    shape: tuple[int, ...],
    axis: int,
    *,
    zero_policy: str,
    softmax: bool,
    itemsize: int,
) -> tuple[Finding, ...]:
    """Turn what was counted into what is said; nothing for data that is as it should be."""
    findings = [
        _empty(scalars),
        _zero_terms(observations.zero_terms, shape, zero_policy),
        _infinite(observations.infinite_terms, shape),
        _nan(observations.nan_terms, shape),
        _clamped(observations.clamped_terms, shape, softmax=softmax),
        _targets_outside(observations.targets_outside, shape),
        _negative(observations.negative_distributions, shape, axis, itemsize),
    ]
    return tuple(finding for finding in findings if finding is not None)


def find_reduction(
    loss: Loss, reduction: str | None, scalars: Scalars, shape: tuple[int, ...]
) -> tuple[Finding, ...]:
    """What is to be said of the reduction that was asked for."""
    if loss != "kl":
        return ()
    if reduction == "mean":
        divided = f"all {scalars.elements} elements"
    elif reduction == "batchmean" and shape and scalars.batch != scalars.distributions:
        divided = f"the first dimension, {scalars.batch}"
    else:
        return ()
    return (
        Finding(
            id="which-mean",
            severity="note",
            message=(
                f"{reduction} divides by {divided}, as in PyTorch; the mean KL divergence of the "
                f"{_counted(scalars.distributions, 'distribution')} is --reduction distmean"
            ),
            option="--reduction distmean",
        ),
    )


def unravel(place: int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """A flat index as one for each dimension."""
    if place is None:
        return None
    return tuple(int(i) for i in np.unravel_index(place, shape)) if shape else ()


def _empty(scalars: Scalars) -> Finding | None:
    if scalars.elements:
        return None
    return Finding(
        id="empty",
        severity="warning",
        message="the arrays are empty: there is nothing to measure",
        count=0,
    )


def _told(
    id: str,
    severity: Severity,
    tally: Tally,
    shape: tuple[int, ...],
    message: str,
    option: str | None = None,
) -> Finding | None:
    if tally.count == 0:
        return None
    place = unravel(tally.place, shape)
    text = message.format(
        terms=_counted(tally.count, "term"),
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


def _zero_terms(tally: Tally, shape: tuple[int, ...], zero_policy: str) -> Finding | None:
    if zero_policy == "limit":
        message = (
            "{terms} 0 by the limit, first at {place}: PyTorch gives nan there; --zero-policy torch does too"
        )
        return _told("zero-terms", "note", tally, shape, message, "--zero-policy torch")
    message = "{terms} nan as in PyTorch though 0 in the limit, first at {place}; --zero-policy limit gives 0"
    return _told("zero-terms", "warning", tally, shape, message, "--zero-policy limit")


def _infinite(tally: Tally, shape: tuple[int, ...]) -> Finding | None:
    message = (
        "{terms} infinite, first {value} at {place}: the prediction rules out what the target holds possible"
    )
    return _told("infinite-terms", "warning", tally, shape, message)


def _nan(tally: Tally, shape: tuple[int, ...]) -> Finding | None:
    message = "{terms} nan, first at {place}: an input is nan or infinite, or a probability is below 0"
    return _told("nan-terms", "warning", tally, shape, message)


def _clamped(tally: Tally, shape: tuple[int, ...], *, softmax: bool) -> Finding | None:
    message = (
        "{terms} clamped at a logarithm of -100 as in PyTorch, first {value} at {place}: "
        "the sum is not the true loss"
    )
    if softmax:
        return _told("clamped-terms", "warning", tally, shape, message)
    message += "; --predictions-are logits has no clamp"
    return _told("clamped-terms", "warning", tally, shape, message, "--predictions-are logits")


def _targets_outside(tally: Tally, shape: tuple[int, ...]) -> Finding | None:
    message = (
        "targets outside [0, 1] in {terms}, first {value} at {place}: computed as PyTorch does, unchecked"
    )
    return _told("targets-outside", "warning", tally, shape, message)


def _negative(tally: Tally, shape: tuple[int, ...], axis: int, itemsize: int) -> Finding | None:
    rounding = _COARSEST.get(itemsize, _FINE)
    severity: Severity = "note" if tally.value is None or tally.value >= -rounding else "warning"
    cause = (
        "within the rounding of the storage type"
        if severity == "note"
        else "predictions or targets are not normalised"
    )
    message = f"KL below 0 in {_counted(tally.count, 'distribution')}, least {{value}} at {{place}}: {cause}"
    return _told("negative-kl", severity, tally, shape[:axis] + shape[axis + 1 :], message)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
