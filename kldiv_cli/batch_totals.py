"""What a batch comes to: over all of its arrays as if they were one, and over its pairs.

Whatever order the pairs come in, and however they are grouped, not a bit of it changes: sums are
exact until they are rounded once, counts are integers, and the worst pairs are ranked by value and name.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args

import numpy as np

from kldiv_cli.batch_summary import LossSummary, WorstPair
from kldiv_cli.estimates import Estimate, mean_of, share_of
from kldiv_cli.pair_result import PairResult
from kldiv_cli.record import number_in
from kldiv_cli.spec import QUANTILES, Loss
from kldiv_cli.spread import LIMIT, FewValues, GrowingSpread
from kldiv_cli.statistics import no_spread, sketch_of
from kldiv_cli.totals import Totals

__all__ = ["BatchCounts", "BatchTotals"]

_MEANS: Final = ("mean", "batchmean", "distmean")
_LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
_WORST_BY: Final[dict[Loss, str]] = {"kl": "distmean", "bce": "mean"}
"""Which number of a pair says how bad it is."""


class BatchCounts(NamedTuple):
    """How many pairs there were."""

    pairs: int = 0
    computed: int = 0
    failed: int = 0
    bytes: int = 0
    """What the arrays of all pairs take."""

    def merge(self, other: BatchCounts) -> BatchCounts:
        return BatchCounts(*(one + another for one, another in zip(self, other, strict=True)))


class BatchTotals:
    """Adds up pairs as they come."""

    def __init__(
        self, *, worst: int = 10, quantiles: tuple[float, ...] = QUANTILES, kept: int = LIMIT
    ) -> None:
        """Keep as many of the worst pairs and of the values of each loss, and tell these percentiles."""
        self._worst, self._quantiles, self._kept = worst, quantiles, kept
        self._counts = BatchCounts()
        self._sums: dict[Loss, _LossSum] = {}

    def add(self, result: PairResult) -> None:
        """Take a pair in, whether it was computed or failed."""
        failed = result.error is not None
        self._counts = self._counts.merge(BatchCounts(1, not failed, failed, result.bytes))
        for loss, totals in result.totals.items():
            self._sum(loss).add_totals(totals)
        for record in result.records:
            self._sum(record["loss"]).add_record(result.name, record)

    @property
    def counts(self) -> BatchCounts:
        """How many pairs were taken in."""
        return self._counts

    @property
    def losses(self) -> tuple[LossSummary, ...]:
        """What each loss comes to by now, for those that any pair has."""
        return tuple(self._sums[loss].result(loss, self._quantiles) for loss in _LOSSES if loss in self._sums)

    def _sum(self, loss: Loss) -> _LossSum:
        if loss not in self._sums:
            self._sums[loss] = _LossSum(_WORST_BY[loss], self._worst, self._kept)
        return self._sums[loss]


class _LossSum:
    """What of one loss has to be kept of every pair; the spread apart, for it is added to in place."""

    def __init__(self, worst_by: str, worst: int, kept: int) -> None:
        self._worst_by, self._size = worst_by, worst
        self._totals: Totals | None = None
        self._spread = GrowingSpread(kept)
        self._values = {name: array("d") for name in _MEANS}
        self._worst: list[WorstPair] = []

    def add_totals(self, totals: Totals) -> None:
        self._spread.add(totals.losses.spread)
        bare = totals.with_spread(FewValues())
        self._totals = bare if self._totals is None else self._totals.merge(bare)

    def add_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Of a pair in which nothing counts there is no mean; it would make one of all unknown."""
        if not record["elements"]:
            return
        for reduction, values in self._values.items():
            value = number_in(record, reduction)
            if value is not None:
                values.append(value)
                if reduction == self._worst_by:
                    self._rank(WorstPair(name, value))

    def result(self, loss: Loss, quantiles: tuple[float, ...]) -> LossSummary:
        totals = self._totals or Totals()
        with self._spread.lent() as spread:
            statistics = totals.with_spread(spread).statistics(loss, quantiles)
        tops = totals.same_tops
        return LossSummary(
            loss=loss,
            scalars=totals.scalars(loss),
            statistics=statistics,
            top1=None if tops is None else share_of(tops, totals.distributions),
            by_target=totals.by_target,
            macro={name: _mean(values) for name, values in self._values.items() if values},
            worst_by=self._worst_by,
            worst=tuple(self._worst),
        )

    def _rank(self, pair: WorstPair) -> None:
        """Most pairs are better than all that are kept, and cost one comparison."""
        room = len(self._worst) < self._size
        if room or (self._worst and _badness(pair) < _badness(self._worst[-1])):
            bisect.insort(self._worst, pair, key=_badness)
            del self._worst[self._size :]


def _mean(values: array[float]) -> Estimate:
    return mean_of(sketch_of(np.array(values), spread=no_spread))


def _badness(pair: WorstPair) -> tuple[bool, float, str]:
    unknown = math.isnan(pair.value)
    return (not unknown, 0.0 if unknown else -pair.value, pair.name)
