"""What `kldiv inspect` found, in every format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, assert_never

from kldiv_cli.inspection import Inspection
from kldiv_cli.likeness import Likeness, Traits
from kldiv_cli.pairing import Suggestion
from kldiv_cli.record import SCHEMA, without_nonfinite
from kldiv_cli.report import text
from kldiv_cli.report.console import Format, resolve_format
from kldiv_cli.report.layout import Grid
from kldiv_cli.sources.stored import Storage
from kldiv_cli.streams import printable

__all__ = ["inspection_grid", "inspection_record", "render_inspections"]

_UNKNOWN = "–"
_STORED = 5
"""Columns that say how an array is stored; all others say what is in it."""
_NOTHING = Inspection(address="", shape=None, dtype=None, storage=None)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def render_inspections(
    inspections: Sequence[Inspection],
    suggestions: Sequence[Suggestion],
    format: Format,
    precision: int | None = None,
) -> str:
    """A row for each array; below, why some can't be read, and the lines that fit pairs of them."""
    match resolve_format(format):
        case "table" | "auto":
            from kldiv_cli.report.table import DIGITS, render_grids

            grid = inspection_grid(inspections, precision or DIGITS)
            return "".join([render_grids([grid], _parts(grid)), *_below(inspections, suggestions)])
        case "plain":
            grid = inspection_grid(inspections, precision)
            return "".join([text.plain_grid(grid), *_below(inspections, suggestions)])
        case "md":
            grid = inspection_grid(inspections, precision)
            return "".join([text.md_grid(grid), *_below_md(inspections, suggestions)])
        case "csv":
            return _csv(inspections, suggestions, precision)
        case "json":
            import json

            records = [inspection_record(i, suggestions) for i in inspections]
            return json.dumps({"schema": SCHEMA, "arrays": records}, indent=2, allow_nan=False) + "\n"
        case "jsonl":
            import json

            lines = ({"schema": SCHEMA, **inspection_record(i, suggestions)} for i in inspections)
            return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        case unknown:
            assert_never(unknown)


def inspection_record(inspection: Inspection, suggestions: Sequence[Suggestion] = ()) -> dict[str, Any]:
    """All that is known of an array, with the lines in which it is the predictions or the candidate."""
    found, likeness = inspection.traits, inspection.likeness
    record = {
        "address": inspection.address,
        "shape": inspection.shape,
        "dtype": inspection.dtype,
        "elements": inspection.elements,
        "storage": inspection.storage and inspection.storage._asdict(),
        "examined": found and found.size,
        "sampled": inspection.sampled,
        "min": found and found.lowest,
        "max": found and found.highest,
        "nan": found and found.nan,
        "posinf": found and found.posinf,
        "neginf": found and found.neginf,
        "zeros": found and found.zeros,
        "looks_like": likeness and likeness.space,
        "axis": likeness and likeness.axis,
        "problem": inspection.problem,
        "compute": [s.command for s in suggestions if s.predictions == inspection.address],
    }
    return without_nonfinite(record)


def inspection_grid(inspections: Sequence[Inspection], digits: int | None) -> Grid:
    """An array a row; what was read of it only where some were sampled."""
    sampled = any(inspection.sampled for inspection in inspections)
    columns = ("array", "shape", "dtype", "storage", "size", "min", "max", "nan", "inf", "-inf", "zeros")
    read = ("read",) if sampled else ()
    rows = tuple(_row(inspection, digits, sampled=sampled) for inspection in inspections)
    last = len(columns) + len(read)
    return Grid((*columns, *read, "looks like"), rows, words=(0, 1, 2, 3, last))


def _parts(grid: Grid) -> list[Grid]:
    """What the arrays are, how they are stored and what is in them, for a narrow terminal one by one."""
    *counts, _ = range(_STORED, len(grid.columns))
    return [_columns(grid, chosen) for chosen in ((0, 1, 2, -1), (0, 3, 4), (0, *counts))]


def _columns(grid: Grid, chosen: Sequence[int]) -> Grid:
    return Grid(
        columns=tuple(grid.columns[k] for k in chosen),
        rows=tuple(tuple(row[k] for k in chosen) for row in grid.rows),
        words=tuple(place for place, k in enumerate(chosen) if k % len(grid.columns) in grid.words),
    )


def _row(inspection: Inspection, digits: int | None, *, sampled: bool) -> tuple[str, ...]:
    found = inspection.traits
    counts: tuple[str, ...] = (_UNKNOWN,) * 6
    read = _UNKNOWN
    if found is not None:
        ends = (_number(value, digits) for value in (found.lowest, found.highest))
        counts = (*ends, *map(str, (found.nan, found.posinf, found.neginf, found.zeros)))
        read = f"{found.size} of {inspection.elements}" if inspection.sampled else "all"
    return (
        printable(inspection.address),
        _UNKNOWN if inspection.shape is None else f"{inspection.shape}",
        inspection.dtype or _UNKNOWN,
        *_storage(inspection.storage),
        *counts,
        *((read,) if sampled else ()),
        _looks_like(inspection.likeness, found),
    )


def _storage(storage: Storage | None) -> tuple[str, str]:
    """How it lies there, and its size: in the file and, where that is another, unpacked."""
    if storage is None:
        return _UNKNOWN, _UNKNOWN
    parts = [storage.kind if storage.chunks is None else f"{storage.kind} {storage.chunks}"]
    parts += ["Fortran order"] if storage.order == "F" else []
    parts += [storage.compression] if storage.compression else []
    size = _size(storage.bytes)
    if storage.stored_bytes is not None and storage.stored_bytes != storage.bytes:
        size = f"{size} in {_size(storage.stored_bytes)}"
    return ", ".join(parts), size


def _size(count: float) -> str:
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.3g} {_UNITS[unit]}" if count < 1000 else f"{count:.0f} {_UNITS[unit]}"


def _number(value: float | None, digits: int | None) -> str:
    """Integers in full, others to so many digits, or so that they read back to the same value."""
    if value is None:
        return _UNKNOWN
    return str(value) if isinstance(value, int) or digits is None else f"{value:.{digits}g}"


def _looks_like(likeness: Likeness | None, found: Traits | None) -> str:
    if likeness is None:
        return _UNKNOWN
    if likeness.space == "labels" and found is not None and found.lowest is not None and found.lowest < 0:
        return f"labels but for {found.lowest}"
    return likeness.space if likeness.axis is None else f"{likeness.space}, axis {likeness.axis}"


def _problems(inspections: Sequence[Inspection]) -> Iterator[str]:
    return (printable(f"{i.address}: {i.problem}") for i in inspections if i.problem is not None)


def _below(inspections: Sequence[Inspection], suggestions: Sequence[Suggestion]) -> Iterator[str]:
    parts = (
        ("not read as numbers:", list(_problems(inspections))),
        ("what fits:", [suggestion.command for suggestion in suggestions]),
    )
    return ("\n" + "\n  ".join([title, *lines]) + "\n" for title, lines in parts if lines)


def _below_md(inspections: Sequence[Inspection], suggestions: Sequence[Suggestion]) -> Iterator[str]:
    problems = [f"- {text.escape_md(problem)}" for problem in _problems(inspections)]
    if problems:
        yield "\n".join(["", "Not read as numbers:", "", *problems, ""])
    if suggestions:
        yield "\n".join(["", "```sh", *(s.command for s in suggestions), "```", ""])


def _csv(inspections: Sequence[Inspection], suggestions: Sequence[Suggestion], precision: int | None) -> str:
    header = tuple(_csv_row(inspection_record(_NOTHING), precision))
    rows = (_csv_row(inspection_record(i, suggestions), precision) for i in inspections)
    return text.csv_rows([header, *([row[name] for name in header] for row in rows)])


def _csv_row(record: dict[str, Any], precision: int | None) -> dict[str, str]:
    """A record's fields, flat; what is not known is an empty cell, a shape is 540x10."""
    storage = record["storage"] or dict.fromkeys(Storage._fields)
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name == "storage":
            flat |= {f"storage.{part}": of_part for part, of_part in storage.items()}
        else:
            flat[name] = value
    flat["compute"] = "; ".join(record["compute"])
    return {name: _csv_cell(value, precision) for name, value in flat.items()}


def _csv_cell(value: Any, precision: int | None) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return _number(value, precision) if isinstance(value, float) else printable(str(value))
