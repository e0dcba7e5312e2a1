"""The rows of a table of pairs, CSV or JSON Lines: one by one, in bounded memory, each with its line."""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal, NamedTuple

from kldiv_cli.errors import FormatError, InputChanged, InputError, UsageError
from kldiv_cli.sources.regular import check_regular, is_empty
from kldiv_cli.spelling import mistaken
from kldiv_cli.streams import excerpt
from kldiv_cli.suite_tables import Kind, expected, fits, found

__all__ = ["STDIN", "TABLES", "Row", "open_rows"]

STDIN: Final = "-"
TABLES: Final[Mapping[str, Literal["csv", "jsonl"]]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""What a table is by the end of its name."""

_LONGEST_ROW: Final = 1 << 20
_REMEMBERED: Final = 256
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}")
_BOOLEANS: Final = {"true": True, "false": False}


class Row(NamedTuple):
    """What a row says, by the names of its columns; what it leaves empty is not there."""

    where: str
    """How an error about it begins."""
    values: dict[str, Any]


@contextlib.contextmanager
def open_rows(path: str, kinds: Mapping[str, Kind]) -> Iterator[Iterator[Row]]:
    """The rows of a file, or of standard input if it is called ``-``; `kinds` are the columns.

    Raises
    ------
    UsageError
        A column, a key or a value is not what a table may have.
    InputNotFound, InputError
        There is no such file, or it is not a regular one that can be read, or it changes meanwhile.
    FormatError
        It is neither UTF-8, nor CSV or JSON Lines, or has a row of more than a mebibyte.
    """
    with _opened(path) as stream:
        lines = _Lines(stream, "stdin" if path == STDIN else excerpt(path, 1000))
        kind = TABLES.get(os.path.splitext(path)[1].lower()) or _kind_of(lines)
        yield _csv_rows(lines, kinds) if kind == "csv" else _json_rows(lines, kinds)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer if sys.stdin is not None else io.BytesIO()
        return
    if not is_empty(path):
        identity = check_regular(path)
        try:
            stream = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{excerpt(path, 1000)}: {error.strerror or error}") from None
        with stream:
            yield stream
        if check_regular(path) != identity:
            raise InputChanged(
                f"{excerpt(path, 1000)}: changed while it was read; run again when it is whole"
            )
        return
    yield io.BytesIO()


class _Lines:
    """The lines of a table, with their numbers; none of them is read whole if it is too long."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self._stream = stream
        self._held: str | None = None
        self._number = 0
        self._first = 1
        self._taken = 0

    @property
    def where(self) -> str:
        """How an error about the row that is being read begins."""
        return f"{self.name}: line {self._first}"

    def next_row(self) -> None:
        """What was read up to here is done with."""
        self._first, self._taken = self._number + (self._held is None), 0

    def peek(self) -> str:
        """The first line that is not blank, which will come again; nothing if all are."""
        for line in self:
            if line.strip():
                self._held, self._first = line, self._number
                return line
            self.next_row()
        return ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._held is not None:
            line, self._held = self._held, None
            return line
        try:
            raw = self._stream.readline(_LONGEST_ROW + 1)
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror or error}") from None
        if not raw:
            raise StopIteration
        self._number += 1
        self._taken += len(raw)
        if self._taken > _LONGEST_ROW:
            raise FormatError(f"{self.where}: a row of more than {_LONGEST_ROW} bytes; one pair has one row")
        return self._decoded(raw)

    def _decoded(self, raw: bytes) -> str:
        try:
            return (raw.removeprefix(codecs.BOM_UTF8) if self._number == 1 else raw).decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{self.name}: line {self._number}: byte {error.start} is 0x{raw[error.start]:02x}, "
                "expected a table in UTF-8; save it in that encoding"
            ) from None


def _kind_of(lines: _Lines) -> Literal["csv", "jsonl"]:
    return "jsonl" if lines.peek().lstrip().startswith("{") else "csv"


# CSV


def _csv_rows(lines: _Lines, kinds: Mapping[str, Kind]) -> Iterator[Row]:
    records = _records(lines)
    where, header = next(records, (lines.where, []))
    columns = _columns(where, header, kinds)
    parsers = [_parser(kinds[column]) for column in columns]
    for where, cells in records:
        if len(cells) != len(columns):
            raise UsageError(
                f"{where}: {len(cells)} cells, expected {len(columns)} as in the header; "
                "leave a cell empty, or quote one with a comma in it"
            )
        values = {}
        for column, parse, cell in zip(columns, parsers, cells, strict=True):
            if cell and not cell.isspace():
                try:
                    values[column] = parse(cell)
                except ValueError:
                    raise _bad_cell(where, column, kinds[column], cell) from None
        yield Row(where, values)


def _records(lines: _Lines) -> Iterator[tuple[str, list[str]]]:
    """The rows that are not blank, and where each begins."""
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    while True:
        lines.next_row()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise FormatError(
                f"{lines.where}: {error}, expected CSV; look for a quote that is not closed"
            ) from None
        if cells is None:
            return
        if any(cell and not cell.isspace() for cell in cells):
            yield lines.where, cells


def _columns(where: str, header: Sequence[str], kinds: Mapping[str, Kind]) -> list[str]:
    columns: list[str] = []
    for written in header:
        column = written.strip().replace("-", "_")
        if column not in kinds:
            commas = len(header) == 1 and re.search("[;\t|]", column)
            advice = "; separate columns by commas" if commas else mistaken(column, kinds)
            raise UsageError(f"{where}: unknown column '{excerpt(written.strip())}'{advice}")
        if column in columns:
            raise UsageError(f"{where}: two columns '{column}', expected one; drop the other")
        columns.append(column)
    for column in ("predictions", "targets"):
        if column not in columns:
            raise UsageError(f"{where}: no column '{column}', expected one in the header; add it")
    return columns


def _bad_cell(where: str, column: str, kind: Kind, cell: str) -> UsageError:
    several = ", several with commas between them" if kind == "numbers" else ""
    return UsageError(
        f"{where}: {column} '{excerpt(cell)}', expected {_in_cell(kind)}{several}; mend the cell"
    )


def _in_cell(kind: Kind) -> str:
    return {"numbers": "numbers", "boolean": "true or false"}.get(kind) or expected(kind)


def _parser(kind: Kind) -> Callable[[str], Any]:
    """`_parse` of a kind; most cells of a column with options are the same."""
    if kind in ("address", "string"):
        return str
    return functools.lru_cache(_REMEMBERED)(functools.partial(_parse, kind))


def _parse(kind: Kind, cell: str) -> Any:
    """The value of a cell: what a suite would have instead of its text."""
    match kind:
        case "integer":
            return _whole(cell.strip())
        case "number":
            return _number(cell.strip())
        case "numbers":
            return tuple(_number(part.strip()) for part in cell.split(","))
        case "boolean":
            if cell.strip().lower() not in _BOOLEANS:
                raise ValueError
            return _BOOLEANS[cell.strip().lower()]
        case "string or strings":
            parts = tuple(part.strip() for part in cell.split(","))
            return parts if len(parts) > 1 else parts[0]
        case _:
            return cell


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text) or not fits("integer", int(text)):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if _WHOLE.fullmatch(text) and fits("integer", int(text)):
        return int(text)
    if "_" in text or not text.isascii():
        raise ValueError
    return float(text)


# JSON Lines


def _json_rows(lines: _Lines, kinds: Mapping[str, Kind]) -> Iterator[Row]:
    # A row ends where its line does, so it begins where the line before has ended.
    for line in lines:
        if line.strip():
            where = lines.where
            yield Row(where, _checked(where, _parsed(where, line), kinds))
        lines.next_row()


def _parsed(where: str, line: str) -> dict[str, Any]:
    try:
        values = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        problem = f"column {error.colno}: {error.msg}"
    except RecursionError:
        problem = "arrays or objects too deep in each other"
    except ValueError as error:  # a key that is there twice, or a number of more than 4300 digits
        problem = excerpt(str(error), 300)
    else:
        if isinstance(values, dict):
            return values
        problem = "a value that is no object"
    raise FormatError(f'{where}: {problem}, expected {{"predictions": "FILE", "targets": "FILE"}}; mend it')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which no value is lost for another of its name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"'{excerpt(twice)}' is there twice")
    return values


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)


def _checked(where: str, written: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in written.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise UsageError(f"{where}: unknown key '{excerpt(key)}'{mistaken(name, kinds)}")
        if name in values:
            raise UsageError(f"{where}: '{excerpt(key)}' is there with a dash and without; drop one")
        if value is not None and not fits(kinds[name], value):
            what = "an object" if isinstance(value, dict) else found(kinds[name], value)
            raise UsageError(f"{where}: {key} is {what}, expected {expected(kinds[name])}; mend it")
        values[name] = tuple(value) if isinstance(value, list) else value
    return {name: value for name, value in values.items() if value is not None}
