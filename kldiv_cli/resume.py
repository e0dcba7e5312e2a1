"""A batch that goes on where another was stopped: what its journal has is not computed again."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

from kldiv_cli.batch import BatchPair, Progress, run_batch
from kldiv_cli.batch_plan import Stamps
from kldiv_cli.execution import Executor
from kldiv_cli.journal import Journal
from kldiv_cli.pair_result import PairResult

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
    left = []
    for pair in pairs:
        stored = None if journal is None else journal.finished(pair.name, stamps.of(pair))
        if stored is None:
            left.append(pair)
        else:
            yield Resumed(stored, from_journal=True)
    by_name = {pair.name: pair for pair in left}
    for result in run_batch(left, executor, memory=memory, progress=progress):
        if journal is not None:
            journal.add(result, stamps.of(by_name[result.name]))
        yield Resumed(result, from_journal=False)


def is_finished(pair: BatchPair, journal: Journal, stamps: Stamps) -> bool:
    """Whether the journal has the pair as it is now."""
    return journal.finished(pair.name, stamps.of(pair)) is not None
