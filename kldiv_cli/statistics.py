"""What is told of many losses beside their mean: spread, percentiles, the worst of them.

Values that are few enough are kept, each at its place, and everything is computed from them
(`Kept`). Of more there is a `Sketch`: exact sums and a log-linear histogram, which merge in any
order to the same result; so do those of arrays that are told of together, with all values in place
of the histogram while they are few.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block
from kldiv_cli.errors import UsageError
from kldiv_cli.histogram import Histogram, histogram_of
from kldiv_cli.octaves import Octaves, octaves_from, octaves_of
from kldiv_cli.reductions import SCALE, ExactSum, exact_sum
from kldiv_cli.spread import BINNED_AT_ONCE, FewValues, Spread, binned, few_values, merge_spreads

__all__ = [
    "BlockError",
    "Groups",
    "Kept",
    "Sketch",
    "Statistics",
    "Unit",
    "Worst",
    "block_error",
    "check_groups",
    "groups_of",
    "no_spread",
    "percentile_name",
    "sketch_of",
    "worst_of",
]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Unit = Literal["distributions", "elements"]

_MOST_GROUPS: Final = 1 << 17
_CHUNK: Final = 1 << 14
_FEW: Final = 1 << 10
"""Values of which a sum costs less than to begin another one."""
_FEW_VALUES: Final = 1 << 16
"""As many values are a sketch's own; more take too much room where many sketches wait."""
_HIGH: Final = np.int64(-1 << 27)
"""Keeps the sign, the exponent and the leading 26 bits of a float64."""
_HALF: Final = np.int64(1 << 26)
"""What rounds to those."""


class BlockError(NamedTuple):
    """The standard error of the mean where neighbours depend on each other."""

    of: int
    """Consecutive values in a block."""
    blocks: int
    standard_error: float
    """Of the mean, from the means of whole blocks, taken for independent."""


class Statistics(NamedTuple):
    """Of the losses of distributions or of elements, in nats; nan where there are none."""

    of: Unit
    count: int  # type: ignore[assignment]
    mean: float
    standard_error: float
    """Of the mean, for independent values: their standard deviation over the root of their number."""
    minimum: float
    maximum: float
    percentiles: Mapping[str, float]
    """By name, such as p99.9; interpolated linearly, as `numpy.quantile` does."""
    exact: bool
    """False where percentiles come from a histogram, within a factor of 1 +- 2**-11."""
    blocks: BlockError | None = None
    histogram: Octaves | None = None
    """All values, nan too, by octave; None where it was not asked for."""


def percentile_name(quantile: float) -> str:
    """``p99.9`` for 0.999."""
    return f"p{quantile * 100:.12f}".rstrip("0").rstrip(".")


# All values


class Kept:
    """Every value at its place; blocks may be written in any order and from any thread."""

    def __init__(self, shape: tuple[int, ...], *, selected: bool = False) -> None:
        # What is never written, distributions without classes, is 0; until then it takes no memory.
        self.values = np.zeros(shape)
        self.counted = np.zeros(shape, np.bool_) if selected else None
        """Which of the values count, where not all do."""

    def write(self, block: Block, values: Array, counted: Mask | None = None) -> None:
        if counted is None:
            self.values[block] = values
        else:
            self.values[block] = np.where(counted, values, 0.0)
        if self.counted is not None:
            self.counted[block] = True if counted is None else counted

    def block_error(self, size: int) -> BlockError:
        """Group values by their places in the flattened array, `size` to a group."""
        values = self.values.reshape(-1)
        starts = np.arange(0, values.size, size)
        if self.counted is None:
            counts = np.minimum(size, values.size - starts)
        else:
            counts = np.add.reduceat(self.counted.reshape(-1), starts, dtype=np.int64)
        with np.errstate(invalid="ignore"):
            sums = np.add.reduceat(values, starts) if values.size else values
        return block_error(size, counts[counts > 0], sums[counts > 0])

    def octaves(self) -> Octaves:
        """How many of the values that count lie in each octave."""
        octaves = Octaves()
        for part in self._parts(_CHUNK):
            octaves = octaves.merge(octaves_of(part))
        return octaves

    def sketch(self, total: ExactSum, *, spread: bool) -> Sketch:
        """What the values that count come to, whose exact sum is `total`: their spread is for merging."""
        if self.values.size <= _FEW_VALUES:
            make = few_values if spread else no_spread
            return sketch_of(next(self._parts(_FEW_VALUES), self.values), spread=make, total=total)
        make = histogram_of if spread else no_spread
        return reduce(Sketch.merge, (sketch_of(part, spread=make) for part in self._parts(BINNED_AT_ONCE)))

    def _parts(self, size: int) -> Iterator[Array]:
        values = self.values.reshape(-1)
        counted = None if self.counted is None else self.counted.reshape(-1)
        for start in range(0, values.size, size):
            part = values[start : start + size]
            yield part if counted is None else part[counted[start : start + size]]

    def statistics(self, of: Unit, sketch: Sketch, quantiles: tuple[float, ...]) -> Statistics:
        """What `sketch`, of the values that count, tells of them, and exact percentiles.

        The order of the values is lost by it.
        """
        values = self.values.reshape(-1)
        if self.counted is not None:
            values = _compacted(values, self.counted.reshape(-1))
        found = _percentiles(quantiles, values.size, bool(sketch.total.nans), lambda r: _select(values, r))
        return sketch.statistics(of, ())._replace(percentiles=found, exact=True)


def _compacted(values: Array, counted: Mask) -> Array:
    """The values that count, moved to the front of the same memory."""
    count = 0
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK][counted[start : start + _CHUNK]]
        values[count : count + part.size] = part
        count += part.size
    return values[:count]


def _select(values: Array, ranks: Indices) -> Array:
    values.partition(ranks)
    return values[ranks]


def _sum_of_squares(values: Array) -> ExactSum:
    """Without rounding: of two halves of 26 bits every product is exact, short of underflow and overflow.

    References
    ----------
    T. J. Dekker, "A Floating-Point Technique for Extending the Available Precision", 1971.
    """
    total = ExactSum()
    with np.errstate(all="ignore"):
        for start in range(0, values.size, _CHUNK):
            part = values[start : start + _CHUNK]
            high = ((part.view(np.int64) + _HALF) & _HIGH).view(np.float64)
            low = part - high
            if not np.isfinite(low).all():
                total = total.merge(exact_sum(part * part))
                continue
            products = (high * high, high * (low + low), low * low)
            for several in [np.concatenate(products)] if part.size <= _FEW else products:
                total = total.merge(exact_sum(several))
    return total


def _about_mean(squares: ExactSum, total: ExactSum, count: int) -> float:
    """The sum of squared deviations from the mean, from the sum of squares, exactly and rounded once."""
    if not (count and math.isfinite(total.value) and math.isfinite(squares.value)):
        return math.nan
    try:
        return max((((squares.scaled << SCALE) * count - total.scaled**2) / (count << 2 * SCALE)), 0.0)
    except OverflowError:
        return math.inf


# What merges


class Sketch(NamedTuple):
    """What any number of values comes to; merging in any order gives the same."""

    total: ExactSum = ExactSum()
    squares: ExactSum = ExactSum()
    count: int = 0  # type: ignore[assignment]
    minimum: float = math.inf
    maximum: float = -math.inf
    spread: Spread = FewValues()
    """Of the finite ones."""

    def merge(self, other: Sketch) -> Sketch:
        return Sketch(
            self.total.merge(other.total),
            self.squares.merge(other.squares),
            self.count + other.count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            merge_spreads(self.spread, other.spread),
        )

    def statistics(self, of: Unit, quantiles: tuple[float, ...]) -> Statistics:
        """Mean, spread and extremes exactly, percentiles from a histogram where values aren't few."""
        count, unknown = self.count, bool(self.total.nans) or not self.count
        return Statistics(
            of=of,
            count=count,
            mean=self.total.value / count if count else math.nan,
            standard_error=_standard_error(self._squared_deviations(), count),
            minimum=math.nan if unknown else self.minimum,
            maximum=math.nan if unknown else self.maximum,
            percentiles=_percentiles(quantiles, count, unknown, self._ranked),
            exact=isinstance(self.spread, FewValues) or not (quantiles and count),
        )

    def octaves(self) -> Octaves:
        """How many of the values lie in each octave, nan among them."""
        return octaves_from(binned(self.spread), self.total)

    def _squared_deviations(self) -> float:
        if self.minimum == self.maximum and math.isfinite(self.total.value):
            return 0.0
        return _about_mean(self.squares, self.total, self.count)

    def _ranked(self, ranks: Indices) -> Array:
        below = ranks < self.total.negative_infinities
        above = ranks >= self.count - self.total.positive_infinities
        found = np.where(below, -np.inf, np.inf)
        inside = ~(below | above)
        middles = self.spread.ranked(ranks[inside] - self.total.negative_infinities)
        found[inside] = np.clip(middles, self.minimum, self.maximum)
        found[ranks == 0] = self.minimum
        found[ranks == self.count - 1] = self.maximum
        return found


def no_spread(values: Array) -> Spread:
    """What is told where nobody asks for percentiles: it takes less time."""
    return Histogram()


def sketch_of(
    values: Array, *, spread: Callable[[Array], Spread] = histogram_of, total: ExactSum | None = None
) -> Sketch:
    """Sketch values: `spread` makes theirs of the finite ones; `total` is their sum, if known."""
    if not values.size:
        return Sketch()
    total = exact_sum(values) if total is None else total
    count = values.size
    if total.nans or total.positive_infinities or total.negative_infinities:
        values = values[~np.isnan(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (math.inf, -math.inf)
    if math.isinf(low) or math.isinf(high):
        values = values[np.isfinite(values)]
    squares = _sum_of_squares(values)
    # Adding 0 makes 0 of -0, so that no order decides between them.
    return Sketch(total, squares, count, low + 0.0, high + 0.0, spread(values))


# The worst


class Worst(NamedTuple):
    """The largest values, the worst first; nan is worse than inf, and of equal ones the first is."""

    size: int
    """As many are kept."""
    ranked: tuple[tuple[float, int], ...] = ()
    """Value, and place in the flattened array."""

    def merge(self, other: Worst) -> Worst:
        merged = heapq.merge(self.ranked, other.ranked, key=_badness)
        return Worst(self.size, tuple(item for item, _ in zip(merged, range(self.size), strict=False)))


def worst_of(values: Array, places: Callable[[Indices], Indices], size: int) -> Worst:
    """The `size` largest of some values; `places` tells where in the whole some of them lie."""
    rank = np.where(np.isnan(values), np.inf, values)
    if values.size > size:
        threshold = np.partition(rank, values.size - size)[values.size - size]
        chosen = np.flatnonzero(rank >= threshold)
    else:
        chosen = np.arange(values.size)
    found, place = values[chosen], places(chosen)
    order = np.lexsort((place, ~np.isnan(found), -rank[chosen]))[:size]
    return Worst(size, tuple(zip(found[order].tolist(), place[order].tolist(), strict=True)))


def _badness(item: tuple[float, int]) -> tuple[bool, float, int]:
    value, place = item
    return (not math.isnan(value), -value if not math.isnan(value) else 0.0, place)


# Dependent values


class Groups(NamedTuple):
    """Sums of consecutive values, `size` places to a group."""

    size: int
    sums: Mapping[int, tuple[int, ExactSum]] = {}
    """Count and sum by group."""

    def merge(self, other: Groups) -> Groups:
        sums = dict(self.sums)
        for group, (count, total) in other.sums.items():
            known, before = sums.get(group, (0, ExactSum()))
            sums[group] = (known + count, before.merge(total))
        return Groups(self.size, sums)

    def block_error(self) -> BlockError:
        counts = np.array([count for count, _ in self.sums.values()], np.int64)
        return block_error(self.size, counts, np.array([total.value for _, total in self.sums.values()]))


def groups_of(values: Array, places: Indices, size: int) -> Groups:
    """Sum some values, each of which lies at its place, by group."""
    order = np.argsort(places, kind="stable")
    group = places[order] // size
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    parts = np.split(values[order], starts[1:]) if starts.size else []
    return Groups(
        size,
        {int(g): (part.size, exact_sum(part)) for g, part in zip(group[starts], parts, strict=True)},
    )


def check_groups(count: int, size: int, kept: int) -> None:
    """Refuse more groups than are bounded memory, of values that are not `kept`."""
    if count > kept and -(-count // size) > _MOST_GROUPS:
        raise UsageError(
            f"blocks_of {size}: of {count} values these are more than {_MOST_GROUPS} blocks; "
            f"take {-(-count // _MOST_GROUPS)} or more"
        )


def block_error(size: int, counts: npt.NDArray[np.int64], sums: Array) -> BlockError:
    """The standard error of the mean from sums of blocks, which may hold unequal counts.

    For equal counts it is the standard deviation of the blocks' means over the root of their number.

    References
    ----------
    W. G. Cochran, "Sampling Techniques", 1977, section 6.3 (the ratio estimator).
    """
    blocks, count = sums.size, int(counts.sum())
    if blocks < 2:
        return BlockError(size, blocks, math.nan)
    with np.errstate(all="ignore"):
        mean = exact_sum(sums).value / count
        residuals = exact_sum((sums - counts * mean) ** 2).value
    return BlockError(size, blocks, math.sqrt(residuals * blocks / (blocks - 1)) / count)


# What both share


def _standard_error(squared_deviations: float, count: int) -> float:
    return math.sqrt(squared_deviations / (count - 1) / count) if count > 1 else math.nan


def _percentiles(
    quantiles: tuple[float, ...], count: int, unknown: bool, ranked: Callable[[Indices], Array]
) -> dict[str, float]:
    """Interpolate between the values of neighbouring ranks, which `ranked` finds."""
    names = [percentile_name(quantile) for quantile in quantiles]
    if unknown or not count or not quantiles:
        return dict.fromkeys(names, math.nan)
    positions = [quantile * (count - 1) for quantile in quantiles]
    ranks = np.array(sorted({rank for p in positions for rank in (math.floor(p), math.ceil(p))}), np.intp)
    value = dict(zip(ranks.tolist(), ranked(ranks).tolist(), strict=True))
    return {
        name: _interpolate(value[math.floor(p)], value[math.ceil(p)], p - math.floor(p)) + 0.0
        for name, p in zip(names, positions, strict=True)
    }


def _interpolate(low: float, high: float, share: float) -> float:
    """As `numpy.quantile`, bit by bit; between a finite value and an infinite one it is infinite."""
    if low == high or share == 0:
        return low
    if math.isinf(low) or math.isinf(high):
        return low + high
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
