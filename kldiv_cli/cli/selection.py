"""Which pairs a command is about: the one that is named, or those of a suite."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kldiv_cli.cli.computation import arguments_of, given
from kldiv_cli.errors import UsageError
from kldiv_cli.urls import is_remote, shown, split_dataset

if TYPE_CHECKING:
    from kldiv_cli.baseline import Baseline
    from kldiv_cli.cases import Case
    from kldiv_cli.suite import Suite

__all__ = ["Selected", "select"]

_SUITE: Final = "pyproject.toml"


class Selected(NamedTuple):
    """What a command is about."""

    cases: tuple[Case, ...]
    baseline: str | None
    """The baseline's file."""
    files: tuple[str, ...]
    """All others that are read, so that no output overwrites them."""


def select(
    predictions: str | None,
    targets: str | None,
    computation: Mapping[str, Any],
    limits: Sequence[str] | None,
    allow: Sequence[str] | None,
    baseline: str | None,
    name: str | None,
    pair: str | None,
    *,
    gate: bool = True,
) -> Selected:
    """The pair of these files, or the pairs of the suite that stands in their place.

    For a `gate` every pair needs a limit, and the baseline is read.

    Raises
    ------
    KldivError
        Whatever is wrong with options, limits, suite or baseline.
    """
    if targets is None:
        _refuse(predictions, computation, limit=limits, allow=allow, name=name)
        return _of_suite(_default_suite() if predictions is None else predictions, baseline, pair, gate=gate)
    if pair is not None:
        raise UsageError("pair: chooses from a suite; drop it, or --name NAME is what you mean")
    assert predictions is not None
    if gate and not limits:
        raise UsageError(
            "limit: none given, so the check would always pass; add one, such as --limit 'distmean < 0.01'"
        )
    from kldiv_cli.cases import case_of

    case = case_of(
        name or _name_of(predictions),
        predictions,
        targets,
        arguments_of(computation),
        limits=limits or (),
        allow=allow or (),
        baseline=_read(baseline) if gate else None,
    )
    files = (predictions, targets, *map(str, case.files.values()))
    return Selected((case,), baseline, _paths(files))


def _default_suite() -> str:
    if not os.path.lexists(_SUITE):
        raise UsageError(
            f"nothing to check: no arguments, and no {_SUITE} here; give PREDICTIONS and TARGETS, or a suite"
        )
    return _SUITE


def _of_suite(path: str, baseline: str | None, pattern: str | None, *, gate: bool) -> Selected:
    from kldiv_cli.cases import cases_of
    from kldiv_cli.suite import read_suite

    suite = read_suite(path)
    baseline = suite.baseline if baseline is None else baseline
    cases = cases_of(suite, _read(baseline) if gate else None, judged=gate)
    files = (str(file) for case in cases for file in (case.predictions, case.targets, *case.files.values()))
    return Selected(_matching(cases, pattern, suite), baseline, _paths((path, *files)))


def _matching(cases: tuple[Case, ...], pattern: str | None, suite: Suite) -> tuple[Case, ...]:
    if pattern is None:
        return cases
    chosen = tuple(case for case in cases if fnmatch.fnmatchcase(case.name, pattern))
    if not chosen:
        names = ", ".join(case.name for case in cases[:5])
        raise UsageError(f"pair {pattern!r}: no pair of {suite.path} has such a name; there are {names}")
    return chosen


def _read(path: str | None) -> Baseline | None:
    if path is None:
        return None
    from kldiv_cli.baseline_file import read_baseline

    return read_baseline(path)


def _refuse(suite: str | None, computation: Mapping[str, Any], **others: object) -> None:
    """Options that a suite says itself, and what is no suite."""
    if suite is not None and not suite.endswith(".toml"):
        raise UsageError(
            f"{suite or repr(suite)}: alone it would be a suite (.toml); for a pair give TARGETS too"
        )
    named = [*given(computation), *(name for name, value in others.items() if value is not None)]
    if named:
        where = "[defaults] of the suite" if named[0] not in others else "the suite"
        raise UsageError(f"{named[0]}: is for a single pair; with a suite say it in {where}")


def _name_of(address: str) -> str:
    """What a pair is called: the name of the predictions' file, and the dataset in it."""
    address = shown(address)
    path, separator, inner = split_dataset(address) if is_remote(address) else address.partition("::")
    stem = os.path.splitext(os.path.basename(path))[0]
    return f"{stem}/{inner.strip('/')}" if separator else stem


def _paths(addresses: Sequence[str]) -> tuple[str, ...]:
    from kldiv_cli.sources import parse_address

    return tuple(parse_address(address).path for address in addresses)
