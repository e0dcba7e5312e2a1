"""``kldiv check``: pairs held to limits and a baseline, as a gate."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from kldiv_cli.cli import options
from kldiv_cli.cli.computation import takes_computation
from kldiv_cli.cli.formats import choose_format
from kldiv_cli.errors import KldivError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kldiv_cli.gate import Checked

__all__ = ["check"]


@takes_computation
def check(
    predictions: options.PairOrSuite = None,
    targets: options.TargetsOfPair = None,
    *,
    limit: options.Limits = None,
    baseline: options.BaselineFile = None,
    allow: options.Allow = None,
    name: options.PairName = None,
    pair: options.PairPattern = None,
    format: options.FormatName = "auto",
    json: options.Json = False,
    precision: options.Precision = None,
    full: options.FullReport = False,
    junit: options.Junit = None,
    markdown: options.MarkdownFile = None,
    github: options.Github = False,
    force: options.ForceReports = False,
    workers: options.Workers = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    progress: options.ProgressBar = None,
    debug: options.Debug = False,
    **computation: Any,
) -> int:
    """Hold pairs to limits and to a baseline, as a gate.

    \b
    One pair:
      kldiv check student.npy teacher.npy --log-softmax -1 --limit 'distmean < 0.01' --limit 'p99 < 0.1'
    Against what was accepted before:
      kldiv check student.npy teacher.npy --log-softmax -1 --baseline kldiv.json \\
        --limit 'distmean < baseline * 1.1 + 1e-6'
    All pairs of a suite, with reports for CI:
      kldiv check suite.toml --junit report.xml --github

    A limit is NAME < EXPRESSION, with any of < <= > >= ==. Names are those of compute: distmean, mean, p99.9,
    maximum, top1 and so on; baseline is the stored value. Losses that are not finite, identical inputs and
    warnings about the data fail too, unless allowed by name.

    Exit codes: 0 all passed, 1 a pair failed, 2 one could not be computed, 3 an internal error.
    """
    from kldiv_cli.cli.reports import Reports
    from kldiv_cli.cli.selection import select
    from kldiv_cli.gate import check_case, exit_code
    from kldiv_cli.placement import resources_of
    from kldiv_cli.report.console import write
    from kldiv_cli.report.gate import render_checked
    from kldiv_cli.report.progress import progress_of

    reports = Reports(junit=junit, markdown=markdown, github=github, force=force)
    with contextlib.ExitStack() as stack:
        try:
            reports.check_places()
            shown = choose_format(format, json=json, precision=precision)
            selected = select(predictions, targets, computation, limit, allow, baseline, name, pair)
            reports.check_places((*selected.files, *filter(None, (selected.baseline,))))
            resources = stack.enter_context(resources_of(workers, memory, scheduler))
        except KldivError as error:
            reports.write_problem(name or predictions or "kldiv check", str(error))
            raise
        reports.begin([case.name for case in selected.cases])
        watch = partial(progress_of, wanted=progress)
        results = [check_case(case, resources=resources, watch=watch) for case in selected.cases]
    results.sort(key=lambda result: result.rank)
    problem = reports.write(results)
    write(render_checked(results, shown, precision, full=full))
    _tell(results)
    if problem is not None:
        raise problem
    return exit_code(results)


def _tell(results: Sequence[Checked]) -> None:
    """Say what is wrong, and what is worth knowing, beside the tables."""
    from kldiv_cli.report.console import tell
    from kldiv_cli.report.gate import told_findings

    for kind, message in told_findings(results):
        tell(kind, message)
