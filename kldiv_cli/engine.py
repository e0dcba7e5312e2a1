"""One block of both inputs to the losses on it: the streaming core, on one worker's buffers.

A block is seen as rows, one distribution each, and worked through in pieces that stay in the
cache. Distributions longer than a segment are normalised and summed segment by segment, so that
it makes no difference to a bit whether one fits into a block (`BlockWorker.evaluate`) or is read
in windows (`BlockWorker.partition`, then `BlockWorker.evaluate_window`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from kldiv_cli.block_reader import BlockReader, differ
from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Workspace
from kldiv_cli.distributions import finish, scattered, with_statistics
from kldiv_cli.job import Job
from kldiv_cli.observations import Observations
from kldiv_cli.partials import LossPartial, WindowResult
from kldiv_cli.piece_losses import PieceLosses
from kldiv_cli.pieces import Norms, Partition, Piece, PieceReader, Rows
from kldiv_cli.places import Places
from kldiv_cli.reductions import exact_sum
from kldiv_cli.segments import count_segments, segment_sums, segments_of
from kldiv_cli.selection import Selection
from kldiv_cli.sources.base import AnyArray
from kldiv_cli.spec import Loss
from kldiv_cli.target_split import split_by_target
from kldiv_cli.top_classes import TopFinder

__all__ = ["BlockWorker"]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


class _Gathered:
    """What one loss has come to in the block at hand."""

    def __init__(self, segment_sums: Array | None, map: Array | None) -> None:
        self.partial = LossPartial()
        self.segment_sums, self.map = segment_sums, map

    def add(self, part: LossPartial) -> None:
        self.partial = self.partial.merge(part)


class BlockWorker:
    """Evaluates blocks one after another, reusing its memory."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.spec = job.spec
        self._workspace = Workspace()
        self._blocks = BlockReader(job, self._workspace)
        self._reader = PieceReader(job.spec, self._workspace)
        self._losses = PieceLosses(job.spec, self._workspace)
        self._differ = False

    def evaluate(self, block: Block) -> tuple[LossPartial, ...]:
        """The losses of a block of whole distributions."""
        result = self.evaluate_window(block, Norms())
        return finish(self.job, block, result)

    def evaluate_window(self, block: Block, norms: Norms) -> WindowResult:
        """The losses of a part of a block along the axis, normalised by `norms` where given."""
        with np.errstate(all="ignore"):
            rows = self._blocks.read(block)
            gathered = [self._gather(loss, rows) for loss in self.spec.losses]
            masses = self._masses(rows)
            finder = TopFinder(self.spec, rows) if self.spec.top1 else None
            for piece in self._reader.pieces(rows, norms):
                if finder is not None:
                    finder.take(piece.rows, piece.columns)
                _fill_masses(masses, piece)
                for loss, result in zip(self.spec.losses, gathered, strict=True):
                    self._add_piece(loss, piece, result, block, rows.selection)
            self._write_maps(block, rows.selection, gathered)
        if self.job.batches is not None:
            _mark_batches(self.job, block, rows)
        self._differ = self._differ or differ(rows)
        counted = rows.selection.elements
        return WindowResult(
            tuple(result.partial for result in gathered),
            tuple(result.segment_sums for result in gathered),
            masses,
            rows.shape,
            rows.selection.rows,
            None if counted is None else counted.sum(axis=1, dtype=np.int64),
            self._differ,
            None if finder is None else finder.tops(),
        )

    def partition(self, block: Block) -> tuple[Partition | None, Partition | None]:
        """The first pass over distributions too large for a block: of predictions and targets."""
        with np.errstate(all="ignore"):
            rows = self._blocks.read(block)
            return (
                self._reader.partition(rows, rows.predictions) if self.spec.log_softmax else None,
                self._reader.partition(rows, rows.targets) if self.spec.targets_softmax else None,
            )

    # Losses

    def _gather(self, loss: Loss, rows: Rows) -> _Gathered:
        count, length = rows.shape
        mapped = self.job.writers or (loss == "bce" and self.job.keeper(loss) is not None)
        return _Gathered(
            segment_sums=np.empty((count, count_segments(length))) if loss == "kl" else None,
            map=self._workspace.floats(f"{loss} map", (count, length)) if mapped else None,
        )

    def _masses(self, rows: Rows) -> tuple[Array | None, Array | None]:
        """What predictions and targets will add up to by row and segment, where that says something."""
        count, length = rows.shape
        spec = self.spec
        expected = (
            spec.log_softmax or spec.normalised,
            (spec.targets_softmax or spec.normalised) and spec.targets_are != "labels",
        )
        first, second = (np.empty((count, count_segments(length))) if e else None for e in expected)
        return first, second

    def _add_piece(
        self, loss: Loss, piece: Piece, result: _Gathered, block: Block, selection: Selection
    ) -> None:
        corner = (piece.rows.start, piece.columns.start)
        places = Places(self.job.shape, self.job.axis, block, *corner, selection.rows)
        values, observed = self._losses.terms(loss, piece, places)
        if result.segment_sums is not None:
            sums = segment_sums(values)
            if not np.isfinite(sums).all():
                observed = observed.merge(self._losses.settle(loss, piece, values, places))
                sums = segment_sums(values)
            result.segment_sums[piece.rows, segments_of(piece.columns)] = sums
            part = LossPartial(observations=observed)
        else:
            part = self._of_elements(loss, piece, values, observed, places)
        if self.spec.by_target:
            counted = ... if piece.counted is None else piece.counted
            part = part._replace(split=split_by_target(piece.y[counted], values[counted]))
        if part != _NOTHING:
            result.add(part)
        if result.map is not None:
            result.map[piece.rows, piece.columns] = values

    def _of_elements(
        self, loss: Loss, piece: Piece, values: Array, observed: Observations, places: Places
    ) -> LossPartial:
        total = exact_sum(values)
        if total.nans or total.positive_infinities or total.negative_infinities:
            observed = observed.merge(self._losses.settle(loss, piece, values, places))
        part = LossPartial(total=total, observations=observed)
        counted = piece.counted

        def lie(which: Indices) -> Indices:
            flat = which if counted is None else np.flatnonzero(counted)[which]
            return places.elements(*np.divmod(flat, values.shape[1]))

        return with_statistics(self.job, loss, part, values[... if counted is None else counted].ravel(), lie)

    # Maps

    def _write_maps(self, block: Block, selection: Selection, gathered: list[_Gathered]) -> None:
        for loss, result in zip(self.spec.losses, gathered, strict=True):
            if result.map is None:
                continue
            rows, counted = _whole_map(result.map, selection, block, self.job.axis)
            values = _from_rows(rows, block_shape(block), self.job.axis)
            for writer in self.job.writers:
                writer.write(block, values)
            kept = self.job.keeper(loss)
            if loss == "bce" and kept is not None:
                shaped = None if counted is None else _from_rows(counted, block_shape(block), self.job.axis)
                kept.write(block, values, shaped)


_NOTHING = LossPartial()


def _fill_masses(masses: tuple[Array | None, Array | None], piece: Piece) -> None:
    for mass, of_piece in zip(masses, (piece.predictions_mass, piece.targets_mass), strict=True):
        if mass is not None and of_piece is not None:
            mass[piece.rows, segments_of(piece.columns)] = of_piece


def _mark_batches(job: Job, block: Block, rows: Rows) -> None:
    """Mark the entries of the first dimension of which anything counts here."""
    counted = rows.selection.elements
    first = block[:1] or (slice(0, 1),)
    length = first[0].stop - first[0].start
    assert job.batches is not None
    if job.axis > 0:
        looked = np.arange(rows.shape[0]) if counted is None else np.flatnonzero(counted.any(axis=1))
        places = Places(job.shape, job.axis, block, chosen=rows.selection.rows)
        seen = np.zeros(length, np.bool_)
        seen[places.outer(looked)[0] - first[0].start] = True
    else:
        seen = np.full(length, rows.shape[0] > 0) if counted is None else np.asarray(counted.any(axis=0))
    job.batches.write(first, seen)


def _whole_map(values: Array, selection: Selection, block: Block, axis: int) -> tuple[Array, Mask | None]:
    """A map over all rows of a block, nan where nothing counts, and what counts."""
    if selection.rows is None and selection.elements is None:
        return values, None
    counted = np.ones(values.shape, np.bool_) if selection.elements is None else selection.elements
    values = np.where(counted, values, np.nan)
    if selection.rows is None:
        return values, counted
    count = math.prod(block_shape(block[:axis] + block[axis + 1 :]))
    everywhere = np.zeros((count, values.shape[1]), np.bool_)
    everywhere[selection.rows] = counted
    return scattered(values, selection.rows, count), everywhere


def _from_rows(rows: AnyArray, shape: tuple[int, ...], axis: int) -> AnyArray:
    if not shape:
        return rows.reshape(())
    moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
    return np.moveaxis(rows.reshape(moved), -1, axis)
