"""``kldiv batch``: many pairs, each with a result, and what all of them come to."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kldiv_cli.cli import options
from kldiv_cli.cli.computation import arguments_of, given, takes_computation
from kldiv_cli.cli.compute import chosen_reduction
from kldiv_cli.cli.formats import choose_format
from kldiv_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from kldiv_cli.batch_pair import BatchPair, Outputs
    from kldiv_cli.cli.outlets import Outlets
    from kldiv_cli.execution import Executor
    from kldiv_cli.journal import Journal, JournalReader
    from kldiv_cli.pair_finder import PairSet
    from kldiv_cli.pair_stamps import Stamps
    from kldiv_cli.reductions import Reduction
    from kldiv_cli.report.console import Format
    from kldiv_cli.spec import Spec

    _Executor: TypeAlias = contextlib.AbstractContextManager[tuple[Executor, int | None]]

__all__ = ["batch"]

_NAMED: Final = 10
"""Of what has no partner, so many are told by name."""


@takes_computation
def batch(
    first: options.First = None,
    second: options.Second = None,
    *,
    predictions: options.PredictionsOfPairs = None,
    targets: options.TargetsOfPairs = None,
    group_by: options.GroupBy = None,
    allow_unmatched: options.AllowUnmatched = False,
    dry_run: options.DryRun = False,
    top1: options.Top1 = False,
    reduction: options.ReductionOfPairs = None,
    size_average: options.SizeAverage = None,
    reduce: options.Reduce = None,
    format: options.FormatName = "auto",
    json: options.Json = False,
    precision: options.Precision = None,
    full: options.FullBatch = False,
    results: options.ResultsFile = None,
    journal: options.JournalFile = None,
    fail_fast: options.FailFast = False,
    output: options.OutputOfPairs = None,
    distributions: options.DistributionsOfPairs = None,
    output_dtype: options.OutputDtype = None,
    force: options.ForceOfPairs = False,
    workers: options.WorkersOfPairs = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    progress: options.ProgressOfPairs = None,
    strict: options.Strict = False,
    debug: options.Debug = False,
    **computation: Any,
) -> int:
    """Compute many pairs, and what all of them come to.

    \b
    Two directories, matched by relative path:
      kldiv batch out/ ref/ --log-softmax -1
    Files by pattern:
      kldiv batch --predictions 'out/*.npy' --targets 'ref/{stem}.npy' --log-softmax -1
    Groups in an HDF5 file:
      kldiv batch dump.h5 --group-by '/layer*' --predictions logits --targets probs --log-softmax -1
    A suite, or a table of pairs, that goes on where it was stopped:
      kldiv batch suite.toml --journal run.jsonl --results results.csv
      kldiv batch pairs.csv --format jsonl

    Each pair is told as it finishes, and at the end what all come to: micro, as if they were one array, and
    macro, the mean over pairs. What is wrong with a pair stops no other.

    Exit codes: 0 fine, 1 a warning with --strict, 2 a pair could not be computed, 3 an internal error.
    """
    from kldiv_cli.cli.outlets import Outlets
    from kldiv_cli.pair_finder import find_pair_set

    shown = choose_format(format, json=json, precision=precision)
    found = find_pair_set(
        first,
        second,
        predictions=predictions,
        targets=targets,
        group_by=group_by,
        options={**arguments_of(computation), "top1": top1},
        typed=[*given(computation), *["top1"] * top1],
        allow_unmatched=allow_unmatched,
    )
    outputs = _outputs(output, distributions, output_dtype, force=force, results=results)
    beside = {"journal": journal, "results": results}
    plan = _planned(found, outputs, {called: file for called, file in beside.items() if file is not None})
    chosen = _chosen_reduction(reduction, size_average, reduce, plan.spec)
    executor = _executor(plan, workers, memory, scheduler)
    # Of a suite or a table nothing must be written over the list itself.
    inputs = [*filter(None, (first, second)), *(address for pair in plan.pairs for address in pair.inputs)]
    _tell_unmatched(found)
    if dry_run:
        return _show(plan, journal, inputs, shown)
    with contextlib.ExitStack() as stack:
        names = [pair.name for pair in plan.pairs]
        outlets = Outlets(
            plan.spec, shown, chosen, precision, names=names, full=full, unmatched=found.unmatched
        )
        kept = _open_journal(journal, inputs, stack)
        replaced = force or _are_own(results, kept)
        outlets.open_results(results, inputs, stack, force=replaced)
        _compute(plan, kept, outlets, executor, progress=progress, fail_fast=fail_fast)
        with _claimed(results, kept, force=replaced):
            return outlets.finish(strict=strict)


# What is to be done


class _Plan(NamedTuple):
    """Pairs that are checked, and what is known of them before they are read."""

    pairs: Sequence[BatchPair]
    stamps: Stamps
    spec: Spec
    """What all have in common."""


def _planned(found: PairSet, outputs: Outputs, beside: Mapping[str, str]) -> _Plan:
    import numpy as np

    from kldiv_cli import __version__
    from kldiv_cli.batch_plan import common_spec, plan
    from kldiv_cli.pair_stamps import Stamps

    pairs = plan(found.pairs, outputs=outputs, beside=beside)
    stamps = Stamps(pairs, f"{__version__}, numpy {np.__version__}")
    return _Plan([stamps.sized(pair) for pair in pairs], stamps, common_spec(pairs))


def _chosen_reduction(
    name: Reduction | None, size_average: bool | None, reduce: bool | None, spec: Spec
) -> Reduction | None:
    """The reduction that is shown, of which a batch has no maps."""
    chosen = chosen_reduction(name, size_average, reduce, spec)
    if chosen == "none":
        raise UsageError("reduction none: shows the map of one pair; write those of many with --output")
    return chosen


def _outputs(
    output: str | None, distributions: str | None, dtype: str | None, *, force: bool, results: str | None
) -> Outputs:
    """The files of each pair; what is only said of them is of no use without any."""
    from kldiv_cli.batch_pair import Outputs

    written = output is not None or distributions is not None
    if force and not written and results is None:
        raise UsageError(
            "force: needs an output; add --output FILE, --distributions FILE or --results FILE, or drop it"
        )
    if dtype is not None and not written:
        raise UsageError(
            "output_dtype: needs an output; add --output FILE or --distributions FILE, or drop it"
        )
    return Outputs(output, distributions, dtype, force and written)


def _tell_unmatched(found: PairSet) -> None:
    """What is left out, by name as far as anybody reads on."""
    from kldiv_cli.report.console import tell

    for one in found.unmatched[:_NAMED]:
        tell("note", f"{one.address}: {one.role} without a partner, left out")
    if len(found.unmatched) > _NAMED:
        tell("note", f"{len(found.unmatched) - _NAMED} more without a partner, left out")


def _show(plan: _Plan, journal: str | None, inputs: Sequence[str], format: Format) -> int:
    """What would be done; nothing is written, not even to the journal."""
    from kldiv_cli.report.console import write
    from kldiv_cli.report.pairs import render_pairs

    write(render_pairs(plan.pairs, format, _finished(plan, journal, inputs)))
    return 0


def _finished(plan: _Plan, address: str | None, inputs: Sequence[str]) -> set[str]:
    """The names of the pairs that the journal has, where there is one."""
    from kldiv_cli.journal import read_journal
    from kldiv_cli.resume import is_finished

    journal = None if address is None else read_journal(address, inputs)
    if journal is None:
        return set()
    with journal:
        finished = {pair.name for pair in plan.pairs if is_finished(pair, journal, plan.stamps)}
        _tell_notes(journal)
    return finished


# How it is done


def _open_journal(address: str | None, inputs: Sequence[str], stack: contextlib.ExitStack) -> Journal | None:
    """The journal, locked until the end."""
    if address is None:
        return None
    from kldiv_cli.journal import open_journal

    journal = stack.enter_context(open_journal(address, inputs))
    _tell_notes(journal)
    return journal


def _tell_notes(journal: JournalReader) -> None:
    from kldiv_cli.report.console import tell

    for note in journal.notes:
        tell("note", note)


def _are_own(results: str | None, journal: Journal | None) -> bool:
    """Whether there is a file of results, of an earlier run with the journal."""
    from kldiv_cli.batch_pair import is_written
    from kldiv_cli.claims import Claims

    if results is None or journal is None:
        return False
    return is_written(results) and Claims(journal).cover(None, [results])


@contextlib.contextmanager
def _claimed(results: str | None, journal: Journal | None, *, force: bool) -> Iterator[None]:
    """Note in the journal that the file of results, which is written within, is its own."""
    if results is None or journal is None:
        yield
        return
    from kldiv_cli.claims import Claims

    claims, new = Claims(journal), frozenset[str]()
    if force or claims.cover(None, [results]):
        new = claims.make(None, [results])
    try:
        yield
    except OutputError:
        claims.settle(None, [results], refused=new)
        raise
    finally:
        claims.settle(None, [results])


def _compute(
    plan: _Plan,
    journal: Journal | None,
    outlets: Outlets,
    executor: _Executor,
    *,
    progress: bool | None,
    fail_fast: bool,
) -> None:
    """Pass on what the journal has, and all others as they finish."""
    from kldiv_cli.resume import resume_batch

    with contextlib.ExitStack() as running:
        watched = outlets.open_view(plan.pairs, running, wanted=progress)
        workers, share = running.enter_context(executor)
        run = resume_batch(
            plan.pairs, workers, journal=journal, stamps=plan.stamps, memory=share, progress=watched
        )
        running.callback(run.close)
        for result, from_journal in run:
            outlets.add(result, from_journal=from_journal)
            if fail_fast and result.error is not None:
                outlets.stop()
                break


def _executor(plan: _Plan, workers: int | None, memory: int | None, scheduler: str | None) -> _Executor:
    """What computes, which begins when it is entered, and the memory of all of it."""
    from kldiv_cli.batch import check_share, workers_within

    if scheduler is not None:
        if memory is not None:
            check_share(plan.pairs, memory)
        return _cluster(workers, memory, scheduler)
    if not sys.executable:
        raise UsageError("workers: there is no Python that could be started; run kldiv with one")
    return _processes(workers_within(plan.pairs, workers, memory), memory)


@contextlib.contextmanager
def _processes(workers: int, memory: int | None) -> Iterator[tuple[Executor, int | None]]:
    from kldiv_cli.processes import Processes

    with Processes(workers) as processes:
        yield processes, memory


@contextlib.contextmanager
def _cluster(
    workers: int | None, memory: int | None, scheduler: str
) -> Iterator[tuple[Executor, int | None]]:
    from kldiv_cli.placement import resources_of

    with resources_of(workers, memory, scheduler) as resources:
        assert resources.executor is not None
        yield resources.executor, resources.memory
