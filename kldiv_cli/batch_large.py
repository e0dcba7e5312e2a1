"""Pairs of which each is for all workers: cut into blocks, one after another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial

from kldiv_cli.batch_pair import BatchPair
from kldiv_cli.batch_worker import Progress, compute_pair, failed_pair
from kldiv_cli.budget import Resources
from kldiv_cli.errors import ClusterGone, WorkerDied
from kldiv_cli.execution import Executor, with_task
from kldiv_cli.pair_result import PairResult

__all__ = ["spread_out"]


def spread_out(
    pairs: Iterable[BatchPair], executor: Executor, memory: int | None, progress: Progress
) -> Generator[PairResult, None, None]:
    """The results of pairs, each of which is computed by all workers in all of the memory."""
    resources = Resources(memory=memory, executor=executor)
    for pair in pairs:
        told = _Told(progress)
        result = _tried(pair, partial(compute_pair, resources=resources, progress=told), told)
        told.rest(pair.size)
        yield result


def _tried(pair: BatchPair, work: Callable[[BatchPair], PairResult], told: _Told) -> PairResult:
    """The result of a pair; one over which a worker died has a second chance, as a small one has."""

    def first(pair: BatchPair, error: Exception) -> PairResult:
        if not isinstance(error, WorkerDied) or isinstance(error, ClusterGone):
            return last(pair, error)
        told.begin_again()
        return with_task(work, last)(pair)[1]

    def last(pair: BatchPair, error: Exception) -> PairResult:
        if isinstance(error, ClusterGone):
            raise error
        return failed_pair(pair, error)

    return with_task(work, first)(pair)[1]


class _Told:
    """Passes progress on, of a pair that is tried again what goes beyond the first time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told = self._reached = 0.0

    def __call__(self, done: float) -> None:
        self.rest(self._reached + done)

    def rest(self, reached: float) -> None:
        """Tell what is still untold when so much is done."""
        self._reached = reached
        if reached > self._told:
            more, self._told = reached - self._told, reached
            self._progress(more)

    def begin_again(self) -> None:
        self._reached = 0.0
