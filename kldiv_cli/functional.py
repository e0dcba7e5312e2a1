"""The losses on arrays: checked at the door, computed in float64, one value per element.

They are PyTorch's ``log_softmax``, ``kl_div``, ``binary_cross_entropy`` and
``binary_cross_entropy_with_logits`` with ``reduction="none"``, on NumPy arrays of any real dtype.
Nothing is broadcast but weights. `kldiv_cli.evaluate` computes the reductions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from kldiv_cli import kernels
from kldiv_cli.errors import AxisError, DomainError, ShapeMismatch, UsageError

__all__ = [
    "ZeroPolicy",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "check_axis",
    "kl_div",
    "log_softmax",
    "normalize_axis",
]

ZeroPolicy = Literal["limit", "torch"]
Array = npt.NDArray[np.float64]


def log_softmax(logits: npt.ArrayLike, /, axis: int = -1) -> Array:
    r"""Logarithm of the softmax along one axis.

    .. math:: x_i = (z_i - \max z) - \log \sum_j \exp(z_j - \max z)

    Parameters
    ----------
    logits : array
        Any shape; a 0-d array is one distribution of one value. ``-inf`` stays ``-inf``;
        a distribution with ``inf`` or ``nan``, or of ``-inf`` only, becomes ``nan``.
    axis : int
        The distribution axis. Never guessed: PyTorch's implicit ``dim`` is not copied.

    Returns
    -------
    array, same shape
        Log-probabilities, in nats.

    Raises
    ------
    AxisError
        There is no such axis.

    Examples
    --------
    >>> log_softmax([0.0, 0.0])
    array([-0.69314718, -0.69314718])
    """
    z = _float64(logits)
    axis = normalize_axis(axis, z.ndim)
    if z.size == 0:
        return z.copy()
    rows = np.moveaxis(np.atleast_1d(z), axis, -1)
    x = _log_softmax_rows(np.array(rows).reshape(-1, rows.shape[-1])).reshape(rows.shape)
    return np.ascontiguousarray(np.moveaxis(x, -1, axis)).reshape(z.shape)


def kl_div(
    log_predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    /,
    *,
    log_target: bool = False,
    zero_policy: ZeroPolicy = "limit",
) -> Array:
    r"""Pointwise Kullback-Leibler divergence of predictions from targets, in nats.

    .. math:: \ell_i = p_i (\log p_i - x_i)

    Parameters
    ----------
    log_predictions : array
        Log-probabilities :math:`x = \log q`. ``-inf`` means probability zero.
    targets : array, same shape
        Probabilities :math:`p`, or log-probabilities where `log_target`; the loss is then
        :math:`e^t (t - x)`.
    log_target : bool
        The targets are log-probabilities.
    zero_policy : {"limit", "torch"}
        What ``0 * inf`` is: 0, its limit, or nan, as PyTorch has it.

    Returns
    -------
    array, same shape
        0 where p = 0, ``inf`` where p > 0 and q = 0, ``nan`` where p < 0 or either is nan.

    Raises
    ------
    ShapeMismatch
        The shapes differ; nothing is broadcast.

    References
    ----------
    S. Kullback, R. A. Leibler, "On Information and Sufficiency", 1951.

    Examples
    --------
    >>> kl_div(np.log([0.5, 0.5]), np.array([1.0, 0.0]))
    array([0.69314718, 0.        ])
    """
    x, t = _matching(log_predictions, targets)
    loss = np.empty_like(x)
    with np.errstate(all="ignore"):
        y, log_y = (np.exp(t), t) if log_target else (t, np.empty_like(t))
        if not log_target and t.size:
            kernels.log_targets(t, log_y)
        kernels.kl(x, log_y, y, loss)
        zero = kernels.settle_kl(x, log_y if log_target else None, y, loss)
        if _limit(zero_policy):
            loss[zero] = 0.0
    return loss


def binary_cross_entropy(
    predictions: npt.ArrayLike, targets: npt.ArrayLike, /, *, weight: npt.ArrayLike | None = None
) -> Array:
    r"""Pointwise binary cross-entropy of probabilities, in nats.

    .. math:: \ell_i = w_i [(y_i - 1) \max(\log(1 - p_i), -100) - y_i \max(\log p_i, -100)]

    Parameters
    ----------
    predictions : array
        Probabilities in [0, 1].
    targets : array, same shape
        Probabilities or labels in [0, 1].
    weight : array, optional
        Factors; they broadcast to the shape of the predictions.

    Returns
    -------
    array, same shape
        100 where p = 0 and y = 1 or the reverse: PyTorch clamps the logarithms at -100.

    Raises
    ------
    ShapeMismatch
        The shapes differ, or the weight does not broadcast to them.
    DomainError
        A value lies outside [0, 1] or is nan.

    Examples
    --------
    >>> binary_cross_entropy([0.5, 0.0], [1.0, 1.0])
    array([  0.69314718, 100.        ])
    """
    p, y = _matching(predictions, targets)
    _check_unit_interval("predictions", p)
    _check_unit_interval("targets", y)
    log_p, log_1mp, loss = np.empty_like(p), np.empty_like(p), np.empty_like(p)
    with np.errstate(all="ignore"):
        np.log(p, out=log_p)
        kernels.log1p(-p, log_1mp, np.empty_like(p))
        kernels.bce(log_p, log_1mp, y, loss)
        return _weighted(loss, weight)


def binary_cross_entropy_with_logits(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    /,
    *,
    weight: npt.ArrayLike | None = None,
    pos_weight: npt.ArrayLike | None = None,
    zero_policy: ZeroPolicy = "limit",
) -> Array:
    r"""Pointwise binary cross-entropy of logits, in nats; nothing is clamped.

    .. math::
        \ell_i = w_i [(1 - y_i) z_i - (1 + (w^+_i - 1) y_i) \log \sigma(z_i)]

    Parameters
    ----------
    logits : array
        Any values; an infinite one means probability 0 or 1.
    targets : array, same shape
        Probabilities or labels. As in PyTorch their range is not checked.
    weight, pos_weight : array, optional
        Factors of the loss, and of its positive part; they broadcast to the shape of the logits.
    zero_policy : {"limit", "torch"}
        What ``0 * inf`` and ``inf - inf`` of an infinite logit are: their limit (0 where the
        logit agrees with the target, else ``inf``), or nan, as PyTorch has it.

    Returns
    -------
    array, same shape

    Raises
    ------
    ShapeMismatch
        The shapes differ, or a weight does not broadcast to them.

    Examples
    --------
    >>> binary_cross_entropy_with_logits([0.0, -1000.0], [1.0, 1.0])
    array([6.93147181e-01, 1.00000000e+03])
    """
    z, y = _matching(logits, targets)
    positive = None if pos_weight is None else _broadcast("pos_weight", pos_weight, z.shape)
    loss, scratch = np.empty_like(z), np.empty_like(z)
    with np.errstate(all="ignore"):
        kernels.bce_with_logits(z, y, positive, loss, scratch, np.empty_like(z))
        if _limit(zero_policy):
            kernels.settle_bce_with_logits(z, y, positive, loss)
        return _weighted(loss, weight)


def normalize_axis(axis: int, ndim: int) -> int:
    """Return `axis` counted from the front; a 0-d array counts as one distribution of one value."""
    check_axis("axis", axis)
    if not -max(ndim, 1) <= axis < max(ndim, 1):
        raise AxisError(f"axis {axis} is out of range for {ndim} dimension{'s' * (ndim != 1)}")
    return axis % max(ndim, 1)


def check_axis(name: str, axis: object) -> None:
    """Refuse what is no whole number; True and False are meant otherwise than as axes 1 and 0."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise UsageError(f"{name} {axis!r}: expected the number of an axis, such as -1")


def _log_softmax_rows(z: Array) -> Array:
    """Log-softmax of each row, in place."""
    rows, length = z.shape
    starts = range(0, length, kernels.SEGMENT)
    peaks, sums = np.empty((rows, len(starts))), np.empty((rows, len(starts)))
    with np.errstate(all="ignore"):
        for k, start in enumerate(starts):
            segment = z[:, start : start + kernels.SEGMENT].copy()
            peaks[:, k], sums[:, k] = kernels.partition(segment, np.empty_like(segment))
        peak, log_sum = kernels.merge_partition(peaks, sums)
        z -= peak[:, None]
        z -= log_sum[:, None]
    return z


def _float64(values: npt.ArrayLike) -> Array:
    array = np.asanyarray(values)
    # The type first: naming numpy.ma imports it, which takes 10 ms.
    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        raise DomainError("a masked array, whose mask would be lost; fill or select it first")
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise DomainError(f"dtype {array.dtype}: expected real numbers")
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def _matching(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Array, Array]:
    first, second = _float64(predictions), _float64(targets)
    if first.shape != second.shape:
        raise ShapeMismatch(f"predictions {first.shape} and targets {second.shape}: expected equal shapes")
    return first, second


def _broadcast(name: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    array = _float64(values)
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ShapeMismatch(f"`{name}` {array.shape}: expected a shape that broadcasts to {shape}") from None


def _weighted(loss: Array, weight: npt.ArrayLike | None) -> Array:
    if weight is not None:
        loss *= _broadcast("weight", weight, loss.shape)
    return loss


def _check_unit_interval(name: str, values: Array) -> None:
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        index = tuple(int(i) for i in np.unravel_index(int(outside.argmax()), values.shape))
        raise DomainError(
            f"{name}: {int(outside.sum())} of {values.size} values outside [0, 1], "
            f"first {values[index]} at index {index}; expected probabilities"
        )


def _limit(zero_policy: ZeroPolicy) -> bool:
    if zero_policy not in ("limit", "torch"):
        raise UsageError(f"zero_policy {zero_policy!r}: expected 'limit' or 'torch'")
    return zero_policy == "limit"
