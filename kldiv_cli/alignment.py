"""Whether rows of predictions and targets belong together, or one of them is in another order."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST_ROWS", "Alignment", "Rows", "align", "rows_of"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FEWEST_ROWS: Final = 32
"""Fewer tell nothing."""


class Rows(NamedTuple):
    """What some rows add to the comparison; in any number, they add up."""

    count: int  # type: ignore[assignment]
    agreeing: int
    """Rows in which the top class of predictions and targets is the same."""
    cross_entropy: float
    distance: float
    """Sum over rows of the total variation between predictions and targets."""
    predictions: Array
    targets: Array
    """Sums of probabilities by class."""
    top_predictions: Counts
    top_targets: Counts
    """How often each class is the top one."""

    def merge(self, other: Rows) -> Rows:
        return Rows(
            self.count + other.count,
            self.agreeing + other.agreeing,
            self.cross_entropy + other.cross_entropy,
            self.distance + other.distance,
            self.predictions + other.predictions,
            self.targets + other.targets,
            self.top_predictions + other.top_predictions,
            self.top_targets + other.top_targets,
        )


class Alignment(NamedTuple):
    """How often the top classes agree, and how often they would if rows were drawn at random."""

    rows: int
    agreement: float
    chance: float
    worse_than_mean: bool
    """Predictions say less about their targets than the mean of all predictions does."""
    means_agree: bool
    """Averaged over all rows, predictions and targets are much nearer to each other than row by row."""

    @property
    def misaligned(self) -> bool:
        """Agreement no better than chance, of predictions that are right on the whole.

        Predictions that know nothing do not count: they would do as well as their mean.
        """
        slack = 3 * math.sqrt(self.chance * (1 - self.chance) / self.rows)
        return (
            self.rows >= FEWEST_ROWS
            and self.agreement <= self.chance + slack
            and self.chance + slack < 0.9
            and self.worse_than_mean
            and self.means_agree
        )


def rows_of(log_predictions: Array, targets: Array) -> Rows:
    """Compare some rows of log-probabilities and target probabilities, shape ``(rows, classes)``."""
    classes = targets.shape[1]
    p = np.exp(log_predictions)
    top_p, top_y = p.argmax(axis=1), targets.argmax(axis=1)
    with np.errstate(all="ignore"):
        terms = np.where(targets > 0, -targets * log_predictions, 0.0)
    return Rows(
        count=len(targets),
        agreeing=int(np.count_nonzero(top_p == top_y)),
        cross_entropy=float(terms.sum()),
        distance=float(np.abs(p - targets).sum() / 2),
        predictions=p.sum(axis=0),
        targets=targets.sum(axis=0),
        top_predictions=np.bincount(top_p, minlength=classes),
        top_targets=np.bincount(top_y, minlength=classes),
    )


def align(rows: Rows) -> Alignment:
    """Compare agreement row by row with what the totals by class alone would give."""
    n = rows.count
    mean_p, mean_y = rows.predictions / n, rows.targets / n
    with np.errstate(all="ignore"):
        of_means = -float(np.where(mean_y > 0, mean_y * np.log(mean_p), 0.0).sum())
    return Alignment(
        rows=n,
        agreement=rows.agreeing / n,
        chance=float(rows.top_predictions @ rows.top_targets) / n**2,
        worse_than_mean=rows.cross_entropy / n > of_means,
        means_agree=float(np.abs(mean_p - mean_y).sum() / 2) < rows.distance / n / 2,
    )
