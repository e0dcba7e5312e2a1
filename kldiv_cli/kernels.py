"""The arithmetic, bare: float64 in, float64 out, into buffers the caller owns.

Every function here is called with arrays that were checked at the door (`functional`,
`evaluation`). NumPy's floating-point warnings are the caller's to silence: zeros and infinities
are ordinary values here, and what each yields stands in `functional`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "BCE_FLOOR",
    "SEGMENT",
    "bce",
    "bce_with_logits",
    "kl",
    "log1mexp",
    "log1p",
    "log_targets",
    "merge_partition",
    "partition",
    "settle_bce_with_logits",
    "settle_kl",
]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SEGMENT: Final = 4096
"""A distribution is summed in segments of this length; results depend on it, so it never changes."""

BCE_FLOOR: Final = -100.0
"""PyTorch clamps the logarithms in BCE here, so that p = 0 against y = 1 costs 100, not inf."""

_HIGHEST: Final = float(np.finfo(np.float64).max)


def partition(logits: Array, scratch: Array) -> tuple[Array, Array]:
    """Subtract each row's maximum in place; return the maxima and the sums of exponentials.

    A row of ``-inf`` only has sum 0; one with ``inf`` or ``nan`` has sum ``nan``.
    """
    peaks = logits.max(axis=-1)
    shift = np.where(peaks == -np.inf, 0.0, peaks)
    np.subtract(logits, shift[:, None], out=logits)
    np.exp(logits, out=scratch)
    return peaks, scratch.sum(axis=-1)


def merge_partition(peaks: Array, sums: Array) -> tuple[Array, Array]:
    """Merge the segments of each row: its maximum and the logarithm of its sum of exponentials."""
    if peaks.shape[-1] == 1:
        return peaks[:, 0], np.log(sums[:, 0])
    peak = peaks.max(axis=-1)
    return peak, np.log((sums * np.exp(peaks - peak[:, None])).sum(axis=-1))


def log_targets(y: Array, out: Array) -> None:
    """``log y``, with a finite number in place of ``log 0`` so that ``0 log 0`` is 0 (and not -0)."""
    np.log(y, out=out)
    if not y.min() > 0:
        np.copyto(out, _HIGHEST, where=np.isneginf(out))


def kl(x: Array, log_y: Array, y: Array, out: Array) -> None:
    """``y (log y - x)``; what is not finite there is `settle_kl`'s to decide."""
    np.subtract(log_y, x, out=out)
    np.multiply(out, y, out=out)


def settle_kl(x: Array, log_y: Array | None, y: Array, loss: Array) -> Mask:
    """Set the terms that are not finite to PyTorch's value, in place; return those that are ``0 * inf``.

    `log_y` are targets given as log-probabilities, for which PyTorch takes ``exp(t) (t - x)``; of
    probabilities it takes ``y log y - y x``. A prediction that is itself nan, or a log-probability
    of ``inf``, is no limit and not counted.
    """
    odd = ~np.isfinite(loss)
    if log_y is None:
        y_log_y = np.where(y == 0, 0.0, y * np.log(y))
        loss[odd] = (y_log_y - y * x)[odd]
    zero: Mask = np.isnan(loss) & (y == 0) & (x < np.inf)
    return zero


def log1p(x: Array, out: Array, scratch: Array) -> None:
    """``log(1 + x)``, corrected for the rounding of ``1 + x``; half the time of `numpy.log1p`.

    References
    ----------
    W. Kahan, as told in D. Goldberg, "What Every Computer Scientist Should Know About
    Floating-Point Arithmetic", 1991, theorem 4.
    """
    np.add(1.0, x, out=scratch)
    np.log(scratch, out=out)
    np.subtract(scratch, 1.0, out=scratch)
    tiny = scratch == 0
    np.divide(x, scratch, out=scratch)
    np.multiply(out, scratch, out=out)
    np.copyto(out, x, where=tiny)


def log1mexp(x: Array, out: Array, scratch: Array) -> None:
    """``log(1 - exp(x))`` for x <= 0, without cancellation on either side of ``-log 2``.

    References
    ----------
    M. Maechler, "Accurately Computing log(1 - exp(-|a|))", R package Rmpfr, 2012.
    """
    near = x > -np.log(2.0)
    log1p(-np.exp(x), out, scratch)
    out[near] = np.log(-np.expm1(x[near]))


def bce(log_p: Array, log_1mp: Array, y: Array, out: Array) -> None:
    """``(y - 1) max(log(1 - p), -100) - y max(log p, -100)``, clamping both logarithms in place."""
    np.maximum(log_p, BCE_FLOOR, out=log_p)
    np.maximum(log_1mp, BCE_FLOOR, out=log_1mp)
    np.subtract(y, 1.0, out=out)
    np.multiply(out, log_1mp, out=out)
    np.multiply(y, log_p, out=log_p)
    np.subtract(out, log_p, out=out)


def bce_with_logits(
    z: Array, y: Array, pos_weight: Array | None, out: Array, scratch: Array, spare: Array
) -> None:
    """``(1 - y) z - (1 + (pos_weight - 1) y) logsigmoid(z)``; infinite z as the formula yields."""
    np.abs(z, out=out)
    np.negative(out, out=out)
    np.exp(out, out=out)
    log1p(out, scratch, spare)
    np.minimum(z, 0.0, out=out)
    np.subtract(out, scratch, out=scratch)
    if pos_weight is not None:
        scratch *= 1.0 + (pos_weight - 1.0) * y
    np.subtract(1.0, y, out=out)
    np.multiply(out, z, out=out)
    np.subtract(out, scratch, out=out)


def settle_bce_with_logits(z: Array, y: Array, pos_weight: Array | None, loss: Array) -> Mask:
    """Set the nan terms of an infinite logit to their limit in place; return which they were.

    As z goes to inf the loss goes to ``(1 - y) z``, as z goes to -inf to ``-pos_weight y z``.
    """
    settled: Mask = np.isnan(loss) & np.isinf(z) & np.isfinite(y)
    slope = np.where(z > 0, 1.0 - y, y if pos_weight is None else pos_weight * y)
    limit = np.where(slope == 0, 0.0, slope * np.inf)
    settled &= ~np.isnan(limit)
    loss[settled] = limit[settled]
    return settled
