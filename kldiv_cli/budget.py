"""How large blocks may be, and how many workers there are, within a limit of memory."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from kldiv_cli.blocks import Layout
from kldiv_cli.errors import UsageError
from kldiv_cli.execution import Executor, available_workers
from kldiv_cli.job import Job
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.pieces import PIECE

__all__ = [
    "DEFAULT_MEMORY",
    "DEFAULT_RESOURCES",
    "DEFAULT_SHARE",
    "Budget",
    "Resources",
    "budget_of",
    "check_memory",
    "layout_of",
    "least_memory",
]

DEFAULT_MEMORY: Final = 64 << 20
DEFAULT_SHARE: Final = 32 << 20
"""Of a thread of a cluster, whose machines each have memory of their own."""
_LARGEST_BLOCK: Final = 1 << 20
_SMALLEST_BLOCK: Final = 16 * SEGMENT
_MUCH: Final = 16 << 20
"""Where so many bytes are kept of the losses, blocks are smaller, as they are of many short rows."""
_BUFFERS: Final = 8
"""Pieces a worker holds at once, at the most."""
_WIDEST: Final = 8
"""Bytes of an element, at the most."""
_TOPS: Final = 64
"""Bytes held of the top classes of a distribution."""


class Resources(NamedTuple):
    """What a computation may use; none of it changes a bit of the result."""

    workers: int | None = None
    """Threads, or processes; by default one a processor, as far as the memory goes."""
    memory: int | None = None
    """Bytes for blocks and buffers in all; by default 64 MiB, or what the workers asked for need."""
    executor: Executor | None = None
    """Where blocks run; by default on threads, or on processes where these would wait for each other."""

    @property
    def memory_here(self) -> int:
        """Bytes for what this thread does by itself."""
        return DEFAULT_MEMORY if self.memory is None or self.executor is not None else self.memory


DEFAULT_RESOURCES: Final = Resources()


class Budget(NamedTuple):
    """What a computation gets."""

    elements: int
    """A block."""
    workers: int


def layout_of(job: Job) -> Layout:
    sources = [source for source in job.inputs.all() if source.ndim == len(job.shape)]
    return Layout(
        shape=job.shape,
        axis=None if job.spec.elementwise or not job.shape else job.axis,
        fortran_order=job.inputs.predictions.fortran_order,
        chunks=next((source.chunks for source in sources if source.chunks is not None), None),
        runs=tuple(
            (0 if source.fortran_order else source.ndim - 1, source.dtype.itemsize)
            for source in sources
            if source.chunks is None
        ),
    )


def budget_of(job: Job, resources: Resources, per_row: int = 128) -> Budget:
    """Elements a block, and workers; of memory and workers what was not given follows the other.

    `per_row` is what is held of each distribution, in bytes.
    """
    for name, given in (("workers", resources.workers), ("memory", resources.memory)):
        if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
            raise UsageError(f"{name} {given!r}: expected a whole number")
    per_row += _TOPS * job.spec.top1
    mapped = job.writers or ("bce" in job.spec.losses and job.keeper("bce") is not None)
    per_element = sum(2 * source.dtype.itemsize for source in job.inputs.all()) + 8 * bool(mapped)
    overhead = _BUFFERS * 8 * PIECE
    least = _least(per_element)
    workers, memory = _shares(resources, least)
    kept = sum(keeper.values.nbytes for keeper in job.kept if keeper is not None)
    share = (memory // workers - overhead) // (per_element + per_row // max(job.length, 1))
    if kept > _MUCH:
        share //= 6
    elements = math.prod(job.shape)
    even = -(-elements // (4 * workers))
    budget = max(_SMALLEST_BLOCK, min(share, even, _LARGEST_BLOCK))
    return Budget(budget, max(1, min(workers, elements // _SMALLEST_BLOCK)))


def least_memory(inputs: int) -> int:
    """What suffices for a worker, whatever it reads of so many inputs and writes."""
    return _least(2 * _WIDEST * inputs + 8)


def check_memory(memory: int, least: int, workers: int | None, whom: str = "one worker") -> None:
    """Refuse less memory than so many workers take, or the one that there must be, who is called `whom`.

    Raises
    ------
    UsageError
        With what they take, in bytes and rounded up to what is easier to write.
    """
    needed = least * (workers or 1)
    if memory >= needed:
        return
    takers, remedy = whom, "give more"
    if workers is not None and workers > 1:
        takers, remedy = f"{workers} workers", "give more, or take fewer --workers"
    raise UsageError(
        f"memory {memory} bytes: expected at least {needed} ({math.ceil(10 * needed / (1 << 20)) / 10:g}MiB) "
        f"for {takers}; {remedy}"
    )


def _least(per_element: int) -> int:
    return _BUFFERS * 8 * PIECE + per_element * _SMALLEST_BLOCK


def _shares(resources: Resources, least: int) -> tuple[int, int]:
    """Workers and the bytes for all of them, of which each needs `least`."""
    workers, memory = resources.workers, resources.memory
    if resources.executor is not None:
        workers = resources.executor.workers
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers}: expected 1 or more")
    if memory is None:
        workers = workers or min(available_workers(), DEFAULT_MEMORY // least)
        return workers, max(DEFAULT_MEMORY, workers * least)
    if resources.executor is not None and not resources.executor.here:
        check_memory(memory // resources.executor.workers, least, None, "each thread of the cluster")
    else:
        check_memory(memory, least, workers)
    return workers or min(available_workers(), memory // least), memory
