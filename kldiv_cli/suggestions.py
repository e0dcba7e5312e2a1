"""Limits from repeated runs: what runs of the same thing came to, with room for how much they differ."""

from __future__ import annotations

import math
import statistics as standard
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Final, NamedTuple

from kldiv_cli.baseline import Baseline, Recorded
from kldiv_cli.errors import UsageError
from kldiv_cli.quantities import plain_name
from kldiv_cli.spelling import mistaken

__all__ = ["SuggestedLimit", "suggest_limits"]

_DIGITS: Final = 3
_SHARES: Final = ("top1",)
"""Better when larger, and never above 1."""


class SuggestedLimit(NamedTuple):
    """A limit, and the runs it is made of."""

    pair: str
    statistic: str
    mean: float
    standard_deviation: float
    text: str
    """Ready to be pasted."""


def suggest_limits(
    runs: Sequence[Baseline], *, sigmas: float, floor: float, statistics: Sequence[str] = ()
) -> list[SuggestedLimit]:
    """Limits for every pair of some runs: mean + `sigmas` standard deviations, mean - those for shares.

    The room is at least `floor` times the mean (of what a share lacks to 1), so that equal runs
    leave some. It is rounded to three digits away from the runs.

    Raises
    ------
    UsageError
        Fewer than two runs, runs of other pairs or settings, a statistic that a run does not have or
        that is not finite.
    """
    if len(runs) < 2:
        raise UsageError("suggest: one run says nothing of how much runs differ; give two or more")
    for name, value in (("sigmas", sigmas), ("floor", floor)):
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} {value}: expected a finite number, 0 or more")
    _check_alike(runs)
    return [
        _suggested(runs, pair, statistic, sigmas, floor)
        for pair, recorded in runs[0].pairs.items()
        for statistic in dict.fromkeys(statistics or _usual(recorded))
    ]


def _check_alike(runs: Sequence[Baseline]) -> None:
    first = runs[0]
    if not first.pairs:
        raise UsageError(f"{first.path}: has no pairs, so there is nothing to limit")
    for run in runs[1:]:
        for pair in sorted(first.pairs.keys() ^ run.pairs.keys()):
            has, lacks = (first, run) if pair in first.pairs else (run, first)
            raise UsageError(
                f"{lacks.path}: has no pair {pair!r}, which {has.path} has; record it in all runs"
            )
        for pair, recorded in run.pairs.items():
            for name, value in first.pairs[pair].settings.items():
                if recorded.settings.get(name) != value:
                    raise UsageError(
                        f"{run.path}: {pair} was recorded with another {name} than in {first.path}; "
                        "record all runs with the same"
                    )


def _usual(recorded: Recorded) -> list[str]:
    """What is worth a limit: the mean, the tail and, where there is one, agreement."""
    usual = []
    for loss, of_loss in recorded.statistics.items():
        prefix = f"{loss}." if len(recorded.statistics) > 1 else ""
        wanted = ("distmean", "p99", "top1") if loss == "kl" else ("mean", "p99")
        usual += [prefix + name for name in wanted if name in of_loss]
    return usual


def _suggested(
    runs: Sequence[Baseline], pair: str, statistic: str, sigmas: float, floor: float
) -> SuggestedLimit:
    values = [_value(run, pair, statistic) for run in runs]
    share = plain_name(statistic) in _SHARES
    try:
        mean, deviation = standard.mean(values), standard.stdev(values)
        room = max(sigmas * deviation, floor * abs(1 - mean if share else mean))
        least = _rounded(max(0.0, min(mean - room, *values)), ROUND_FLOOR)
        most = _rounded(max(mean + room, *values), ROUND_CEILING)
    except ArithmeticError:
        raise UsageError(f"{pair}: {statistic} is too large to be limited, {max(values)}") from None
    text = f"{statistic} >= {least}" if share else f"{statistic} <= {most}"
    return SuggestedLimit(pair, statistic, mean, deviation, text)


def _value(run: Baseline, pair: str, statistic: str) -> float:
    known = run.pairs[pair].quantities()
    if statistic not in known:
        raise UsageError(f"{run.path}: {pair} has no statistic {statistic!r}{mistaken(statistic, known)}")
    if not math.isfinite(known[statistic]):
        raise UsageError(f"{run.path}: {statistic} of {pair} is {known[statistic]}, which limits nothing")
    return known[statistic]


def _rounded(value: float, rounding: str) -> float:
    """To three digits, towards where there is room."""
    rounded = float(Context(prec=_DIGITS, rounding=rounding).create_decimal(repr(value)))
    if math.isinf(rounded):
        raise OverflowError
    return rounded
