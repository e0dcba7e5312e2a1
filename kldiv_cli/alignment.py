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
_MANY_ROWS: Final = 200
"""Of so many, agreement at chance is no accident, however little the predictions dare."""


class Rows(NamedTuple):
    """What some rows add to the comparison; in any number, they add up."""

    count: int  # type: ignore[assignment]
    agreeing: int
    """Rows in which the top class of predictions and targets is the same."""
    cross_entropy: float
    confidence: float
    """Sum over rows of the probability of the predictions' top class."""
    entropy_predictions: float
    entropy_targets: float
    squares_predictions: float
    """Sum of squared probabilities."""
    squares_targets: float
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
            self.confidence + other.confidence,
            self.entropy_predictions + other.entropy_predictions,
            self.entropy_targets + other.entropy_targets,
            self.squares_predictions + other.squares_predictions,
            self.squares_targets + other.squares_targets,
            self.predictions + other.predictions,
            self.targets + other.targets,
            self.top_predictions + other.top_predictions,
            self.top_targets + other.top_targets,
        )


class Alignment(NamedTuple):
    """How rows agree, beside what the means over all rows alone would give."""

    rows: int
    agreement: float
    chance: float
    """Agreement of rows drawn at random."""
    confidence: float
    """Mean probability of the predictions' top class: the agreement they expect."""
    excess: float
    """Cross-entropy of the predictions over that of their mean: below 0 if they know their row."""
    information_predictions: float
    information_targets: float
    """Entropy of the mean less mean entropy: how much rows differ from each other, in nats."""
    distance: float
    """Squared distance of the two means, less what as many rows differ by anyhow, over their spread."""

    @property
    def misaligned(self) -> bool:
        """Agreement no better than chance, of predictions that are right on the whole.

        Predictions that know nothing do as well as their mean, and rows that are all alike are in
        any order.
        """
        chance = max(self.chance, 1 / self.rows)
        limit = self.chance + 3 * math.sqrt(chance * (1 - self.chance) / self.rows)
        return (
            self.rows >= FEWEST_ROWS
            and self.agreement <= limit
            and (self.rows >= _MANY_ROWS or limit < self.confidence / 2)
            and self.excess > self.information_targets / 4
            and self.information_predictions > self.information_targets / 4
            and self.information_targets > self.information_predictions / 4
            and self.distance < 1 / 4
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
        confidence=float(p.max(axis=1).sum()),
        entropy_predictions=_entropy(p),
        entropy_targets=_entropy(targets),
        squares_predictions=float(np.square(p).sum()),
        squares_targets=float(np.square(targets).sum()),
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
    spread = _spread(rows.squares_predictions, mean_p, n) + _spread(rows.squares_targets, mean_y, n)
    apart = float(np.square(mean_p - mean_y).sum()) - spread / n
    return Alignment(
        rows=n,
        agreement=rows.agreeing / n,
        chance=float(rows.top_predictions @ rows.top_targets) / n**2,
        confidence=rows.confidence / n,
        excess=rows.cross_entropy / n - of_means,
        information_predictions=_entropy(mean_p) - rows.entropy_predictions / n,
        information_targets=_entropy(mean_y) - rows.entropy_targets / n,
        distance=apart / spread if spread > 0 else math.inf,
    )


def _entropy(p: Array) -> float:
    with np.errstate(all="ignore"):
        return -float(np.where(p > 0, p * np.log(p), 0.0).sum())


def _spread(squares: float, mean: Array, count: int) -> float:
    """Summed variance of the classes over rows."""
    return max(0.0, squares - count * float(np.square(mean).sum())) / max(1, count - 1)
