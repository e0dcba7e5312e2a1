"""The losses of one piece, and what was odd about its terms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kldiv_cli import kernels
from kldiv_cli.buffers import Workspace
from kldiv_cli.observations import Observations, Tally
from kldiv_cli.pieces import Piece
from kldiv_cli.places import Places
from kldiv_cli.spec import Loss, Spec

__all__ = ["PieceLosses"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class PieceLosses:
    """Computes the terms of a loss, reusing its memory; they are valid until the next call."""

    def __init__(self, spec: Spec, workspace: Workspace) -> None:
        self.spec = spec
        self._workspace = workspace

    def terms(self, loss: Loss, piece: Piece, places: Places) -> tuple[Array, Observations]:
        """One value for each element, 0 where it does not count, and what was observed.

        Where they do not add up to a finite number, `settle` is to follow.
        """
        values = self._workspace.floats("loss", piece.y.shape)
        observe = Observations()
        if loss == "kl":
            self._kl(piece, values)
            observe = self._above_zero(piece, places)
        elif piece.logits is not None:
            observe = self._bce_with_logits(piece, values, places)
        else:
            observe = self._bce_of_probabilities(piece, values, places)
        if loss == "bce" and piece.weight is not None:
            np.multiply(values, piece.weight, out=values)
        if piece.counted is not None:
            values[~piece.counted] = 0.0
        return values, observe

    def _kl(self, piece: Piece, values: Array) -> None:
        assert piece.log_p is not None
        log_y = piece.log_targets
        if log_y is None:
            log_y = self._workspace.floats("log_y", values.shape)
            kernels.log_targets(piece.y, log_y)
        kernels.kl(piece.log_p, log_y, piece.y, values)

    def _above_zero(self, piece: Piece, places: Places) -> Observations:
        """Note log-probabilities above 0; targets are looked at only where they add up to more than 1."""
        above: dict[str, Tally] = {}
        if self.spec.predictions_are == "log-probs":
            above["predictions_above_zero"] = places.above(_ROUNDING, piece.log_p)
        mass = piece.targets_mass
        if self.spec.targets_are == "log-probs" and mass is not None and not (mass <= 1).all():
            above["targets_above_zero"] = places.above(_ROUNDING, piece.log_targets)
        return Observations(**above)

    def settle(self, loss: Loss, piece: Piece, values: Array, places: Places) -> Observations:
        """Apply the zero policy to the terms of KL that are not finite; note those that remain."""
        row, column = odd = np.nonzero(~np.isfinite(values))
        if loss != "kl":
            return Observations(**places.nonfinite(row, column, values[odd]))
        assert piece.log_p is not None
        terms = values[odd]
        log_y = None if piece.log_targets is None else piece.log_targets[odd]
        zero = kernels.settle_kl(piece.log_p[odd], log_y, piece.y[odd], terms)
        if self.spec.zero_policy == "limit":
            terms[zero] = 0.0
        values[odd] = terms
        probs = self.spec.targets_are == "probs"
        return Observations(
            zero_terms=places.first_element(row[zero], column[zero], terms[zero]),
            targets_below_zero=places.below_zero(piece.y) if probs else Tally(),
            **places.nonfinite(row, column, terms),
        )

    def _bce_with_logits(self, piece: Piece, values: Array, places: Places) -> Observations:
        assert piece.logits is not None
        scratch = self._workspace.floats("scratch", values.shape)
        spare = self._workspace.floats("spare", values.shape)
        kernels.bce_with_logits(piece.logits, piece.y, piece.pos_weight, values, scratch, spare)
        observe = Observations(
            targets_outside=places.outside(piece.y),
            logits_outside=Tally(int(not _within_unit(piece.logits))),
        )
        if np.isfinite(values.sum()) or self.spec.zero_policy != "limit":
            return observe
        settled = kernels.settle_bce_with_logits(piece.logits, piece.y, piece.pos_weight, values)
        return observe._replace(zero_terms=places.tally(settled & (values == 0), values))

    def _bce_of_probabilities(self, piece: Piece, values: Array, places: Places) -> Observations:
        assert piece.log_p is not None
        log_p = self._workspace.floats("clamped log_p", values.shape)
        log_1mp = self._workspace.floats("scratch", values.shape)
        spare = self._workspace.floats("spare", values.shape)
        np.copyto(log_p, piece.log_p)
        saturated = Tally()
        if piece.p is not None:
            predictions_outside = places.outside(piece.p)
            saturated = places.saturated(piece.p, piece.counted)
            np.negative(piece.p, out=values)
            kernels.log1p(values, log_1mp, spare)
        else:
            predictions_outside = places.above_zero(piece.log_p)
            kernels.log1mexp(piece.log_p, log_1mp, spare)
        clamped = _clamped(log_p, log_1mp, piece.y)
        kernels.bce(log_p, log_1mp, piece.y, values)
        observe = Observations(
            predictions_outside=predictions_outside,
            targets_outside=places.outside(piece.y),
            saturated_predictions=saturated,
        )
        return observe if clamped is None else observe._replace(clamped_terms=places.tally(clamped, values))


_ROUNDING = 1e-3
"""What is above 0 by less may have been rounded up."""


def _within_unit(z: Array) -> bool:
    """Whether all lie within [0, 1] and not all are 0; of logits the first row tells in nearly every case."""
    return all(bool(part.min() >= 0 and part.max() <= 1) for part in (z[0], z)) and bool(z.any())


def _clamped(log_p: Array, log_1mp: Array, y: Array) -> Mask | None:
    """Which terms PyTorch's clamp changes; None where it changes none."""
    if log_p.min() >= kernels.BCE_FLOOR and log_1mp.min() >= kernels.BCE_FLOOR:
        return None
    low_p, low_1mp = log_p < kernels.BCE_FLOOR, log_1mp < kernels.BCE_FLOOR
    clamped: Mask = (low_p & (y != 0)) | (low_1mp & (y != 1))
    return clamped
