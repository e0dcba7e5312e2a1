"""What numbers look like: logits, log-probabilities, probabilities or labels, and along which axis."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Likeness",
    "Space",
    "Traits",
    "judge",
    "look",
    "may_be_normalized",
    "normalized_axes",
    "sums_to_one",
    "tolerance",
    "traits",
]

AnyArray = npt.NDArray[Any]
Space = Literal["logits", "log-probs", "probs", "labels", "binary", "numbers"]

_MOST_CLASSES: Final = 1 << 20
"""Integers above this are numbers rather than classes."""


class Likeness(NamedTuple):
    """What an array is taken for."""

    space: Space
    axis: int | None = None
    """Along which it is normalised, from the front; None where that has no meaning, or is along none."""


class Traits(NamedTuple):
    """What was counted in some values; those of two parts of an array merge."""

    kind: str
    """The dtype's: one of f, i, u and b."""
    size: int = 0
    lowest: float | None = None
    """Of the finite values; None where there are none."""
    highest: float | None = None
    second_lowest: float | None = None
    """Of the distinct values of integers; what is left if the lowest stands for no class."""
    second_highest: float | None = None
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    ones: int = 0
    whole: bool = True
    """Every finite value is a whole number."""

    def merge(self, other: Traits) -> Traits:
        lows = _distinct(self.lowest, self.second_lowest, other.lowest, other.second_lowest)
        highs = _distinct(self.highest, self.second_highest, other.highest, other.second_highest)
        integers = self.kind in "iu"
        return Traits(
            kind=self.kind,
            size=self.size + other.size,
            lowest=lows[0] if lows else None,
            highest=highs[-1] if highs else None,
            second_lowest=lows[1] if integers and len(lows) > 1 else None,
            second_highest=highs[-2] if integers and len(highs) > 1 else None,
            nan=self.nan + other.nan,
            posinf=self.posinf + other.posinf,
            neginf=self.neginf + other.neginf,
            zeros=self.zeros + other.zeros,
            ones=self.ones + other.ones,
            whole=self.whole and other.whole,
        )

    @property
    def finite(self) -> int:
        return self.size - self.nan - self.posinf - self.neginf


def tolerance(dtype: np.dtype[Any], classes: int, *, logs: bool) -> float:
    """How far from 1 a distribution's sum may be by rounding: its own, or of exp of its logarithms.

    `dtype` is the one it was stored in.
    """
    if dtype.kind == "f" and dtype.itemsize == 2:
        # A logarithm x is off by up to 2**-11 |x|, and the mean |x| is the entropy, at most log(classes).
        # A probability is off by up to 2**-11 of itself, or by half the smallest subnormal, 2**-25:
        # in a flat distribution over a large vocabulary all of them that much, in the same direction.
        return 2.0**-10 * (1 + math.log(max(classes, 1))) if logs else 2.0**-10 + classes * 2.0**-25
    # A softmax in float32 whose sum runs along in a few lanes drifts by what each step rounds: it was found
    # up to 3e-9 a class off (8 lanes, a peak over a nearly flat tail). Float64 may have been float32 before.
    return 1e-4 + classes * 2.0**-28


def sums_to_one(sums: AnyArray, dtype: np.dtype[Any], classes: int, *, logs: bool) -> bool:
    """Whether all of these sums are 1 by rounding; nan are left out, but there must be others."""
    known = sums[~np.isnan(sums)]
    return known.size > 0 and bool(np.all(np.abs(known - 1) <= tolerance(dtype, classes, logs=logs)))


def normalized_axes(values: AnyArray, dtype: np.dtype[Any], *, logs: bool) -> tuple[int, ...]:
    """The axes along which all sums of `values` (of their exp, for `logs`) are 1 by rounding.

    An axis of length 1 counts only where no other one does. Distributions with nan are left out.
    `dtype` is the one they were stored in.
    """
    if values.size == 0:
        return ()
    with np.errstate(all="ignore"):
        p = np.exp(values, dtype=np.float64) if logs else values
        normalized = [
            axis
            for axis, length in enumerate(values.shape)
            if sums_to_one(p.sum(axis, dtype=np.float64), dtype, length, logs=logs)
        ]
    longer = [axis for axis in normalized if values.shape[axis] > 1]
    return tuple(longer or normalized)


def traits(values: AnyArray) -> Traits:
    """Count what is in some values, as they are stored."""
    found = Traits(kind=values.dtype.kind, size=values.size)
    finite = values
    if found.kind == "f":
        nan, infinite = np.isnan(values), np.isinf(values)
        found = found._replace(
            nan=int(np.count_nonzero(nan)),
            posinf=int(np.count_nonzero(infinite & (values > 0))),
            neginf=int(np.count_nonzero(infinite & (values < 0))),
        )
        if found.finite < found.size:
            finite = values[~(nan | infinite)]
        found = found._replace(whole=bool(np.all(np.trunc(finite) == finite)))
    if finite.size == 0:
        return found
    if found.kind in "iu":
        second_lowest, second_highest = _second(finite)
        found = found._replace(second_lowest=second_lowest, second_highest=second_highest)
    return found._replace(
        lowest=_number(finite.min()),
        highest=_number(finite.max()),
        zeros=finite.size - int(np.count_nonzero(finite)),
        ones=int(np.count_nonzero(finite == 1)),
    )


def may_be_normalized(traits: Traits, dtype: np.dtype[Any], classes: int, *, logs: bool) -> bool:
    """Whether the range alone lets distributions of that many classes be normalised."""
    if traits.lowest is None or traits.highest is None or traits.posinf:
        return False
    if logs:
        return traits.kind == "f" and traits.highest <= tolerance(dtype, classes, logs=True)
    return (
        not traits.neginf
        and traits.lowest >= 0
        and traits.highest <= 1 + tolerance(dtype, classes, logs=False)
    )


def judge(traits: Traits, *, probs: tuple[int, ...], log_probs: tuple[int, ...]) -> Likeness:
    """What values with these traits look like.

    `probs` and `log_probs` are the axes along which they, or their exp, are normalised, where
    their range allows it; of several the last is taken.
    """
    if traits.lowest is None or traits.highest is None:
        return Likeness("numbers")
    if probs:
        return Likeness("probs", probs[-1])
    if log_probs:
        return Likeness("log-probs", log_probs[-1])
    both = traits.zeros > 0 and traits.ones > 0 and traits.zeros + traits.ones + traits.nan == traits.size
    if traits.kind == "b" or both:
        return Likeness("binary")
    if traits.kind in "iu":
        return Likeness("labels" if _are_classes(traits) else "numbers")
    return Likeness(_space_of_floats(traits, traits.lowest, traits.highest))


def look(values: AnyArray, dtype: np.dtype[Any] | None = None) -> Likeness:
    """What a small array looks like; `dtype` is the one it was stored in, if not its own."""
    dtype = values.dtype if dtype is None else dtype
    found = traits(values)._replace(kind=dtype.kind)
    classes = max(values.shape, default=1)
    probs, log_probs = (
        normalized_axes(values, dtype, logs=logs)
        if may_be_normalized(found, dtype, classes, logs=logs)
        else ()
        for logs in (False, True)
    )
    return judge(found, probs=probs, log_probs=log_probs)


def _are_classes(traits: Traits) -> bool:
    """Whether integers are from 0 up, but perhaps for one value that stands for no class."""
    lowest, highest = traits.lowest, traits.highest
    ranges = [(lowest, highest), (traits.second_lowest, highest), (lowest, traits.second_highest)]
    return any(
        low is not None and high is not None and 0 <= low < high <= _MOST_CLASSES for low, high in ranges
    )


def _space_of_floats(traits: Traits, lowest: float, highest: float) -> Space:
    """Of floats that are normalised along no axis."""
    infinite = traits.posinf or traits.neginf
    if lowest == highest and not infinite:
        return "numbers"
    if lowest >= 0 and highest <= 1 and not infinite:
        return "probs"
    return "numbers" if traits.whole and lowest >= 0 else "logits"


def _second(values: AnyArray) -> tuple[float | None, float | None]:
    """The lowest but one and the highest but one of integers, where there are two."""
    lowest, highest = values.min(), values.max()
    if lowest == highest:
        return None, None
    return _number(values[values != lowest].min()), _number(values[values != highest].max())


def _distinct(*values: float | None) -> list[float]:
    """Those that are known, from the lowest up."""
    return sorted({value for value in values if value is not None})


def _number(value: Any) -> float:
    """A NumPy scalar as Python's number: integers stay exact."""
    number: float = value.item()
    return int(number) if isinstance(number, int) else float(number)
