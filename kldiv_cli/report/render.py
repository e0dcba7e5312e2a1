"""A result to text in the format that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.map_view import MapView
from kldiv_cli.reductions import Reduction
from kldiv_cli.report import text
from kldiv_cli.report.console import Format, resolve_format

__all__ = ["render"]


def render(
    evaluations: Sequence[Evaluation],
    format: Format,
    reduction: Reduction | None = None,
    view: MapView | None = None,
    precision: int | None = None,
) -> str:
    """The scalars, or the one of them that is `reduction`, or the map that is `view`."""
    match resolve_format(format):
        case "table" | "auto":
            from kldiv_cli.report.table import render_table

            return render_table(evaluations, reduction, view, precision)
        case "plain":
            return text.render_plain(evaluations, reduction, view, precision)
        case "md":
            return text.render_md(evaluations, reduction, view, precision)
        case "csv":
            return text.render_csv(evaluations, reduction, view, precision)
        case "json":
            return text.render_json(evaluations, reduction, view)
        case "jsonl":
            return text.render_jsonl(evaluations, reduction, view)
        case unknown:
            assert_never(unknown)
