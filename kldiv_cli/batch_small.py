"""Pairs of which each is for one worker: sent in bundles, so that thousands of them cost little."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Final

from kldiv_cli.batch_pair import BatchPair, is_written, replacing, with_files
from kldiv_cli.batch_worker import Bundle, Progress, bundle_worker, failed_pair
from kldiv_cli.budget import Resources
from kldiv_cli.errors import WorkerDied
from kldiv_cli.execution import Executor
from kldiv_cli.pace import Pace
from kldiv_cli.pair_result import PairResult

__all__ = ["bundled"]

_BUNDLE_SECONDS: Final = 0.03
"""Of work in a bundle, beside which sending it costs nothing; as much may be lost."""
_LARGEST_BUNDLE: Final = 64
"""Pairs."""
_BUNDLE_BYTES: Final = 8 << 20

Failed = Callable[[Bundle, Exception], list[PairResult]]


def bundled(
    pairs: Iterable[BatchPair], executor: Executor, share: int, progress: Progress
) -> Generator[PairResult, None, None]:
    """The results of pairs, each of which is computed by one worker in its `share` of the memory.

    Of a bundle that came to nothing each pair is tried again alone, so that one is to blame; so is a
    pair whose worker died, for it may have been killed for what another one took.
    """
    resources = Resources(workers=1, memory=share)
    work = partial(bundle_worker, resources, None if executor.here else os.getcwd())
    pace = Pace(_BUNDLE_SECONDS, _LARGEST_BUNDLE)
    sent, again = _Sent(pairs, executor), list[BatchPair]()

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
                progress(sent.sizes.pop(result.name))
                yield result

    yield from computed(_bundles(sent, pace), first)
    yield from computed(((sent.again(pair),) for pair in again), last)


class _Sent:
    """Pairs as they are sent to workers, where what they write is not in the way when they are sent again."""

    def __init__(self, pairs: Iterable[BatchPair], executor: Executor) -> None:
        self._pairs, self._here = pairs, executor.here
        self.sizes: dict[str, int] = {}
        """Of those that have no result yet."""
        self._new: set[str] = set()
        """Pairs of whose outputs there was none before."""

    def __iter__(self) -> Iterator[BatchPair]:
        for pair in self._pairs:
            self.sizes[pair.name] = pair.size
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
