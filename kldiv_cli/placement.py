"""Where the blocks of a job run: on a cluster, on threads, or on processes where these are worth a start."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Final

from kldiv_cli.budget import DEFAULT_SHARE, Resources
from kldiv_cli.errors import UsageError
from kldiv_cli.execution import Executor, Threads
from kldiv_cli.job import Job
from kldiv_cli.sources import Inputs, Source

__all__ = ["executor_of", "resources_of"]

_WORTH_PROCESSES: Final = 64 << 20
"""Bytes that one thread alone may read at a time; of less, starting processes takes longer than waiting."""


@contextlib.contextmanager
def resources_of(workers: int | None, memory: int | None, scheduler: str | None) -> Iterator[Resources]:
    """What was asked for: so many threads here, or those of a cluster, of which `memory` is that of each.

    Raises
    ------
    UsageError
        There is no such cluster, or both are asked for.
    """
    if scheduler is None:
        yield Resources(workers=workers, memory=memory)
        return
    if workers is not None:
        raise UsageError("workers: the threads of a cluster are its own; drop --workers or --scheduler")
    from kldiv_cli.cluster import connect

    with connect(scheduler) as cluster:
        share = DEFAULT_SHARE if memory is None else memory
        yield Resources(memory=share * cluster.workers, executor=cluster)


@contextlib.contextmanager
def executor_of(job: Job, resources: Resources, workers: int) -> Iterator[Executor]:
    """What runs the blocks of a job, for as long as that takes: what the resources say, or `workers`."""
    if resources.executor is not None:
        yield resources.executor
    elif workers > 1 and sys.executable and _are_serial(job.inputs):
        from kldiv_cli.processes import Processes

        with Processes(workers) as processes:
            yield processes
    else:
        yield Threads(workers)


def _are_serial(inputs: Inputs) -> bool:
    """Whether threads would wait for each other, and none of the inputs is memory of this process."""
    serial = sum(_size(source) for source in inputs.all() if source.one_at_a_time)
    return serial >= _WORTH_PROCESSES and all(source.path is not None for source in inputs.all())


def _size(source: Source) -> int:
    return math.prod(source.shape) * source.dtype.itemsize
