"""What the distributions of a piece add up to, by row and segment: 1, if they are what they are taken for.

Of logits, which add up to anything, it is nan; but not where they might be something else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kldiv_cli.segments import by_segment, count_segments, segment_sums

__all__ = ["CONSTANT", "mark_constant", "mass_of_log_probs", "mass_of_logits", "mass_of_probs"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CONSTANT = -np.inf
"""The mass of logits that are all equal."""


def mass_of_probs(p: Array) -> Array:
    return segment_sums(p)


def mass_of_log_probs(x: Array, looked_at: Mask | None) -> Array:
    """In float32, whose `exp` takes a quarter of the time; its rounding is below every tolerance.

    Rows that are not `looked_at` have the mass nan.
    """
    if looked_at is not None:
        mass = np.full((len(x), count_segments(x.shape[1])), np.nan)
        mass[looked_at] = mass_of_log_probs(x[looked_at], None)
        return mass
    p = x.astype(np.float32)
    np.exp(p, out=p)
    sums = p.reshape(-1, by_segment(x).shape[1]).sum(axis=-1)
    return np.asarray(sums.reshape(len(x), count_segments(x.shape[1])), np.float64)


def mass_of_logits(z: Array) -> Array:
    """Sums where all of a piece lies within [0, 1], as probabilities do; elsewhere nan."""
    first = z[0]
    if first.min() >= 0 and first.max() <= 1 and z.min() >= 0 and z.max() <= 1:
        return segment_sums(z)
    return np.full((len(z), count_segments(z.shape[1])), np.nan)


def mark_constant(mass: Array, log_sum: Array, length: int) -> None:
    """Mark the rows of `length` logits that are all equal, by the logarithm of their sum of exponentials."""
    mass[log_sum == np.log(float(length))] = CONSTANT
