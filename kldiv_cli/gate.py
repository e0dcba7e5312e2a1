"""The gate: pairs held to limits, and to a baseline; what is wrong with the data fails them too.

Nothing passes by accident: what can't be computed is an error and never a pass, and a warning
about the data is an error unless it is allowed by name.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from kldiv_cli.api import ArrayOrPath, evaluate_to, open_inputs
from kldiv_cli.baseline import Baseline, Recorded, check_recorded, find_changes, record_pair
from kldiv_cli.baseline_file import read_baseline
from kldiv_cli.budget import DEFAULT_RESOURCES, Resources
from kldiv_cli.cases import Case, case_of
from kldiv_cli.diagnosis import find_reduction
from kldiv_cli.errors import InputError, UsageError
from kldiv_cli.evaluation import Evaluation
from kldiv_cli.findings import Finding
from kldiv_cli.placement import resources_of
from kldiv_cli.quantities import plain_name, quantities
from kldiv_cli.sources import Inputs
from kldiv_cli.spec import Spec
from kldiv_cli.verdicts import Verdict, judge

__all__ = [
    "Checked",
    "Measured",
    "Status",
    "check",
    "check_case",
    "exit_code",
    "failure_of",
    "measure",
]

Status = Literal["passed", "failed", "error"]
Watch = Callable[[Spec, Inputs], contextlib.AbstractContextManager[Callable[[int], None] | None]]

_UNCERTAIN: Final = frozenset({"misaligned", "clamped-terms", "which-mean"})
"""Warnings of what may be as it should be; all others are errors here."""
_ODD: Final = frozenset({"nan-terms", "infinite-terms", "zero-terms", "empty"})
"""Findings that say why a loss is not finite."""
_ROUNDING: Final = 1e-15
"""A loss of so little is nothing but the rounding of float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a pair came to, and what is wrong with it."""

    name: str
    evaluations: tuple[Evaluation, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Those of severity error are why it fails."""

    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def recorded(self) -> Recorded:
        """What a baseline stores of it."""
        return record_pair(self.evaluations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Measured):
    """What a pair came to beside its limits; of one that could not be computed the error alone."""

    verdicts: tuple[Verdict, ...] = ()
    baseline: Recorded | None = None
    error: str | None = None
    seconds: float = 0.0
    """How long it took."""

    @property
    def status(self) -> Status:
        if self.error is not None:
            return "error"
        return "failed" if next(self.failures(), None) is not None else "passed"

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def __bool__(self) -> bool:
        """Whether it passed, so that ``assert check(...)`` is no gate that is always open."""
        return self.passed

    def failures(self) -> Iterator[str]:
        """Why it failed, a line each: limits first."""
        yield from (failure_of(verdict) for verdict in self.verdicts if not verdict.passed)
        yield from (f"{finding.id}: {finding.message}" for finding in self.errors())

    @property
    def rank(self) -> tuple[int, float]:
        """Where it stands among others, the worst first: by status, then by how far beyond a limit it is."""
        status = ("error", "failed", "passed").index(self.status)
        return status, -max((verdict.excess for verdict in self.verdicts), default=-math.inf)


def failure_of(verdict: Verdict) -> str:
    """What a limit that was not kept says, on one line."""
    limit = verdict.limit
    computed = bool(limit.stored or limit.statistics - {limit.statistic})
    bound = f", which is {verdict.bound:.6g}" if computed else ""
    nearest = f"; would pass with {verdict.would_pass}" if verdict.would_pass else ""
    return f"{limit.statistic} is {verdict.obtained:.6g}, expected {limit.text}{bound}{nearest}"


def exit_code(results: Iterable[Checked]) -> int:
    """0 if every pair passed, 2 if one could not be computed, else 1; 2 for no pairs too."""
    statuses = {result.status for result in results}
    if not statuses or "error" in statuses:
        return 2
    return int("failed" in statuses)


def measure(
    case: Case,
    *,
    resources: Resources = DEFAULT_RESOURCES,
    sha256: bool = True,
    watch: Watch | None = None,
) -> Measured:
    """Compute a pair, and tell the warnings that may not be there as errors.

    `watch` is told of the computation before it begins, and gives what is told of its progress.

    Raises
    ------
    InputError
        It can't be computed.
    """
    inputs = open_inputs(case.predictions, case.targets, **case.files, allow_external=case.allow_external)
    with contextlib.ExitStack() as stack:
        stack.callback(inputs.close)
        progress = None if watch is None else stack.enter_context(watch(case.spec, inputs))
        evaluations = evaluate_to(case.spec, inputs, resources=resources, progress=progress, sha256=sha256)
    findings = list(dict.fromkeys(f for e in evaluations for f in _findings(e, case)))
    return Measured(
        name=case.name, evaluations=evaluations, findings=tuple(_graded(f, case.allow) for f in findings)
    )


def check(
    predictions: ArrayOrPath,
    targets: ArrayOrPath,
    /,
    *,
    limits: Iterable[str],
    baseline: Baseline | str | os.PathLike[str] | None = None,
    name: str = "check",
    allow: Iterable[str] = (),
    workers: int | None = None,
    memory: int | None = None,
    scheduler: str | None = None,
    **options: Any,
) -> Checked:
    """Hold a pair, stored or in memory, to limits, and to what a baseline has of it.

    Parameters
    ----------
    predictions, targets : array, or path or address of one
        As in `evaluate`.
    limits : iterable of str
        Such as ``"distmean < 0.01"`` or ``"p99 < baseline * 1.1"``; at least one.
    baseline : path, optional
        The file that `kldiv baseline record` wrote, or its contents.
    name : str
        The pair's name in it.
    allow : iterable of str
        Ids of findings that may be there.
    workers, memory : int, optional
        As in `evaluate`.
    scheduler : str, optional
        As in `evaluate`, for pairs that are stored.
    **options
        All others that say what `evaluate` computes.

    Returns
    -------
    Checked
        True where it passed, else false: `failures` tell why.

    Raises
    ------
    KldivError
        It can't be computed or can't be held to these limits.

    Examples
    --------
    >>> import numpy as np
    >>> checked = check(np.log([[0.6, 0.4]]), np.array([[0.5, 0.5]]), limits=["distmean < 0.001"])
    >>> checked.status, *checked.failures()
    ('failed', 'distmean is 0.020411, expected distmean < 0.001; would pass with distmean < 0.0205')
    """
    limits = limits if isinstance(limits, str) else tuple(limits)
    if isinstance(limits, str) or not limits:
        raise UsageError(f"limits {limits!r}: expected at least one in a list, such as ['distmean < 0.01']")
    stored = read_baseline(os.fspath(baseline)) if isinstance(baseline, (str, os.PathLike)) else baseline
    case = case_of(name, predictions, targets, options, limits=limits, allow=allow, baseline=stored)
    with resources_of(workers, memory, scheduler) as resources:
        return _judged(case, measure(case, resources=resources, sha256=stored is not None))


def check_case(
    case: Case,
    *,
    resources: Resources = DEFAULT_RESOURCES,
    watch: Watch | None = None,
) -> Checked:
    """Compute a pair and judge it; what is wrong with its inputs is its error, not an exception."""
    start = time.perf_counter()
    try:
        hashed = case.recorded is not None
        checked = _judged(case, measure(case, resources=resources, sha256=hashed, watch=watch))
    except (InputError, UsageError) as error:
        checked = Checked(name=case.name, error=str(error), baseline=case.recorded)
    return replace(checked, seconds=time.perf_counter() - start)


def _judged(case: Case, measured: Measured) -> Checked:
    findings, stored = measured.findings, None
    if case.recorded is not None:
        now = measured.recorded()
        check_recorded(case.recorded, now, case.where)
        stored = case.recorded.quantities()
        changed = find_changes(case.recorded, now)
        findings += tuple(_graded(finding, case.allow) for finding in changed)
    obtained = quantities(measured.evaluations)
    verdicts = tuple(judge(limit, obtained, stored) for limit in case.limits)
    if any(map(_is_below_zero, verdicts)):
        findings = tuple(
            _graded(_too_negative(f), case.allow) if f.id == "negative-kl" else f for f in findings
        )
    return Checked(
        name=case.name,
        evaluations=measured.evaluations,
        findings=findings,
        verdicts=verdicts,
        baseline=case.recorded,
    )


def _findings(evaluation: Evaluation, case: Case) -> Iterator[Finding]:
    named = {plain_name(limit.statistic) for limit in case.limits}
    for reduction in sorted(named & {"mean", "batchmean"}):
        told = find_reduction(evaluation.loss, reduction, evaluation.scalars, evaluation.shape)
        yield from (_of_a_limit(finding) for finding in told)
    yield from evaluation.findings
    if not math.isfinite(evaluation.sum) and not _ODD & {f.id for f in evaluation.findings}:
        yield Finding(
            id="nonfinite",
            severity="warning",
            message=f"the sum of losses is {evaluation.sum}: they are too large to be added up",
            value=evaluation.sum,
        )
    yield from _of_nothing(evaluation)


def _of_nothing(evaluation: Evaluation) -> Iterator[Finding]:
    """Losses that no model has: all of them 0, or a cross-entropy below."""
    least, largest = evaluation.statistics.minimum, evaluation.statistics.maximum
    told = {finding.id for finding in evaluation.findings}
    if least >= -_ROUNDING and largest <= _ROUNDING and not told & {"identical", "empty"}:
        yield Finding(
            id="zero-loss",
            severity="warning",
            message=f"every {evaluation.loss} is 0, as of targets or weights of 0, of a single class, or of "
            "the same data in another space: it says nothing about a model",
            value=largest,
        )
    if evaluation.loss == "bce" and least < -_ROUNDING and "targets-outside" not in told:
        yield Finding(
            id="negative-bce",
            severity="warning",
            message=f"bce is below 0, least {least:.6g}, so that weights must be: losses cancel each other",
            value=least,
        )


def _is_below_zero(verdict: Verdict) -> bool:
    """Whether a loss is below 0 by more than its limit allows above it: so far off, it could be anything."""
    return verdict.limit.side == "upper" and verdict.obtained < min(-abs(verdict.bound), -_ROUNDING)


def _too_negative(finding: Finding) -> Finding:
    """What was a note of rounding, where that is more than a limit allows."""
    message = f"{finding.message}, which is more than a limit allows; save the outputs as float32"
    return replace(finding, severity="warning", message=message) if finding.severity == "note" else finding


def _of_a_limit(finding: Finding) -> Finding:
    """What is told of a reduction that was shown, told of one that a limit names."""
    message = finding.message.replace("--reduction distmean", "distmean")
    return replace(finding, severity="warning", message=message, option=None)


def _graded(finding: Finding, allow: frozenset[str]) -> Finding:
    fails = finding.severity == "warning" and finding.id not in _UNCERTAIN | allow
    return replace(finding, severity="error") if fails else finding
