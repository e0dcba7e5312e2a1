"""Many pairs to a result each, as they finish: small ones in bundles, large ones block by block.

All of it runs on one executor. What is wrong with a pair is its own result and stops no other; so
is the death of the process that computed it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from kldiv_cli.batch_large import spread_out
from kldiv_cli.batch_pair import BatchPair
from kldiv_cli.batch_small import bundled
from kldiv_cli.batch_worker import Progress
from kldiv_cli.budget import DEFAULT_MEMORY, check_memory, least_memory
from kldiv_cli.execution import Executor, available_workers
from kldiv_cli.interleaving import interleaved
from kldiv_cli.pair_result import PairResult

__all__ = ["Begin", "Progress", "check_share", "run_batch", "workers_within"]

Begin = Callable[[BatchPair], BatchPair]

_LARGE: Final = 64 << 20
"""Bytes; more are spread over the workers, less are done by one of them."""


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
        streams.append(bundled(hand_out(small), executor, _share(small, executor.workers, memory), told))
    if large:
        streams.append(spread_out(hand_out(large), executor, memory, told))
    yield from interleaved(streams, executor.abort, stopped)


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
    check_memory(memory, least, workers)
    return workers or min(available_workers(), memory // least)


def check_share(pairs: Iterable[BatchPair], memory: int) -> None:
    """Refuse what does not suffice for a thread of a cluster; the errors are those of `workers_within`."""
    check_memory(memory, _least(pairs), None, "each thread of the cluster")


def _share(pairs: Iterable[BatchPair], workers: int, memory: int | None) -> int:
    """What one of the workers may use of the memory."""
    return max(DEFAULT_MEMORY // workers, _least(pairs)) if memory is None else memory // workers


def _least(pairs: Iterable[BatchPair]) -> int:
    return max(least_memory(len(pair.inputs)) for pair in pairs)
