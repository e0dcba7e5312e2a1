"""``kldiv batch``: many pairs, each with a result, and what all of them come to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kldiv_cli.cli import options
from kldiv_cli.cli.compute import chosen_reduction
from kldiv_cli.cli.computation import arguments_of, takes_computation
from kldiv_cli.cli.formats import choose_format
from kldiv_cli.errors import UsageError

if TYPE_CHECKING:
    from kldiv_cli.batch import BatchPair, Outputs
    from kldiv_cli.batch_summary import BatchSummary
    from kldiv_cli.batch_totals import BatchTotals
    from kldiv_cli.execution import Executor
    from kldiv_cli.journal import Journal
    from kldiv_cli.pair_result import PairResult
    from kldiv_cli.pair_sets import PairSet
    from kldiv_cli.spec import Spec

__all__ = ["batch"]


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
    reduction: options.ReductionName = None,
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
    force: options.Force = False,
    workers: options.Workers = None,
    memory: options.Memory = None,
    progress: options.ProgressBar = None,
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
    from kldiv_cli.batch import Outputs
    from kldiv_cli.batch_plan import Stamps, common_spec, plan
    from kldiv_cli.pair_sets import find_pair_set
    from kldiv_cli.report.console import write

    shown = choose_format(format, json=json, precision=precision)
    found = find_pair_set(
        first,
        second,
        predictions=predictions,
        targets=targets,
        group_by=group_by,
        options=arguments_of(computation),
        allow_unmatched=allow_unmatched,
    )
    planned = plan(found.pairs, top1=top1, outputs=Outputs(output, distributions, output_dtype, force))
    spec = common_spec(planned)
    chosen = _chosen(reduction, size_average, reduce, spec)
    stamps = Stamps(planned)
    pairs = [stamps.sized(pair) for pair in planned]
    _tell_unmatched(found)
    if dry_run:
        from kldiv_cli.report.pairs import render_pairs

        write(render_pairs(pairs, shown))
        return 0
    inputs = [address for pair in pairs for address in pair.inputs]
    with contextlib.ExitStack() as stack:
        kept = _opened_journal(journal, inputs, stack)
        outlets = Outlets(spec, shown, chosen, precision, full=full)
        outlets.open_file(results, inputs, force=force, stack=stack)
        outlets.open_view(len(pairs), wanted=progress, stack=stack)
        executor = stack.enter_context(_executor(workers))
        run = resume_batch(pairs, executor, journal=kept, stamps=stamps, memory=memory)
        for result, from_journal in run:
            outlets.add(result, from_journal=from_journal)
            if fail_fast and result.error is not None:
                run.close()
        outlets.end()
