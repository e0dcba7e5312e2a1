"""``kldiv baseline``: numbers that were accepted, recorded, updated, shown; limits from repeated runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from kldiv_cli.cli import options
from kldiv_cli.cli.computation import takes_computation
from kldiv_cli.cli.formats import choose_format
from kldiv_cli.errors import InputChanged, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from kldiv_cli.baseline import Baseline
    from kldiv_cli.budget import Resources
    from kldiv_cli.cases import Case
    from kldiv_cli.cli.selection import Selected
    from kldiv_cli.gate import Measured

__all__ = ["record", "show", "suggest", "update"]


@takes_computation
def record(
    predictions: options.PairOrSuite = None,
    targets: options.TargetsOfPair = None,
    *,
    baseline: options.BaselineFile = None,
    allow: options.Allow = None,
    name: options.PairName = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    progress: options.ProgressBar = None,
    debug: options.Debug = False,
    **computation: Any,
) -> int:
    """Record what pairs come to, in a new baseline or beside other pairs.

    \b
    One pair:
      kldiv baseline record student.npy teacher.npy --log-softmax -1 --baseline kldiv.json
    All pairs of a suite, in the file that it names:
      kldiv baseline record suite.toml

    A pair that the baseline already has is never replaced: that is what update is for. Of a suite those that
    it lacks are added. What would fail a check whatever its limits, such as losses of nan or identical
    inputs, is not recorded unless allowed.

    Exit codes: 0 recorded, 1 a pair would fail any check, 2 nothing could be recorded, 3 an internal error.
    """
    from kldiv_cli.baseline import Baseline
    from kldiv_cli.placement import resources_of
    from kldiv_cli.report.console import tell

    selected = _selected(predictions, targets, computation, allow, baseline, name)
    old, place = _existing(_path_of(selected)), _place(selected)
    selected = selected._replace(cases=_new(selected.cases, old))
    with resources_of(workers, memory, scheduler) as resources:
        measured = _measure(selected, resources, progress)
    if measured is None:
        return 1
    pairs = {m.name: m.recorded() for m in measured}
    _write(Baseline(path=old.path, pairs={**old.pairs, **pairs}), old, place)
    tell("recorded", f"{len(pairs)} of {len(old.pairs) + len(pairs)} pairs in {old.path}")
    return 0


@takes_computation
def update(
    predictions: options.PairOrSuite = None,
    targets: options.TargetsOfPair = None,
    *,
    baseline: options.BaselineFile = None,
    allow: options.Allow = None,
    name: options.PairName = None,
    yes: options.Yes = False,
    format: options.FormatName = "auto",
    json: options.Json = False,
    precision: options.Precision = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    progress: options.ProgressBar = None,
    debug: options.Debug = False,
    **computation: Any,
) -> int:
    """Accept what pairs come to now, after showing each number before and after.

    \b
    One pair:
      kldiv baseline update student.npy teacher.npy --log-softmax -1 --baseline kldiv.json
    All pairs of a suite, in a script:
      kldiv baseline update suite.toml --yes

    Of a suite the baseline has the same pairs afterwards: new ones are added, those that are gone removed.

    Exit codes: 0 updated or nothing changed, 1 refused, 2 nothing could be updated, 3 an internal error.
    """
    from kldiv_cli.baseline import Baseline, changes, other_changes
    from kldiv_cli.baseline_file import baseline_text, read_baseline
    from kldiv_cli.placement import resources_of
    from kldiv_cli.report.baseline import render_changes
    from kldiv_cli.report.console import tell, write

    shown = choose_format(format, json=json, precision=precision)
    selected = _selected(predictions, targets, computation, allow, baseline, name)
    old, place = read_baseline(_path_of(selected)), _place(selected)
    with resources_of(workers, memory, scheduler) as resources:
        measured = _measure(selected, resources, progress)
    if measured is None:
        return 1
    kept = old.pairs if targets is not None else {}
    new = Baseline(path=old.path, pairs={**kept, **{m.name: m.recorded() for m in measured}})
    told = [
        change for change in changes(old, new) if targets is None or change.pair == selected.cases[0].name
    ]
    write(render_changes(told, shown, precision))
    for change in other_changes(old, new):
        tell("note", f"changed too: {change}")
    if baseline_text(new) == baseline_text(old):
        tell("note", f"nothing changed; {old.path} was not written")
        return 0
    if not _agreed(old.path, yes=yes):
        return 1
    _write(new, old, place)
    tell("updated", old.path)
    return 0


def show(
    file: options.BaselineArgument,
    format: options.FormatName = "auto",
    json: options.Json = False,
    precision: options.Precision = None,
    debug: options.Debug = False,
) -> None:
    """Show what a baseline holds.

    \b
    As tables, or as the file has it:
      kldiv baseline show kldiv.json
      kldiv baseline show kldiv.json --json

    Exit codes: 0 fine, 2 it can't be read, 3 an internal error.
    """
    from kldiv_cli.baseline_file import read_baseline
    from kldiv_cli.report.baseline import render_baseline
    from kldiv_cli.report.console import write

    shown = choose_format(format, json=json, precision=precision)
    write(render_baseline(read_baseline(file), shown, precision))


def suggest(
    runs: options.Runs,
    sigmas: options.Sigmas = 3.0,
    floor: options.Floor = 0.05,
    statistic: options.StatisticNames = None,
    debug: options.Debug = False,
) -> None:
    """Suggest limits from repeated runs, ready to be pasted into a suite.

    \b
    Three runs of the same thing, each recorded in a file of its own:
      kldiv baseline suggest run1.json run2.json run3.json
    Tighter, of another statistic:
      kldiv baseline suggest run*.json --sigmas 2 --statistic p99.9

    A limit is the mean of the runs and K standard deviations, or the floor's share of the mean if that is
    more (below the mean for top1, where the floor is a share of what it lacks to 1).

    Exit codes: 0 fine, 2 a run can't be used, 3 an internal error.
    """
    from kldiv_cli.baseline_file import read_baseline
    from kldiv_cli.report.baseline import render_suggestions
    from kldiv_cli.report.console import write
    from kldiv_cli.suggestions import suggest_limits

    baselines = [read_baseline(run) for run in runs]
    suggestions = suggest_limits(baselines, sigmas=sigmas, floor=floor, statistics=statistic or ())
    write(render_suggestions(suggestions, len(baselines)))


def _selected(
    predictions: str | None,
    targets: str | None,
    computation: dict[str, Any],
    allow: Sequence[str] | None,
    baseline: str | None,
    name: str | None,
) -> Selected:
    from kldiv_cli.cli.selection import select

    selected = select(predictions, targets, computation, None, allow, baseline, name, None, gate=False)
    _path_of(selected)
    return selected


def _path_of(selected: Selected) -> str:
    if selected.baseline is None:
        raise UsageError('baseline: which file? say --baseline FILE, or baseline = "FILE" in the suite')
    return selected.baseline


def _existing(path: str) -> Baseline:
    """The baseline that is there, or a new one."""
    import os

    from kldiv_cli.baseline import Baseline
    from kldiv_cli.baseline_file import read_baseline

    return read_baseline(path) if os.path.exists(path) else Baseline(path=path)


def _new(cases: tuple[Case, ...], old: Baseline) -> tuple[Case, ...]:
    """Those that the baseline lacks."""
    new = tuple(case for case in cases if case.name not in old.pairs)
    if not new:
        raise UsageError(
            f"{old.path}: has the pair {cases[0].name!r} already"
            f"{' and all others' if len(cases) > 1 else ''}; replace what it has with kldiv baseline update"
        )
    return new


def _measure(selected: Selected, resources: Resources, progress: bool | None) -> list[Measured] | None:
    """What all pairs come to; None where one would fail any check, and then it says which."""
    from kldiv_cli.gate import measure
    from kldiv_cli.report.console import tell
    from kldiv_cli.report.progress import progress_of

    watch = partial(progress_of, wanted=progress)
    measured = [measure(case, resources=resources, watch=watch) for case in selected.cases]
    failing = [(m.name, finding) for m in measured for finding in m.errors()]
    for name, finding in failing:
        tell("error", f"{name}: {finding.message} (to record it all the same, allow {finding.id})")
    if failing:
        tell("note", "nothing was written")
    return None if failing else measured


def _place(selected: Selected) -> Path:
    """Where the baseline goes, if it can be written there; one that is there was read before."""
    from kldiv_cli.text_sinks import check_output_text

    return check_output_text("baseline", _path_of(selected), selected.files, force=True)


def _write(new: Baseline, old: Baseline, place: Path) -> None:
    """Write what was made of `old`, unless another has written there meanwhile."""
    from kldiv_cli.baseline_file import baseline_text
    from kldiv_cli.text_sinks import write_text

    if baseline_text(_existing(old.path)) != baseline_text(old):
        raise InputChanged(f"{old.path}: changed meanwhile, so it was not written; run again")
    write_text(place, baseline_text(new), force=place.exists())


def _agreed(path: str, *, yes: bool) -> bool:
    """Whether the update is wanted: as said beforehand, or as answered at a terminal."""
    from kldiv_cli.report.console import is_terminal, tell
    from kldiv_cli.streams import printable

    if yes:
        return True
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise UsageError(
            f"yes: nobody to ask here, so {path} was not written; say --yes to accept the changes"
        )
    sys.stderr.write(f"write these numbers to {printable(path)}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.buffer.readline().strip().lower() in (b"y", b"yes"):
        return True
    tell("note", "nothing was written")
    return False
