"""Estimates with their standard errors: means, shares, and what is computed from them to first order."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kldiv_cli.statistics import Sketch

__all__ = [
    "Estimate",
    "Share",
    "correlation_of",
    "covariance_of",
    "difference_of",
    "exp_of",
    "mean_of",
    "root_of",
    "share_of",
]


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    standard_error: float


class Share(NamedTuple):
    """Of how many distributions something is so."""

    count: int  # type: ignore[assignment]
    share: float
    standard_error: float
    """Binomial: the root of share (1 - share) / (n - 1)."""


def mean_of(sketch: Sketch) -> Estimate:
    """The mean of independent values."""
    statistics = sketch.statistics("distributions", ())
    return Estimate(statistics.mean, statistics.standard_error)


def share_of(count: int, of: int) -> Share:
    """`count` of `of` independent cases; nan where there are none."""
    if not of:
        return Share(count, math.nan, math.nan)
    share = count / of
    return Share(count, share, math.sqrt(share * (1 - share) / (of - 1)) if of > 1 else math.nan)


def root_of(square: Estimate) -> Estimate:
    """A root mean square, with its error to first order."""
    root = math.sqrt(square.value) if square.value >= 0 else math.nan
    return Estimate(root, square.standard_error / 2 / root if root else 0.0 * square.standard_error)


def exp_of(estimate: Estimate) -> Estimate:
    """With its error to first order."""
    with np.errstate(over="ignore"):
        value = float(np.exp(estimate.value))
    return Estimate(value, value * estimate.standard_error)


def covariance_of(a: Estimate, b: Estimate, difference: Estimate) -> float:
    """Of two means, from their errors and that of their difference."""
    return (a.standard_error**2 + b.standard_error**2 - difference.standard_error**2) / 2


def correlation_of(a: Estimate, b: Estimate, covariance: float) -> float:
    """Of two means with this covariance; nan where one of them does not vary."""
    product = a.standard_error * b.standard_error
    return covariance / product if product else math.nan


def difference_of(reference: Estimate, candidate: Estimate, covariance: float) -> Estimate:
    """Of perplexities, candidate less reference, whose logarithms have this covariance.

    The variance ``a^2 va + b^2 vb - 2 a b cov``, with `va` and `vb` those of the logarithms, is
    arranged so that neither squares overflow nor the errors of equal models leave something.
    """
    a, b = reference.value, candidate.value
    if not (math.isfinite(a) and math.isfinite(b) and a > 0):
        return Estimate(b - a, math.nan)
    va, vb = (reference.standard_error / a) ** 2, (candidate.standard_error / b) ** 2
    ratio = b / a
    variance = va + vb - 2 * covariance + (ratio - 1) * (vb - va / ratio)
    return Estimate(b - a, math.sqrt(a) * math.sqrt(b) * math.sqrt(max(variance, 0.0)))
