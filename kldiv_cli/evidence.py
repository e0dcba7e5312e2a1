"""The evidence: what a pass over the data observed, and what a second look at a part of it shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kldiv_cli.alignment import Alignment
from kldiv_cli.findings import Finding, Severity, told
from kldiv_cli.likeness import Likeness
from kldiv_cli.observations import Observations, Tally
from kldiv_cli.reductions import Scalars
from kldiv_cli.spec import Loss, Spec

__all__ = ["Evidence", "is_suspicious", "of_distributions", "of_elements"]


class Evidence(NamedTuple):
    """All that findings are made from."""

    spec: Spec
    loss: Loss
    shape: tuple[int, ...]
    axis: int
    scalars: Scalars
    observed: Observations
    differ: bool = True
    """Predictions and targets are not the same data."""
    dtypes: tuple[np.dtype[Any], ...] = ()
    """That predictions and targets are stored in."""
    bfloat16: tuple[bool, bool] = (False, False)
    """Whether predictions and targets have no more digits than that, where there was a reason to look."""
    predictions_look: Likeness | None = None
    """What the predictions look like, where there was a reason to look."""
    targets_look: Likeness | None = None
    sampled: bool = False
    """Only every fourth distribution of the predictions was added up."""
    alignment: Alignment | None = None
    """How rows of predictions and targets belong together, where there was a reason to look."""

    @property
    def length(self) -> int:
        """Of a distribution."""
        return self.shape[self.axis] if self.shape else 1

    @property
    def outer(self) -> tuple[int, ...]:
        """The shape of the distributions."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]


def is_suspicious(observed: Observations) -> tuple[bool, bool]:
    """Whether there is a reason to look at what the predictions are, and at what the targets are."""
    return (
        bool(observed.predictions_above_zero.count or observed.predictions_unnormalised.count),
        bool(
            observed.targets_above_zero.count
            or observed.targets_below_zero.count
            or observed.targets_unnormalised.count
        ),
    )


def of_elements(
    id: str,
    tally: Tally,
    evidence: Evidence,
    message: str,
    option: str | None = None,
    *,
    severity: Severity = "warning",
) -> Finding:
    return told(id, tally, evidence.shape, "element", message, option, severity)


def of_distributions(
    id: str,
    tally: Tally,
    evidence: Evidence,
    message: str,
    option: str | None = None,
    *,
    severity: Severity = "warning",
) -> Finding:
    return told(id, tally, evidence.outer, "distribution", message, option, severity)
