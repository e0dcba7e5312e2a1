"""A batch that goes on where another was stopped: what its journal has is not computed again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Self

from kldiv_cli.batch import Progress, run_batch
from kldiv_cli.batch_pair import BatchPair, is_written, replacing
from kldiv_cli.claims import Claims
from kldiv_cli.errors import OutputError
from kldiv_cli.execution import Executor
from kldiv_cli.journal import Journal, JournalReader
from kldiv_cli.pair_result import PairResult
from kldiv_cli.pair_stamps import Stamps
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
            left.append(pair)
        else:
            yield Resumed(thin(stored), from_journal=True)
    written = contextlib.nullcontext() if journal is None else _Written(left, journal, stamps, executor)
    with written as record:
        begin = None if record is None else record.begin
        run = run_batch(left, executor, memory=memory, progress=progress, begin=begin)
        with contextlib.closing(run):
            for result in map(thin, run):
                if record is not None:
                    record.add(result)
                yield Resumed(result, from_journal=False)


class _Written:
    """Writes pairs down in a journal: before they are sent which files are theirs, then their results."""

    def __init__(
        self, pairs: Iterable[BatchPair], journal: Journal, stamps: Stamps, executor: Executor
    ) -> None:
        self._pairs = {pair.name: pair for pair in pairs}
        self._journal, self._stamps = journal, stamps
        self._claims = Claims(journal)
        self._ends_at_once = executor.here
        self._sent: dict[str, frozenset[str]] = {}
        """Those that have files and no result yet, with the places that were not claimed before."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        # What still runs on a cluster may write its files yet.
        if self._ends_at_once:
            # Who ends this by an error of his own should see that one.
            with contextlib.suppress(OutputError):
                for name in self._sent:
                    self._claims.settle(name, self._pairs[name].outputs.addresses)

    def begin(self, pair: BatchPair) -> BatchPair:
        """The pair as it is sent, which may replace what a run with this journal has written for it."""
        addresses = pair.outputs.addresses
        if not addresses:
            return pair
        covered = self._claims.cover(pair.name, addresses)
        self._sent[pair.name] = frozenset()
        self._sent[pair.name] = self._claims.make(pair.name, addresses if covered else ())
        return replacing(pair) if covered and any(map(is_written, addresses)) else pair

    def add(self, result: PairResult) -> None:
        pair = self._pairs[result.name]
        new = self._sent.pop(pair.name, None)
        if new is not None:
            if result.error is None:
                # By now they are its own, also where it was told to replace what was there.
                self._claims.make(pair.name, pair.outputs.addresses)
            else:
                self._claims.settle(pair.name, pair.outputs.addresses, refused=new)
        self._journal.add(result, self._stamps.after_reading(pair))


class _Thinning:
    """Leaves values out once there are more than totals keep: a journal would hold them for nothing.

    Whose these are is a matter of who was done first. It shows only in a later run of so few of the pairs
    that it would keep every value: its percentiles come from a histogram then, and say so.
    """

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
