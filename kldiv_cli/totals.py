"""What one loss comes to over any number of pairs, as if they had been one array: exact, in any order."""

from __future__ import annotations

from typing import NamedTuple

from kldiv_cli.partials import merged
from kldiv_cli.reductions import Divisors, Scalars, reduce_sum
from kldiv_cli.spec import Loss
from kldiv_cli.spread import Spread, binned
from kldiv_cli.statistics import Sketch, Statistics, Unit
from kldiv_cli.target_split import TargetSplit

__all__ = ["Totals", "unit_of"]


def unit_of(loss: Loss) -> Unit:
    """What a loss has one value of."""
    return "distributions" if loss == "kl" else "elements"


class Totals(NamedTuple):
    """What a pair adds to the totals of a loss."""

    losses: Sketch = Sketch()
    """Of distributions for KL, of elements for BCE."""
    elements: int = 0
    batch: int = 0
    """Entries of the first dimension: the length that the arrays have there, laid behind one another."""
    distributions: int = 0
    same_tops: int | None = None
    """Distributions whose top class both have; None where that was not asked for."""
    by_target: TargetSplit | None = None

    def merge(self, other: Totals) -> Totals:
        """Counts that one of both was not asked for are lost, for they would be of a part only."""
        tops = None if self.same_tops is None or other.same_tops is None else self.same_tops + other.same_tops
        both = self.by_target is not None and other.by_target is not None
        return Totals(
            losses=self.losses.merge(other.losses),
            elements=self.elements + other.elements,
            batch=self.batch + other.batch,
            distributions=self.distributions + other.distributions,
            same_tops=tops,
            by_target=merged(self.by_target, other.by_target) if both else None,
        )

    @property
    def binned(self) -> Totals:
        """The same with a histogram in place of all values."""
        return self.with_spread(binned(self.losses.spread))

    def with_spread(self, spread: Spread) -> Totals:
        """The same, with what is known otherwise of how the losses lie."""
        return self._replace(losses=self.losses._replace(spread=spread))

    def scalars(self, loss: Loss) -> Scalars:
        """Every reduction: the exact sum, rounded once, over what there is of everything."""
        divisors = Divisors(self.elements, self.batch, self.distributions)
        return reduce_sum(self.losses.total.value, divisors, batchmean=loss == "kl")

    def statistics(self, loss: Loss, quantiles: tuple[float, ...]) -> Statistics:
        """Mean, spread and extremes exactly, percentiles too where there are all values."""
        return self.losses.statistics(unit_of(loss), quantiles)
