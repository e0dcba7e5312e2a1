"""What a pair of a batch came to, in values that a line of text can hold and another process can send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.record import evaluation_record
from kldiv_cli.spec import Loss
from kldiv_cli.totals import Totals

__all__ = ["PairResult", "result_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """One pair; of one that could not be computed the error alone."""

    name: str
    predictions: str
    """Its address, as `targets`."""
    targets: str
    records: tuple[Mapping[str, Any], ...] = ()
    """For each loss, what `kldiv compute --json` prints of it: no value is a bare nan or inf."""
    totals: Mapping[Loss, Totals] = field(default_factory=dict)
    """What it adds to the totals of each loss."""
    error: str | None = None
    defect: Exception | None = None
    """What was raised, if that is a fault of this program's and none of the pair's."""
    bytes: int = 0
    """What the arrays take, as they are stored in memory."""
    seconds: float = 0.0
    """How long it took."""


def result_of(
    name: str, addresses: tuple[str, str], evaluations: Sequence[Evaluation], *, bytes: int, seconds: float
) -> PairResult:
    """The result of a pair that was computed; its evaluations must have `totals`."""
    return PairResult(
        name=name,
        predictions=addresses[0],
        targets=addresses[1],
        records=tuple(map(evaluation_record, evaluations)),
        totals={e.loss: e.totals for e in evaluations if e.totals is not None},
        bytes=bytes,
        seconds=seconds,
    )
