"""What pairs a batch would compute, for ``--dry-run``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import assert_never

from kldiv_cli.batch_pair import BatchPair
from kldiv_cli.findings import counted
from kldiv_cli.record import SCHEMA
from kldiv_cli.report import text
from kldiv_cli.report.console import Format, resolve_format
from kldiv_cli.report.layout import Grid
from kldiv_cli.streams import printable
from kldiv_cli.urls import shown

__all__ = ["render_pairs"]


def render_pairs(pairs: Sequence[BatchPair], format: Format, finished: Collection[str] = ()) -> str:
    """The pairs by name, with their files; those that are `finished` would not be computed again."""
    records = list(_records(pairs, finished))
    title = counted(len(pairs), "pair") + (f", {len(finished)} of them finished" if finished else "")
    match resolve_format(format):
        case "json":
            return json.dumps({"schema": SCHEMA, "pairs": records}, indent=2) + "\n"
        case "jsonl":
            return "".join(json.dumps({"schema": SCHEMA, **record}) + "\n" for record in records)
        case "csv":
            return text.csv_rows(_rows(records))
        case "plain":
            return text.plain_report(title, (), [_grid(records)])
        case "md":
            return text.md_report(title, (), [_grid(records)])
        case "table" | "auto":
            from kldiv_cli.report.table import render_report

            return render_report(title, (), [_grid(records)])
        case unknown:
            assert_never(unknown)


def _records(pairs: Sequence[BatchPair], finished: Collection[str]) -> Iterator[dict[str, str]]:
    for pair in pairs:
        files = {"predictions": pair.predictions, "targets": pair.targets, **pair.files}
        status = "finished" if pair.name in finished else "to be computed"
        yield {
            "pair": pair.name,
            "status": status,
            **{role: shown(address) for role, address in files.items()},
        }


def _rows(records: Sequence[dict[str, str]]) -> list[list[str]]:
    """A header, and a row a pair; what no pair has gets no column."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    return [columns, *([printable(record.get(name, "")) for name in columns] for record in records)]


def _grid(records: Sequence[dict[str, str]]) -> Grid:
    columns, *rows = _rows(records)
    return Grid(columns=tuple(columns), rows=tuple(map(tuple, rows)), words=tuple(range(len(columns))))
