"""Two models' distributions on the same inputs, compared row by row: one value a row for each quantity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.buffers import Workspace
from kldiv_cli.distributions import add_segments
from kldiv_cli.pieces import Norms, Piece, PieceReader, Rows
from kldiv_cli.segments import count_segments, segment_sums, segments_of
from kldiv_cli.sources.base import AnyArray
from kldiv_cli.spec import Spec

__all__ = ["RowComparer", "RowValues"]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_LOWEST: Final = -float(np.finfo(np.float64).max)
_ENTROPIES: Final = ("negative_entropy_reference", "negative_entropy_candidate")
_SUMMED: Final = ("kl", "kl_reverse", "tv", *_ENTROPIES, "js")


class RowValues(NamedTuple):
    """One value for each of some rows; in nats, but for probabilities and flags."""

    kl: Array
    """KL(reference || candidate)."""
    kl_reverse: Array
    js: Array
    tv: Array
    entropy_reference: Array
    entropy_candidate: Array
    confidence: Array
    """Probability of the reference's top class."""
    delta_p: Array
    """Its probability by the candidate, less that by the reference."""
    same_top: Mask
    """Never where a distribution holds nan."""
    in_top_k: Mask
    """The reference's top class is among the candidate's k most probable; equal ones count for it."""
    nll_reference: Array | None = None
    """Negative log-likelihood of the label."""
    nll_candidate: Array | None = None
    delta_p_label: Array | None = None
    correct_reference: Mask | None = None
    correct_candidate: Mask | None = None
    masses: tuple[Array | None, Array | None] = (None, None)
    """What rows of the candidate and of the reference add up to, by segment."""


class _Tops:
    """The most probable class of each row, the first of equal ones; softmax and logarithm keep the order."""

    def __init__(self, rows: Rows) -> None:
        chosen = rows.selection.rows
        reference, candidate = (
            values if chosen is None else values[chosen] for values in (rows.targets, rows.predictions)
        )
        self.reference: Indices = reference.argmax(axis=1)
        self.candidate: Indices = candidate.argmax(axis=1)
        theirs = candidate[np.arange(len(candidate)), self.reference]
        self.rank: Indices = np.count_nonzero(candidate > theirs[:, None], axis=1)
        """Of the reference's top class by the candidate: as many are more probable."""


class _Picked:
    """The log-probabilities of one class of each row."""

    def __init__(self, columns: Indices) -> None:
        self.columns = columns
        self.predictions, self.targets = (np.full(len(columns), np.nan) for _ in range(2))

    def take(self, piece: Piece) -> None:
        """Take those that lie in a piece."""
        assert piece.log_p is not None
        column = self.columns[piece.rows] - piece.columns.start
        row = np.flatnonzero((column >= 0) & (column < piece.y.shape[1]))
        column = column[row]
        rows = piece.rows.start + row
        self.predictions[rows] = piece.log_p[row, column]
        self.targets[rows] = (
            np.log(piece.y[row, column]) if piece.log_targets is None else piece.log_targets[row, column]
        )


def _infinite_where(mask: Mask | None, terms: Array) -> Array:
    if mask is not None:
        terms[mask] = np.inf
    return terms


class RowComparer:
    """Compares the rows of one block after another, reusing its memory."""

    def __init__(self, spec: Spec, workspace: Workspace, top_k: int) -> None:
        self.spec, self.top_k = spec, top_k
        self._workspace = workspace
        self._reader = PieceReader(spec, workspace)

    def compare(self, rows: Rows, labels: AnyArray | None) -> RowValues:
        """Compare whole rows: predictions are the candidate's, targets the reference's."""
        count, length = rows.shape
        tops = _Tops(rows)
        sums = {name: np.empty((count, count_segments(length))) for name in _SUMMED}
        unknown = np.full((count, count_segments(length)), np.nan)
        masses = (unknown, unknown.copy())
        at_top = _Picked(tops.reference)
        at_label = None if labels is None else _Picked(labels.astype(np.intp))
        for piece in self._reader.pieces(rows, Norms()):
            for picked in (at_top, at_label):
                if picked is not None:
                    picked.take(piece)
            self._add(piece, sums, masses)
        return self._values(sums, masses, tops, at_top, at_label)

    def _add(self, piece: Piece, sums: dict[str, Array], masses: tuple[Array, Array]) -> None:
        here = (piece.rows, segments_of(piece.columns))
        for mass, of_piece in zip(masses, (piece.predictions_mass, piece.targets_mass), strict=True):
            if of_piece is not None:
                mass[here] = of_piece
        for name, values in self._terms(piece):
            sums[name][here] = segment_sums(values)

    def _terms(self, piece: Piece) -> Iterator[tuple[str, Array]]:
        """The terms of every sum, one after another in the same memory; the piece is spent by it.

        Logarithms of 0 stand as a very low number, so that what they are multiplied with decides.
        """
        assert piece.log_p is not None
        x, y = piece.log_p, piece.y
        t = piece.log_targets
        if t is None:
            t = np.log(y, out=self._floats("log_y", y.shape))
        terms = self._floats("terms", y.shape)
        p = np.exp(x, out=self._floats("p", x.shape)) if piece.p is None else piece.p
        impossible = None if x.min() > -np.inf else (x == -np.inf) & (y > 0)
        inverse = None if t.min() > -np.inf else (t == -np.inf) & (p > 0)
        np.maximum(x, _LOWEST, out=x)
        np.maximum(t, _LOWEST, out=t)
        difference = np.subtract(t, x, out=self._floats("difference", y.shape))
        yield "kl", _infinite_where(impossible, np.multiply(y, difference, out=terms))
        np.negative(difference, out=difference)
        yield "kl_reverse", _infinite_where(inverse, np.multiply(p, difference, out=terms))
        yield "negative_entropy_reference", np.multiply(y, t, out=terms)
        yield "negative_entropy_candidate", np.multiply(p, x, out=terms)
        np.subtract(p, y, out=terms)
        yield "tv", np.abs(terms, out=terms)
        mixed = np.add(p, y, out=terms)
        mixed *= 0.5
        log_mixed = np.log(mixed, out=difference)
        np.maximum(log_mixed, _LOWEST, out=log_mixed)
        t -= log_mixed
        x -= log_mixed
        t *= y
        x *= p
        np.add(t, x, out=terms)
        yield "js", np.multiply(terms, 0.5, out=terms)

    def _values(
        self,
        sums: dict[str, Array],
        masses: tuple[Array, Array],
        tops: _Tops,
        at_top: _Picked,
        at_label: _Picked | None,
    ) -> RowValues:
        total = {name: add_segments(by_segment) for name, by_segment in sums.items()}
        reference, candidate = (total[name] for name in _ENTROPIES)
        confidence = np.exp(at_top.targets)
        known = ~np.isnan(total["kl"])
        values = RowValues(
            kl=total["kl"],
            kl_reverse=total["kl_reverse"],
            js=total["js"],
            tv=total["tv"] / 2,
            entropy_reference=0.0 - reference,
            entropy_candidate=0.0 - candidate,
            confidence=confidence,
            delta_p=np.exp(at_top.predictions) - confidence,
            same_top=(tops.reference == tops.candidate) & known,
            in_top_k=(tops.rank < self.top_k) & known,
            masses=masses,
        )
        if at_label is None:
            return values
        return values._replace(
            nll_reference=0.0 - at_label.targets,
            nll_candidate=0.0 - at_label.predictions,
            delta_p_label=np.exp(at_label.predictions) - np.exp(at_label.targets),
            correct_reference=(tops.reference == at_label.columns) & known,
            correct_candidate=(tops.candidate == at_label.columns) & known,
        )

    def _floats(self, name: str, shape: tuple[int, ...]) -> Array:
        return self._workspace.floats(name, shape)
