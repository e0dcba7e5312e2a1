"""Two sources and a spec, block by block, to the one record that every output is made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from kldiv_cli import execution
from kldiv_cli.blocks import Block, Layout, axis_windows, cut, fits_whole
from kldiv_cli.diagnosis import Finding, Observations, find, unravel
from kldiv_cli.engine import (
    PIECE,
    BlockWorker,
    Job,
    LossPartial,
    MapWriter,
    Norm,
    Norms,
    Partition,
    WindowResult,
    finish,
)
from kldiv_cli.errors import AxisError, DomainError, FormatError, ShapeMismatch, UsageError
from kldiv_cli.functional import normalize_axis
from kldiv_cli.kernels import SEGMENT, merge_partition
from kldiv_cli.reductions import Scalars, reduce_sum
from kldiv_cli.sources import BroadcastSource, Source
from kldiv_cli.spec import Loss, Spec
from kldiv_cli.target_split import TargetSplit

__all__ = ["DEFAULT_MEMORY", "Evaluation", "Input", "Resources", "evaluate_sources", "map_shape"]

DEFAULT_MEMORY: Final = 48 << 20
_LARGEST_BLOCK: Final = 1 << 20
_SMALLEST_BLOCK: Final = 16 * SEGMENT
_MOST_WORKERS: Final = 32

Progress = Callable[[int], None]


class Input(NamedTuple):
    """One of the arrays: where it lies, and what is stored there."""

    address: str
    shape: tuple[int, ...]
    dtype: str
    space: str
    """What its values are taken for: logits, log-probs, probs or labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The result of one loss on one pair: every output format is made from this."""

    loss: Loss
    predictions: Input
    targets: Input
    shape: tuple[int, ...]
    axis: int
    settings: Spec
    scalars: Scalars
    by_target: TargetSplit | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def sum(self) -> float:
        """Exact sum of the losses, rounded once, in nats."""
        return self.scalars.sum

    @property
    def mean(self) -> float:
        """The sum divided by the number of elements, as PyTorch's "mean"."""
        return self.scalars.mean

    @property
    def batchmean(self) -> float | None:
        """The sum divided by the length of the first dimension; None for BCE."""
        return self.scalars.batchmean

    @property
    def distmean(self) -> float:
        """The sum divided by the number of distributions: the mean KL divergence."""
        return self.scalars.distmean


class Resources(NamedTuple):
    """What a computation may use; none of it changes a bit of the result."""

    workers: int | None = None
    """Threads; by default one a processor."""
    memory: int | None = None
    """Bytes for blocks and buffers in all."""


DEFAULT_RESOURCES: Final = Resources()


def map_shape(spec: Spec, predictions: Source, targets: Source) -> tuple[int, ...]:
    """The shape of the per-element losses.

    Raises
    ------
    ShapeMismatch
        The shapes do not belong together under `spec`.
    AxisError
        There is no such axis.
    """
    shape = predictions.shape
    try:
        axis = normalize_axis(spec.axis, len(shape))
    except AxisError as error:
        raise AxisError(f"{predictions.address}: {error}, shape {shape}") from None
    if spec.targets_are == "labels":
        _check_labels(predictions, targets, axis)
        return shape
    if targets.shape == shape:
        return shape
    if spec.broadcast:
        return _broadcast_shape(spec, predictions, targets)
    raise ShapeMismatch(
        f"predictions {predictions.address} {shape} and targets {targets.address} {targets.shape}: "
        f"expected equal shapes{_shape_hint(spec, predictions, targets, axis)}"
    )


def evaluate_sources(
    spec: Spec,
    predictions: Source,
    targets: Source,
    *,
    weight: Source | None = None,
    pos_weight: Source | None = None,
    writers: Sequence[MapWriter] = (),
    resources: Resources = DEFAULT_RESOURCES,
    progress: Progress | None = None,
) -> tuple[Evaluation, ...]:
    """Compute every loss of `spec` in one pass (two, for a distribution that does not fit a block).

    `writers` take the per-element map; `progress` is told how many elements were done since it
    was last called.

    Raises
    ------
    KldivError
        The inputs do not fit each other or the options, or can't be read.
    """
    if writers and len(spec.losses) > 1:
        raise UsageError("loss: a per-element map is of one loss; give one --loss at a time")
    shape = map_shape(spec, predictions, targets)
    job = Job(
        spec=spec,
        shape=shape,
        axis=normalize_axis(spec.axis, len(shape)),
        predictions=_stretched(predictions, shape),
        targets=targets if spec.targets_are == "labels" else _stretched(targets, shape),
        weight=_factor("weight", weight, shape),
        pos_weight=_factor("pos_weight", pos_weight, shape),
        writers=tuple(writers),
    )
    results = _run(job, resources, progress or (lambda done: None))
    for source in (predictions, targets, weight, pos_weight):
        if source is not None:
            source.verify()
    return tuple(
        _evaluation(job, loss, result, predictions, targets)
        for loss, result in zip(spec.losses, results, strict=True)
    )


# Shapes


def _check_labels(predictions: Source, targets: Source, axis: int) -> None:
    shape = predictions.shape
    expected = shape[:axis] + shape[axis + 1 :]
    if not shape:
        raise ShapeMismatch(f"{predictions.address}: 0 dimensions, expected an axis of classes for labels")
    if targets.shape != expected:
        raise ShapeMismatch(
            f"labels {targets.address} {targets.shape}: expected {expected}, "
            f"the shape of the predictions {shape} without axis {axis}; choose it with --axis"
        )
    if targets.dtype.kind not in "iu":
        raise FormatError(f"{targets.address}: {targets.dtype}, expected integer labels")


def _broadcast_shape(spec: Spec, predictions: Source, targets: Source) -> tuple[int, ...]:
    try:
        shape = np.broadcast_shapes(predictions.shape, targets.shape)
    except ValueError:
        raise ShapeMismatch(
            f"predictions {predictions.address} {predictions.shape} and targets {targets.address} "
            f"{targets.shape}: these do not broadcast to one shape"
        ) from None
    axis = normalize_axis(spec.axis, len(shape))
    normalised = [(predictions, spec.log_softmax), (targets, spec.targets_softmax)]
    for source, softmax in normalised:
        own = axis - (len(shape) - source.ndim)
        if softmax and (own < 0 or source.shape[own] != shape[axis]):
            raise ShapeMismatch(
                f"{source.address} {source.shape}: can't be stretched along axis {axis}, over which "
                f"its softmax is taken, to {shape}"
            )
    return shape


def _shape_hint(spec: Spec, predictions: Source, targets: Source, axis: int) -> str:
    shape, other = predictions.shape, targets.shape
    if other == shape[:axis] + shape[axis + 1 :] and targets.dtype.kind in "iu":
        return "; if these are class labels, say --targets-are labels"
    differing = [d for d, (a, b) in enumerate(zip(shape, other, strict=False)) if a != b]
    if len(shape) == len(other) and differing == [axis]:
        shorter = min(shape[axis], other[axis])
        part = ", ".join(f"0:{shorter}" if d == axis else ":" for d in range(len(shape)))
        return (
            f"; axis {axis} has {shape[axis]} and {other[axis]} entries, is one padded? "
            f"cut it with FILE::[{part}]"
        )
    try:
        np.broadcast_shapes(shape, other)
    except ValueError:
        return ""
    return "; --broadcast stretches them as NumPy does"


def _stretched(source: Source, shape: tuple[int, ...]) -> Source:
    return source if source.shape == shape else BroadcastSource(source, shape)


def _factor(name: str, source: Source | None, shape: tuple[int, ...]) -> Source | None:
    if source is None:
        return None
    try:
        fits = np.broadcast_shapes(source.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeMismatch(
            f"{name} {source.address} {source.shape}: expected a shape that broadcasts to {shape}"
        )
    return _stretched(source, shape)


# Running


def _run(job: Job, resources: Resources, progress: Progress) -> tuple[LossPartial, ...]:
    layout = _layout(job)
    budget, workers = _budget(job, resources)
    if fits_whole(layout, budget):
        return _run_blocks(job, layout, budget, workers, progress)
    return _run_windows(job, layout, budget, workers, progress)


def _layout(job: Job) -> Layout:
    lead = job.predictions
    uncut = None if job.spec.elementwise or not job.shape else job.axis
    chunks = lead.chunks if lead.chunks and len(lead.chunks) == len(job.shape) else None
    if chunks is None and job.targets.chunks and len(job.targets.chunks) == len(job.shape):
        chunks = job.targets.chunks
    return Layout(shape=job.shape, axis=uncut, fortran_order=lead.fortran_order, chunks=chunks)


def _budget(job: Job, resources: Resources) -> tuple[int, int]:
    """Elements a block, and workers: as many as the memory allows."""
    memory = DEFAULT_MEMORY if resources.memory is None else resources.memory
    sources = [s for s in (job.predictions, job.targets, job.weight, job.pos_weight) if s is not None]
    per_element = sum(2 * s.dtype.itemsize for s in sources) + 8 * bool(job.writers)
    overhead = 12 * 8 * PIECE
    least = overhead + per_element * _SMALLEST_BLOCK
    if memory < least:
        raise UsageError(f"memory {memory} bytes: expected at least {least} for these arrays")
    workers = resources.workers or min(execution.available_workers(), _MOST_WORKERS)
    if resources.workers is not None and resources.workers < 1:
        raise UsageError(f"workers {resources.workers}: expected 1 or more")
    workers = min(workers, memory // least)
    share = (memory // workers - overhead) // per_element
    even = -(-math.prod(job.shape) // (4 * workers))
    budget = max(_SMALLEST_BLOCK, min(share, even, _LARGEST_BLOCK))
    return budget, max(1, min(workers, math.prod(job.shape) // _SMALLEST_BLOCK))


def _run_blocks(
    job: Job, layout: Layout, budget: int, workers: int, progress: Progress
) -> tuple[LossPartial, ...]:
    def make_worker() -> Callable[[Block], tuple[Block, tuple[LossPartial, ...]]]:
        worker = BlockWorker(job)
        return lambda block: (block, worker.evaluate(block))

    totals = _nothing(job)
    for block, of_block in execution.run(cut(layout, budget), make_worker, workers):
        totals = _merge(totals, of_block)
        progress(_size(block))
    return totals


def _run_windows(
    job: Job, layout: Layout, budget: int, workers: int, progress: Progress
) -> tuple[LossPartial, ...]:
    """Read a few distributions at a time in windows along the axis, twice where they are normalised."""
    totals = _nothing(job)
    for block in cut(layout, budget):
        windows = list(axis_windows(block, job.axis, budget))
        norms = _norms(job, windows, workers)
        results = _in_order(windows, partial(_window_worker, job, norms), workers, progress)
        totals = _merge(totals, finish(job, block, _joined(results)))
    return totals


def _window_worker(job: Job, norms: Norms) -> Callable[[Block], WindowResult]:
    worker = BlockWorker(job)
    return lambda window: worker.evaluate_window(window, norms)


def _norms(job: Job, windows: list[Block], workers: int) -> Norms:
    if not (job.spec.log_softmax or job.spec.targets_softmax):
        return Norms()
    partitions = _in_order(windows, lambda: BlockWorker(job).partition, workers)
    return Norms(*(_norm([of_window[k] for of_window in partitions]) for k in range(2)))


def _norm(partitions: list[Partition | None]) -> Norm | None:
    known = [partition for partition in partitions if partition is not None]
    if not known:
        return None
    with np.errstate(all="ignore"):
        peaks, sums = (np.concatenate(parts, axis=1) for parts in zip(*known, strict=True))
        return Norm(*merge_partition(peaks, sums))


def _in_order(
    windows: list[Block],
    make_worker: Callable[[], Callable[[Block], Any]],
    workers: int,
    progress: Progress | None = None,
) -> list[Any]:
    """The results of all windows, in their order."""

    def make_indexed() -> Callable[[tuple[int, Block]], tuple[int, Any]]:
        work = make_worker()
        return lambda task: (task[0], work(task[1]))

    results: list[Any] = [None] * len(windows)
    for position, result in execution.run(enumerate(windows), make_indexed, workers):
        results[position] = result
        if progress is not None:
            progress(_size(windows[position]))
    return results


def _joined(results: Iterable[WindowResult]) -> WindowResult:
    """The windows of one block as if they had been one."""
    partials, sums = zip(*results, strict=True)
    return WindowResult(
        tuple(_fold(of_loss) for of_loss in zip(*partials, strict=True)),
        tuple(
            None if of_loss[0] is None else np.concatenate(of_loss, axis=1)
            for of_loss in zip(*sums, strict=True)
        ),
    )


def _fold(partials: Iterable[LossPartial]) -> LossPartial:
    total = LossPartial()
    for part in partials:
        total = total.merge(part)
    return total


def _nothing(job: Job) -> tuple[LossPartial, ...]:
    split = TargetSplit() if job.spec.by_target else None
    return tuple(LossPartial(split=split) for _ in job.spec.losses)


def _merge(totals: tuple[LossPartial, ...], partials: tuple[LossPartial, ...]) -> tuple[LossPartial, ...]:
    return tuple(a.merge(b) for a, b in zip(totals, partials, strict=True))


def _size(block: Block) -> int:
    return math.prod(piece.stop - piece.start for piece in block)


# Results


def _evaluation(
    job: Job, loss: Loss, result: LossPartial, predictions: Source, targets: Source
) -> Evaluation:
    _check_domain(job, loss, result.observations)
    scalars = reduce_sum(result.total.value, job.shape, job.axis, batchmean=loss == "kl")
    return Evaluation(
        loss=loss,
        predictions=_input(predictions, job.spec.predictions_are),
        targets=_input(targets, job.spec.targets_are),
        shape=job.shape,
        axis=job.axis,
        settings=job.spec,
        scalars=scalars,
        by_target=result.split,
        findings=find(
            loss,
            result.observations,
            scalars,
            job.shape,
            job.axis,
            zero_policy=job.spec.zero_policy,
            itemsize=min(s.dtype.itemsize for s in (predictions, targets) if s.dtype.kind == "f")
            if any(s.dtype.kind == "f" for s in (predictions, targets))
            else 8,
        ),
    )


def _input(source: Source, space: str) -> Input:
    return Input(address=source.address, shape=source.shape, dtype=str(source.dtype), space=space)


def _check_domain(job: Job, loss: Loss, observations: Observations) -> None:
    """BCE is defined on probabilities only, unless it is taken of logits."""
    if loss != "bce" or job.spec.bce_with_logits:
        return
    predictions, targets = observations.predictions_outside, observations.targets_outside
    total = math.prod(job.shape)
    if predictions.count:
        in_logs = job.spec.predictions_are != "probs"
        where, bounds = (
            unravel(predictions.place, job.shape),
            "above 0" if in_logs else "outside [0, 1]",
        )
        raise DomainError(
            f"{job.predictions.address}: {predictions.count} of {total} {'log-' * in_logs}probabilities "
            f"{bounds}, first {predictions.value} at index {where}; "
            "if these are logits, say --predictions-are logits"
        )
    if targets.count:
        raise DomainError(
            f"{job.targets.address}: {targets.count} of {total} targets outside [0, 1], first "
            f"{targets.value} at index {unravel(targets.place, job.shape)}; expected probabilities or 0/1"
        )
