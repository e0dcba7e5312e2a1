"""What the tables of a batch say: a row a pair and loss, then what all of them come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kldiv_cli.batch_summary import BatchSummary, LossSummary
from kldiv_cli.findings import counted
from kldiv_cli.pair_result import PairResult
from kldiv_cli.record import direction_of, value_at
from kldiv_cli.reductions import Reduction
from kldiv_cli.report.batch_rows import chosen_scalars
from kldiv_cli.report.layout import (
    Grid,
    Tone,
    agreement_grid,
    number,
    scalar_grid,
    split_grid,
    statistics_grid,
)
from kldiv_cli.spec import QUANTILES, Spec
from kldiv_cli.statistics import percentile_name
from kldiv_cli.streams import printable

__all__ = [
    "PairColumns",
    "PairTable",
    "batch_heading",
    "byte_size",
    "failed_grids",
    "leading",
    "summary_grids",
]

_SHOWN: Final = 50
"""As many pairs, failed ones or rows of a kind are shown without --full."""


def leading(spec: Spec, reduction: Reduction | None) -> Reduction:
    """The reduction that stands for a pair where there is room for one only."""
    if reduction not in (None, "none"):
        return reduction
    return "distmean" if "kl" in spec.losses else "mean"


class PairColumns:
    """What is shown of a pair: its reductions, how bad the worst of it is, and what was found."""

    def __init__(self, spec: Spec, reduction: Reduction | None) -> None:
        more = [percentile_name(quantile) for quantile in spec.quantiles if quantile not in QUANTILES]
        keys: dict[str, tuple[str, ...]] = {name: (name,) for name in chosen_scalars(reduction)}
        keys |= {name: ("statistics", name) for name in ("p99", *more, "maximum")}
        if spec.top1:
            keys["top1"] = ("top1", "share")
        self._numbers = keys
        self.names = ("pair", "loss", "distributions", *keys, "findings")
        self.words = (0, 1, len(self.names) - 1)
        lead = leading(spec, reduction)
        self.narrower = (("pair", "loss", lead, "p99", "maximum"), ("pair", "loss", lead))
        """Fewer of the columns, for narrow terminals."""

    def rows(self, result: PairResult, precision: int | None) -> Iterator[tuple[str, ...]]:
        """A row for each loss; of a pair that could not be computed, one that says no more."""
        name = printable(result.name)
        if result.error is not None:
            yield (name, "error", *("" for _ in self.names[2:]))
        for record in result.records:
            numbers = (_cell(value_at(record, *keys), precision) for keys in self._numbers.values())
            ids = " ".join(dict.fromkeys(finding["id"] for finding in record["findings"]))
            yield name, record["loss"], str(record["distributions"]), *numbers, ids


def _cell(value: float | None, precision: int | None) -> str:
    return "" if value is None else number(value, precision)


class PairTable:
    """The rows of pairs, kept as long as all of them will be shown."""

    def __init__(
        self,
        spec: Spec,
        reduction: Reduction | None,
        precision: int | None,
        order: Mapping[str, int],
        *,
        full: bool,
    ) -> None:
        """Pairs stand in this `order`, by name, whichever was done first."""
        self._order = order
        self.columns = PairColumns(spec, reduction)
        self._precision, self._full = precision, full
        self._rows: list[tuple[int, tuple[str, ...], Tone]] = []
        self._pairs = 0

    def add(self, result: PairResult) -> None:
        """Take the next pair."""
        self._pairs += 1
        if self._pairs > _SHOWN and not self._full:
            self._rows.clear()
            return
        place = self._order.get(result.name, len(self._order))
        tone: Tone = "" if result.error is None else "bad"
        self._rows += ((place, row, tone) for row in self.columns.rows(result, self._precision))

    def grid(self) -> Grid | None:
        """All pairs; None where they are too many."""
        if self._pairs > _SHOWN and not self._full:
            return None
        ordered = sorted(self._rows, key=lambda placed: placed[0])
        rows, tones = (tuple(row for _, row, _ in ordered), tuple(tone for *_, tone in ordered))
        return Grid(self.columns.names, rows, self.columns.words, tones)

    def layouts(self) -> list[Grid]:
        """The same in ever fewer columns; with `full` in all only."""
        whole = self.grid()
        if whole is None:
            return []
        narrower = [] if self._full else [_part(whole, names) for names in self.columns.narrower]
        return [whole, *narrower]


def _part(grid: Grid, names: Sequence[str]) -> Grid:
    """Some columns of a grid."""
    places = [grid.columns.index(name) for name in names]
    rows = tuple(tuple(row[place] for place in places) for row in grid.rows)
    words = tuple(k for k, place in enumerate(places) if place in grid.words)
    return Grid(tuple(names), rows, words, grid.tones)


def batch_heading(summary: BatchSummary) -> str:
    """What was computed, of how many pairs, and how they fared."""
    fared = [
        f"{count} {word}"
        for count, word in (
            (summary.computed, "computed"),
            (summary.from_journal, "from the journal"),
            (len(summary.failed), "could not be computed"),
            (summary.not_reached, "not reached"),
        )
        if count
    ]
    said = f"{counted(summary.pairs, 'pair')}: {', '.join(fared) or 'nothing to do'}"
    if summary.losses:
        said = f"{' and '.join(direction_of(loss.loss) for loss in summary.losses)}, in nats; {said}"
    if summary.unmatched:
        said += f"; {len(summary.unmatched)} unmatched"
    return f"{said}; {byte_size(summary.bytes)}"


def byte_size(count: float) -> str:
    """A number of bytes for people.

    >>> byte_size(512), byte_size(1_500_000)
    ('512 bytes', '1.5 MB')
    """
    if count < 1000:
        return f"{count:.0f} bytes"
    units = ("kB", "MB", "GB", "TB", "PB")
    for unit in units:
        count /= 1000
        if count < 999.5 or unit == units[-1]:
            break
    return f"{count:.3g} {unit}" if count < 999.5 else f"{count:.0f} {unit}"


def failed_grids(summary: BatchSummary, *, full: bool) -> Iterator[Grid]:
    """What is wrong with the pairs that could not be computed."""
    if summary.failed:
        yield _listed(("failed", "error"), summary.failed, "bad", full=full)


def summary_grids(
    summary: BatchSummary, reduction: Reduction | None, precision: int | None, *, full: bool
) -> Iterator[Grid]:
    """What belongs to no pair, the worst; then each loss over all pairs and as their mean."""
    if summary.unmatched:
        yield _listed(("unmatched", "role"), summary.unmatched, "", full=full)
    losses = summary.losses
    for loss in losses:
        if summary.pairs > 1 and loss.worst:
            yield _worst_grid(loss, precision)
    for loss in losses:
        if loss.worst_losses:
            yield _worst_losses_grid(loss, precision)
    if not losses:
        return
    divisors = {loss.scalars[-3:] for loss in losses}
    for alike in [losses] if len(divisors) == 1 else [[loss] for loss in losses]:
        micro = scalar_grid(alike, None if reduction == "none" else reduction, precision)
        yield micro._replace(columns=("micro", *micro.columns[1:]))
    for loss in losses:
        yield from _macro_grids(loss, reduction, precision)
    if reduction is None:
        yield statistics_grid(losses, precision)
    for loss in losses:
        if loss.top1 is not None:
            yield agreement_grid({"top1": loss.top1}, precision)
    split = split_grid(losses, precision)
    if split is not None:
        yield split


def _listed(columns: tuple[str, str], rows: Sequence[tuple[str, str]], tone: Tone, *, full: bool) -> Grid:
    """Rows of words, of many the first only, and how many more there are."""
    shown = [tuple(map(printable, row)) for row in (rows if full else rows[:_SHOWN])]
    if len(shown) < len(rows):
        shown.append((f"and {len(rows) - len(shown)} more", "--full shows all"))
    return Grid(columns, tuple(shown), words=tuple(range(len(columns))), tones=(tone,) * len(shown))


def _worst_grid(loss: LossSummary, precision: int | None) -> Grid:
    rows = (
        (str(rank), printable(name), number(value, precision))
        for rank, (name, value) in enumerate(loss.worst, 1)
    )
    return Grid(("worst", "pair", f"{loss.loss} {loss.worst_by}"), tuple(rows), words=(1,))


def _worst_losses_grid(loss: LossSummary, precision: int | None) -> Grid:
    rows = (
        (str(rank), printable(one.pair), ", ".join(map(str, one.index)), number(one.value, precision))
        for rank, one in enumerate(loss.worst_losses, 1)
    )
    return Grid(("worst", "pair", "index", loss.loss), tuple(rows), words=(1,))


def _macro_grids(loss: LossSummary, reduction: Reduction | None, precision: int | None) -> Iterator[Grid]:
    """The means over pairs; none of a sum."""
    chosen = chosen_scalars(reduction)
    rows = tuple(
        (name, *(number(value, precision) for value in estimate))
        for name, estimate in loss.macro.items()
        if name in chosen
    )
    if rows:
        yield Grid(("macro", loss.loss, "standard_error"), rows)
