"""Rich tables for people at a terminal."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.map_view import MapView
from kldiv_cli.reductions import Reduction
from kldiv_cli.report.console import UNLIMITED, console_for
from kldiv_cli.report.layout import (
    ELLIPSIS,
    Grid,
    MapGrid,
    aligned,
    detail_grids,
    heading,
    inputs,
    largest,
    map_grid,
    number,
    scalar_grid,
)

__all__ = ["DIGITS", "TONES", "render_fitting", "render_grids", "render_report", "render_table"]

DIGITS: Final = 6
"""Significant digits where --precision does not say; every other format prints all of them."""
MAP_DIGITS: Final = 4

_HEAT: Final = ("color(240)", "color(250)", "color(229)", "color(220)", "color(208)", "color(196)")
_COLD: Final = ("color(240)", "color(250)", "color(123)", "color(45)", "color(33)", "color(21)")
"""Ramps of style by size, for losses above and below 0."""
TONES: Final[dict[str, str]] = {"": "", "good": "green", "bad": "bold red"}

_LEFT_OUT: Final = "columns left out to fit the terminal; --full shows all"


def render_table(
    evaluations: Sequence[Evaluation],
    reduction: Reduction | None,
    view: MapView | None,
    precision: int | None,
) -> str:
    """Tables as wide as the terminal, or as they need to be where there is none."""
    console = console_for(sys.stdout)
    if view is not None and view.full:
        console.width = UNLIMITED
    digits = DIGITS if precision is None else precision
    parts = _described(heading(evaluations), inputs(evaluations))
    if view is not None:
        parts += _map(console, view, MAP_DIGITS if precision is None else precision)
    else:
        parts.append(_table(console, scalar_grid(evaluations, reduction, digits)))
    shown = "none" if view is not None else reduction
    parts += [_table(console, grid) for grid in detail_grids(evaluations, shown, digits)]
    with console.capture() as captured:
        console.print(Group(*parts))
    return captured.get()


def render_report(title: str, described: Sequence[tuple[str, ...]], grids: Sequence[Grid]) -> str:
    """What was computed, of what, and tables of what came of it."""
    console = console_for(sys.stdout)
    parts = [*_described(title, described), *(_table(console, grid) for grid in grids)]
    with console.capture() as captured:
        console.print(Group(*parts))
    return captured.get()


def _described(title: str, rows: Sequence[tuple[str, ...]]) -> list[RenderableType]:
    described = [Text(aligned(rows, range(5)), overflow="fold")] if rows else []
    return [Text(title, style="bold"), *described]


def render_grids(*layouts: Sequence[Grid]) -> str:
    """The first of several ways to lay grids out that is not too wide for the terminal, else the last."""
    console = console_for(sys.stdout)
    tables = [[_table(console, grid) for grid in grids] for grids in layouts]
    fitting = (parts for parts in tables if all(isinstance(part, Table) for part in parts))
    with console.capture() as captured:
        console.print(Group(*next(fitting, tables[-1])))
    return captured.get()


def render_fitting(title: str, grids: Sequence[Sequence[Grid]]) -> str:
    """A title and grids, each in the first of several ways to lay it out that fits, else in the last."""
    console = console_for(sys.stdout)
    parts = _described(title, ())
    for ways in grids:
        tables = [_table(console, grid) for grid in ways]
        chosen = next((k for k, table in enumerate(tables) if isinstance(table, Table)), len(ways) - 1)
        parts.append(tables[chosen])
        if chosen:
            parts.append(Text(_LEFT_OUT, style="dim"))
    with console.capture() as captured:
        console.print(Group(*parts))
    return captured.get()


def _table(console: Console, grid: Grid) -> RenderableType:
    """A table, or plain columns where the terminal is too narrow for one."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for k, name in enumerate(grid.columns):
        justify: JustifyMethod = "left" if k in grid.words else "right"
        table.add_column(Text(name), justify=justify, no_wrap=True)
    for row, tone in zip(grid.rows, grid.tones or itertools.repeat(""), strict=False):
        table.add_row(*map(Text, row), style=TONES[tone])
    if Measurement.get(console, console.options, table).maximum < console.width:
        return table
    return Text("\n" + aligned((grid.columns, *grid.rows), grid.words) + "\n", overflow="fold")


def _map(console: Console, view: MapView, digits: int) -> list[RenderableType]:
    fitting = _columns_that_fit(console, view, digits)
    grid = map_grid(view, fitting)
    peak = largest(view)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in grid.index_columns:
        table.add_column(Text(name), justify="right", style="dim", no_wrap=True)
    for name in grid.value_columns:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for index, values in grid.rows:
        table.add_row(*map(Text, index), *(_cell(value, peak, digits) for value in values))
    if fitting is None:
        return [table]
    return [table, Text(_LEFT_OUT, style="dim")]


def _columns_that_fit(console: Console, view: MapView, digits: int) -> int | None:
    """How many value columns the terminal holds; None for all of them."""
    grid = map_grid(view)
    widths = [max(map(len, column)) + 2 for column in zip(*_lines(grid, digits), strict=True)]
    indices, values = widths[: len(grid.index_columns)], widths[len(grid.index_columns) :]
    room = console.width - sum(indices)
    if sum(values) <= room:
        return None
    return max(3, (room - 3) // max(values) + 1)


def _lines(grid: MapGrid, digits: int) -> list[tuple[str, ...]]:
    rows = ((*index, *(number(value, digits) for value in values)) for index, values in grid.rows)
    return [(*grid.index_columns, *grid.value_columns), *rows]


def _cell(value: float | None, peak: float, digits: int) -> Text:
    if value is None:
        return Text(ELLIPSIS, style="dim")
    return Text(number(value, digits), style=_style(value, peak))


def _style(value: float, peak: float) -> str:
    """Hot for large losses, cold for those below 0, so that the eye finds them."""
    if not math.isfinite(value):
        return "bold magenta"
    ramp = _HEAT if value >= 0 else _COLD
    share = abs(value) / peak if peak else 0.0
    return ramp[min(int(share * len(ramp)), len(ramp) - 1)]
