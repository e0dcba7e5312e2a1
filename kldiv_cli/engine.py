"""One block of both inputs to the losses on it: the streaming core, on one worker's buffers.

A block is seen as rows, one distribution each, and worked through in pieces that stay in the
cache. Distributions longer than a segment are normalised and summed segment by segment, so that
it makes no difference to a bit whether one fits into a block (`BlockWorker.evaluate`) or is read
in windows (`BlockWorker.partition`, then `BlockWorker.evaluate_window`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kldiv_cli import kernels
from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Workspace
from kldiv_cli.diagnosis import Observations, Tally
from kldiv_cli.pieces import (
    Norms,
    Partition,
    Piece,
    PieceReader,
    Rows,
    by_segment,
    count_segments,
    segments_of,
)
from kldiv_cli.places import Places
from kldiv_cli.reductions import ExactSum, exact_sum
from kldiv_cli.sources.base import AnyArray, Inputs, Source
from kldiv_cli.spec import Loss, Spec
from kldiv_cli.target_split import TargetSplit, split_by_target

__all__ = ["BlockWorker", "Job", "LossPartial", "MapWriter", "WindowResult", "finish"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class MapWriter(Protocol):
    """Takes the per-element losses, block by block, from any thread."""

    def write(self, block: Block, values: AnyArray) -> None: ...


class Job(NamedTuple):
    """What a worker needs to evaluate any block; all of it can be pickled but open map writers."""

    spec: Spec
    shape: tuple[int, ...]
    axis: int
    """The dimension that rows run along, counted from the front."""
    inputs: Inputs
    """Of one shape, but for labels."""
    writers: tuple[MapWriter, ...] = ()
    """Where the map goes; there is only one loss then."""


class LossPartial(NamedTuple):
    """What one block adds to the result of one loss."""

    total: ExactSum = ExactSum()
    observations: Observations = Observations()
    split: TargetSplit | None = None

    def merge(self, other: LossPartial) -> LossPartial:
        split = self.split or TargetSplit()
        return LossPartial(
            total=self.total.merge(other.total),
            observations=self.observations.merge(other.observations),
            split=split.merge(other.split) if other.split is not None else self.split,
        )


class WindowResult(NamedTuple):
    """The losses of one window: what is additive, and the sums of segments still to be added."""

    partials: tuple[LossPartial, ...]
    segment_sums: tuple[Array | None, ...]


class _Gathered:
    """What one loss has come to in the block at hand."""

    def __init__(self, segment_sums: Array | None, map: Array | None) -> None:
        self.partial = LossPartial()
        self.segment_sums, self.map = segment_sums, map

    def add(self, part: LossPartial) -> None:
        self.partial = self.partial.merge(part)

    def observe(self, **tallies: Tally) -> None:
        if any(tally.count for tally in tallies.values()):
            self.add(LossPartial(observations=Observations(**tallies)))


class BlockWorker:
    """Evaluates blocks one after another, reusing its memory."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.spec = job.spec
        self._workspace = Workspace()
        self._reader = PieceReader(job.spec, self._workspace)

    def evaluate(self, block: Block) -> tuple[LossPartial, ...]:
        """The losses of a block of whole distributions."""
        result = self.evaluate_window(block, Norms())
        return finish(self.job, block, result)

    def evaluate_window(self, block: Block, norms: Norms) -> WindowResult:
        """The losses of a part of a block along the axis, normalised by `norms` where given."""
        with np.errstate(all="ignore"):
            rows = self._read(block)
            gathered = [self._gather(loss, rows) for loss in self.spec.losses]
            self._check_labels(block, rows, gathered)
            for piece in self._reader.pieces(rows, norms):
                for loss, result in zip(self.spec.losses, gathered, strict=True):
                    self._add_piece(loss, piece, result, block)
            self._write_maps(block, gathered)
        return WindowResult(
            tuple(result.partial for result in gathered),
            tuple(result.segment_sums for result in gathered),
        )

    def partition(self, block: Block) -> tuple[Partition | None, Partition | None]:
        """The first pass over distributions too large for a block: of predictions and targets."""
        with np.errstate(all="ignore"):
            rows = self._read(block)
            return (
                self._reader.partition(rows.predictions) if self.spec.log_softmax else None,
                self._reader.partition(rows.targets) if self.spec.targets_softmax else None,
            )

    # Reading

    def _read(self, block: Block) -> Rows:
        inputs = self.job.inputs
        labels = self.spec.targets_are == "labels"
        return Rows(
            block[self.job.axis].start if block else 0,
            self._rows("predictions", inputs.predictions, block),
            self._labels(block) if labels else self._rows("targets", inputs.targets, block),
            None if inputs.weight is None else self._rows("weight", inputs.weight, block),
            None if inputs.pos_weight is None else self._rows("pos_weight", inputs.pos_weight, block),
        )

    def _rows(self, name: str, source: Source, block: Block) -> AnyArray:
        array = source.read(block, self._workspace[f"{name} as stored"])
        moved = np.moveaxis(np.atleast_1d(array), self.job.axis, -1)
        if not moved.flags.c_contiguous:
            straight = self._workspace[f"{name} as rows"].array(moved.shape, moved.dtype)
            np.copyto(straight, moved)
            moved = straight
        return moved.reshape(-1, moved.shape[-1])

    def _labels(self, block: Block) -> AnyArray:
        axis = self.job.axis
        without_axis = block[:axis] + block[axis + 1 :]
        return self.job.inputs.targets.read(without_axis, self._workspace["targets as stored"]).ravel()

    def _check_labels(self, block: Block, rows: Rows, gathered: list[_Gathered]) -> None:
        """Note labels that are no class; they are seen once, with the first window of their row."""
        if self.spec.targets_are != "labels" or rows.start > 0:
            return
        outside = (rows.targets < 0) | (rows.targets >= self.job.shape[self.job.axis])
        places = Places(self.job.shape, self.job.axis, block)
        tally = places.first_distribution(np.flatnonzero(outside), rows.targets)
        for result in gathered:
            result.observe(labels_outside=tally)

    # Losses

    def _gather(self, loss: Loss, rows: Rows) -> _Gathered:
        count, length = rows.predictions.shape
        return _Gathered(
            segment_sums=np.empty((count, count_segments(length))) if loss == "kl" else None,
            map=self._workspace.floats(f"{loss} map", (count, length)) if self.job.writers else None,
        )

    def _add_piece(self, loss: Loss, piece: Piece, result: _Gathered, block: Block) -> None:
        values = self._workspace.floats("loss", piece.y.shape)
        places = Places(self.job.shape, self.job.axis, block, piece.rows.start, piece.columns.start)
        if loss == "kl":
            self._kl(piece, values, result, places)
        else:
            self._bce(piece, values, result, places)
        if self.spec.by_target:
            result.add(LossPartial(split=split_by_target(piece.y, values)))
        if result.map is not None:
            result.map[piece.rows, piece.columns] = values

    def _kl(self, piece: Piece, values: Array, result: _Gathered, places: Places) -> None:
        assert piece.log_p is not None
        assert result.segment_sums is not None
        log_y = piece.log_targets
        if log_y is None:
            log_y = self._workspace.floats("log_y", values.shape)
            kernels.log_targets(piece.y, log_y)
        kernels.kl(piece.log_p, log_y, piece.y, values)
        sums = _segment_sums(values)
        if not np.isfinite(sums).all():
            self._settle(piece, values, result, places)
            sums = _segment_sums(values)
        result.segment_sums[piece.rows, segments_of(piece.columns)] = sums

    def _settle(self, piece: Piece, values: Array, result: _Gathered, places: Places) -> None:
        """Apply the zero policy to the terms that are not finite, and note what they are."""
        assert piece.log_p is not None
        row, column = odd = np.nonzero(~np.isfinite(values))
        loss = values[odd]
        log_y = None if piece.log_targets is None else piece.log_targets[odd]
        zero = kernels.settle_kl(piece.log_p[odd], log_y, piece.y[odd], loss)
        if self.spec.zero_policy == "limit":
            loss[zero] = 0.0
        values[odd] = loss
        result.observe(
            zero_terms=places.first_element(row[zero], column[zero], loss[zero]),
            **places.nonfinite(row, column, loss),
        )

    def _bce(self, piece: Piece, values: Array, result: _Gathered, places: Places) -> None:
        if piece.logits is not None:
            self._bce_with_logits(piece, values, result, places)
        else:
            self._bce_of_probabilities(piece, values, result, places)
        if piece.weight is not None:
            np.multiply(values, piece.weight, out=values)
        total = exact_sum(values)
        result.add(LossPartial(total=total))
        if total.nans or total.positive_infinities or total.negative_infinities:
            row, column = odd = np.nonzero(~np.isfinite(values))
            result.observe(**places.nonfinite(row, column, values[odd]))

    def _bce_with_logits(self, piece: Piece, values: Array, result: _Gathered, places: Places) -> None:
        assert piece.logits is not None
        scratch = self._workspace.floats("scratch", values.shape)
        spare = self._workspace.floats("spare", values.shape)
        kernels.bce_with_logits(piece.logits, piece.y, piece.pos_weight, values, scratch, spare)
        if not np.isfinite(values.sum()) and self.spec.zero_policy == "limit":
            settled = kernels.settle_bce_with_logits(piece.logits, piece.y, piece.pos_weight, values)
            result.observe(zero_terms=places.tally(settled & (values == 0), values))
        result.observe(targets_outside=places.outside(piece.y))

    def _bce_of_probabilities(self, piece: Piece, values: Array, result: _Gathered, places: Places) -> None:
        assert piece.log_p is not None
        log_p = self._workspace.floats("clamped log_p", values.shape)
        log_1mp = self._workspace.floats("scratch", values.shape)
        spare = self._workspace.floats("spare", values.shape)
        np.copyto(log_p, piece.log_p)
        if piece.p is not None:
            result.observe(predictions_outside=places.outside(piece.p))
            np.negative(piece.p, out=values)
            kernels.log1p(values, log_1mp, spare)
        else:
            result.observe(predictions_outside=places.above_zero(piece.log_p))
            kernels.log1mexp(piece.log_p, log_1mp, spare)
        result.observe(targets_outside=places.outside(piece.y))
        clamped = _clamped(log_p, log_1mp, piece.y)
        kernels.bce(log_p, log_1mp, piece.y, values)
        if clamped is not None:
            result.observe(clamped_terms=places.tally(clamped, values))

    # Maps

    def _write_maps(self, block: Block, gathered: list[_Gathered]) -> None:
        for result in gathered:
            if result.map is not None:
                values = _from_rows(result.map, block_shape(block), self.job.axis)
                for writer in self.job.writers:
                    writer.write(block, values)


def finish(job: Job, block: Block, result: WindowResult) -> tuple[LossPartial, ...]:
    """Add up the segments of each distribution, and the distributions of the block."""
    return tuple(
        partial if sums is None else partial.merge(_distributions(job, block, sums))
        for partial, sums in zip(result.partials, result.segment_sums, strict=True)
    )


def _distributions(job: Job, block: Block, segment_sums: Array) -> LossPartial:
    if segment_sums.shape[1] == 1:
        losses = segment_sums[:, 0]
    else:
        losses = np.array([exact_sum(sums).value for sums in segment_sums])
    negative = np.flatnonzero(losses < 0)
    worst = Places(job.shape, job.axis, block).least_distribution(negative, losses)
    return LossPartial(total=exact_sum(losses), observations=Observations(negative_distributions=worst))


def _segment_sums(values: Array) -> Array:
    sums: Array = by_segment(values).sum(axis=-1).reshape(len(values), -1)
    return sums


def _clamped(log_p: Array, log_1mp: Array, y: Array) -> Mask | None:
    """Which terms PyTorch's clamp changes; None where it changes none."""
    if log_p.min() >= kernels.BCE_FLOOR and log_1mp.min() >= kernels.BCE_FLOOR:
        return None
    low_p, low_1mp = log_p < kernels.BCE_FLOOR, log_1mp < kernels.BCE_FLOOR
    clamped: Mask = (low_p & (y != 0)) | (low_1mp & (y != 1))
    return clamped


def _from_rows(rows: AnyArray, shape: tuple[int, ...], axis: int) -> AnyArray:
    if not shape:
        return rows.reshape(())
    moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
    return np.moveaxis(rows.reshape(moved), -1, axis)
