"""What a batch comes to: over all of its arrays as if they were one, and over its pairs.

Whatever order the pairs come in, and however they are grouped, not a bit of it changes: sums are
exact until they are rounded once, counts are integers, and the worst pairs are ranked by value and name.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections.abc import Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np

from kldiv_cli.batch_summary import LossSummary, WorstInPair, WorstPair
from kldiv_cli.estimates import Estimate, mean_of, share_of
from kldiv_cli.pair_result import PairResult
from kldiv_cli.record import number_in
from kldiv_cli.spec import LOSSES, QUANTILES, Loss
from kldiv_cli.spread import LIMIT, FewValues, GrowingSpread
from kldiv_cli.statistics import no_spread, sketch_of
from kldiv_cli.totals import Totals

__all__ = ["BatchCounts", "BatchTotals"]

Ranked = TypeVar("Ranked", WorstPair, WorstInPair)

_MEANS: Final = ("mean", "batchmean", "distmean")
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
        self,
        *,
        worst: int = 10,
        worst_losses: int = 0,
        quantiles: tuple[float, ...] = QUANTILES,
        kept: int = LIMIT,
    ) -> None:
        """Keep so many of the worst pairs, of the worst losses and of all losses; tell these percentiles."""
        self._sizes, self._quantiles = (worst, worst_losses, kept), quantiles
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
        return tuple(self._sums[loss].result(loss, self._quantiles) for loss in LOSSES if loss in self._sums)

    def _sum(self, loss: Loss) -> _LossSum:
        if loss not in self._sums:
            self._sums[loss] = _LossSum(_WORST_BY[loss], *self._sizes)
        return self._sums[loss]


class _LossSum:
    """What of one loss has to be kept of every pair; the spread apart, for it is added to in place."""

    def __init__(self, worst_by: str, worst: int, worst_losses: int, kept: int) -> None:
        self._worst_by = worst_by
        self._totals: Totals | None = None
        self._spread = GrowingSpread(kept)
        self._values = {name: array("d") for name in _MEANS}
        self._worst: _Ranking[WorstPair] = _Ranking(worst)
        self._worst_losses: _Ranking[WorstInPair] = _Ranking(worst_losses)

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
                    self._worst.add(WorstPair(name, value))
        self._add_worst_losses(name, record)

    def _add_worst_losses(self, name: str, record: Mapping[str, Any]) -> None:
        worst = record.get("worst", ())
        for rank, one in enumerate(worst):
            value = number_in(record, "worst", str(rank), "value")
            assert value is not None
            self._worst_losses.add(WorstInPair(name, tuple(one["index"]), value))
        if len(worst) < record["statistics"]["count"]:
            # What the pair doesn't tell may be worse than what others do.
            self._worst_losses.limit(len(worst))

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
            worst=tuple(self._worst.ranked),
            worst_losses=tuple(self._worst_losses.ranked),
        )


class _Ranking(Generic[Ranked]):
    """The worst of many."""

    def __init__(self, size: int) -> None:
        self.ranked: list[Ranked] = []
        self._size = size

    def add(self, one: Ranked) -> None:
        """Most are better than all that are kept, and cost one comparison."""
        room = len(self.ranked) < self._size
        if room or (self.ranked and _badness(one) < _badness(self.ranked[-1])):
            bisect.insort(self.ranked, one, key=_badness)
            del self.ranked[self._size :]

    def limit(self, size: int) -> None:
        """Keep no more than that."""
        self._size = min(self._size, size)
        del self.ranked[self._size :]


def _mean(values: array[float]) -> Estimate:
    return mean_of(sketch_of(np.array(values), spread=no_spread))


def _badness(one: WorstPair | WorstInPair) -> tuple[Any, ...]:
    unknown = math.isnan(one.value)
    return (not unknown, 0.0 if unknown else -one.value, *one[:-1])
