"""What a worker does with the pairs of a batch: each has a result, or what is wrong with it in its place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.batch_pair import BatchPair, as_typed, seen_from
from kldiv_cli.budget import Resources
from kldiv_cli.errors import InputError, KldivError, WorkerDied
from kldiv_cli.pair_result import PairResult, result_of
from kldiv_cli.shapes import map_shape
from kldiv_cli.sinks import make_directory
from kldiv_cli.sources import Inputs
from kldiv_cli.urls import shown

__all__ = ["Bundle", "Progress", "bundle_worker", "compute_pair", "failed_pair"]

Progress = Callable[[float], None]
"""Told how many bytes were done since it was last called."""
Bundle = tuple[BatchPair, ...]


def bundle_worker(resources: Resources, directory: str | None) -> Callable[[Bundle], list[PairResult]]:
    """Computes bundles; `directory` is that from which their addresses are seen, if it may be another one."""

    def compute(pair: BatchPair) -> PairResult:
        if directory is None:
            return compute_pair(pair, resources)
        return _compute_elsewhere(pair, resources, directory)

    return lambda bundle: list(map(compute, bundle))


def compute_pair(pair: BatchPair, resources: Resources, progress: Progress | None = None) -> PairResult:
    """A pair's result, or what is wrong with it.

    Raises
    ------
    WorkerDied
        That is no fault of the pair's, unless it happens again.
    """
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
    except WorkerDied:
        raise
    except (KldivError, MemoryError) as error:
        return failed_pair(pair, error, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    addresses = (shown(pair.predictions), shown(pair.targets))
    return result_of(pair.name, addresses, evaluations, bytes=size, seconds=seconds)


def failed_pair(pair: BatchPair, error: Exception, seconds: float = 0.0) -> PairResult:
    """The result of a pair that ended in an error."""
    foreseen = isinstance(error, (KldivError, MemoryError))
    return PairResult(
        name=pair.name,
        predictions=shown(pair.predictions),
        targets=shown(pair.targets),
        error=_problem(error),
        defect=None if foreseen else error,
        seconds=seconds,
    )


def _problem(error: Exception) -> str:
    """What a pair's result says of an error."""
    if isinstance(error, KldivError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory; give --memory a smaller SIZE, or take fewer --workers"
    return f"internal error: {type(error).__name__}: {error}; please report it"


def _compute_elsewhere(pair: BatchPair, resources: Resources, directory: str) -> PairResult:
    """The same where the working directory is another one, and files of this machine may not be seen."""
    try:
        for file in pair.found:
            file.check_arrival()
    except InputError as error:
        return failed_pair(pair, error)
    there = seen_from(directory, pair)
    return as_typed(compute_pair(there, resources), there, pair)


def _in_bytes(pair: BatchPair, inputs: Inputs, progress: Progress) -> Callable[[int], None]:
    """What is told of elements, told of the pair's share of all that is read."""
    of_element = pair.size / max(1, math.prod(map_shape(pair.spec, inputs)))
    return lambda done: progress(done * of_element)
