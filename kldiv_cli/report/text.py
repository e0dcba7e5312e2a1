"""Plain text, Markdown, CSV and JSON; nothing here needs Rich."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.map_view import MapView
from kldiv_cli.reductions import Reduction
from kldiv_cli.report.layout import (
    ELLIPSIS,
    Grid,
    MapGrid,
    aligned,
    heading,
    inputs,
    map_grid,
    number,
    scalar_grid,
    split_grid,
)
from kldiv_cli.report.record import SCALARS, direction, evaluation_record
from kldiv_cli.streams import printable

__all__ = [
    "csv_rows",
    "escape_md",
    "md_grid",
    "plain_grid",
    "render_csv",
    "render_json",
    "render_jsonl",
    "render_md",
    "render_plain",
]


def render_plain(
    evaluations: Sequence[Evaluation],
    reduction: Reduction | None,
    view: MapView | None,
    precision: int | None,
) -> str:
    """Aligned columns, nothing truncated."""
    parts = [heading(evaluations), aligned(inputs(evaluations), range(5))]
    grids = _grids(evaluations, reduction, view, precision)
    return "\n".join(parts) + "\n" + "".join(f"\n{plain_grid(grid)}" for grid in grids)


def render_md(
    evaluations: Sequence[Evaluation],
    reduction: Reduction | None,
    view: MapView | None,
    precision: int | None,
) -> str:
    """Markdown tables, for a pull request or a report."""
    described = (f"- {role}: {escape_md(' '.join(rest))}" for role, *rest in inputs(evaluations))
    parts = [f"**{escape_md(heading(evaluations))}**", "\n".join(described)]
    parts += [_md_table(grid) for grid in _grids(evaluations, reduction, view, precision)]
    return "\n\n".join(parts) + "\n"


def render_json(evaluations: Sequence[Evaluation], reduction: Reduction | None, view: MapView | None) -> str:
    """One record; a list of them where several losses were asked for."""
    import json

    records = [evaluation_record(evaluation, reduction, view) for evaluation in evaluations]
    return json.dumps(records[0] if len(records) == 1 else records, indent=2) + "\n"


def render_jsonl(evaluations: Sequence[Evaluation], reduction: Reduction | None, view: MapView | None) -> str:
    """One record a line, one line a loss."""
    import json

    records = (evaluation_record(evaluation, reduction, view) for evaluation in evaluations)
    return "".join(json.dumps(record) + "\n" for record in records)


def render_csv(
    evaluations: Sequence[Evaluation],
    reduction: Reduction | None,
    view: MapView | None,
    precision: int | None,
) -> str:
    """A row for each loss; of a map, a row for each element."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if view is not None:
        writer.writerow([*(f"dim {d}" for d in range(len(view.shape))), "value"])
        writer.writerows((*index, number(value, precision)) for index, value in _elements(view))
        return text.getvalue()
    rows = [_csv_row(evaluation, reduction, precision) for evaluation in evaluations]
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue()


def _csv_row(
    evaluation: Evaluation, reduction: Reduction | None, precision: int | None
) -> dict[str, str | int]:
    """The main fields of a loss's record, flat; a reduction that it does not have is an empty cell."""
    scalars = evaluation.scalars
    row: dict[str, str | int] = {
        "loss": evaluation.loss,
        "predictions": printable(evaluation.predictions.address),
        "targets": printable(evaluation.targets.address),
        "shape": "x".join(map(str, evaluation.shape)),
        "axis": evaluation.axis,
        "elements": scalars.elements,
        "distributions": scalars.distributions,
        "batch": scalars.batch,
    }
    for name in SCALARS if reduction is None else (reduction,):
        row[name] = _csv_number(getattr(evaluation, name), precision)
    row |= {
        "direction": direction(evaluation),
        "predictions.dtype": evaluation.predictions.dtype,
        "predictions.space": evaluation.predictions.space,
        "targets.dtype": evaluation.targets.dtype,
        "targets.space": evaluation.targets.space,
    }
    if evaluation.by_target is not None:
        for name, group in evaluation.by_target._asdict().items():
            row[f"by_target.{name}.count"] = group.count
            row[f"by_target.{name}.mean"] = _csv_number(group.mean, precision)
    return row


def _csv_number(value: float | None, precision: int | None) -> str:
    return "" if value is None else number(value, precision)


def _grids(
    evaluations: Sequence[Evaluation],
    reduction: Reduction | None,
    view: MapView | None,
    precision: int | None,
) -> Iterator[Grid]:
    if view is not None:
        yield _as_grid(map_grid(view), precision)
    else:
        yield scalar_grid(evaluations, reduction, precision)
    split = split_grid(evaluations, precision)
    if split is not None:
        yield split


def _as_grid(grid: MapGrid, precision: int | None) -> Grid:
    rows = tuple(
        (*index, *(ELLIPSIS if value is None else number(value, precision) for value in values))
        for index, values in grid.rows
    )
    return Grid(
        columns=(*grid.index_columns, *grid.value_columns),
        rows=rows,
        words=(),
    )


def _elements(view: MapView) -> Iterator[tuple[tuple[int, ...], float]]:
    return zip(itertools.product(*view.indices), view.values.ravel().tolist(), strict=True)


def plain_grid(grid: Grid) -> str:
    """A grid in aligned columns."""
    return aligned((grid.columns, *grid.rows), grid.words) + "\n"


def md_grid(grid: Grid) -> str:
    """A grid as a Markdown table."""
    return _md_table(grid) + "\n"


def csv_rows(rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells, the first of them the header."""
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _md_table(grid: Grid) -> str:
    rule = ["---" if k in grid.words else "---:" for k in range(len(grid.columns))]
    rows = [grid.columns, rule, *([escape_md(cell) for cell in row] for row in grid.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def escape_md(text: str) -> str:
    """Escape what Markdown would take for markup in a name."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|" else c for c in text)
