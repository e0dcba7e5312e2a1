"""What is counted along the way: how many, and which of them is the first or the worst; it all merges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

__all__ = ["Observations", "Tally", "unravel"]


class Tally(NamedTuple):
    """How many there were, and the first or the worst of them."""

    count: int = 0  # type: ignore[assignment]
    place: int | None = None
    """Index into the flattened array, or among the distributions."""
    value: float | None = None

    def merge_first(self, other: Tally) -> Tally:
        first = self if _place(self) <= _place(other) else other
        return Tally(self.count + other.count, first.place, first.value)

    def merge_least(self, other: Tally) -> Tally:
        """Keep the smallest value, of equal ones the first."""
        return self._merge_ranked(other, lambda value: value)

    def merge_greatest(self, other: Tally) -> Tally:
        """Keep the largest value, of equal ones the first."""
        return self._merge_ranked(other, lambda value: -value)

    def merge_farthest(self, other: Tally) -> Tally:
        """Keep the value that is farthest from 1, of equal ones the first."""
        return self._merge_ranked(other, lambda value: -abs(value - 1))

    def merge_any(self, other: Tally) -> Tally:
        """Whether there is one in either: the larger count, of equal ones that of the first place."""
        return max(self, other, key=lambda tally: (tally.count, -_place(tally)))

    def _merge_ranked(self, other: Tally, rank: Callable[[float], float]) -> Tally:
        known = [tally for tally in (self, other) if tally.value is not None]
        best = min(known, key=lambda t: (rank(t.value or 0.0), _place(t)), default=self)
        return Tally(self.count + other.count, best.place, best.value)


def _place(tally: Tally) -> float:
    return float("inf") if tally.place is None else tally.place


class Observations(NamedTuple):
    """What was counted along the way for one loss."""

    zero_terms: Tally = Tally()
    """Terms that are 0 (or their limit) by the zero policy and nan without it."""
    infinite_terms: Tally = Tally()
    nan_terms: Tally = Tally()
    clamped_terms: Tally = Tally()
    saturated_predictions: Tally = Tally()
    """Probabilities of exactly 0 or 1, where they are of single events."""
    labels_outside: Tally = Tally()
    """Labels that are no class along the axis; their places are distributions."""
    predictions_outside: Tally = Tally()
    targets_outside: Tally = Tally()
    logits_outside: Tally = Tally()
    """Whether there is any logit outside [0, 1], where they are of single events; 1 or 0, no place."""
    predictions_above_zero: Tally = Tally()
    """Log-probabilities above 0 by more than rounding; the greatest is kept."""
    targets_above_zero: Tally = Tally()
    """The same of targets in log space."""
    targets_below_zero: Tally = Tally()
    """Target probabilities below 0; the least is kept."""
    predictions_unnormalised: Tally = Tally()
    """Distributions whose probabilities do not add up to 1; the sum farthest from it is kept."""
    targets_unnormalised: Tally = Tally()
    predictions_padding: Tally = Tally()
    """Distributions that are all 0, all -100, or of equal logits."""
    targets_padding: Tally = Tally()
    predictions_probable: Tally = Tally()
    """Distributions of logits that are probabilities already: within [0, 1], adding up to 1."""
    targets_probable: Tally = Tally()
    negative_distributions: Tally = Tally()
    """Distributions with a KL divergence below 0; the least is kept."""

    def merge(self, other: Observations) -> Observations:
        if other == _NOTHING:
            return self
        merged: dict[str, Any] = {}
        for name, ours, theirs in zip(self._fields, self, other, strict=True):
            merged[name] = _MERGES.get(name, Tally.merge_first)(ours, theirs)
        return Observations(**merged)


_NOTHING: Final = Observations()
_MERGES: Final = {
    "logits_outside": Tally.merge_any,
    "predictions_above_zero": Tally.merge_greatest,
    "targets_above_zero": Tally.merge_greatest,
    "targets_below_zero": Tally.merge_least,
    "predictions_unnormalised": Tally.merge_farthest,
    "targets_unnormalised": Tally.merge_farthest,
    "negative_distributions": Tally.merge_least,
}
"""What is kept of a tally where it is not the first."""


def unravel(place: int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """A flat index as one for each dimension."""
    if place is None:
        return None
    return tuple(int(i) for i in np.unravel_index(place, shape)) if shape else ()
