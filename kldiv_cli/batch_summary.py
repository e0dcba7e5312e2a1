"""What a batch comes to, as every format shows it at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kldiv_cli.estimates import Estimate, Share
from kldiv_cli.reductions import Scalars
from kldiv_cli.spec import Loss
from kldiv_cli.statistics import Statistics
from kldiv_cli.target_split import TargetSplit

__all__ = ["BatchSummary", "LossSummary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSummary:
    """One loss: over all pairs as if they had been one array (micro), and of each pair alike (macro)."""

    loss: Loss
    scalars: Scalars
    """Micro, as `statistics`, `top1` and `by_target`."""
    statistics: Statistics
    top1: Share | None = None
    by_target: TargetSplit | None = None
    macro: Mapping[str, Estimate]
    """By reduction: the mean over pairs and its standard error."""
    worst_by: str
    """The reduction that the worst are chosen by."""
    worst: tuple[tuple[str, float], ...] = ()
    """Pairs and their values, the worst first."""


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
