"""Pairs of a batch as flat rows, in columns that are known before the first pair is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kldiv_cli.batch_summary import BatchSummary, LossSummary
from kldiv_cli.pair_result import PairResult
from kldiv_cli.record import SCALARS, split_record, statistics_record, value_at
from kldiv_cli.reductions import Reduction
from kldiv_cli.spec import Spec
from kldiv_cli.statistics import percentile_name
from kldiv_cli.streams import printable
from kldiv_cli.target_split import TargetSplit

__all__ = [
    "Cell",
    "Column",
    "Row",
    "chosen_scalars",
    "columns_of",
    "micro_record",
    "pair_rows",
    "summary_rows",
]

Cell = str | int | float | bool | None
Row = dict[str, Cell]


class Column(NamedTuple):
    """A field of every row."""

    name: str
    kind: type[str] | type[int] | type[float] | type[bool]
    keys: tuple[str, ...] = ()
    """Where the record of a loss has it; nowhere, if it is of the pair."""
    absent: Cell = None
    """What it is where the record lacks it."""


_OF_PAIR: Final = ("pair", "status", "loss", "predictions", "targets")


def columns_of(spec: Spec, reduction: Reduction | None = None) -> tuple[Column, ...]:
    """The columns of `kldiv compute --format csv` with this spec, and what a batch adds to them."""
    return (
        *(Column(name, str, ("loss",) if name == "loss" else ()) for name in _OF_PAIR),
        Column("shape", str, ("shape",)),
        *(Column(name, int, (name,)) for name in ("axis", "elements", "distributions", "batch")),
        *(Column(name, float, (name,)) for name in chosen_scalars(reduction)),
        *(Column(f"{role}.dtype", str, (role, "dtype")) for role in ("predictions", "targets")),
        *_statistics_columns(spec),
        *_other_columns(spec),
        Column("findings", str),
        Column("error", str),
    )


def chosen_scalars(reduction: Reduction | None) -> tuple[Reduction, ...]:
    """The reductions that are shown."""
    return SCALARS if reduction in (None, "none") else (reduction,)


def _statistics_columns(spec: Spec) -> Iterator[Column]:
    kinds: dict[str, Any] = {"of": str, "count": int}
    kinds |= dict.fromkeys(("mean", "standard_error", "minimum"), float)
    kinds |= dict.fromkeys(map(percentile_name, spec.quantiles), float)
    kinds |= {"maximum": float, "exact": bool}
    for name, kind in kinds.items():
        yield Column(f"statistics.{name}", kind, ("statistics", name))
    if spec.blocks_of is not None:
        for name, kind in (("of", int), ("blocks", int), ("standard_error", float)):
            yield Column(f"statistics.blocks.{name}", kind, ("statistics", "blocks", name))


def _other_columns(spec: Spec) -> Iterator[Column]:
    if spec.top1:
        yield Column("top1.count", int, ("top1", "count"))
        yield Column("top1.share", float, ("top1", "share"))
        yield Column("top1.standard_error", float, ("top1", "standard_error"))
    for rank in range(spec.worst):
        yield Column(f"worst.{rank + 1}.index", str, ("worst", str(rank), "index"))
        yield Column(f"worst.{rank + 1}.value", float, ("worst", str(rank), "value"))
    if spec.by_target:
        for group in TargetSplit._fields:
            yield Column(f"by_target.{group}.count", int, ("by_target", group, "count"), absent=0)
            yield Column(f"by_target.{group}.mean", float, ("by_target", group, "mean"))


def pair_rows(result: PairResult, columns: Sequence[Column]) -> Iterator[Row]:
    """A row for each loss; one for a pair that could not be computed."""
    of_pair: Row = {
        "pair": printable(result.name),
        "status": "ok" if result.error is None else "error",
        "predictions": printable(result.predictions),
        "targets": printable(result.targets),
    }
    if result.error is not None:
        yield {**of_pair, "error": printable(result.error)}
        return
    for record in result.records:
        ids = dict.fromkeys(finding["id"] for finding in record["findings"])
        yield {**_flat(record, columns), **of_pair, "findings": " ".join(ids) or None}


def summary_rows(summary: BatchSummary, columns: Sequence[Column]) -> Iterator[Row]:
    """Of each loss what it comes to over all pairs, then the means over pairs and their standard errors."""
    shown = {column.name for column in columns}
    for loss in summary.losses:
        yield {**_flat(micro_record(loss), columns), "status": "micro"}
        means = {name: estimate for name, estimate in loss.macro.items() if name in shown}
        if means:
            values: Row = {name: estimate.value for name, estimate in means.items()}
            errors: Row = {name: estimate.standard_error for name, estimate in means.items()}
            yield {"status": "macro", "loss": loss.loss, **values}
            yield {"status": "macro.standard_error", "loss": loss.loss, **errors}


def micro_record(loss: LossSummary) -> dict[str, Any]:
    """What a loss comes to over all pairs, under the names that the record of a pair has."""
    scalars = loss.scalars
    record: dict[str, Any] = {
        "loss": loss.loss,
        "elements": scalars.elements,
        "distributions": scalars.distributions,
        "batch": scalars.batch,
        **{name: getattr(scalars, name) for name in SCALARS},
        "statistics": statistics_record(loss.statistics),
    }
    if loss.top1 is not None:
        record["top1"] = loss.top1._asdict()
    if loss.by_target is not None:
        record["by_target"] = split_record(loss.by_target)
    return record


def _flat(record: Mapping[str, Any], columns: Sequence[Column]) -> Row:
    row: Row = {}
    for column in columns:
        if column.keys:
            value = value_at(record, *column.keys)
            if isinstance(value, (list, tuple)):
                value = ("x" if column.name == "shape" else " ").join(map(str, value))
            row[column.name] = column.absent if value is None and column.keys[0] in record else value
    return row
