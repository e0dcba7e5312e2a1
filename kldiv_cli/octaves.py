"""A histogram of octaves, from each power of two to the next: to lay two runs side by side.

Every finite value above 0 is in exactly one of 2,098 octaves, whatever else there is, so that
the same losses give the same counts, and counts of different runs are of the same bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.histogram import Bins, Histogram, octave_counts
from kldiv_cli.reductions import ExactSum

__all__ = ["Octaves", "octaves_from", "octaves_of"]

Array = npt.NDArray[np.float64]


class Octaves(NamedTuple):
    """How many values lie in each octave; neither the first nor the last one counted is empty."""

    below: int = 0
    """0 or less, -inf too."""
    first: int = 0
    """The octaves counted begin at 2**first; 0 where there are none."""
    counts: tuple[int, ...] = ()
    """In [2**k, 2**(k + 1)), for k from `first` on."""
    infinite: int = 0
    """+inf."""
    nan: int = 0

    @property
    def total(self) -> int:
        """How many values there are."""
        return self.below + sum(self.counts) + self.infinite + self.nan

    def merge(self, other: Octaves) -> Octaves:
        """Of the values of both."""
        return _octaves(
            _bins(self).merge(_bins(other)),
            below=self.below + other.below,
            infinite=self.infinite + other.infinite,
            nan=self.nan + other.nan,
        )


def octaves_of(values: Array) -> Octaves:
    """Count values of any shape."""
    inside = (values > 0) & (values < np.inf)
    return _octaves(
        octave_counts(values[inside]),
        below=int(np.count_nonzero(values <= 0)),
        infinite=int(np.count_nonzero(values == np.inf)),
        nan=int(np.count_nonzero(np.isnan(values))),
    )


def octaves_from(histogram: Histogram, total: ExactSum) -> Octaves:
    """Those of values, from the histogram of the finite ones and the sum of all."""
    return _octaves(
        histogram.octaves,
        below=int(histogram.below.counts.sum()) + histogram.zeros + total.negative_infinities,
        infinite=total.positive_infinities,
        nan=total.nans,
    )


def _octaves(bins: Bins, *, below: int, infinite: int, nan: int) -> Octaves:
    return Octaves(below, bins.first, tuple(bins.counts.tolist()), infinite, nan)


def _bins(octaves: Octaves) -> Bins:
    return Bins(octaves.first, np.array(octaves.counts, np.int64))
