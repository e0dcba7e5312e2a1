"""Rows of stored values to pieces of float64 that the losses are taken of, normalised on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli import kernels
from kldiv_cli.buffers import Workspace
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.masses import mark_constant, mass_of_log_probs, mass_of_logits, mass_of_probs
from kldiv_cli.segments import by_segment, count_segments, segments_of
from kldiv_cli.selection import EVERYTHING, Selection
from kldiv_cli.sources.base import AnyArray
from kldiv_cli.spec import Spec

__all__ = [
    "PIECE",
    "Norm",
    "Norms",
    "Partition",
    "Piece",
    "PieceReader",
    "Rows",
]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PIECE: Final = 32 * SEGMENT
"""Elements worked on at once: small enough for the cache, large enough that threads seldom wait
for the interpreter between two NumPy calls."""


class Norm(NamedTuple):
    """What normalises each row: its maximum and the logarithm of its sum of exponentials."""

    peak: Array
    log_sum: Array

    def rows(self, part: slice) -> Norm:
        return Norm(self.peak[part], self.log_sum[part])


class Partition(NamedTuple):
    """Maxima and sums of exponentials by row and segment, before they are merged."""

    peaks: Array
    sums: Array


class Norms(NamedTuple):
    """Of the predictions and of the targets; None for what is not normalised here."""

    predictions: Norm | None = None
    targets: Norm | None = None

    def rows(self, part: slice) -> Norms:
        return Norms(*(norm and norm.rows(part) for norm in self))


class Rows(NamedTuple):
    """One block of every input, with the axis last and all other dimensions in one."""

    start: int
    """Where along the axis they begin."""
    predictions: AnyArray
    targets: AnyArray
    """Of labels, one a row."""
    weight: AnyArray | None
    pos_weight: AnyArray | None
    length: int
    """Of a whole distribution."""
    selection: Selection = EVERYTHING
    """What of them counts."""
    looked_at: Mask | None = None
    """The rows whose log-probabilities are added up, which takes time; None for all."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows are looked at, and how long they are."""
        count, length = self.predictions.shape
        return (count if self.selection.rows is None else self.selection.rows.size, length)

    def restricted(self, wanted: Mask) -> Rows:
        """Of the rows that count, only those that are wanted too; `wanted` is of all rows."""
        assert self.selection.elements is None
        chosen, looked_at = self.selection.rows, self.looked_at
        kept = wanted if chosen is None else wanted[chosen]
        if kept.all():
            return self
        chosen = np.flatnonzero(kept) if chosen is None else chosen[kept]
        looked_at = None if looked_at is None else looked_at[kept]
        return self._replace(selection=self.selection._replace(rows=chosen), looked_at=looked_at)

    def part(self, values: AnyArray, rows: slice, columns: slice) -> AnyArray:
        """Some of the rows that are looked at."""
        chosen = self.selection.rows
        return values[rows, columns] if chosen is None else values[chosen[rows], columns]


class Piece:
    """A few rows by whole segments, or by the last one of a row, as float64.

    Which of the arrays there are the spec decides.
    """

    log_targets: Array | None = None
    log_p: Array | None = None
    p: Array | None = None
    logits: Array | None = None
    weight: Array | None = None
    pos_weight: Array | None = None
    predictions_mass: Array | None = None
    targets_mass: Array | None = None
    """What each row adds up to, by segment; None where nothing is expected of it."""
    counted: Mask | None = None
    """Which elements count, where not all do; the others are 0."""

    def __init__(self, rows: slice, columns: slice, y: Array) -> None:
        self.rows, self.columns = rows, columns
        self.y = y
        """Target probabilities."""

    def select(self, counted: Mask) -> None:
        """Make nothing of the elements that do not count."""
        if counted.all():
            return
        self.counted = counted
        for values in (self.y, self.log_targets, self.p, self.logits):
            if values is not None:
                values[~counted] = 0.0
        if self.log_p is not None:
            self.log_p[~counted] = -1.0  # of a probability whose logarithms BCE does not clamp


def _tiles(rows: range, length: int) -> Iterator[tuple[slice, list[slice]]]:
    """Cut rows into groups, and each group's columns into whole segments or the last, shorter one."""
    step = max(1, PIECE // SEGMENT) * SEGMENT
    whole = length - length % SEGMENT
    columns = [slice(left, min(left + step, whole)) for left in range(0, whole, step)]
    if whole < length:
        columns.append(slice(whole, length))
    height = max(1, PIECE // min(length, step))
    for top in range(rows.start, rows.stop, height):
        yield slice(top, min(top + height, rows.stop)), columns


class PieceReader:
    """Cuts rows into pieces; a piece is valid until the next one is taken."""

    def __init__(self, spec: Spec, workspace: Workspace) -> None:
        self.spec = spec
        self._workspace = workspace

    def pieces(self, rows: Rows, norms: Norms) -> Iterator[Piece]:
        count, length = rows.shape
        for part, columns in _tiles(range(count), length):
            part_norms = self._norms(rows, part, norms)
            for cut in columns:
                yield self._piece(rows, part, cut, part_norms)

    def _norms(self, rows: Rows, part: slice, norms: Norms) -> Norms:
        """What normalises these rows; None where one segment is the whole distribution."""
        if any(norm is not None for norm in norms):
            return norms.rows(part)
        if rows.predictions.shape[1] <= SEGMENT:
            return norms
        return Norms(
            self._norm(rows, rows.predictions, part) if self.spec.log_softmax else None,
            self._norm(rows, rows.targets, part) if self.spec.targets_softmax else None,
        )

    def _norm(self, rows: Rows, values: AnyArray, part: slice) -> Norm:
        return Norm(*kernels.merge_partition(*self.partition(rows, values, range(part.start, part.stop))))

    def partition(self, rows: Rows, values: AnyArray, within: range | None = None) -> Partition:
        """Maxima and sums of exponentials of `values`, one of the arrays of `rows`, by segment."""
        count, length = rows.shape
        within = range(count) if within is None else within
        shape = (len(within), count_segments(length))
        partition = Partition(np.empty(shape), np.empty(shape))
        for part, columns in _tiles(within, length):
            for cut in columns:
                z = by_segment(self._logits("partition", rows.part(values, part, cut)))
                peaks, sums = kernels.partition(z, self._floats("scratch", z.shape))
                here = (slice(part.start - within.start, part.stop - within.start), segments_of(cut))
                partition.peaks[here] = peaks.reshape(part.stop - part.start, -1)
                partition.sums[here] = sums.reshape(part.stop - part.start, -1)
        return partition

    def _piece(self, rows: Rows, part: slice, columns: slice, norms: Norms) -> Piece:
        piece = self._with_targets(rows, part, columns, norms.targets)
        self._add_predictions(piece, rows, norms.predictions)
        if rows.weight is not None:
            piece.weight = self._load("weight", rows.part(rows.weight, part, columns))
        if rows.pos_weight is not None:
            piece.pos_weight = self._load("pos_weight", rows.part(rows.pos_weight, part, columns))
        if rows.selection.elements is not None:
            piece.select(rows.selection.elements[part, columns])
        return piece

    def _with_targets(self, rows: Rows, part: slice, columns: slice, norm: Norm | None) -> Piece:
        if self.spec.targets_are == "labels":
            return Piece(part, columns, self._one_hot(rows, part, columns))
        stored = rows.part(rows.targets, part, columns)
        mass: Array | None = None
        log_targets: Array | None = None
        match self.spec.targets_are:
            case "probs":
                y = self._load("y", stored)
            case "log-probs":
                log_targets = self._load("log_targets", stored)
            case "logits" if self.spec.targets_softmax:
                log_targets = self._load("log_targets", stored)
                mass = self._log_softmax(log_targets, norm, rows.length)
            case "logits":
                y = self._sigmoid(self._logits("log_targets", stored))
        if log_targets is not None:
            y = np.exp(log_targets, out=self._floats("y", log_targets.shape))
        piece = Piece(part, columns, y)
        piece.log_targets = log_targets
        piece.targets_mass = mass_of_probs(y) if mass is None and self.spec.normalised else mass
        return piece

    def _add_predictions(self, piece: Piece, rows: Rows, norm: Norm | None) -> None:
        values = rows.part(rows.predictions, piece.rows, piece.columns)
        if self.spec.log_softmax:
            piece.log_p = self._load("predictions", values)
            piece.predictions_mass = self._log_softmax(piece.log_p, norm, rows.length)
        elif self.spec.predictions_are == "logits":
            piece.logits = self._logits("predictions", values)
        elif self.spec.predictions_are == "log-probs":
            piece.log_p = self._load("predictions", values)
            if self.spec.normalised:
                looked_at = rows.looked_at
                piece.predictions_mass = mass_of_log_probs(
                    piece.log_p, None if looked_at is None else looked_at[piece.rows]
                )
        else:
            piece.p = self._load("predictions", values)
            piece.log_p = np.log(piece.p, out=self._floats("log_p", values.shape))
            if self.spec.normalised:
                piece.predictions_mass = mass_of_probs(piece.p)

    def _one_hot(self, rows: Rows, part: slice, columns: slice) -> Array:
        labels = rows.targets[part if rows.selection.rows is None else rows.selection.rows[part]]
        y = self._floats("y", (len(labels), columns.stop - columns.start))
        y.fill(0.0)
        column = labels.astype(np.intp) - columns.start - rows.start
        here = (column >= 0) & (column < y.shape[1])
        y[np.flatnonzero(here), column[here]] = 1.0
        return y

    def _logits(self, name: str, values: AnyArray) -> Array:
        z = self._load(name, values)
        self._divide(z)
        return z

    def _divide(self, z: Array) -> None:
        if self.spec.temperature is not None:
            np.divide(z, self.spec.temperature, out=z)

    def _log_softmax(self, z: Array, norm: Norm | None, length: int) -> Array:
        """Logits to log-probabilities, in place, and what the logits add up to.

        Without `norm` each row is a whole distribution; else they are of that `length`.
        """
        mass = mass_of_logits(z)
        self._divide(z)
        if norm is None:
            _, sums = kernels.partition(z, self._floats("scratch", z.shape))
            log_sum = np.log(sums)
        else:
            np.subtract(z, norm.peak[:, None], out=z)
            log_sum = norm.log_sum
        np.subtract(z, log_sum[:, None], out=z)
        mark_constant(mass, log_sum, length)
        return mass

    def _sigmoid(self, z: Array) -> Array:
        y = self._floats("y", z.shape)
        np.exp(-z, out=y)
        y += 1.0
        return np.reciprocal(y, out=y)

    def _load(self, name: str, values: AnyArray) -> Array:
        loaded = self._floats(name, values.shape)
        np.copyto(loaded, values, casting="unsafe")
        return loaded

    def _floats(self, name: str, shape: tuple[int, ...]) -> Array:
        return self._workspace.floats(name, shape)
