"""The journal of a batch: a line for each pair as it is done, from which a later run takes what still holds.

A line is ``{"crc32": …, "entry": {…}, "records": […], "totals": {…}}``: JSON, whose checksum is of
what follows it. So a line is known to be whole without being parsed, and only its entry is, which
says what it is of; the rest is read again when it is asked for. Of a pair that has files written for
it a line tells before, so that a later run knows them for its own.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, get_args

from kldiv_cli.atomic import check_place, explained
from kldiv_cli.errors import FormatError
from kldiv_cli.line_file import LineFile, open_line_file
from kldiv_cli.pair_result import PairResult
from kldiv_cli.spec import Loss
from kldiv_cli.streams import printable
from kldiv_cli.totals_record import totals_from, totals_record

__all__ = ["JOURNAL_SCHEMA", "InputStamp", "Journal", "open_journal", "stamp_of"]

JOURNAL_SCHEMA: Final = "kldiv-journal/1"
_FAMILY, _, _VERSION = JOURNAL_SCHEMA.partition("/")
_HEADER: Final = b'{"schema": "' + JOURNAL_SCHEMA.encode() + b'"}\n'
_LONGEST_HEADER: Final = 1 << 12
_LONGEST: Final = 60
_BEFORE: Final = b'{"crc32":"'
_BEHIND: Final = b'",'
_START: Final = len(_BEFORE) + 8 + len(_BEHIND)
"""Where in a line that begins whose checksum stands before it."""
_BEGUN: Final = "begun"
_ENTRY: Final = '"entry":'
_LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
_decoder: Final = json.JSONDecoder()


# What must be the same


class InputStamp(NamedTuple):
    """One input: where it lies, and what tells it from what may lie there after a change."""

    address: str
    """With its dataset and selection."""
    size: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    """Of a remote file."""


def stamp_of(inputs: Mapping[str, InputStamp], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a finished pair to hold: its inputs by their role, and the settings.

    Settings are all that decides the numbers and the records, in values that JSON has, or nan and inf.

    >>> stamp_of({"targets": InputStamp("p.npy", 128, 5)}, {"axis": -1, "ignore_value": math.nan})
    {'inputs': {'targets': {'address': 'p.npy', 'size': 128, 'mtime_ns': 5}},
     'settings': {'axis': -1, 'ignore_value': 'nan'}}
    """
    return {
        "inputs": {
            role: {name: value for name, value in stamp._asdict().items() if value is not None}
            for role, stamp in inputs.items()
        },
        "settings": _without_nonfinite(dict(settings)),
    }


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nonfinite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# The journal


class _Place(NamedTuple):
    """Where the line of a finished pair is."""

    offset: int
    length: int


class Journal:
    """An open journal, which no other process can open; of its lines only their places are in memory."""

    def __init__(self, file: LineFile) -> None:
        """Read what is there, and mend its end."""
        self._file = file
        self._places: dict[str, _Place] = {}
        self._begun: dict[str, frozenset[str]] = {}
        self.damaged = 0
        """Lines that are not what was written: their pairs are not finished."""
        self._begin()
        self._read()

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told of it by now, a line each."""
        notes = []
        if self.damaged:
            lines = "1 damaged line" if self.damaged == 1 else f"{self.damaged} damaged lines"
            notes.append(f"{self.path}: {lines} skipped; the pairs are computed again")
        if not self._file.locked:
            notes.append(
                f"{self.path}: this file system has no locks; let no other run write to it meanwhile"
            )
        return tuple(notes)

    def finished(self, name: str, stamp: Mapping[str, Any]) -> PairResult | None:
        """The result of a pair that was computed under the same stamp; None where there is none."""
        place = self._places.get(name)
        if place is None:
            return None
        line = self._file.read(*place)
        entry = _entry_of(line)
        if entry is None:
            self._forget(name)
            return None
        if _canonical(entry["stamp"]) != _canonical(stamp):
            return None
        try:
            return _result_from(line)
        except ValueError:
            self._forget(name)
            return None

    def add(self, result: PairResult, stamp: Mapping[str, Any]) -> None:
        """Write a pair down, instead of what may be there of it; once this returns, no crash undoes it.

        Raises
        ------
        OutputError
            It can't be written.
        """
        self._append(*_parts_of(result, stamp))

    def begin(self, name: str, outputs: Iterable[str]) -> None:
        """Write down that these files will be written for a pair, and that nothing else was there.

        Raises
        ------
        OutputError
            It can't be written.
        """
        self._append({"pair": name, "status": _BEGUN, "stamp": None, "outputs": list(outputs)})

    def has_begun(self, name: str, outputs: Iterable[str]) -> bool:
        """Whether these files, if they are there, were written for the pair."""
        return self._begun.get(name, frozenset()).issuperset(outputs)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> None:
        beginning = self._file.read(0, _LONGEST_HEADER)
        if not beginning.endswith(b"\n") and _HEADER.startswith(beginning):
            # New, or its writer died over the first line.
            self._file.truncate(0)
            self._file.append(_HEADER)
        else:
            _check_header(self.path, beginning)

    def _append(self, entry: dict[str, Any], records: Any = (), totals: Any = None) -> None:
        line = _line_of(entry, records, totals or {})
        offset = self._file.append(line)
        self._note(entry, _Place(offset, len(line)))

    def _read(self) -> None:
        start = len(self._file.read(0, _LONGEST_HEADER).partition(b"\n")[0]) + 1
        for offset, line in self._file.lines(start):
            entry, whole = _entry_of(line), line.endswith(b"\n")
            if entry is not None:
                self._note(entry, _Place(offset, len(line)))
                if not whole:
                    self._file.append(b"\n")
            elif whole:
                self.damaged += 1
            else:
                # Its writer died, or the power went.
                self._file.truncate(offset)

    def _note(self, entry: Mapping[str, Any], place: _Place) -> None:
        name, status = entry["pair"], entry["status"]
        if status == "ok":
            self._places[name] = place
        else:
            self._places.pop(name, None)
        if status == _BEGUN:
            self._begun[name] = frozenset(entry["outputs"])

    def _forget(self, name: str) -> None:
        self.damaged += 1
        del self._places[name]


def open_journal(address: str, inputs: Iterable[str] = ()) -> Journal:
    """Open a journal, or begin one, and keep other processes out until it is closed.

    Raises
    ------
    OutputError
        It is one of `inputs`, another process has it, or it can't be written.
    FormatError
        It is no journal, or a newer version of one; it is as it was.
    """
    with explained(Path(address)):
        path = Path(os.path.realpath(address))
    check_place(f"--journal {address}", path, inputs, force=True)
    file = open_line_file(path)
    try:
        return Journal(file)
    except BaseException:
        file.close()
        raise


def _check_header(path: Path, beginning: bytes) -> None:
    first, newline, _ = beginning.partition(b"\n")
    try:
        header = json.loads(first) if newline else None
    except (ValueError, RecursionError):
        header = None
    value = header.get("schema") if isinstance(header, dict) else None
    schema = value if isinstance(value, str) else ""
    family, _, version = schema.partition("/")
    if family != _FAMILY or not version.isdecimal():
        raise FormatError(
            f"{path}: no journal: begins with {printable(repr(first[:_LONGEST]))}, "
            f"expected {_HEADER.decode().rstrip()}; choose another file"
        )
    if version != _VERSION:
        raise FormatError(
            f"{path}: its schema is {printable(repr(schema[:_LONGEST]))}, and this kldiv reads "
            f"{JOURNAL_SCHEMA!r}; upgrade kldiv, or choose another file"
        )


# Lines


def _parts_of(result: PairResult, stamp: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    """Entry, records and totals."""
    entry = {
        "pair": result.name,
        "status": "ok" if result.error is None else "error",
        "stamp": stamp,
        "predictions": result.predictions,
        "targets": result.targets,
        "bytes": result.bytes,
        "seconds": result.seconds,
        "error": result.error,
    }
    return entry, result.records, {loss: totals_record(of_loss) for loss, of_loss in result.totals.items()}


def _line_of(entry: Mapping[str, Any], records: Any, totals: Any) -> bytes:
    body = f'{_ENTRY}{_text(entry)},"records":{_text(records)},"totals":{_text(totals)}}}'.encode()
    return b"".join((_BEFORE, _checksum(body), _BEHIND, body, b"\n"))


def _text(value: Any) -> str:
    """Escaped to ASCII, for names of files need not be Unicode."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _canonical(stamp: object) -> str:
    return json.dumps(stamp, sort_keys=True, allow_nan=False)


def _checksum(body: bytes | memoryview) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _entry_of(line: bytes) -> dict[str, Any] | None:
    """What a line is of; None if it is not what was written."""
    end = len(line) - line.endswith(b"\n")
    if not line.startswith(_BEFORE) or line[_START - len(_BEHIND) : _START] != _BEHIND:
        return None
    if _checksum(memoryview(line)[_START:end]) != line[len(_BEFORE) : len(_BEFORE) + 8]:
        return None
    try:
        entry, _ = _decoder.raw_decode(line.decode("ascii"), _START + len(_ENTRY))
        return entry if _is_entry(entry) else None
    except (ValueError, RecursionError):
        return None


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("pair"), str)
        and "stamp" in entry
        and (entry.get("status") in ("ok", "error") or _is_beginning(entry))
    )


def _is_beginning(entry: Mapping[str, Any]) -> bool:
    outputs = entry.get("outputs")
    return entry.get("status") == _BEGUN and isinstance(outputs, list) and {*map(type, outputs)} <= {str}


def _result_from(line: bytes) -> PairResult:
    """The result of a pair that was computed.

    Raises
    ------
    ValueError
        What is written there is no such result.
    """
    try:
        table = json.loads(line)
        entry, records, totals = table["entry"], table["records"], table["totals"]
        return PairResult(
            name=entry["pair"],
            predictions=entry["predictions"],
            targets=entry["targets"],
            records=tuple(records),
            totals={loss: totals_from(totals[loss]) for loss in _LOSSES if loss in totals},
            bytes=entry["bytes"],
            seconds=entry["seconds"],
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no result of a pair: {error}") from None
