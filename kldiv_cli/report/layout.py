"""What the tables of every text format say, before it is known how they look."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from kldiv_cli.estimates import Share
from kldiv_cli.evaluation import Evaluation, Input, WorstLoss
from kldiv_cli.map_view import MapView
from kldiv_cli.record import SCALARS, direction, split_groups, statistics_record
from kldiv_cli.reductions import Reduction, Scalars
from kldiv_cli.spec import Loss
from kldiv_cli.statistics import Statistics
from kldiv_cli.streams import printable
from kldiv_cli.target_split import TargetSplit

__all__ = [
    "ELLIPSIS",
    "Grid",
    "MapGrid",
    "Summed",
    "Tone",
    "agreement_grid",
    "aligned",
    "detail_grids",
    "heading",
    "inputs",
    "largest",
    "map_grid",
    "number",
    "scalar_grid",
    "split_grid",
    "statistics_grid",
    "worst_grid",
]

ELLIPSIS: Final = "…"
_GROUP_NAMES: Final = {"one": "1", "zero": "0", "between": "between", "outside": "outside [0, 1]"}


class Summed(Protocol):
    """What a loss came to: on one pair, or on many as if they were one."""

    @property
    def loss(self) -> Loss: ...
    @property
    def scalars(self) -> Scalars: ...
    @property
    def statistics(self) -> Statistics: ...
    @property
    def by_target(self) -> TargetSplit | None: ...


Tone = Literal["", "good", "bad"]
"""What a row says, where a terminal shows it by colour."""


class Grid(NamedTuple):
    """Column headers, and the cells of each row as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)
    """Columns of words, set left; numbers are set right."""
    tones: tuple[Tone, ...] = ()
    """Of each row, if it has any."""


class MapGrid(NamedTuple):
    """A map as a grid: index columns, then one column for each index of the last dimension shown."""

    index_columns: tuple[str, ...]
    value_columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[float | None, ...]], ...]
    """The index of each row and its values; None where something was left out."""


def number(value: float | None, precision: int | None) -> str:
    """A number that reads back to the same value, or one cut to `precision` digits for display."""
    if value is None:
        return "–"
    return repr(value) if precision is None else f"{value:.{precision}g}"


def heading(evaluations: Sequence[Evaluation]) -> str:
    """What was computed, in which direction."""
    names = [direction(evaluation, *_file_names(evaluation)) for evaluation in evaluations]
    return f"{' and '.join(names)}, in nats"


def inputs(evaluations: Sequence[Evaluation]) -> tuple[tuple[str, ...], ...]:
    """A row for each input: its role, address, shape and dtype, and what it was taken for."""
    first = evaluations[0]
    roles = ("predictions", "targets", "weight", "pos_weight", "mask")
    sources = (first.predictions, first.targets, first.weight, first.pos_weight, first.mask)
    return tuple(
        (role, *_described(first, source))
        for role, source in zip(roles, sources, strict=True)
        if source is not None
    )


def aligned(rows: Sequence[tuple[str, ...]], words: Sequence[int]) -> str:
    """Columns of equal width, those of words set left and all others right; nothing of no rows."""
    if not rows:
        return ""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]

    def line(row: tuple[str, ...]) -> str:
        padded = (
            cell.ljust(width) if k in words else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, rows))


def scalar_grid(evaluations: Sequence[Summed], reduction: Reduction | None, precision: int | None) -> Grid:
    """The reductions side by side, with what each is divided by."""
    scalars = evaluations[0].scalars
    divisors = {
        "sum": ("1", ""),
        "mean": (str(scalars.elements), "elements"),
        "batchmean": (str(scalars.batch), "batch"),
        "distmean": (str(scalars.distributions), "distributions"),
    }
    rows = []
    for name in SCALARS if reduction is None else (reduction,):
        values = [getattr(evaluation.scalars, name) for evaluation in evaluations]
        if all(value is None for value in values):
            continue
        divisor, unit = divisors[name]
        rows.append((name, *(number(value, precision) for value in values), divisor, unit))
    losses = tuple(evaluation.loss for evaluation in evaluations)
    columns = ("reduction", *losses, "divisor", "of")
    return Grid(columns=columns, rows=tuple(rows), words=(0, len(columns) - 1))


def detail_grids(
    evaluations: Sequence[Evaluation], reduction: Reduction | None, precision: int | None
) -> Iterator[Grid]:
    """What stands below the scalars: statistics, agreement, the split by target, the worst."""
    spec = evaluations[0].settings
    if reduction is None or spec.blocks_of is not None or spec.more_quantiles:
        yield statistics_grid(evaluations, precision)
    for share in (e.top1 for e in evaluations if e.top1 is not None):
        yield agreement_grid({"top1": share}, precision)
    split = split_grid(evaluations, precision)
    if split is not None:
        yield split
    for e in evaluations:
        if e.worst:
            dimensions = [d for d in range(len(e.shape)) if e.loss != "kl" or d != e.axis]
            yield worst_grid(e.worst, dimensions, e.loss, precision)


def statistics_grid(evaluations: Sequence[Summed], precision: int | None) -> Grid:
    """The statistics of every loss, and what each is of."""
    records = [statistics_record(evaluation.statistics) for evaluation in evaluations]
    units = [f"{r['count']} {_approximate(r)}{r['of']}" for r in records]
    unit = ", ".join(dict.fromkeys(units))
    rows = []
    for name in records[0]:
        if name not in ("of", "count", "exact", "blocks"):
            values = (number(record[name], precision) for record in records)
            rows.append((name, *values, unit if name == "mean" else ""))
    blocks = [e.statistics.blocks for e in evaluations if e.statistics.blocks is not None]
    if blocks:
        counts = ", ".join(dict.fromkeys(f"{block.blocks} blocks of {block.of}" for block in blocks))
        errors = (number(block.standard_error, precision) for block in blocks)
        rows.insert(2, ("blocks.standard_error", *errors, counts))
    losses = tuple(evaluation.loss for evaluation in evaluations)
    return Grid(columns=("statistic", *losses, "of"), rows=tuple(rows), words=(0, len(losses) + 1))


def _approximate(record: dict[str, Any]) -> str:
    return "" if record["exact"] else "(percentiles within 0.05 %) "


def agreement_grid(shares: Mapping[str, Share], precision: int | None) -> Grid:
    """How often top classes agree, by name."""
    rows = (
        (name, str(share.count), number(share.share, precision), number(share.standard_error, precision))
        for name, share in shares.items()
    )
    return Grid(columns=("agreement", "count", "share", "standard_error"), rows=tuple(rows))


def worst_grid(
    ranked: Sequence[WorstLoss], dimensions: Sequence[int], name: str, precision: int | None
) -> Grid:
    """The largest losses with their indices along these dimensions, the worst first."""
    rows = (
        (str(rank), *map(str, worst.index), number(worst.value, precision))
        for rank, worst in enumerate(ranked, 1)
    )
    return Grid(columns=("worst", *(f"dim {d}" for d in dimensions), name), rows=tuple(rows), words=())


def split_grid(evaluations: Sequence[Summed], precision: int | None) -> Grid | None:
    """Count and mean loss where the target is 1, 0 and between."""
    splits = [evaluation.by_target for evaluation in evaluations]
    groups = [split_groups(split) for split in splits if split is not None]
    if not groups:
        return None
    rows = []
    for of_group in zip(*groups, strict=True):
        name, first = of_group[0]
        means = (number(group.mean, precision) for _, group in of_group)
        rows.append((_GROUP_NAMES[name], str(first.count), *means))
    losses = tuple(f"{evaluation.loss} mean" for evaluation in evaluations)
    return Grid(columns=("target", "count", *losses), rows=tuple(rows))


def map_grid(view: MapView, most_columns: int | None = None) -> MapGrid:
    """Lay a map out: the last dimension that varies runs across, all others down.

    `most_columns` limits the value columns; those in the middle give way.
    """
    across = _dimension_across(view)
    down = [d for d in range(len(view.shape)) if d != across]
    columns = _with_gaps(view.indices[across], most_columns) if across is not None else [0]
    rows: list[tuple[tuple[str, ...], tuple[float | None, ...]]] = []
    for positions in _row_positions(view, down):
        if positions is None:
            rows.append((("…",) * len(down), (None,) * len(columns)))
            continue
        index = tuple(str(view.indices[d][k]) for d, k in zip(down, positions, strict=True))
        place = dict(zip(down, positions, strict=True))
        rows.append((index, tuple(_value(view, place, across, column) for column in columns)))
    header: tuple[str, ...] = ("value",)
    if across is not None:
        header = tuple(
            ELLIPSIS if column is None else str(view.indices[across][column]) for column in columns
        )
    return MapGrid(index_columns=tuple(f"dim {d}" for d in down), value_columns=header, rows=tuple(rows))


def _file_names(evaluation: Evaluation) -> tuple[str, str]:
    return printable(evaluation.predictions.address), printable(evaluation.targets.address)


def _described(evaluation: Evaluation, source: Input) -> tuple[str, ...]:
    spec = evaluation.settings
    softmax = (source is evaluation.predictions and spec.log_softmax) or (
        source is evaluation.targets and spec.targets_softmax
    )
    space = source.space
    if source.space == "logits" and spec.temperature is not None:
        space += f" / {spec.temperature:g}"
    if softmax:
        space += ", log-softmax"
    along_axis = softmax or (source is evaluation.targets and evaluation.loss == "kl")
    if evaluation.shape and along_axis:
        space += f" over axis {evaluation.axis} ({evaluation.shape[evaluation.axis]})"
    return printable(source.address), f"{source.shape}", source.dtype, space


def _dimension_across(view: MapView) -> int | None:
    """The last dimension of more than one index; a vector runs down instead."""
    varying = [d for d, indices in enumerate(view.indices) if len(indices) != 1]
    return varying[-1] if len(varying) > 1 else None


def _with_gaps(indices: Sequence[int], most: int | None) -> list[int | None]:
    """Positions of the indices, with None where some are left out."""
    positions: list[int | None] = list(range(len(indices)))
    gaps = [k for k in range(1, len(indices)) if indices[k] != indices[k - 1] + 1]
    if most is not None and len(positions) + len(gaps) > most:
        left, right = most // 2, (most - 1) // 2
        return [*positions[:left], None, *positions[len(positions) - right :]]
    for k in reversed(gaps):
        positions.insert(k, None)
    return positions


def _row_positions(view: MapView, down: list[int]) -> Iterator[tuple[int, ...] | None]:
    """Every combination of positions, with None where the dimension that advances leaves a gap."""
    previous: tuple[int, ...] | None = None
    for positions in itertools.product(*(range(len(view.indices[d])) for d in down)):
        if previous is not None:
            moved = next(k for k in range(len(down)) if positions[k] != previous[k])
            indices = view.indices[down[moved]]
            if indices[positions[moved]] != indices[previous[moved]] + 1:
                yield None
        yield positions
        previous = positions


def _value(view: MapView, place: dict[int, int], across: int | None, column: int | None) -> float | None:
    if column is None:
        return None
    index = tuple(column if d == across else place[d] for d in range(len(view.shape)))
    return float(view.values[index])


def largest(view: MapView) -> float:
    """The largest magnitude shown, for colouring; 0 for a map without finite values."""
    finite = [abs(value) for value in view.values.ravel().tolist() if math.isfinite(value)]
    return max(finite, default=0.0)
