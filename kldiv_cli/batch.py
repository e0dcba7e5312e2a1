"""Many pairs to a result each, as they finish: small ones in bundles, large ones block by block.

All of it runs on one executor. What is wrong with a pair is its own result and stops no other; so
is the death of the process that computed it.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.batch_pair import BatchPair, as_typed, seen_from_elsewhere
from kldiv_cli.budget import DEFAULT_MEMORY, Resources, least_memory
from kldiv_cli.errors import KldivError, UsageError, WorkerDied
from kldiv_cli.execution import POLL_SECONDS, Executor, available_workers, with_task
from kldiv_cli.findings import counted
from kldiv_cli.pair_result import PairResult, result_of
from kldiv_cli.shapes import map_shape
from kldiv_cli.sinks import make_directory
from kldiv_cli.sources import Inputs
from kldiv_cli.urls import shown

__all__ = ["Progress", "run_batch", "workers_within"]

Progress = Callable[[float], None]
"""Told how many bytes were done since it was last called."""

_LARGE: Final = 64 << 20
"""Bytes; more are spread over the workers, less are done by one of them."""
_OF_A_BUNDLE: Final = 8 << 20
_MOST_IN_A_BUNDLE: Final = 32
"""Pairs; some 30 ms, beside which sending them costs nothing."""
_WAITING: Final = 64
"""Results that may wait to be taken; behind them the workers wait."""


def run_batch(
    pairs: Sequence[BatchPair],
    executor: Executor,
    *,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Iterator[PairResult]:
    """Yield the result of every pair, in no particular order; `memory` is what all workers may use.

    Who stops asking for results stops all that is under way, and nothing can run on the executor
    after that.
    """
    if executor.here:
        yield from _run(pairs, executor, memory, progress)
        return
    typed = {pair.name: pair for pair in pairs}
    sent = {pair.name: seen_from_elsewhere(pair) for pair in pairs}
    for result in _run(list(sent.values()), executor, memory, progress):
        yield as_typed(result, sent[result.name], typed[result.name])


def _run(
    pairs: Sequence[BatchPair], executor: Executor, memory: int | None, progress: Progress | None
) -> Iterator[PairResult]:
    told = progress or (lambda done: None)
    small = [pair for pair in pairs if pair.size <= _LARGE]
    large = [pair for pair in pairs if pair.size > _LARGE]
    streams: list[Generator[PairResult, None, None]] = []
    if small:
        streams.append(_bundled(small, executor, memory, told))
    if large:
        streams.append(_spread(large, executor, memory, told))
    yield from _interleaved(streams, executor)


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


# One pair


def _compute(pair: BatchPair, resources: Resources, progress: Progress | None = None) -> PairResult:
    """A pair's result, or what is wrong with it."""
    start = time.perf_counter()
    try:
        inputs = open_inputs(pair.predictions, pair.targets, **pair.files, allow_external=pair.allow_external)
        for address in pair.outputs.addresses:
            make_directory(address)
        size = sum(math.prod(source.shape) * source.dtype.itemsize for source in inputs.all())
        evaluations = evaluate_to(
            pair.spec,
            inputs,
            **pair.outputs._asdict(),
            resources=resources,
            progress=None if progress is None else _in_bytes(pair, inputs, progress),
            totals=True,
        )
    except (KldivError, MemoryError) as error:
        return _failed(pair, error, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    addresses = (shown(pair.predictions), shown(pair.targets))
    return result_of(pair.name, addresses, evaluations, bytes=size, seconds=seconds)


def _failed(pair: BatchPair, error: Exception, seconds: float = 0.0) -> PairResult:
    return PairResult(
        name=pair.name,
        predictions=shown(pair.predictions),
        targets=shown(pair.targets),
        error=_problem(error),
        seconds=seconds,
    )


def _problem(error: Exception) -> str:
    """What a pair's result says of an error."""
    if isinstance(error, KldivError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory; give --memory a smaller SIZE, or take fewer --workers"
    return f"internal error: {type(error).__name__}: {error}; please report it"


def _in_bytes(pair: BatchPair, inputs: Inputs, progress: Progress) -> Callable[[int], None]:
    """What is told of elements, told of the pair's share of all that is read."""
    of_element = pair.size / max(1, math.prod(map_shape(pair.spec, inputs)))
    return lambda done: progress(done * of_element)


# Small ones

Bundle = tuple[BatchPair, ...]
Failed = Callable[[Bundle, Exception], list[PairResult]]


def _bundled(
    pairs: Sequence[BatchPair], executor: Executor, memory: int | None, progress: Progress
) -> Generator[PairResult, None, None]:
    """The results of pairs of which each is for one worker.

    Of a bundle that came to nothing each pair is tried again alone, so that one is to blame; so is a
    pair whose worker died, for it may have been killed for what another one took.
    """
    resources = Resources(workers=1, memory=_share(pairs, executor.workers, memory))
    work = partial(_bundle_worker, resources)
    sizes = {pair.name: pair.size for pair in pairs}
    again: list[Bundle] = []

    def first(bundle: Bundle, error: Exception) -> list[PairResult]:
        if len(bundle) == 1 and not isinstance(error, WorkerDied):
            return last(bundle, error)
        again.extend((pair,) for pair in bundle)
        return []

    def last(bundle: Bundle, error: Exception) -> list[PairResult]:
        return [_failed(pair, error) for pair in bundle]

    def computed(bundles: Iterable[Bundle], failed: Failed) -> Iterator[PairResult]:
        for results in executor.run(bundles, work, failed=failed):
            for result in results:
                progress(sizes[result.name])
                yield result

    yield from computed(_bundles(pairs, executor.workers), first)
    yield from computed(again, last)


def _bundles(pairs: Sequence[BatchPair], workers: int) -> Iterator[Bundle]:
    """Neighbours that together are worth sending, and not so many that a worker waits for another's."""
    most = max(1, min(_MOST_IN_A_BUNDLE, len(pairs) // (4 * workers)))
    bundle: list[BatchPair] = []
    for pair in pairs:
        if bundle and (len(bundle) == most or sum(p.size for p in bundle) + pair.size > _OF_A_BUNDLE):
            yield tuple(bundle)
            bundle = []
        bundle.append(pair)
    if bundle:
        yield tuple(bundle)


def _bundle_worker(resources: Resources) -> Callable[[Bundle], list[PairResult]]:
    return lambda bundle: [_compute(pair, resources) for pair in bundle]


# Large ones


def _spread(
    pairs: Sequence[BatchPair], executor: Executor, memory: int | None, progress: Progress
) -> Generator[PairResult, None, None]:
    """The results of pairs of which each is for all workers, one after another."""
    resources = Resources(memory=memory, executor=executor)
    for pair in pairs:
        told = _Told(progress)
        _, result = with_task(partial(_compute, resources=resources, progress=told), _failed)(pair)
        told(pair.size - told.done)
        yield result


class _Told:
    """Passes progress on, and knows how much that was: of a pair that fails the rest is told at its end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.done = 0.0

    def __call__(self, done: float) -> None:
        self.done += done
        self._progress(done)


# All of them

_Results = queue.Queue[PairResult | BaseException | None]


def _interleaved(
    streams: Sequence[Generator[PairResult, None, None]], executor: Executor
) -> Iterator[PairResult]:
    """The results of several streams, each of which runs in a thread of its own."""
    results: _Results = queue.Queue(_WAITING)
    stopped = threading.Event()
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
