"""What a block adds to a comparison: small values that merge in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.comparison_rows import RowValues
from kldiv_cli.observations import Observations
from kldiv_cli.partials import merged
from kldiv_cli.reductions import exact_sum
from kldiv_cli.statistics import Groups, Sketch, Worst, groups_of, no_spread, sketch_of, worst_of

__all__ = ["BUCKETS", "KEPT", "BucketPartial", "ComparisonPartial", "partial_of"]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

KEPT: Final = ("kl", "delta_p", "delta_p_label")
"""What percentiles are told of."""
BUCKETS: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
"""Confidence of the reference: each bucket goes from one of these to the next; the last holds 1 too."""
_SPREAD: Final = (
    "kl_reverse",
    "js",
    "tv",
    "entropy_reference",
    "entropy_candidate",
    "nll_reference",
    "nll_candidate",
)
_COUNTED: Final = ("same_top", "in_top_k", "correct_reference", "correct_candidate")


class BucketPartial(NamedTuple):
    """The rows of one bucket of confidence."""

    kl: Sketch = Sketch()
    same_top: int = 0

    def merge(self, other: BucketPartial) -> BucketPartial:
        return BucketPartial(self.kl.merge(other.kl), self.same_top + other.same_top)


class ComparisonPartial(NamedTuple):
    """What a part of the rows adds to the result."""

    sketches: Mapping[str, Sketch] = {}
    """By quantity; with their spread only where percentiles are told and values are not kept."""
    counts: Mapping[str, int] = {}
    """Of how many rows something is so."""
    buckets: tuple[BucketPartial, ...] = (BucketPartial(),) * (len(BUCKETS) - 1)
    worst: Worst | None = None
    groups: Groups | None = None
    observations: Observations = Observations()
    differ: bool = False

    def merge(self, other: ComparisonPartial, /) -> ComparisonPartial:
        names = dict.fromkeys([*self.sketches, *other.sketches])
        counted = dict.fromkeys([*self.counts, *other.counts])
        return ComparisonPartial(
            sketches={
                name: self.sketches.get(name, Sketch()).merge(other.sketches.get(name, Sketch()))
                for name in names
            },
            counts={name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in counted},
            buckets=tuple(a.merge(b) for a, b in zip(self.buckets, other.buckets, strict=True)),
            worst=merged(self.worst, other.worst),
            groups=merged(self.groups, other.groups),
            observations=self.observations.merge(other.observations),
            differ=self.differ or other.differ,
        )


def partial_of(
    values: RowValues,
    lie: Callable[[Indices], Indices],
    *,
    kept: bool,
    worst: int,
    blocks_of: int | None,
) -> ComparisonPartial:
    """What some rows come to; `lie` tells where they are, `kept` that their values are kept elsewhere."""
    sketches = {name: sketch_of(array, spread=no_spread) for name, array in _named(values, _SPREAD)}
    for name, array in _named(values, KEPT):
        sketches[name] = Sketch(exact_sum(array), count=array.size) if kept else sketch_of(array)
    for name in ("delta_p", "delta_p_label"):
        if getattr(values, name) is not None:
            sketches[f"{name}_squared"] = sketch_of(getattr(values, name) ** 2, spread=no_spread)
    if values.nll_reference is not None and values.nll_candidate is not None:
        sketches["log_ratio"] = sketch_of(values.nll_candidate - values.nll_reference, spread=no_spread)
    groups = None
    if blocks_of is not None and not kept:
        groups = groups_of(values.kl, lie(np.arange(values.kl.size)), blocks_of)
    return ComparisonPartial(
        sketches=sketches,
        counts={name: int(np.count_nonzero(flags)) for name, flags in _named(values, _COUNTED)},
        buckets=_buckets(values),
        worst=worst_of(values.kl, lie, worst) if worst else None,
        groups=groups,
    )


def _named(values: RowValues, names: tuple[str, ...]) -> list[tuple[str, Array]]:
    return [(name, getattr(values, name)) for name in names if getattr(values, name) is not None]


def _buckets(values: RowValues) -> tuple[BucketPartial, ...]:
    """By confidence; rows of nan are in none."""
    place = np.where(np.isnan(values.kl), -1, np.digitize(values.confidence, BUCKETS[1:-1]))
    return tuple(
        BucketPartial(
            sketch_of(values.kl[place == k], spread=no_spread),
            int(np.count_nonzero(values.same_top[place == k])),
        )
        for k in range(len(BUCKETS) - 1)
    )
