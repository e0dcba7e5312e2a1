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
_FEWEST = 16


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
    with np.errstate(over="ignore"):
        np.exp(p, out=p)
    sums = p.reshape(-1, by_segment(x).shape[1]).sum(axis=-1)
    return np.asarray(sums.reshape(len(x), count_segments(x.shape[1])), np.float64)


def mass_of_logits(z: Array) -> Array:
    """Sums of the segments that lie within [0, 1], as probabilities do; elsewhere nan.

    Only rows of which a few values do are looked at: of logits hardly any.
    """
    mass = np.full((len(z), count_segments(z.shape[1])), np.nan)
    likely = np.arange(len(z))
    for column in (0, z.shape[1] // 2, -1):
        first = z[likely, column]
        likely = likely[(first >= 0) & (first <= 1)]
    if likely.size:
        chosen = z[likely] if likely.size < len(z) else z
        low, high = (getattr(by_segment(chosen), name)(axis=-1) for name in ("min", "max"))
        within = ((low >= 0) & (high <= 1)).reshape(likely.size, -1)
        mass[likely] = np.where(within, segment_sums(chosen), np.nan)
    return mass


def mark_constant(mass: Array, log_sum: Array, length: int) -> None:
    """Mark the rows of `length` logits that are all equal, by the logarithm of their sum of exponentials.

    A few of them may be equal by chance.
    """
    if length < _FEWEST:
        return
    mass[log_sum == np.log(float(length))] = CONSTANT
