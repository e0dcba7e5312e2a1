"""What a block adds to a result: small values that merge in any order."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from kldiv_cli.observations import Observations
from kldiv_cli.reductions import ExactSum
from kldiv_cli.statistics import Groups, Sketch, Worst
from kldiv_cli.target_split import TargetSplit
from kldiv_cli.top_classes import TopsOfBoth

__all__ = ["LossPartial", "WindowResult", "merged"]

Array = npt.NDArray[np.float64]
Part = TypeVar("Part", TargetSplit, Sketch, Worst, Groups)


class LossPartial(NamedTuple):
    """What a part of the data adds to the result of one loss; None for what was not asked for."""

    total: ExactSum = ExactSum()
    observations: Observations = Observations()
    elements: int = 0
    distributions: int = 0
    differ: bool = False
    """Predictions and targets are not the same data."""
    same_tops: int = 0
    """Distributions whose top class both have, where that was asked for."""
    split: TargetSplit | None = None
    sketch: Sketch | None = None
    worst: Worst | None = None
    groups: Groups | None = None

    def merge(self, other: LossPartial) -> LossPartial:
        return LossPartial(
            total=self.total.merge(other.total),
            observations=self.observations.merge(other.observations),
            elements=self.elements + other.elements,
            distributions=self.distributions + other.distributions,
            differ=self.differ or other.differ,
            same_tops=self.same_tops + other.same_tops,
            split=merged(self.split, other.split),
            sketch=merged(self.sketch, other.sketch),
            worst=merged(self.worst, other.worst),
            groups=merged(self.groups, other.groups),
        )


class WindowResult(NamedTuple):
    """The losses of one window: what is additive, and what is still to be added up by distribution."""

    partials: tuple[LossPartial, ...]
    segment_sums: tuple[Array | None, ...]
    """Of each loss, by row and segment; None for losses that are not summed by distribution."""
    masses: tuple[Array | None, Array | None]
    """What predictions and targets add up to, by row and segment; None where nothing is expected of it."""
    shape: tuple[int, int]
    """How many rows were looked at, and how long they are."""
    rows: npt.NDArray[np.intp] | None = None
    """The rows of the block that were looked at; None for all."""
    counts: npt.NDArray[np.int64] | None = None
    """By row, how many elements count; None where all do."""
    differ: bool = True
    """Predictions and targets are not the same data."""
    tops: TopsOfBoth | None = None
    """By row, the top class; None where it was not asked for."""


def merged(one: Part | None, other: Part | None) -> Part | None:
    """Merge what there may be none of."""
    if one is None or other is None:
        return one if other is None else other
    return one.merge(other)
