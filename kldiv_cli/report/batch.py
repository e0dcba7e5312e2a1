"""A batch as text: pairs as they come, where a format can show one without the others, and what all come to.

JSON lines, CSV and plain text grow by every pair; JSON, Markdown and tables are whole only at the end.
"""

from __future__ import annotations

import json
import os
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, assert_never

from kldiv_cli.batch_summary import BatchSummary, LossSummary
from kldiv_cli.pair_result import PairResult
from kldiv_cli.record import SCALARS, SCHEMA, without_nonfinite
from kldiv_cli.reductions import Reduction
from kldiv_cli.report import text
from kldiv_cli.report.batch_grids import PairColumns, PairTable, batch_heading, failed_grids, summary_grids
from kldiv_cli.report.batch_rows import Row, chosen_scalars, columns_of, micro_record, pair_rows, summary_rows
from kldiv_cli.report.console import Format, resolve_format
from kldiv_cli.report.layout import Grid
from kldiv_cli.report.told import Told
from kldiv_cli.spec import Spec
from kldiv_cli.streams import printable

__all__ = ["BatchLines", "batch_lines", "summary_record", "summary_text", "tell_pair"]


class BatchLines(ABC):
    """Text in three parts, to be written one after another."""

    def begin(self) -> str:
        """What stands before the first pair."""
        return ""

    @abstractmethod
    def pair(self, result: PairResult) -> str:
        """What a pair adds."""

    @abstractmethod
    def end(self, summary: BatchSummary) -> str:
        """What stands behind the last pair."""


def batch_lines(
    format: Format,
    spec: Spec,
    reduction: Reduction | None = None,
    precision: int | None = None,
    *,
    names: Sequence[str] = (),
    full: bool = False,
) -> BatchLines:
    """A batch in a format; `full` lists all pairs where the format would show only the worst of many.

    What is whole only at the end has the pairs in the order of their `names`.
    """
    order = {name: place for place, name in enumerate(names)}
    match resolve_format(format):
        case "jsonl":
            return _JsonLines(reduction)
        case "json":
            return _Json(reduction, order)
        case "csv":
            return _Csv(spec, reduction, precision)
        case "plain":
            return _Plain(spec, reduction, precision, full=full)
        case "md":
            return _Markdown(spec, reduction, precision, order, full=full)
        case "table" | "auto":
            return _Table(spec, reduction, precision, order, full=full)
        case unknown:
            assert_never(unknown)


def tell_pair(told: Told, result: PairResult) -> None:
    """What is to be said of a pair beside the results."""
    if result.error is not None:
        told.error(_named(result.name, result.error))
    found: set[str] = set()
    for finding in (finding for record in result.records for finding in record["findings"]):
        if finding["id"] not in found:
            found.add(finding["id"])
            told.finding(finding["severity"], finding["id"], _named(result.name, finding["message"]))


def _named(name: str, message: str) -> str:
    """What is said of a pair with its name before it, unless a file that is called so stands there."""
    where = message.partition(": ")[0]
    stem = os.path.splitext(os.path.normpath(where))[0]
    return message if name in (where, stem) else f"{name}: {message}"


# Records


def _pair_records(result: PairResult, reduction: Reduction | None) -> Iterator[dict[str, Any]]:
    """A record for each loss; one for a pair that could not be computed."""
    if result.error is not None:
        addresses = {"predictions": {"address": result.predictions}, "targets": {"address": result.targets}}
        yield {"schema": SCHEMA, "pair": result.name, "status": "error", "error": result.error, **addresses}
    dropped = set(SCALARS).difference(chosen_scalars(reduction))
    for record in result.records:
        yield {"schema": SCHEMA, "pair": result.name, "status": "ok", **_without(dropped, record)}


def _without(dropped: set[str], record: Any) -> dict[str, Any]:
    if not dropped:
        return dict(record)
    kept = {key: value for key, value in record.items() if key not in dropped}
    odd = {path: value for path, value in kept.pop("nonfinite", {}).items() if path not in dropped}
    return {**kept, "nonfinite": odd} if odd else kept


def summary_record(summary: BatchSummary, reduction: Reduction | None = None) -> dict[str, Any]:
    """Every field under its name; nan and inf are not yet replaced."""
    return {
        "pairs": summary.pairs,
        "computed": summary.computed,
        "from_journal": summary.from_journal,
        "failed": [{"pair": name, "error": error} for name, error in summary.failed],
        "not_reached": summary.not_reached,
        "unmatched": [address for address, _ in summary.unmatched],
        "bytes": summary.bytes,
        "seconds": summary.seconds,
        "losses": [_loss_record(loss, reduction) for loss in summary.losses],
    }


def summary_text(summary: BatchSummary, reduction: Reduction | None = None) -> str:
    """The summary as one line of JSON."""
    record = {"schema": SCHEMA, "summary": summary_record(summary, reduction)}
    return json.dumps(without_nonfinite(record))


def _loss_record(loss: LossSummary, reduction: Reduction | None) -> dict[str, Any]:
    chosen = chosen_scalars(reduction)
    micro = _without(set(SCALARS).difference(chosen), micro_record(loss))
    return {
        "loss": micro.pop("loss"),
        "micro": micro,
        "macro": {name: estimate._asdict() for name, estimate in loss.macro.items() if name in chosen},
        "worst_by": loss.worst_by,
        "worst": [{"pair": name, "value": value} for name, value in loss.worst],
        "worst_losses": [worst._asdict() for worst in loss.worst_losses],
    }


class _JsonLines(BatchLines):
    """A line a pair and loss, and one for the summary."""

    def __init__(self, reduction: Reduction | None) -> None:
        self._reduction = reduction

    def pair(self, result: PairResult) -> str:
        return "".join(json.dumps(record) + "\n" for record in _pair_records(result, self._reduction))

    def end(self, summary: BatchSummary) -> str:
        return summary_text(summary, self._reduction) + "\n"


class _Json(BatchLines):
    """The records of the lines in one, each with its own "nonfinite"; kept as text until the end."""

    def __init__(self, reduction: Reduction | None, order: Mapping[str, int]) -> None:
        self._reduction, self._order = reduction, order
        self._pairs: list[tuple[int, str]] = []

    def pair(self, result: PairResult) -> str:
        place = self._order.get(result.name, len(self._order))
        for record in _pair_records(result, self._reduction):
            del record["schema"]
            self._pairs.append((place, textwrap.indent(json.dumps(record, indent=2), "    ")))
        return ""

    def end(self, summary: BatchSummary) -> str:
        record = without_nonfinite({"summary": summary_record(summary, self._reduction)})
        ordered = sorted(self._pairs, key=lambda placed: placed[0])
        head = f'{{\n  "schema": {json.dumps(SCHEMA)},\n  "pairs": ['
        pairs = "\n" + ",\n".join(pair for _, pair in ordered) + "\n  " if ordered else ""
        return f"{head}{pairs}],\n{json.dumps(record, indent=2)[2:]}\n"


class _Csv(BatchLines):
    """A row a pair and loss; at the end three a loss, whose status is micro, macro, macro.standard_error.

    Of the sum alone there is no mean over pairs, and nothing but the first of them.
    """

    def __init__(self, spec: Spec, reduction: Reduction | None, precision: int | None) -> None:
        self._columns = columns_of(spec, reduction)
        self._precision = precision

    def begin(self) -> str:
        return text.csv_rows([[column.name for column in self._columns]])

    def pair(self, result: PairResult) -> str:
        return self._rows(pair_rows(result, self._columns))

    def end(self, summary: BatchSummary) -> str:
        return self._rows(summary_rows(summary, self._columns))

    def _rows(self, rows: Iterator[Row]) -> str:
        return text.csv_rows([self._cell(row.get(column.name)) for column in self._columns] for row in rows)

    def _cell(self, value: object) -> str:
        return "" if value is None else text.csv_cell(value, self._precision)


_NAME_WIDTH: Final = 32
_ERROR: Final = "error"


class _Plain(BatchLines):
    """A line a pair and loss, in columns of a fixed width; what is longer moves the rest of its line.

    An error stands in the line of its pair, and is not listed again at the end.
    """

    def __init__(self, spec: Spec, reduction: Reduction | None, precision: int | None, *, full: bool) -> None:
        self._columns = PairColumns(spec, reduction)
        self._reduction, self._precision, self._full = reduction, precision, full
        digits = 22 if precision is None else max(precision + 6, 9)
        names = self._columns.names
        self._widths = {name: max(len(name), digits) for name in names}
        self._widths |= {"pair": _NAME_WIDTH, "loss": len(_ERROR), "distributions": len("distributions")}

    def begin(self) -> str:
        return self._line(self._columns.names)

    def pair(self, result: PairResult) -> str:
        if result.error is not None:
            return (
                self._line((printable(result.name), _ERROR)).rstrip("\n") + f"  {printable(result.error)}\n"
            )
        return "".join(map(self._line, self._columns.rows(result, self._precision)))

    def end(self, summary: BatchSummary) -> str:
        grids = summary_grids(summary, self._reduction, self._precision, full=self._full)
        return "\n" + text.plain_report(batch_heading(summary), (), grids)

    def _line(self, cells: Sequence[str]) -> str:
        names = self._columns.names[: len(cells)]
        padded = (
            cell.ljust(self._widths[name]) if k in self._columns.words else cell.rjust(self._widths[name])
            for k, (name, cell) in enumerate(zip(names, cells, strict=True))
        )
        return "  ".join(padded).rstrip() + "\n"


class _AtEnd(BatchLines):
    """Keeps the rows that it will show."""

    def __init__(
        self,
        spec: Spec,
        reduction: Reduction | None,
        precision: int | None,
        order: Mapping[str, int],
        *,
        full: bool,
    ) -> None:
        self._table = PairTable(spec, reduction, precision, order, full=full)
        self._reduction, self._precision, self._full = reduction, precision, full

    def pair(self, result: PairResult) -> str:
        self._table.add(result)
        return ""

    def _grids(self, summary: BatchSummary) -> Iterator[Grid]:
        yield from failed_grids(summary, full=self._full)
        yield from summary_grids(summary, self._reduction, self._precision, full=self._full)

    def _heading(self, summary: BatchSummary) -> str:
        left_out = "; the worst are listed, --full lists all" if self._table.grid() is None else ""
        return batch_heading(summary) + left_out


class _Markdown(_AtEnd):
    def end(self, summary: BatchSummary) -> str:
        pairs = self._table.grid()
        grids = [*([] if pairs is None else [pairs]), *self._grids(summary)]
        return text.md_report(self._heading(summary), (), grids)


class _Table(_AtEnd):
    """For a terminal; where it is too narrow, with fewer columns, and it says so."""

    def __init__(
        self,
        spec: Spec,
        reduction: Reduction | None,
        precision: int | None,
        order: Mapping[str, int],
        *,
        full: bool,
    ) -> None:
        from kldiv_cli.report.table import DIGITS

        super().__init__(spec, reduction, DIGITS if precision is None else precision, order, full=full)

    def end(self, summary: BatchSummary) -> str:
        from kldiv_cli.report.table import render_fitting

        layouts = self._table.layouts()
        ways = [*([layouts] if layouts else []), *([grid] for grid in self._grids(summary))]
        return render_fitting(self._heading(summary), ways)
