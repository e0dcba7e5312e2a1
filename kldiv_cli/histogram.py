"""A mergeable log-linear histogram: percentiles of any number of values in bounded memory.

A value falls into a bin by its sign, its exponent and the leading ten bits of its significand, so
that the middle of the bin is within a factor of 1 +- 2**-11 of it. (Of numbers below 2**-1022,
which have fewer significant bits, within 2**-1033.) So every bin lies in one octave, from a power
of two to the next, but for the bin next to 0: of what falls in there the octaves are counted apart.

References
----------
G. Tene, "HdrHistogram", 2012, for bins of constant relative width; here the bits of IEEE 754
doubles are the bins.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Bins", "GrowingHistogram", "Histogram", "bins_from", "histogram_of", "octave_counts"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Indices = npt.NDArray[np.intp]

_SHIFT: Final = 42
_CHUNK: Final = 1 << 14
"""Values counted at a time, few enough to stay in the cache."""
_BIN_NEXT_TO_0: Final = 2.0**-1032
"""Where it ends."""


class Bins(NamedTuple):
    """Counts of one sign, from bin `first` on."""

    first: int = 0
    counts: Counts = np.zeros(0, np.int64)

    def merge(self, other: Bins) -> Bins:
        if not other.counts.size:
            return self
        if not self.counts.size:
            return other
        first = min(self.first, other.first)
        stop = max(bins.first + bins.counts.size for bins in (self, other))
        counts = np.zeros(stop - first, np.int64)
        for bins in (self, other):
            counts[bins.first - first :][: bins.counts.size] += bins.counts
        return Bins(first, counts)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Bins)
            and self.first == other.first
            and np.array_equal(self.counts, other.counts)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __reduce__(self) -> tuple[object, ...]:
        """Of few values nearly all bins are empty, and those are not sent to another process."""
        if not self.counts.size:
            return Bins, (self.first,)
        places = np.flatnonzero(self.counts)
        counts = self.counts[places].astype(np.min_scalar_type(int(self.counts.max())))
        return _unpacked, (self.first, self.counts.size, places.astype(np.int32), counts)

    @property
    def filled(self) -> tuple[Indices, Counts]:
        """Which bins hold something, in ascending order, and how much."""
        places = np.flatnonzero(self.counts)
        return places + self.first, self.counts[places]

    @property
    def middles(self) -> Array:
        keys = np.arange(self.first, self.first + self.counts.size)
        middles: Array = ((keys << _SHIFT) + (1 << _SHIFT - 1)).view(np.float64)
        return middles


class Histogram(NamedTuple):
    """Counts by bin of finite values; those below 0 by their magnitude."""

    below: Bins = Bins()
    zeros: int = 0
    above: Bins = Bins()
    least: Bins = Bins()
    """By octave, what is in the bin next to 0 of those above."""

    def merge(self, other: Histogram) -> Histogram:
        return Histogram(
            self.below.merge(other.below),
            self.zeros + other.zeros,
            self.above.merge(other.above),
            self.least.merge(other.least),
        )

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.zeros + int(self.below.counts.sum()) + int(self.above.counts.sum())

    @property
    def octaves(self) -> Bins:
        """Counts of the values above 0 by octave, as exact as from the values."""
        keys = np.flatnonzero(self.above.counts) + self.above.first
        keys, nested = keys[keys > 0], Bins()
        if keys.size:
            lows = (keys << _SHIFT).view(np.float64)
            nested = octave_counts(lows, self.above.counts[keys - self.above.first])
        return self.least.merge(nested)

    def ranked(self, ranks: npt.NDArray[np.int64]) -> Array:
        """The values of these ranks, counted from 0 for the smallest, each as the middle of its bin."""
        middles = np.concatenate([-self.below.middles[::-1], [0.0], self.above.middles])
        counts = np.concatenate([self.below.counts[::-1], [self.zeros], self.above.counts])
        found: Array = middles[np.searchsorted(np.cumsum(counts), ranks, side="right")]
        return found


class GrowingHistogram:
    """Adds up many histograms in place: what one costs depends on its own width, not on that of all."""

    def __init__(self) -> None:
        self._zeros = 0
        self._below, self._above, self._least = _GrowingBins(), _GrowingBins(), _GrowingBins()

    def add(self, histogram: Histogram) -> None:
        self._zeros += histogram.zeros
        self._below.add(histogram.below)
        self._above.add(histogram.above)
        self._least.add(histogram.least)

    @property
    def histogram(self) -> Histogram:
        """What was added so far; it shares no memory with what is still to grow."""
        return Histogram(self._below.bins, self._zeros, self._above.bins, self._least.bins)


class _GrowingBins:
    def __init__(self) -> None:
        self._first, self._counts = 0, np.zeros(0, np.int64)

    def add(self, bins: Bins) -> None:
        if not bins.counts.size:
            return
        start, stop = bins.first - self._first, bins.first - self._first + bins.counts.size
        if start < 0 or stop > self._counts.size:
            # The sum is an array of its own, even where it is of one histogram only.
            self._first, grown = Bins(self._first, self._counts).merge(bins)
            self._counts = grown.copy() if grown is bins.counts else grown
        else:
            self._counts[start:stop] += bins.counts

    @property
    def bins(self) -> Bins:
        return Bins(self._first, self._counts.copy())


def bins_from(places: Indices, counts: Counts) -> Bins:
    """The bins that hold something, in ascending order, and how much: `Bins.filled` the other way round."""
    if not places.size:
        return Bins()
    first, last = int(places[0]), int(places[-1])
    return _unpacked(first, last - first + 1, places - first, counts)


def _unpacked(
    first: int, size: int, places: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]
) -> Bins:
    dense = np.zeros(size, np.int64)
    dense[places] = counts
    return Bins(first, dense)


def histogram_of(values: Array) -> Histogram:
    """Count finite values by bin."""
    values = values.reshape(-1)
    if values.size == 0:
        return Histogram()
    if values.min() > 0:
        return Histogram(above=_bins(values), least=_least(values))
    above = values[values > 0]
    below = values[values < 0]
    zeros = values.size - above.size - below.size
    return Histogram(_bins(-below), zeros, _bins(above), _least(above))


def octave_counts(values: Array, counts: Counts | None = None) -> Bins:
    """Count finite values above 0 by octave: bin k is from 2**k to 2**(k + 1).

    `counts` says how often each of them is there, if not once.
    """
    if not values.size:
        return Bins()
    exponents = np.frexp(values)[1].astype(np.int64) - 1
    first = int(exponents.min())
    if counts is None:
        return Bins(first, np.bincount(exponents - first))
    found = np.zeros(int(exponents.max()) - first + 1, np.int64)
    np.add.at(found, exponents - first, counts)
    return Bins(first, found)


def _least(magnitudes: Array) -> Bins:
    if not magnitudes.size or _key(magnitudes.min()) > 0:
        return Bins()
    return octave_counts(magnitudes[magnitudes < _BIN_NEXT_TO_0])


def _bins(magnitudes: Array) -> Bins:
    if not magnitudes.size:
        return Bins()
    first, last = _key(magnitudes.min()), _key(magnitudes.max())
    counts = np.zeros(last - first + 1, np.int64)
    chunk = max(_CHUNK, counts.size)
    keys = np.empty(min(chunk, magnitudes.size), np.int64)
    for start in range(0, magnitudes.size, chunk):
        bits = magnitudes[start : start + chunk].view(np.int64)
        here = keys[: bits.size]
        np.right_shift(bits, _SHIFT, out=here)
        np.subtract(here, first, out=here)
        counts += np.bincount(here, minlength=counts.size)
    return Bins(first, counts)


def _key(magnitude: np.float64) -> int:
    return int(magnitude.view(np.int64)) >> _SHIFT
