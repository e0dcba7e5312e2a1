"""All blocks of a job, on all workers, merged: whole distributions a block, or windows of huge ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli import execution
from kldiv_cli.blocks import Block, Layout, axis_windows, block_shape, cut, fits_whole
from kldiv_cli.distributions import finish
from kldiv_cli.engine import BlockWorker
from kldiv_cli.errors import UsageError
from kldiv_cli.job import Job
from kldiv_cli.kernels import SEGMENT, merge_partition
from kldiv_cli.partials import LossPartial, WindowResult
from kldiv_cli.pieces import PIECE, Norm, Norms, Partition
from kldiv_cli.target_split import TargetSplit

__all__ = ["DEFAULT_MEMORY", "DEFAULT_RESOURCES", "Progress", "Resources", "stream"]

DEFAULT_MEMORY: Final = 64 << 20
_LARGEST_BLOCK: Final = 1 << 20
_SMALLEST_BLOCK: Final = 16 * SEGMENT
_BUFFERS: Final = 8
"""Pieces a worker holds at once, at the most."""

Progress = Callable[[int], None]


class Resources(NamedTuple):
    """What a computation may use; none of it changes a bit of the result."""

    workers: int | None = None
    """Threads; by default one a processor, as far as the memory goes."""
    memory: int | None = None
    """Bytes for blocks and buffers in all; by default 64 MiB, or what the workers asked for need."""


DEFAULT_RESOURCES: Final = Resources()


def stream(job: Job, resources: Resources, progress: Progress) -> tuple[LossPartial, ...]:
    """Evaluate every block of a job and merge what they come to, one for each loss.

    `progress` is told how many elements were done since it was last called.

    Raises
    ------
    UsageError
        The resources are not enough for one block.
    KldivError
        Whatever reading an input or writing a map raises.
    """
    layout = _layout(job)
    budget, workers = _budget(job, resources)
    if fits_whole(layout, budget):
        return _run_blocks(job, layout, budget, workers, progress)
    return _run_windows(job, layout, budget, workers, progress)


def _layout(job: Job) -> Layout:
    sources = [source for source in job.inputs.all() if source.ndim == len(job.shape)]
    return Layout(
        shape=job.shape,
        axis=None if job.spec.elementwise or not job.shape else job.axis,
        fortran_order=job.inputs.predictions.fortran_order,
        chunks=next((source.chunks for source in sources if source.chunks is not None), None),
        runs=tuple(
            (0 if source.fortran_order else source.ndim - 1, source.dtype.itemsize)
            for source in sources
            if source.chunks is None
        ),
    )


def _budget(job: Job, resources: Resources) -> tuple[int, int]:
    """Elements a block, and workers; of memory and workers what was not given follows the other."""
    for name, given in resources._asdict().items():
        if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
            raise UsageError(f"{name} {given!r}: expected a whole number")
    mapped = job.writers or ("bce" in job.spec.losses and job.keeper("bce") is not None)
    per_element = sum(2 * source.dtype.itemsize for source in job.inputs.all()) + 8 * bool(mapped)
    overhead = _BUFFERS * 8 * PIECE
    least = overhead + per_element * _SMALLEST_BLOCK
    workers, memory = _shares(resources, least)
    share = (memory // workers - overhead) // per_element
    elements = math.prod(job.shape)
    even = -(-elements // (4 * workers))
    budget = max(_SMALLEST_BLOCK, min(share, even, _LARGEST_BLOCK))
    return budget, max(1, min(workers, elements // _SMALLEST_BLOCK))


def _shares(resources: Resources, least: int) -> tuple[int, int]:
    """Workers and the bytes for all of them, of which each needs `least`."""
    workers, memory = resources.workers, resources.memory
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers}: expected 1 or more")
    if memory is None:
        workers = workers or min(execution.available_workers(), DEFAULT_MEMORY // least)
        return workers, max(DEFAULT_MEMORY, workers * least)
    if memory < least * (workers or 1):
        many = f" for {workers} workers" if workers else ""
        raise UsageError(f"memory {memory} bytes: expected at least {least * (workers or 1)}{many}")
    return workers or min(execution.available_workers(), memory // least), memory


def _run_blocks(
    job: Job, layout: Layout, budget: int, workers: int, progress: Progress
) -> tuple[LossPartial, ...]:
    def make_worker() -> Callable[[Block], tuple[Block, tuple[LossPartial, ...]]]:
        worker = BlockWorker(job)
        return lambda block: (block, worker.evaluate(block))

    totals = _nothing(job)
    for block, of_block in execution.run(cut(layout, budget), make_worker, workers):
        totals = _merge(totals, of_block)
        progress(math.prod(block_shape(block)))
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
            progress(math.prod(block_shape(windows[position])))
    return results


def _joined(results: Iterable[WindowResult]) -> WindowResult:
    """The windows of one block as if they had been one."""
    partials, sums, masses, shapes, rows, counts, differ = zip(*results, strict=True)
    return WindowResult(
        tuple(_fold(of_loss) for of_loss in zip(*partials, strict=True)),
        tuple(map(_side_by_side, zip(*sums, strict=True))),
        (_side_by_side(m[0] for m in masses), _side_by_side(m[1] for m in masses)),
        (shapes[0][0], sum(length for _, length in shapes)),
        rows[0],
        _joined_counts(shapes, counts),
        any(differ),
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
