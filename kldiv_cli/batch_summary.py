"""What a batch comes to, as every format shows it at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kldiv_cli.estimates import Estimate, Share
from kldiv_cli.reductions import Scalars
from kldiv_cli.spec import Loss
from kldiv_cli.statistics import Statistics
from kldiv_cli.target_split import TargetSplit

__all__ = ["BatchSummary", "LossSummary", "WorstInPair", "WorstPair"]


class WorstPair(NamedTuple):
    """One of the pairs with the largest loss."""

    name: str
    value: float


class WorstInPair(NamedTuple):
    """One of the largest losses of distributions or of elements, and where it is."""

    pair: str
    index: tuple[int, ...]  # type: ignore[assignment]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSummary:
    """One loss: over all pairs as if they had been one array (micro), and of each pair alike (macro)."""

    loss: Loss
    scalars: Scalars
    """Micro, as `statistics`, `top1` and `by_target`."""
    statistics: Statistics
    top1: Share | None = None
    """None where it was not asked for of every pair, as `by_target`."""
    by_target: TargetSplit | None = None
    macro: Mapping[str, Estimate]
    """By reduction (mean, batchmean, distmean), its mean over pairs, of which an empty one has none."""
    worst_by: str
    """The reduction that the worst are chosen by."""
    worst: tuple[WorstPair, ...] = ()
    """The worst first, without empty ones: nan before inf, then by value, of equal ones by name."""
    worst_losses: tuple[WorstInPair, ...] = ()
    """Of all pairs, ranked alike; as many as were asked for of every pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """All pairs."""

    pairs: int
    computed: int
    """Now."""
    from_journal: int = 0
    """Taken from an earlier run."""
    failed: tuple[tuple[str, str], ...] = ()
    """Pairs that could not be computed, and why."""
    unmatched: tuple[tuple[str, str], ...] = ()
    """What belongs to no pair: each address, and whether it is predictions, targets or a group."""
    bytes: int = 0
    seconds: float = 0.0
    losses: tuple[LossSummary, ...] = ()
    """None where no pair could be computed."""

    @property
    def not_reached(self) -> int:
        """Pairs that a run which was stopped had no result of."""
        return self.pairs - self.computed - self.from_journal - len(self.failed)
