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
    return Estimate(root, square.standard_error / 2 / root if root else 0.0)


def exp_of(estimate: Estimate) -> Estimate:
    """With its error to first order."""
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
    """Of perplexities, whose logarithms have this covariance."""
    shared = 2 * reference.value * candidate.value * covariance
    variance = reference.standard_error**2 + candidate.standard_error**2 - shared
    return Estimate(candidate.value - reference.value, math.sqrt(max(variance, 0.0)))
