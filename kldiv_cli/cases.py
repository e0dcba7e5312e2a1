"""What will be checked, with all that can be wrong before an array is read: limits, options, names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kldiv_cli.api import ArrayOrPath
from kldiv_cli.arguments import files_of, spec_of
from kldiv_cli.baseline import Baseline, Recorded
from kldiv_cli.errors import UsageError
from kldiv_cli.findings import IDS
from kldiv_cli.limit_parser import parse_limit
from kldiv_cli.limits import Limit, percentile_of
from kldiv_cli.pair import OPTIONS, Pair
from kldiv_cli.quantities import known_names, plain_name
from kldiv_cli.spec import Spec
from kldiv_cli.spelling import mistaken
from kldiv_cli.suite import Suite

__all__ = ["Case", "case_of", "cases_of"]

_WORST: Final = 5
"""As many of the largest losses are listed, if no more are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One pair as it will be checked: what can be wrong with it lies in the arrays."""

    name: str
    predictions: ArrayOrPath
    targets: ArrayOrPath
    spec: Spec
    files: Mapping[str, ArrayOrPath] = field(default_factory=dict)
    """Weight, pos_weight and mask, where there are such."""
    limits: tuple[Limit, ...] = ()
    allow: frozenset[str] = frozenset()
    """Ids of findings that may be there."""
    recorded: Recorded | None = None
    """What the baseline has of it."""
    where: str = ""
    """The baseline, and the pair in it."""
    allow_external: bool = False


def case_of(
    name: str,
    predictions: ArrayOrPath,
    targets: ArrayOrPath,
    options: Mapping[str, Any],
    *,
    limits: Iterable[str] = (),
    allow: Iterable[str] = (),
    baseline: Baseline | None = None,
    judged: bool = True,
) -> Case:
    """Check all of a pair that can be checked beforehand; `options` are arguments of `evaluate`.

    One that is not `judged` is recorded: then a baseline need not have what its limits name.

    Raises
    ------
    UsageError
        Options or limits that are wrong, a statistic that is unknown or not in the baseline, a pair
        that the baseline does not have.
    """
    parsed = tuple(map(parse_limit, limits))
    spec = _spec(options, parsed)
    recorded = None if baseline is None else _recorded(name, baseline)
    where = "" if baseline is None else f"{baseline.path}: {name}"
    _check_names(parsed, spec)
    if judged:
        _check_stored(parsed, recorded, where)
    return Case(
        name=name,
        predictions=predictions,
        targets=targets,
        spec=spec,
        files=files_of(options),
        limits=parsed,
        allow=_allowed(allow),
        recorded=recorded,
        where=where,
        allow_external=bool(options.get("allow_external")),
    )


def _spec(options: Mapping[str, Any], limits: Sequence[Limit]) -> Spec:
    """What to compute: with all that limits name and baselines store."""
    for unknown in sorted(options.keys() - OPTIONS.keys()):
        raise UsageError(f"{unknown}: there is no such option{mistaken(unknown, OPTIONS)}")
    named = (percentile_of(plain_name(name)) for limit in limits for name in limit.statistics | limit.stored)
    quantiles = [*options.get("quantiles", ()), *(q for q in named if q is not None)]
    loss = options.get("loss", "kl")
    top1 = options.get("top1") or "kl" in ((loss,) if isinstance(loss, str) else loss)
    spec = spec_of({**options, "quantiles": quantiles, "top1": top1}, histogram=True)
    return replace(spec, worst=max(spec.worst, _WORST))


def _allowed(ids: Iterable[str]) -> frozenset[str]:
    allowed = frozenset([ids] if isinstance(ids, str) else ids)
    for unknown in sorted(allowed - IDS):
        raise UsageError(f"allow {unknown!r}: there is no such finding{mistaken(unknown, IDS)}")
    return allowed


def _check_names(limits: Sequence[Limit], spec: Spec) -> None:
    known = known_names(spec)
    for limit in limits:
        for name in sorted(limit.statistics - set(known)):
            raise UsageError(f"limit {limit.text!r}: no statistic {name!r}{mistaken(name, known)}")
        for name in sorted(limit.statistics - {limit.statistic}):
            if _are_one(name, limit.statistic):
                raise UsageError(
                    f"limit {limit.text!r}: {name} is {limit.statistic} itself, expected another statistic; "
                    "write baseline for its stored value"
                )


def _are_one(name: str, other: str) -> bool:
    """Whether two names that are known stand for one number, as ``kl.mean`` and ``mean`` of KL alone do."""
    return plain_name(name) == plain_name(other) in (name, other)


def _check_stored(limits: Sequence[Limit], recorded: Recorded | None, where: str) -> None:
    for limit in limits:
        if limit.stored and recorded is None:
            raise UsageError(f"limit {limit.text!r}: needs a baseline; say which with --baseline FILE")
        for name in sorted(limit.stored - (set() if recorded is None else recorded.quantities().keys())):
            quantile = percentile_of(plain_name(name))
            hint = "" if quantile is None else f" (of a single pair with --quantiles {quantile:g})"
            raise UsageError(
                f"{where}: has no {name!r}, which limit {limit.text!r} needs; record it with "
                f"kldiv baseline update{hint}"
            )


def _recorded(name: str, baseline: Baseline) -> Recorded:
    if name not in baseline.pairs:
        names = ", ".join(map(repr, sorted(baseline.pairs)[:5])) or "no pairs"
        raise UsageError(
            f"{baseline.path}: has no pair {name!r}, it has {names}; record it with kldiv baseline record"
        )
    return baseline.pairs[name]


# Of a suite


def cases_of(suite: Suite, baseline: Baseline | None = None, *, judged: bool = True) -> tuple[Case, ...]:
    """The cases of a suite's pairs; those that are not `judged` need no limit.

    Raises
    ------
    UsageError
        As `case_of`, and where a pair has no limit or the baseline has a pair that the suite lacks.
    """
    cases = tuple(_case_of_pair(suite, pair, baseline, judged) for pair in suite.pairs)
    if baseline is not None:
        _check_gone(suite, baseline)
    return cases


def _case_of_pair(suite: Suite, pair: Pair, baseline: Baseline | None, judged: bool) -> Case:
    where = f"{suite.path}: pair {pair.name!r}"
    if judged and not pair.limits:
        raise UsageError(
            f"{where}: has no limit, so it would always pass; give it one, or all of them under [defaults]"
        )
    try:
        return case_of(
            pair.name,
            pair.predictions,
            pair.targets,
            pair.options,
            limits=_closest(pair),
            allow=pair.allow,
            baseline=baseline,
            judged=judged,
        )
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _closest(pair: Pair) -> list[str]:
    """Its limits: of those on one side of one statistic, the ones that stand closest to the pair."""
    parsed = [(parse_limit(limit.text), limit.origin) for limit in pair.limits]
    closest = {(limit.statistic, limit.side): origin for limit, origin in parsed}
    return [limit.text for limit, origin in parsed if closest[limit.statistic, limit.side] == origin]


def _check_gone(suite: Suite, baseline: Baseline) -> None:
    """A pair that is no longer compared would not be missed otherwise."""
    gone = sorted(baseline.pairs.keys() - {pair.name for pair in suite.pairs})
    if gone:
        raise UsageError(
            f"{suite.path}: has no pair {gone[0]!r}, which {baseline.path} has"
            f"{f' (and {len(gone) - 1} more)' if len(gone) > 1 else ''}; "
            "bring it back, or take it out of the baseline with kldiv baseline update"
        )
