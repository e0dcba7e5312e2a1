"""What baselines hold, how they change, and which limits runs suggest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, assert_never

from kldiv_cli.baseline import Baseline, Change, Recorded, shown_setting
from kldiv_cli.baseline_file import baseline_text
from kldiv_cli.findings import counted
from kldiv_cli.record import SCHEMA, without_nonfinite
from kldiv_cli.report import text
from kldiv_cli.report.console import Format, resolve_format
from kldiv_cli.report.layout import Grid, number
from kldiv_cli.streams import printable
from kldiv_cli.suggestions import SuggestedLimit

__all__ = ["render_baseline", "render_changes", "render_suggestions"]

_CHANGE: Final = ("pair", "statistic", "old", "new", "change")


def render_baseline(baseline: Baseline, format: Format, precision: int | None = None) -> str:
    """Every number of every pair; as JSON the file itself."""
    heading = f"{printable(baseline.path)}: {counted(len(baseline.pairs), 'pair')}"
    match resolve_format(format):
        case "table" | "auto":
            from kldiv_cli.report.table import DIGITS, render_report

            grids = list(_pair_grids(baseline, DIGITS if precision is None else precision))
            return render_report(heading, (), grids)
        case "plain":
            return text.plain_report(heading, (), _pair_grids(baseline, precision))
        case "md":
            return text.md_report(heading, (), _pair_grids(baseline, precision))
        case "csv":
            rows = (
                [printable(pair), loss, name, _cell(value, precision)]
                for pair, recorded in baseline.pairs.items()
                for loss, of_loss in recorded.statistics.items()
                for name, value in of_loss.items()
            )
            return text.csv_rows([["pair", "loss", "statistic", "value"], *rows])
        case "json":
            return baseline_text(baseline)
        case "jsonl":
            import json

            return json.dumps(json.loads(baseline_text(baseline))) + "\n"
        case unknown:
            assert_never(unknown)


def render_changes(changes: Sequence[Change], format: Format, precision: int | None = None) -> str:
    """Each number before and after."""
    moved = sum(change.moved for change in changes)
    heading = f"{moved} of {counted(len(changes), 'number')} changed"
    match resolve_format(format):
        case "table" | "auto":
            from kldiv_cli.report.table import DIGITS, render_report

            return render_report(
                heading, (), [_change_grid(changes, DIGITS if precision is None else precision)]
            )
        case "plain":
            return text.plain_report(heading, (), [_change_grid(changes, precision)])
        case "md":
            return text.md_report(heading, (), [_change_grid(changes, precision)])
        case "csv":
            rows = ([printable(c.pair), c.name, *_csv_cells(c, precision)] for c in changes)
            return text.csv_rows([_CHANGE, *rows])
        case "json":
            import json

            record = {"schema": SCHEMA, "changed": moved, "numbers": [_change_record(c) for c in changes]}
            return json.dumps(without_nonfinite(record), indent=2) + "\n"
        case "jsonl":
            import json

            return "".join(json.dumps(without_nonfinite(_change_record(c))) + "\n" for c in changes)
        case unknown:
            assert_never(unknown)


def render_suggestions(suggestions: Sequence[SuggestedLimit], runs: int) -> str:
    """Ready to be pasted into a suite or a command; the comments say where each limit is from."""
    parts = []
    for pair in dict.fromkeys(suggestion.pair for suggestion in suggestions):
        of_pair = [suggestion for suggestion in suggestions if suggestion.pair == pair]
        command = " ".join(f"--limit '{suggestion.text}'" for suggestion in of_pair)
        lines = [f"[pairs.{_toml_key(pair)}]", "limits = [", *(_suggested(s, runs) for s in of_pair), "]"]
        parts.append("\n".join((*lines, f"# kldiv check: {command}")) + "\n")
    return "\n".join(parts)


def _suggested(suggestion: SuggestedLimit, runs: int) -> str:
    spread = f"mean {suggestion.mean:.6g}, standard deviation {suggestion.standard_deviation:.2g}"
    return f'    "{suggestion.text}",  # {runs} runs: {spread}'


def _toml_key(name: str) -> str:
    if name.isascii() and name.replace("-", "").replace("_", "").isalnum():
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _pair_grids(baseline: Baseline, precision: int | None) -> Iterator[Grid]:
    for name, recorded in baseline.pairs.items():
        yield _input_grid(name, recorded)
        yield _setting_grid(recorded)
        losses = tuple(recorded.statistics)
        names = dict.fromkeys(name for of_loss in recorded.statistics.values() for name in of_loss)
        rows = tuple(
            (name, *(_cell(recorded.statistics[loss].get(name), precision) for loss in losses))
            for name in names
        )
        yield Grid(columns=("statistic", *losses), rows=rows)


def _input_grid(name: str, recorded: Recorded) -> Grid:
    rows = tuple(
        tuple(map(printable, (name, role, i.address, str(i.shape), i.dtype, i.space, (i.sha256 or "")[:12])))
        for role, i in recorded.inputs.items()
    )
    columns = ("pair", "input", "address", "shape", "dtype", "space", "sha256")
    return Grid(columns=columns, rows=rows, words=tuple(range(len(columns))))


def _setting_grid(recorded: Recorded) -> Grid:
    """The settings, but for what is not there or not asked for."""
    rows = tuple(
        (name, shown_setting(value))
        for name, value in recorded.settings.items()
        if value is not None and value is not False
    )
    return Grid(columns=("setting", "value"), rows=rows, words=(0, 1))


def _change_grid(changes: Sequence[Change], precision: int | None) -> Grid:
    rows = tuple(
        (printable(c.pair), c.name, _cell(c.old, precision), "→", _cell(c.new, precision), _relative(c))
        for c in changes
    )
    return Grid(columns=("pair", "statistic", "old", "", "new", "change"), rows=rows, words=(0, 1, 3))


def _relative(change: Change) -> str:
    if not change.moved:
        return "="
    return "" if change.relative is None else f"{100 * change.relative:+.3g} %"


def _change_record(change: Change) -> dict[str, Any]:
    return {
        "pair": change.pair,
        "statistic": change.name,
        "old": change.old,
        "new": change.new,
        "change": change.relative,
    }


def _csv_cells(change: Change, precision: int | None) -> Iterator[str]:
    for value in (change.old, change.new, change.relative):
        yield "" if value is None else _cell(value, precision)


def _cell(value: float | None, precision: int | None) -> str:
    """A number as everywhere, but a count whole."""
    return str(value) if isinstance(value, int) else number(value, precision)
