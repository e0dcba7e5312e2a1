"""One block of both inputs to the losses on it: the streaming core, on one worker's buffers.

A block is seen as rows, one distribution each, and worked through in pieces that stay in the
cache. Distributions longer than a segment are normalised and summed segment by segment, so that
it makes no difference to a bit whether one fits into a block (`BlockWorker.evaluate`) or is read
in windows (`BlockWorker.partition`, then `BlockWorker.evaluate_window`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kldiv_cli import kernels
from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Workspace
from kldiv_cli.diagnosis import Observations, Tally
from kldiv_cli.errors import DomainError
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.reductions import ExactSum, exact_sum
from kldiv_cli.sources.base import AnyArray, Source
from kldiv_cli.spec import Loss, Spec
from kldiv_cli.target_split import TargetSplit, split_by_target

__all__ = [
    "BlockWorker",
    "Job",
    "LossPartial",
    "MapWriter",
    "Norm",
    "Norms",
    "Partition",
    "WindowResult",
]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PIECE: Final = 16 * SEGMENT
"""Elements worked on at once: small enough for the cache, large enough that threads seldom wait
for the interpreter between two NumPy calls."""


class MapWriter(Protocol):
    """Takes the per-element losses, block by block, from any thread."""

    def write(self, block: Block, values: AnyArray) -> None: ...


class Job(NamedTuple):
    """What a worker needs to evaluate any block; all of it can be pickled but open map writers."""

    spec: Spec
    shape: tuple[int, ...]
    axis: int
    """The dimension that rows run along, counted from the front."""
    predictions: Source
    targets: Source
    weight: Source | None = None
    pos_weight: Source | None = None
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


class WindowResult(NamedTuple):
    """The losses of one window: what is additive, and the sums of segments still to be added."""

    partials: tuple[LossPartial, ...]
    segment_sums: tuple[Array | None, ...]


class _Rows(NamedTuple):
    """One block of every input, with the axis last and all other dimensions in one."""

    block: Block
    predictions: AnyArray
    targets: AnyArray
    """Of labels, one a row."""
    weight: AnyArray | None
    pos_weight: AnyArray | None


class _Piece:
    """A few rows by at most one segment, as float64; which of the arrays there are the spec decides."""

    log_targets: Array | None = None
    log_p: Array | None = None
    p: Array | None = None
    logits: Array | None = None
    weight: Array | None = None
    pos_weight: Array | None = None

    def __init__(self, rows: slice, columns: slice, y: Array) -> None:
        self.rows, self.columns = rows, columns
        self.y = y
        """Target probabilities."""


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

    def evaluate(self, block: Block) -> tuple[LossPartial, ...]:
        """The losses of a block of whole distributions."""
        result = self.evaluate_window(block, Norms())
        return finish(self.job, block, result)

    def evaluate_window(self, block: Block, norms: Norms) -> WindowResult:
        """The losses of a part of a block along the axis, normalised by `norms` where given."""
        with np.errstate(all="ignore"):
            rows = self._read(block)
            gathered = [self._gather(loss, rows) for loss in self.spec.losses]
            for piece in self._pieces(rows, norms):
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
                self._partition(rows.predictions) if self.spec.log_softmax else None,
                self._partition(rows.targets) if self.spec.targets_softmax else None,
            )

    # Reading

    def _read(self, block: Block) -> _Rows:
        job = self.job
        labels = self.spec.targets_are == "labels"
        return _Rows(
            block,
            self._rows("predictions", job.predictions, block),
            self._labels(block) if labels else self._rows("targets", job.targets, block),
            None if job.weight is None else self._rows("weight", job.weight, block),
            None if job.pos_weight is None else self._rows("pos_weight", job.pos_weight, block),
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
        labels = self.job.targets.read(without_axis, self._workspace["targets as stored"]).ravel()
        classes = self.job.shape[axis]
        wrong = (labels < 0) | (labels >= classes)
        if wrong.any():
            row = int(wrong.argmax())
            place = np.unravel_index(row, block_shape(without_axis))
            index = tuple(int(i) + s.start for i, s in zip(place, without_axis, strict=True))
            raise DomainError(
                f"{self.job.targets.address}: label {labels[row]} at index {index}, "
                f"expected 0 to {classes - 1}: the classes along axis {axis}"
            )
        return labels

    # Pieces

    def _pieces(self, rows: _Rows, norms: Norms) -> Iterator[_Piece]:
        count, length = rows.predictions.shape
        height = max(1, PIECE // min(length, SEGMENT))
        for top in range(0, count, height):
            part = slice(top, min(top + height, count))
            part_norms = self._norms(rows, part, norms)
            for left in range(0, length, SEGMENT):
                yield self._piece(rows, part, slice(left, min(left + SEGMENT, length)), part_norms)

    def _norms(self, rows: _Rows, part: slice, norms: Norms) -> Norms:
        """What normalises these rows; None where one segment is the whole distribution."""
        if norms != Norms():
            return norms.rows(part)
        if rows.predictions.shape[1] <= SEGMENT:
            return norms
        return Norms(
            self._norm(rows.predictions[part]) if self.spec.log_softmax else None,
            self._norm(rows.targets[part]) if self.spec.targets_softmax else None,
        )

    def _norm(self, values: AnyArray) -> Norm:
        return Norm(*kernels.merge_partition(*self._partition(values)))

    def _partition(self, values: AnyArray) -> Partition:
        rows, length = values.shape
        height = max(1, PIECE // SEGMENT)
        segments = -(-length // SEGMENT)
        partition = Partition(np.empty((rows, segments)), np.empty((rows, segments)))
        for top in range(0, rows, height):
            for k in range(segments):
                part = (slice(top, top + height), slice(k * SEGMENT, (k + 1) * SEGMENT))
                z = self._logits("partition", values[part])
                scratch = self._floats("scratch", z.shape)
                partition.peaks[part[0], k], partition.sums[part[0], k] = kernels.partition(z, scratch)
        return partition

    def _piece(self, rows: _Rows, part: slice, columns: slice, norms: Norms) -> _Piece:
        piece = self._with_targets(rows, part, columns, norms.targets)
        self._add_predictions(piece, rows.predictions[part, columns], norms.predictions)
        if rows.weight is not None:
            piece.weight = self._load("weight", rows.weight[part, columns])
        if rows.pos_weight is not None:
            piece.pos_weight = self._load("pos_weight", rows.pos_weight[part, columns])
        return piece

    def _with_targets(self, rows: _Rows, part: slice, columns: slice, norm: Norm | None) -> _Piece:
        match self.spec.targets_are:
            case "probs":
                return _Piece(part, columns, self._load("y", rows.targets[part, columns]))
            case "labels":
                return _Piece(part, columns, self._one_hot(rows, part, columns))
            case "log-probs":
                log_targets = self._load("log_targets", rows.targets[part, columns])
            case "logits" if self.spec.targets_softmax:
                log_targets = self._logits("log_targets", rows.targets[part, columns])
                self._normalize(log_targets, norm)
            case "logits":
                z = self._logits("log_targets", rows.targets[part, columns])
                return _Piece(part, columns, self._sigmoid(z))
        y = np.exp(log_targets, out=self._floats("y", log_targets.shape))
        piece = _Piece(part, columns, y)
        piece.log_targets = log_targets
        return piece

    def _add_predictions(self, piece: _Piece, values: AnyArray, norm: Norm | None) -> None:
        if self.spec.log_softmax:
            piece.log_p = self._logits("predictions", values)
            self._normalize(piece.log_p, norm)
        elif self.spec.predictions_are == "logits":
            piece.logits = self._logits("predictions", values)
        elif self.spec.predictions_are == "log-probs":
            piece.log_p = self._load("predictions", values)
        else:
            piece.p = self._load("predictions", values)
            piece.log_p = np.log(piece.p, out=self._floats("log_p", values.shape))

    def _one_hot(self, rows: _Rows, part: slice, columns: slice) -> Array:
        labels = rows.targets[part]
        y = self._floats("y", (len(labels), columns.stop - columns.start))
        y.fill(0.0)
        column = labels.astype(np.intp) - columns.start - rows.block[self.job.axis].start
        here = (column >= 0) & (column < y.shape[1])
        y[np.flatnonzero(here), column[here]] = 1.0
        return y

    def _logits(self, name: str, values: AnyArray) -> Array:
        z = self._load(name, values)
        if self.spec.temperature is not None:
            np.divide(z, self.spec.temperature, out=z)
        return z

    def _normalize(self, z: Array, norm: Norm | None) -> None:
        """Logits to log-probabilities, in place; without `norm` each row is a whole distribution."""
        if norm is None:
            _, sums = kernels.partition(z, self._floats("scratch", z.shape))
            log_sum = np.log(sums)
        else:
            np.subtract(z, norm.peak[:, None], out=z)
            log_sum = norm.log_sum
        np.subtract(z, log_sum[:, None], out=z)

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

    # Losses

    def _gather(self, loss: Loss, rows: _Rows) -> _Gathered:
        count, length = rows.predictions.shape
        return _Gathered(
            segment_sums=np.empty((count, -(-length // SEGMENT))) if loss == "kl" else None,
            map=self._floats(f"{loss} map", (count, length)) if self.job.writers else None,
        )

    def _add_piece(self, loss: Loss, piece: _Piece, result: _Gathered, block: Block) -> None:
        values = self._floats("loss", piece.y.shape)
        places = _Places(self.job, block, piece)
        if loss == "kl":
            self._kl(piece, values, result, places)
        else:
            self._bce(piece, values, result, places)
        if self.spec.by_target:
            result.add(LossPartial(split=split_by_target(piece.y, values)))
        if result.map is not None:
            result.map[piece.rows, piece.columns] = values

    def _kl(self, piece: _Piece, values: Array, result: _Gathered, places: _Places) -> None:
        assert piece.log_p is not None
        assert result.segment_sums is not None
        log_y = piece.log_targets
        if log_y is None:
            log_y = self._floats("log_y", values.shape)
            kernels.log_targets(piece.y, log_y)
        kernels.kl(piece.log_p, log_y, piece.y, values)
        sums = values.sum(axis=-1)
        odd = np.flatnonzero(~np.isfinite(sums))
        if odd.size:
            settled = values[odd]
            self._settle(piece, odd, settled, result, places)
            values[odd] = settled
            sums[odd] = settled.sum(axis=-1)
        result.segment_sums[piece.rows, piece.columns.start // SEGMENT] = sums

    def _settle(
        self,
        piece: _Piece,
        odd: npt.NDArray[np.intp],
        values: Array,
        result: _Gathered,
        places: _Places,
    ) -> None:
        """Apply the zero policy to the rows `odd`, and note what is not finite there."""
        assert piece.log_p is not None
        log_y = None if piece.log_targets is None else piece.log_targets[odd]
        zero = kernels.settle_kl(piece.log_p[odd], log_y, piece.y[odd], values)
        if self.spec.zero_policy == "limit":
            values[zero] = 0.0
        result.observe(zero_terms=places.tally(zero, values, odd), **places.nonfinite(values, odd))

    def _bce(self, piece: _Piece, values: Array, result: _Gathered, places: _Places) -> None:
        if piece.logits is not None:
            self._bce_with_logits(piece, values, result, places)
        else:
            self._bce_of_probabilities(piece, values, result, places)
        if piece.weight is not None:
            np.multiply(values, piece.weight, out=values)
        total = exact_sum(values)
        result.add(LossPartial(total=total))
        if total.nans or total.positive_infinities or total.negative_infinities:
            result.observe(**places.nonfinite(values))

    def _bce_with_logits(self, piece: _Piece, values: Array, result: _Gathered, places: _Places) -> None:
        assert piece.logits is not None
        scratch = self._floats("scratch", values.shape)
        kernels.bce_with_logits(piece.logits, piece.y, piece.pos_weight, values, scratch)
        if not np.isfinite(values.sum()) and self.spec.zero_policy == "limit":
            settled = kernels.settle_bce_with_logits(piece.logits, piece.y, piece.pos_weight, values)
            result.observe(zero_terms=places.tally(settled & (values == 0), values))
        result.observe(targets_outside=places.outside(piece.y))

    def _bce_of_probabilities(self, piece: _Piece, values: Array, result: _Gathered, places: _Places) -> None:
        assert piece.log_p is not None
        log_p = self._floats("clamped log_p", values.shape)
        log_1mp = self._floats("scratch", values.shape)
        np.copyto(log_p, piece.log_p)
        if piece.p is not None:
            result.observe(predictions_outside=places.outside(piece.p))
            np.negative(piece.p, out=log_1mp)
            np.log1p(log_1mp, out=log_1mp)
        else:
            result.observe(predictions_outside=places.above_zero(piece.log_p))
            kernels.log1mexp(piece.log_p, log_1mp)
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


class _Places:
    """Finds where in the whole array the elements of a piece are."""

    def __init__(self, job: Job, block: Block, piece: _Piece) -> None:
        self.job, self.block, self.piece = job, block, piece

    def tally(self, mask: Mask, values: Array, rows: npt.NDArray[np.intp] | None = None) -> Tally:
        """Count a mask over the piece, or over some of its rows, and find its first element."""
        row, column = np.nonzero(mask)
        if row.size == 0:
            return Tally()
        found = values[row, column]
        flat = self._flat(row if rows is None else rows[row], column)
        first = int(flat.argmin())
        return Tally(row.size, int(flat[first]), float(found[first]))

    def nonfinite(self, values: Array, rows: npt.NDArray[np.intp] | None = None) -> dict[str, Tally]:
        return {
            "infinite_terms": self.tally(np.isinf(values), values, rows),
            "nan_terms": self.tally(np.isnan(values), values, rows),
        }

    def outside(self, values: Array) -> Tally:
        """Count values outside [0, 1]; nan is outside."""
        if values.min() >= 0 and values.max() <= 1:
            return Tally()
        return self.tally(~((values >= 0) & (values <= 1)), values)

    def above_zero(self, values: Array) -> Tally:
        """Count log-probabilities above 0; nan counts."""
        if values.max() <= 0:
            return Tally()
        return self.tally(~(values <= 0), values)

    def _flat(self, row: npt.NDArray[np.intp], column: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        if not self.job.shape:
            return np.zeros(row.size, np.intp)
        axis = self.job.axis
        starts = [piece.start for piece in self.block]
        lengths = block_shape(self.block)
        other_lengths = lengths[:axis] + lengths[axis + 1 :]
        others = np.unravel_index(row + self.piece.rows.start, other_lengths) if other_lengths else ()
        index = [*others[:axis], column + self.piece.columns.start, *others[axis:]]
        absolute = tuple(i + start for i, start in zip(index, starts, strict=True))
        return np.asarray(np.ravel_multi_index(absolute, self.job.shape))


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
    tally = _least(job, block, losses, negative) if negative.size else Tally()
    return LossPartial(total=exact_sum(losses), observations=Observations(negative_distributions=tally))


def _least(job: Job, block: Block, losses: Array, negative: npt.NDArray[np.intp]) -> Tally:
    axis = job.axis
    starts = [piece.start for piece in block[:axis] + block[axis + 1 :]]
    lengths = block_shape(block)
    others = lengths[:axis] + lengths[axis + 1 :]
    least = losses[negative].min()
    ties = negative[losses[negative] == least]
    if not others:
        return Tally(negative.size, 0, float(least))
    index = tuple(i + s for i, s in zip(np.unravel_index(ties, others), starts, strict=True))
    flat = np.ravel_multi_index(index, job.shape[:axis] + job.shape[axis + 1 :])
    return Tally(negative.size, int(np.min(flat)), float(least))


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
