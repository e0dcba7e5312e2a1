"""Plain text, Markdown, CSV and JSON; nothing here needs Rich."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.map_view import MapView
from kldiv_cli.record import SCALARS, direction, evaluation_record, statistics_record
from kldiv_cli.reductions import Reduction
from kldiv_cli.report.layout import (
    ELLIPSIS,
    Grid,
    MapGrid,
    aligned,
    detail_grids,
    heading,
    inputs,
    map_grid,
    number,
    scalar_grid,
)
from kldiv_cli.streams import printable

__all__ = [
    "csv_cell",
    "csv_rows",
    "escape_md",
    "md_grid",
    "md_report",
    "plain_grid",
    "plain_report",
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
    grids = _grids(evaluations, reduction, view, precision)
    return md_report(heading(evaluations), inputs(evaluations), grids)


def plain_report(title: str, described: Sequence[tuple[str, ...]], grids: Iterable[Grid]) -> str:
    """What was computed, of what, and aligned columns of what came of it."""
    parts = [title, *([aligned(described, range(5))] if described else [])]
    parts += ["\n" + aligned((grid.columns, *grid.rows), grid.words) for grid in grids]
    return "\n".join(parts) + "\n"


def md_report(title: str, described: Sequence[tuple[str, ...]], grids: Iterable[Grid]) -> str:
    """The same in Markdown."""
    listed = "\n".join(f"- {role}: {escape_md(' '.join(rest))}" for role, *rest in described)
    parts = [f"**{escape_md(title)}**", *([listed] if listed else []), *map(_md_table, grids)]
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
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
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
    for name, value in statistics_record(evaluation.statistics).items():
        if name == "blocks":
            row |= {f"statistics.blocks.{key}": csv_cell(item, precision) for key, item in value.items()}
        else:
            row[f"statistics.{name}"] = csv_cell(value, precision)
    if evaluation.top1 is not None:
        row |= {f"top1.{key}": csv_cell(item, precision) for key, item in evaluation.top1._asdict().items()}
    for rank, worst in enumerate(evaluation.worst, 1):
        row[f"worst.{rank}.index"] = " ".join(map(str, worst.index))
        row[f"worst.{rank}.value"] = _csv_number(worst.value, precision)
    if evaluation.by_target is not None:
        for name, group in evaluation.by_target._asdict().items():
            row[f"by_target.{name}.count"] = group.count
            row[f"by_target.{name}.mean"] = _csv_number(group.mean, precision)
    return row


def csv_cell(value: object, precision: int | None) -> str:
    """Numbers as in every format, all else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return number(value, precision) if isinstance(value, float) else str(value)


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
    yield from detail_grids(evaluations, "none" if view is not None else reduction, precision)


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
    columns, *cells = ([escape_md(cell) for cell in row] for row in (grid.columns, *grid.rows))
    rows = [columns, rule, *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def escape_md(text: str) -> str:
    """Escape what Markdown would take for markup in a name."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|&~$" else c for c in text)
