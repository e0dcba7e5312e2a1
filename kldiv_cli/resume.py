"""A batch that goes on where another was stopped: what its journal has is not computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from kldiv_cli.batch import Progress, run_batch
from kldiv_cli.batch_pair import BatchPair, is_written, replacing
from kldiv_cli.batch_plan import Stamps
from kldiv_cli.execution import Executor
from kldiv_cli.journal import Journal, JournalReader
from kldiv_cli.pair_result import PairResult
from kldiv_cli.spec import Loss
from kldiv_cli.spread import LIMIT

__all__ = ["Resumed", "is_finished", "resume_batch"]


class Resumed(NamedTuple):
    """A pair's result, and whether the journal had it."""

    result: PairResult
    from_journal: bool


def resume_batch(
    pairs: Sequence[BatchPair],
    executor: Executor,
    *,
    journal: Journal | None = None,
    stamps: Stamps,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Generator[Resumed, None, None]:
    """Yield what the journal has of the pairs as they are now, then all others as they finish.

    A result is in the journal before it is yielded.

    Raises
    ------
    OutputError
        The journal can't be written.
    """
    thin = _Thinning(pairs)
    left = []
    for pair in pairs:
        stored = None if journal is None else _stored(pair, journal, stamps)
        if stored is None:
            left.append(pair if journal is None else _begun(pair, journal))
        else:
            yield Resumed(thin(stored), from_journal=True)
    by_name = {pair.name: pair for pair in left}
    for result in run_batch(left, executor, memory=memory, progress=progress):
        result = thin(result)
        if journal is not None:
            journal.add(result, stamps.of(by_name[result.name]))
        yield Resumed(result, from_journal=False)


class _Thinning:
    """Leaves values out once there are more than totals keep: a journal would hold them for nothing."""

    def __init__(self, pairs: Iterable[BatchPair]) -> None:
        self._limit = LIMIT // max(1, len({loss for pair in pairs for loss in pair.spec.losses}))
        self._counts: Counter[Loss] = Counter()

    def __call__(self, result: PairResult) -> PairResult:
        self._counts.update({loss: totals.losses.count for loss, totals in result.totals.items()})
        thinned = {
            loss: totals if self._counts[loss] <= self._limit else totals.binned
            for loss, totals in result.totals.items()
        }
        return replace(result, totals=thinned)


def is_finished(pair: BatchPair, journal: JournalReader, stamps: Stamps) -> bool:
    """Whether the journal has the pair as it is now."""
    return _stored(pair, journal, stamps) is not None


def _stored(pair: BatchPair, journal: JournalReader, stamps: Stamps) -> PairResult | None:
    """What the journal has of a pair; nothing if its files are gone, or can't be told from changed ones."""
    if stamps.are_known(pair) and all(map(is_written, pair.outputs.addresses)):
        return journal.finished(pair.name, stamps.of(pair))
    return None


def _begun(pair: BatchPair, journal: Journal) -> BatchPair:
    """The pair, which may replace what a run with this journal has written for it."""
    addresses = pair.outputs.addresses
    if not addresses:
        return pair
    if journal.has_begun(pair.name, addresses):
        return replacing(pair)
    if pair.outputs.force or not any(map(is_written, addresses)):
        journal.begin(pair.name, addresses)
    return pair
