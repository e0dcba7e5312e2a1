"""A job in a process that shares no memory with this one: what its blocks write is sent along with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block
from kldiv_cli.execution import Executor
from kldiv_cli.job import Job, MapWriter, Marks
from kldiv_cli.statistics import Kept

__all__ = ["run_job"]

Task = TypeVar("Task")
Result = TypeVar("Result")
Written = tuple[Any, ...]
"""The arguments of a `write`."""


def run_job(
    job: Job,
    tasks: Iterable[Task],
    make_worker: Callable[[Job], Callable[[Task], Result]],
    executor: Executor,
    *,
    merge: Callable[[Result, Result], Result] | None = None,
    told: Callable[[Task], None] | None = None,
) -> Iterator[Result]:
    """`Executor.run` for workers of a job, which write to what the job has to be written to."""
    if executor.shared:
        yield from executor.run(tasks, partial(make_worker, job), merge=merge, told=told)
        return
    outlets = _outlets(job)
    send = partial(_Sender, _apart(job), make_worker)
    # What maps are written from would pile up if it was merged.
    mapped = job.writers or job.distribution_writers
    together = None if merge is None or mapped else partial(_merge_parcels, merge)
    for parcel in executor.run(tasks, send, merge=together, told=told):
        for number, written in parcel.written:
            cast("_Outlet", outlets[number]).write(*written)
        yield parcel.result


class _Outlet(Protocol):
    """What blocks are written to."""

    def write(self, *written: Any) -> None: ...


class _Outbox:
    """Stands for an outlet where that is not."""

    def __init__(self) -> None:
        self.written: list[Written] = []

    def write(self, block: Block, *arrays: npt.NDArray[Any] | None) -> None:
        # They are in memory that the next block reuses.
        copies = (None if array is None else np.array(array) for array in arrays)
        self.written.append((block, *copies))

    def empty(self) -> list[Written]:
        written, self.written = self.written, []
        return written


class _Parcel(NamedTuple):
    """The result of a task, and what it has to write: to which outlet, and what."""

    result: Any
    written: tuple[tuple[int, Written], ...]


class _Sender:
    """A worker elsewhere, whose results are sent as parcels."""

    def __init__(self, job: Job, make_worker: Callable[[Job], Callable[[Any], Any]]) -> None:
        self._outboxes = _outlets(job)
        self._work = make_worker(job)

    def __call__(self, task: Any) -> _Parcel:
        result = self._work(task)
        written = (
            (number, each)
            for number, outbox in enumerate(self._outboxes)
            if isinstance(outbox, _Outbox)
            for each in outbox.empty()
        )
        return _Parcel(result, tuple(written))


def _merge_parcels(merge: Callable[[Any, Any], Any], one: _Parcel, other: _Parcel) -> _Parcel:
    return _Parcel(merge(one.result, other.result), one.written + other.written)


def _outlets(job: Job) -> tuple[object, ...]:
    """Whatever a job's blocks are written to, in an order of its own."""
    return (*job.writers, *job.distribution_writers, *job.kept, job.batches)


def _apart(job: Job) -> Job:
    """The job with nothing in it that can't be sent."""
    return job._replace(
        writers=tuple(cast("MapWriter", _Outbox()) for _ in job.writers),
        distribution_writers=tuple(cast("MapWriter", _Outbox()) for _ in job.distribution_writers),
        kept=tuple(None if kept is None else cast("Kept", _Outbox()) for kept in job.kept),
        batches=None if job.batches is None else cast("Marks", _Outbox()),
    )
