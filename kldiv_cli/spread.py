"""How finite values lie: each of them, while they are few, else how many are in each bin.

What merges of both, in any order and grouping, is the same: all values while together they are no
more than `LIMIT`, else their histogram.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from kldiv_cli.histogram import GrowingHistogram, Histogram, histogram_of

__all__ = [
    "BINNED_AT_ONCE",
    "LIMIT",
    "FewValues",
    "GrowingSpread",
    "Spread",
    "binned",
    "few_values",
    "merge_spreads",
]

Array = npt.NDArray[np.float64]

LIMIT: Final = 8 << 20
"""As many values are kept; they take 64 MiB."""
BINNED_AT_ONCE: Final = 1 << 17
"""Values whose histogram is made at a time: each costs as much as the octaves are wide."""


class FewValues(NamedTuple):
    """Every value."""

    stored: bytes | memoryview = b""
    """Float64 in ascending order, which is the same whatever the values came in."""

    @property
    def values(self) -> Array:
        """Not to be written to."""
        return np.frombuffer(self.stored)

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.values.size

    def __bool__(self) -> bool:
        return bool(self.stored)

    def ranked(self, ranks: npt.NDArray[np.int64]) -> Array:
        """The values of these ranks, counted from 0 for the smallest."""
        found: Array = self.values[ranks]
        return found


Spread: TypeAlias = FewValues | Histogram


def few_values(values: Array) -> FewValues:
    """Keep all of some finite values, of any shape; -0 becomes 0, so that no order decides between them."""
    return FewValues(np.sort(values + 0.0, axis=None).tobytes())


def binned(spread: Spread) -> Histogram:
    """The histogram of what is there."""
    return histogram_of(spread.values) if isinstance(spread, FewValues) else spread


def merge_spreads(one: Spread, other: Spread) -> Spread:
    """How the values of both lie together."""
    if not one or not other:
        return one or other
    if isinstance(one, FewValues) and isinstance(other, FewValues):
        together = np.concatenate([one.values, other.values])
        return few_values(together) if together.size <= LIMIT else histogram_of(together)
    return binned(one).merge(binned(other))


class GrowingSpread:
    """Merges many in place: what one costs does not depend on what all come to."""

    def __init__(self, limit: int = LIMIT) -> None:
        """Keep no more than `limit` values."""
        self._limit = limit
        self._values = array("d")
        self._histogram = GrowingHistogram()
        self._few = True

    def add(self, spread: Spread) -> None:
        if isinstance(spread, FewValues):
            self._values.frombytes(spread.stored)
        else:
            self._few = False
            self._histogram.add(spread)
        if self._few and len(self._values) > self._limit:
            self._few = False
        if not self._few and len(self._values) > min(self._limit, BINNED_AT_ONCE):
            self._bin()

    @contextlib.contextmanager
    def lent(self) -> Iterator[Spread]:
        """What was added so far, where it lies: nothing can be added until it is given back."""
        if not self._few:
            self._bin()
            yield self._histogram.histogram
            return
        np.frombuffer(self._values).sort()
        with memoryview(self._values).cast("B") as stored:
            yield FewValues(stored)

    def _bin(self) -> None:
        values = np.frombuffer(self._values)
        for start in range(0, values.size, BINNED_AT_ONCE):
            self._histogram.add(histogram_of(values[start : start + BINNED_AT_ONCE]))
        self._values = array("d")
