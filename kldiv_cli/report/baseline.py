"""What baselines hold, how they change, and which limits runs suggest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from kldiv_cli.baseline import Baseline, Change, Recorded
from kldiv_cli.baseline_file import baseline_text
from kldiv_cli.findings import counted
from kldiv_cli.report import text
from kldiv_cli.report.console import Format, resolve_format
from kldiv_cli.report.layout import Grid, number
from kldiv_cli.streams import printable
from kldiv_cli.suggestions import SuggestedLimit

__all__ = ["render_baseline", "render_changes", "render_suggestions"]


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
                [printable(pair), loss, name, number(value, precision)]
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
    moved = [change for change in changes if change.old != change.new]
    heading = f"{len(moved)} of {counted(len(changes), 'number')} changed"
    match resolve_format(format):
        case "table" | "auto":
            from kldiv_cli.report.table import DIGITS, render_report

            return render_report(
                heading, (), [_change_grid(changes, DIGITS if precision is None else precision)]
            )
        case _:
            return text.plain_report(heading, (), [_change_grid(changes, precision)])


def render_suggestions(suggestions: Sequence[SuggestedLimit], runs: int) -> str:
    """Ready to be pasted into a suite; the comments say where each limit is from."""
    lines = []
    for pair in dict.fromkeys(suggestion.pair for suggestion in suggestions):
        lines += [f"[pairs.{_toml_key(pair)}]", "limits = ["]
        lines += [_suggested(suggestion, runs) for suggestion in suggestions if suggestion.pair == pair]
        lines += ["]", ""]
    return "\n".join(lines)


def _suggested(suggestion: SuggestedLimit, runs: int) -> str:
    spread = f"mean {suggestion.mean:.6g}, standard deviation {suggestion.standard_deviation:.2g}"
    return f'    "{suggestion.text}",  # {runs} runs: {spread}'


def _toml_key(name: str) -> str:
    import json

    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name, ensure_ascii=False)


def _pair_grids(baseline: Baseline, precision: int | None) -> Iterator[Grid]:
    for name, recorded in baseline.pairs.items():
        yield _input_grid(name, recorded)
        losses = tuple(recorded.statistics)
        names = dict.fromkeys(name for of_loss in recorded.statistics.values() for name in of_loss)
        rows = tuple(
            (name, *(number(recorded.statistics[loss].get(name), precision) for loss in losses))
            for name in names
        )
        yield Grid(columns=("statistic", *losses), rows=rows)


def _input_grid(name: str, recorded: Recorded) -> Grid:
    rows = tuple(
        (role, printable(i.address), str(i.shape), i.dtype, i.space, (i.sha256 or "")[:12])
        for role, i in recorded.inputs.items()
    )
    columns = (printable(name), "address", "shape", "dtype", "space", "sha256")
    return Grid(columns=columns, rows=rows, words=(0, 1, 2, 3, 4, 5))


def _change_grid(changes: Sequence[Change], precision: int | None) -> Grid:
    rows = tuple(
        (printable(c.pair), c.name, number(c.old, precision), "→", number(c.new, precision), _relative(c))
        for c in changes
    )
    return Grid(columns=("pair", "statistic", "old", "", "new", "change"), rows=rows, words=(0, 1, 3))


def _relative(change: Change) -> str:
    if change.old == change.new:
        return "="
    return "" if change.relative is None else f"{100 * change.relative:+.3g} %"
