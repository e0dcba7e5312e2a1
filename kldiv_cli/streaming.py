"""All blocks of a job, on all workers, merged: whole distributions a block, or windows of huge ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from kldiv_cli.apart import run_job
from kldiv_cli.blocks import Block, Layout, axis_windows, block_shape, cut, fits_whole
from kldiv_cli.budget import Resources, budget_of, layout_of
from kldiv_cli.distributions import finish
from kldiv_cli.engine import BlockWorker
from kldiv_cli.execution import Executor
from kldiv_cli.job import Job
from kldiv_cli.kernels import merge_partition
from kldiv_cli.partials import LossPartial, WindowResult
from kldiv_cli.pieces import Norm, Norms, Partition
from kldiv_cli.placement import executor_of
from kldiv_cli.target_split import TargetSplit
from kldiv_cli.top_classes import TopsOfBoth

if TYPE_CHECKING:
    from kldiv_cli.digests import Digests

__all__ = ["Losses", "Mergeable", "Progress", "merge_blocks", "stream"]

Progress = Callable[[int], None]


def stream(
    job: Job, resources: Resources, progress: Progress, digests: Digests | None = None
) -> tuple[LossPartial, ...]:
    """Evaluate every block of a job and merge what they come to, one for each loss.

    `progress` is told how many elements were done since it was last called; `digests` are taken of
    what is read in order, and by threads of this process.

    Raises
    ------
    UsageError
        The resources are not enough for one block.
    KldivError
        Whatever reading an input or writing a map raises.
    """
    layout = layout_of(job)
    budget, workers = budget_of(job, resources)
    with executor_of(job, resources, workers) as executor:
        if not fits_whole(layout, budget):
            return _run_windows(job, layout, budget, executor, progress).losses
        guarded: Digests | None = None
        if digests is not None and executor.shared:
            job = job._replace(inputs=digests.follow(job.inputs, job.axis, layout, budget))
            guarded = digests
        make_worker = partial(_evaluator, guarded)
        return merge_blocks(job, cut(layout, budget), make_worker, _nothing(job), executor, progress).losses


class Mergeable(Protocol):
    """What blocks come to: merging in any order gives the same."""

    def merge(self, other: Self, /) -> Self: ...


Result = TypeVar("Result", bound=Mergeable)


class Losses(NamedTuple):
    """What a part of the data comes to, for each loss."""

    losses: tuple[LossPartial, ...]

    def merge(self, other: Losses, /) -> Losses:
        return Losses(tuple(a.merge(b) for a, b in zip(self.losses, other.losses, strict=True)))


def merge_blocks(
    job: Job,
    blocks: Iterable[Block],
    make_worker: Callable[[Job], Callable[[Block], Result]],
    nothing: Result,
    executor: Executor,
    progress: Progress,
) -> Result:
    """What all blocks of a job come to, `nothing` being what none of them do."""

    def told(block: Block) -> None:
        progress(math.prod(block_shape(block)))

    total = nothing
    for part in run_job(job, blocks, make_worker, executor, merge=_merge, told=told):
        total = total.merge(part)
    return total


def _merge(one: Result, other: Result) -> Result:
    return one.merge(other)


def _evaluator(digests: Digests | None, job: Job) -> Callable[[Block], Losses]:
    worker = BlockWorker(job)

    def evaluate(block: Block) -> Losses:
        return Losses(worker.evaluate(block))

    return evaluate if digests is None else digests.guarded(evaluate)


def _nothing(job: Job) -> Losses:
    split = TargetSplit() if job.spec.by_target else None
    return Losses(tuple(LossPartial(split=split) for _ in job.spec.losses))


def _run_windows(job: Job, layout: Layout, budget: int, executor: Executor, progress: Progress) -> Losses:
    """Read a few distributions at a time in windows along the axis, twice where they are normalised."""
    totals = _nothing(job)
    for block in cut(layout, budget):
        windows = list(axis_windows(block, job.axis, budget))
        norms = _norms(job, windows, executor)
        results = _in_order(job, windows, partial(_window_worker, norms), executor, progress)
        totals = totals.merge(Losses(finish(job, block, _joined(results))))
    return totals


def _window_worker(norms: Norms, job: Job) -> Callable[[Block], WindowResult]:
    worker = BlockWorker(job)
    return lambda window: worker.evaluate_window(window, norms)


def _partitioner(job: Job) -> Callable[[Block], tuple[Partition | None, Partition | None]]:
    return BlockWorker(job).partition


def _norms(job: Job, windows: list[Block], executor: Executor) -> Norms:
    if not (job.spec.log_softmax or job.spec.targets_softmax):
        return Norms()
    partitions = _in_order(job, windows, _partitioner, executor)
    return Norms(*(_norm([of_window[k] for of_window in partitions]) for k in range(2)))


def _norm(partitions: list[Partition | None]) -> Norm | None:
    known = [partition for partition in partitions if partition is not None]
    if not known:
        return None
    with np.errstate(all="ignore"):
        peaks, sums = (np.concatenate(parts, axis=1) for parts in zip(*known, strict=True))
        return Norm(*merge_partition(peaks, sums))


def _indexed(
    make_worker: Callable[[Job], Callable[[Block], Any]], job: Job
) -> Callable[[tuple[int, Block]], tuple[int, Any]]:
    work = make_worker(job)
    return lambda task: (task[0], work(task[1]))


def _in_order(
    job: Job,
    windows: list[Block],
    make_worker: Callable[[Job], Callable[[Block], Any]],
    executor: Executor,
    progress: Progress | None = None,
) -> list[Any]:
    """The results of all windows, in their order."""
    results: list[Any] = [None] * len(windows)
    for position, result in run_job(job, enumerate(windows), partial(_indexed, make_worker), executor):
        results[position] = result
        if progress is not None:
            progress(math.prod(block_shape(windows[position])))
    return results


def _joined(results: Iterable[WindowResult]) -> WindowResult:
    """The windows of one block as if they had been one."""
    partials, sums, masses, shapes, rows, counts, differ, tops = zip(*results, strict=True)
    return WindowResult(
        tuple(_fold(of_loss) for of_loss in zip(*partials, strict=True)),
        tuple(map(_side_by_side, zip(*sums, strict=True))),
        (_side_by_side(m[0] for m in masses), _side_by_side(m[1] for m in masses)),
        (shapes[0][0], sum(length for _, length in shapes)),
        rows[0],
        _joined_counts(shapes, counts),
        any(differ),
        _joined_tops(tops),
    )


def _side_by_side(
    of_windows: Iterable[npt.NDArray[np.float64] | None],
) -> npt.NDArray[np.float64] | None:
    known = [of_window for of_window in of_windows if of_window is not None]
    return np.concatenate(known, axis=1) if known else None


def _joined_counts(
    shapes: tuple[tuple[int, int], ...], counts: tuple[npt.NDArray[np.int64] | None, ...]
) -> npt.NDArray[np.int64] | None:
    if all(of_window is None for of_window in counts):
        return None
    whole = (length if c is None else c for (_, length), c in zip(shapes, counts, strict=True))
    return np.asarray(np.zeros(shapes[0][0], np.int64) + sum(whole))


def _joined_tops(of_windows: Iterable[TopsOfBoth | None]) -> TopsOfBoth | None:
    known = [tops for tops in of_windows if tops is not None]
    return reduce(TopsOfBoth.join, known) if known else None


def _fold(partials: Iterable[LossPartial]) -> LossPartial:
    total = LossPartial()
    for part in partials:
        total = total.merge(part)
    return total
