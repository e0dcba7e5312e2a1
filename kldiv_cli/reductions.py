"""Exact sums that merge in any order, and the reductions computed from them.

`ExactSum` holds a sum of float64 values as an integer multiple of 2**-1074, the spacing of the
smallest floats: nothing is rounded until `ExactSum.value`, which rounds once, as `math.fsum` does.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from kldiv_cli.errors import UsageError

__all__ = [
    "SCALE",
    "Divisors",
    "ExactSum",
    "Reduction",
    "Scalars",
    "check_reduction",
    "divisors_of",
    "exact_sum",
    "legacy_reduction",
    "reduce_sum",
]

Array = npt.NDArray[np.float64]

Reduction = Literal["none", "sum", "mean", "batchmean", "distmean"]
REDUCTIONS: Final[tuple[Reduction, ...]] = get_args(Reduction)

SCALE: Final = 1074
"""The binary digits behind the point of the smallest float."""


class ExactSum(NamedTuple):
    """A mergeable sum: the finite values exactly, the others as counts."""

    scaled: int = 0
    positive_infinities: int = 0
    negative_infinities: int = 0
    nans: int = 0

    def merge(self, other: ExactSum) -> ExactSum:
        return ExactSum(
            self.scaled + other.scaled,
            self.positive_infinities + other.positive_infinities,
            self.negative_infinities + other.negative_infinities,
            self.nans + other.nans,
        )

    @property
    def value(self) -> float:
        """The sum, rounded once; inf or nan where the values add up to it."""
        if self.nans or (self.positive_infinities and self.negative_infinities):
            return math.nan
        if self.positive_infinities:
            return math.inf
        if self.negative_infinities:
            return -math.inf
        try:
            return self.scaled / (1 << SCALE)
        except OverflowError:
            return math.inf if self.scaled > 0 else -math.inf


def exact_sum(values: Array) -> ExactSum:
    """Sum an array of any shape without rounding."""
    if values.size == 0:
        return ExactSum()
    peak = max(float(values.max()), -float(values.min()))
    if math.isfinite(peak):
        return ExactSum(_scaled_sum(values.reshape(-1), peak))
    finite = values[np.isfinite(values)]
    return ExactSum(
        exact_sum(finite).scaled,
        int(np.count_nonzero(values == np.inf)),
        int(np.count_nonzero(values == -np.inf)),
        int(np.count_nonzero(np.isnan(values))),
    )


_CHUNK: Final = 1 << 14
"""Values summed at a time, few enough that all passes over them stay in the cache."""


def _scaled_sum(values: Array, peak: float) -> int:
    """Split off the leading bits of many values at once, so that their sum is exact, until none remain.

    What remains of a value below an anchor's reach is at most half the anchor's last place.

    References
    ----------
    S. M. Rump, T. Ogita, S. Oishi, "Accurate Floating-Point Summation Part I", 2008
    (ExtractVector).
    """
    size = min(values.size, _CHUNK)
    headroom = size.bit_length() + 1
    exponent = math.frexp(peak)[1] + headroom
    if exponent >= 1023:
        return sum(_scaled(value) for value in values.tolist())
    step = 53 - headroom
    remainder, leading = np.empty(size), np.empty(size)
    total = 0
    for start in range(0, values.size, size):
        part = values[start : start + size]
        rest, lead = remainder[: part.size], leading[: part.size]
        anchored = exponent
        while part.any():
            anchor = math.ldexp(1.5, anchored)
            np.add(part, anchor, out=lead)
            np.subtract(lead, anchor, out=lead)
            total += _scaled(float(lead.sum()))
            np.subtract(part, lead, out=rest)
            part, anchored = rest, anchored - step
    return total


def _scaled(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator << (SCALE + 1 - denominator.bit_length())


class Scalars(NamedTuple):
    """Every scalar reduction of one loss, with what each was divided by."""

    sum: float
    mean: float
    batchmean: float | None
    """None for losses that have no batchmean (BCE), as in PyTorch."""
    distmean: float
    elements: int
    batch: int
    distributions: int


class Divisors(NamedTuple):
    """How many there are, of those that count."""

    elements: int
    batch: int
    """Entries of the first dimension."""
    distributions: int


def divisors_of(shape: tuple[int, ...], axis: int) -> Divisors:
    """Where all of an array counts."""
    return Divisors(
        elements=math.prod(shape),
        batch=shape[0] if shape else 1,
        distributions=math.prod(shape[:axis] + shape[axis + 1 :]),
    )


def reduce_sum(total: float, divisors: Divisors, *, batchmean: bool) -> Scalars:
    """Divide a sum by the number of elements, of batch entries, of distributions."""
    elements, batch, distributions = divisors
    return Scalars(
        sum=total,
        mean=_divide(total, elements),
        batchmean=_divide(total, batch) if batchmean else None,
        distmean=_divide(total, distributions),
        elements=elements,
        batch=batch,
        distributions=distributions,
    )


def _divide(total: float, count: int) -> float:
    return total / count if count else math.nan


def legacy_reduction(size_average: bool | None, reduce: bool | None) -> Reduction | None:
    """Map PyTorch 0.4's pair of flags to the reduction they meant; None where neither is given."""
    if size_average is None and reduce is None:
        return None
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def check_reduction(reduction: str, losses: tuple[str, ...]) -> None:
    """Refuse a reduction that a loss does not have."""
    if reduction not in REDUCTIONS:
        raise UsageError(f"reduction {reduction!r}: expected one of {', '.join(REDUCTIONS)}")
    if reduction == "batchmean" and "bce" in losses:
        raise UsageError("reduction batchmean: KL only; for bce use sum, mean or distmean")
