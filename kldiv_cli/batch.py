"""Many pairs to a result each, as they finish: small ones in bundles, large ones block by block.

All of it runs on one executor. What is wrong with a pair is its own result and stops no other; so
is the death of the process that computed it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from kldiv_cli.batch_pair import BatchPair, is_written, replacing, with_files
from kldiv_cli.batch_worker import Bundle, Progress, bundle_worker, compute_pair, failed_pair
from kldiv_cli.budget import DEFAULT_MEMORY, Resources, least_memory
from kldiv_cli.errors import ClusterGone, UsageError, WorkerDied
from kldiv_cli.execution import POLL_SECONDS, Executor, available_workers, with_task
from kldiv_cli.findings import counted
from kldiv_cli.pace import Pace
from kldiv_cli.pair_result import PairResult

__all__ = ["Begin", "Progress", "run_batch", "workers_within"]

Begin = Callable[[BatchPair], BatchPair]
_HandOut = Callable[[Iterable[BatchPair]], Iterator[BatchPair]]
_LARGE: Final = 64 << 20
"""Bytes; more are spread over the workers, less are done by one of them."""
_BUNDLE_SECONDS: Final = 0.03
"""Of work in a bundle, beside which sending it costs nothing; as much may be lost."""
_LARGEST_BUNDLE: Final = 64
"""Pairs."""
_BUNDLE_BYTES: Final = 8 << 20
_WAITING: Final = 64
"""Results that may wait to be taken; behind them the workers wait."""


def run_batch(
    pairs: Sequence[BatchPair],
    executor: Executor,
    *,
    memory: int | None = None,
    progress: Progress | None = None,
    begin: Begin | None = None,
) -> Generator[PairResult, None, None]:
    """Yield the result of every pair, in no particular order; `memory` is what all workers may use.

    `begin` has each pair before it is sent, in any thread; what it returns is sent instead.
    Who stops asking for results stops all that is under way, and nothing can run on the executor
    after that.
    """
    told, stopped = progress or (lambda done: None), threading.Event()
    hand_out = partial(_handed_out, begin or (lambda pair: pair), stopped)
    small = [pair for pair in pairs if pair.size <= _LARGE]
    large = [pair for pair in pairs if pair.size > _LARGE]
    streams: list[Generator[PairResult, None, None]] = []
    if small:
        streams.append(_bundled(small, executor, memory, told, hand_out))
    if large:
        streams.append(_spread(large, executor, memory, told, hand_out))
    yield from _interleaved(streams, executor, stopped)


def _handed_out(begin: Begin, stopped: threading.Event, pairs: Iterable[BatchPair]) -> Iterator[BatchPair]:
    """Pairs as they are sent, until that is of no use any more."""
    for pair in pairs:
        if stopped.is_set():
            break
        yield begin(pair)


# Workers and memory


def workers_within(pairs: Iterable[BatchPair], workers: int | None, memory: int | None) -> int:
    """How many workers there are: so many, or one a processor, as far as the memory goes.

    Raises
    ------
    UsageError
        It does not suffice for those asked for.
    """
    least = _least(pairs)
    if memory is None:
        return workers or available_workers()
    if memory < least * (workers or 1):
        raise UsageError(
            f"memory {memory} bytes: expected at least {least * (workers or 1)} for "
            f"{counted(workers or 1, 'worker')}; give more, or take fewer --workers"
        )
    return workers or min(available_workers(), memory // least)


def _share(pairs: Iterable[BatchPair], workers: int, memory: int | None) -> int:
    """What one of the workers may use of the memory."""
    return max(DEFAULT_MEMORY // workers, _least(pairs)) if memory is None else memory // workers


def _least(pairs: Iterable[BatchPair]) -> int:
    return max(least_memory(len(pair.inputs)) for pair in pairs)


# Small ones

Failed = Callable[[Bundle, Exception], list[PairResult]]


def _bundled(
    pairs: Sequence[BatchPair], executor: Executor, memory: int | None, progress: Progress, hand_out: _HandOut
) -> Generator[PairResult, None, None]:
    """The results of pairs of which each is for one worker.

    Of a bundle that came to nothing each pair is tried again alone, so that one is to blame; so is a
    pair whose worker died, for it may have been killed for what another one took.
    """
    resources = Resources(workers=1, memory=_share(pairs, executor.workers, memory))
    work = partial(bundle_worker, resources, None if executor.here else os.getcwd())
    sizes = {pair.name: pair.size for pair in pairs}
    pace = Pace(_BUNDLE_SECONDS, _LARGEST_BUNDLE)
    again: list[BatchPair] = []

    def first(bundle: Bundle, error: Exception) -> list[PairResult]:
        if len(bundle) == 1 and not isinstance(error, WorkerDied):
            return last(bundle, error)
        again.extend(bundle)
        return []

    def last(bundle: Bundle, error: Exception) -> list[PairResult]:
        return [failed_pair(pair, error) for pair in bundle]

    def computed(bundles: Iterable[Bundle], failed: Failed) -> Iterator[PairResult]:
        for results in executor.run(bundles, work, failed=failed):
            if seconds := sum(result.seconds for result in results):
                pace.learn(len(results), seconds)
            for result in results:
                progress(sizes[result.name])
                yield result

    sent = _Sent(hand_out(pairs), executor)
    yield from computed(_bundles(sent, pace), first)
    yield from computed(((sent.again(pair),) for pair in again), last)


class _Sent:
    """Pairs as they are sent to workers, where what they write is not in the way when they are sent again."""

    def __init__(self, pairs: Iterable[BatchPair], executor: Executor) -> None:
        self._pairs, self._here = pairs, executor.here
        self._new: set[str] = set()
        """Pairs of whose outputs there was none before."""

    def __iter__(self) -> Iterator[BatchPair]:
        for pair in self._pairs:
            if pair.outputs.addresses and not any(map(is_written, pair.outputs.addresses)):
                self._new.add(pair.name)
            # A cluster sends what a lost worker had begun to another one by itself.
            yield pair if self._here else with_files(self.again(pair))

    def again(self, pair: BatchPair) -> BatchPair:
        return replacing(pair) if pair.name in self._new else pair


def _bundles(pairs: Iterable[BatchPair], pace: Pace) -> Iterator[Bundle]:
    """Neighbours that together are worth sending, by what is known when they are asked for."""
    bundle: list[BatchPair] = []
    for pair in pairs:
        full = len(bundle) >= pace.bundle() or sum(p.size for p in bundle) + pair.size > _BUNDLE_BYTES
        if bundle and full:
            yield tuple(bundle)
            bundle = []
        bundle.append(pair)
    if bundle:
        yield tuple(bundle)


# Large ones


def _spread(
    pairs: Sequence[BatchPair], executor: Executor, memory: int | None, progress: Progress, hand_out: _HandOut
) -> Generator[PairResult, None, None]:
    """The results of pairs of which each is for all workers, one after another."""
    resources = Resources(memory=memory, executor=executor)
    for pair in hand_out(pairs):
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


# All of them

_Results = queue.Queue[PairResult | BaseException | None]


def _interleaved(
    streams: Sequence[Generator[PairResult, None, None]], executor: Executor, stopped: threading.Event
) -> Iterator[PairResult]:
    """The results of several streams, each of which runs in a thread of its own."""
    results: _Results = queue.Queue(_WAITING)
    threads = [
        threading.Thread(target=_drain, args=(stream, results, stopped), daemon=True) for stream in streams
    ]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            try:
                result = results.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    except BaseException:
        stopped.set()
        executor.abort()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _drain(stream: Generator[PairResult, None, None], results: _Results, stopped: threading.Event) -> None:
    try:
        with contextlib.closing(stream):
            for result in stream:
                _put(results, result, stopped)
                if stopped.is_set():
                    break
        _put(results, None, stopped)
    except BaseException as error:  # noqa: BLE001 - raised again where the results are read
        _put(results, error, stopped)


def _put(results: _Results, result: PairResult | BaseException | None, stopped: threading.Event) -> None:
    """Wait until there is room for a result, or until nobody wants it any more."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            results.put(result, timeout=POLL_SECONDS)
            return
