"""The loss split by target, which shows where KL and BCE agree (y = 1) and where not (y = 0)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.reductions import ExactSum, exact_sum

__all__ = ["Group", "TargetSplit", "split_by_target"]

Array = npt.NDArray[np.float64]


class Group(NamedTuple):
    """The elements of one group: how many, and the sum of their losses."""

    count: int = 0  # type: ignore[assignment]
    total: ExactSum = ExactSum()

    def merge(self, other: Group) -> Group:
        return Group(self.count + other.count, self.total.merge(other.total))

    @property
    def mean(self) -> float | None:
        """Mean loss; None for an empty group."""
        return self.total.value / self.count if self.count else None


class TargetSplit(NamedTuple):
    """Elements whose target is 1, 0, strictly between, or none of these (nan included)."""

    one: Group = Group()
    zero: Group = Group()
    between: Group = Group()
    outside: Group = Group()

    def merge(self, other: TargetSplit) -> TargetSplit:
        return TargetSplit(
            one=self.one.merge(other.one),
            zero=self.zero.merge(other.zero),
            between=self.between.merge(other.between),
            outside=self.outside.merge(other.outside),
        )


def split_by_target(targets: Array, loss: Array) -> TargetSplit:
    """Group the losses of one block by their target probabilities."""
    one, zero = targets == 1, targets == 0
    between = (targets > 0) & (targets < 1)
    return TargetSplit(
        one=_group(loss, one),
        zero=_group(loss, zero),
        between=_group(loss, between),
        outside=_group(loss, ~(one | zero | between)),
    )


def _group(loss: Array, members: npt.NDArray[np.bool_]) -> Group:
    chosen = loss[members]
    return Group(chosen.size, exact_sum(chosen))
