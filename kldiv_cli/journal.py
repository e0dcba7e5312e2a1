"""The journal of a batch: a line for each pair as it is done, from which a later run takes what still holds.

Of a line only its entry is parsed when a journal is opened, which says what it is of; the rest is read
again when it is asked for. Of a file that is written for a pair a line tells before, so that a later run
knows it for its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from kldiv_cli.atomic import check_local, check_place, explained
from kldiv_cli.errors import FormatError
from kldiv_cli.journal_lines import BEGUN, canonical, entry_of, line_of, parts_of, result_from
from kldiv_cli.line_file import Line, LineFile, open_line_file, read_line_file
from kldiv_cli.pair_result import PairResult
from kldiv_cli.streams import printable

__all__ = ["JOURNAL_SCHEMA", "Journal", "JournalReader", "open_journal", "read_journal"]

JOURNAL_SCHEMA: Final = "kldiv-journal/1"
_FAMILY, _, _VERSION = JOURNAL_SCHEMA.partition("/")
_HEADER: Final = b'{"schema": "' + JOURNAL_SCHEMA.encode() + b'"}\n'
_LONGEST_HEADER: Final = 1 << 12
_LONGEST: Final = 60
_Kind = TypeVar("_Kind", bound="JournalReader")


class _Place(NamedTuple):
    """Where the line of a finished pair is."""

    offset: int
    length: int


class _Mending(NamedTuple):
    """What makes a file whole again whose writer died, or that is new."""

    size: int
    """Behind it there is nothing of use."""
    missing: bytes


class JournalReader:
    """What a journal has, which is left as it is; of its lines only their places are in memory."""

    def __init__(self, file: LineFile) -> None:
        """Read what is there.

        Raises
        ------
        FormatError
            It is no journal, or a newer version of one.
        """
        self._file = file
        self._places: dict[str, _Place] = {}
        self._begun: dict[str | None, frozenset[str]] = {}
        self._mending: _Mending | None = None
        self.damaged = 0
        """Lines that are not what was written: their pairs are not finished."""
        self._read()

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told of it by now, a line each."""
        if not self.damaged:
            return ()
        lines = "1 damaged line" if self.damaged == 1 else f"{self.damaged} damaged lines"
        return (f"{self.path}: {lines} skipped; a pair that no other line has is computed again",)

    def finished(self, name: str, stamp: Mapping[str, Any]) -> PairResult | None:
        """The result of a pair that was computed under the same stamp; None where there is none."""
        place = self._places.get(name)
        if place is None:
            return None
        line = self._file.read(*place)
        entry = entry_of(line)
        if entry is None:
            self._forget(name)
            return None
        if canonical(entry["stamp"]) != canonical(stamp):
            return None
        try:
            return result_from(line)
        except ValueError:
            self._forget(name)
            return None

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> None:
        beginning = self._file.read(0, _LONGEST_HEADER)
        if not beginning.endswith(b"\n") and _HEADER.startswith(beginning):
            # New, or its writer died over the first line.
            self._mending = _Mending(0, _HEADER)
            return
        _check_header(self.path, beginning)
        for line in self._file.lines(len(beginning.partition(b"\n")[0]) + 1):
            self._take(line)

    def _take(self, line: Line) -> None:
        if line.contents == b"\n":
            # It was to end a line that was whole after all.
            return
        entry, end = entry_of(line.contents), line.offset + len(line.contents)
        if entry is not None:
            self._note(entry, _Place(line.offset, len(line.contents)))
            if not line.ended:
                self._mending = _Mending(end, b"\n")
        elif line.ended:
            self.damaged += 1
        else:
            # Its writer died, or the power went.
            self._mending = _Mending(line.offset, b"")

    def _note(self, entry: Mapping[str, Any], place: _Place) -> None:
        name, status = entry["pair"], entry["status"]
        if status == "ok":
            self._places[name] = place
        else:
            self._places.pop(name, None)
        if status == BEGUN:
            self._begun[name] = frozenset(entry["outputs"])

    def _forget(self, name: str) -> None:
        self.damaged += 1
        del self._places[name]


class Journal(JournalReader):
    """An open journal, which no other process can open to write to."""

    def __init__(self, file: LineFile) -> None:
        """Read what is there, and mend its end."""
        super().__init__(file)
        if self._mending is not None:
            size, missing = self._mending
            file.truncate(size)
            if missing:
                file.append(missing)

    @property
    def notes(self) -> tuple[str, ...]:
        if self._file.locked:
            return super().notes
        unlocked = f"{self.path}: this file system has no locks; let no other run write to it meanwhile"
        return (*super().notes, unlocked)

    def add(self, result: PairResult, stamp: Mapping[str, Any]) -> None:
        """Write a pair down, instead of what may be there of it; no death of this process undoes that.

        Raises
        ------
        OutputError
            It can't be written.
        """
        self._append(*parts_of(result, stamp))

    def begin(self, name: str | None, outputs: Iterable[str]) -> None:
        """Write down which files are those of a pair, or of the run itself, from now on; they may be missing.

        Raises
        ------
        OutputError
            It can't be written.
        """
        self._append({"pair": name, "status": BEGUN, "stamp": None, "outputs": list(outputs)})

    def has_result(self, name: str | None) -> bool:
        """Whether there is one of a pair, under whatever stamp."""
        return name in self._places

    def begun(self, name: str | None) -> frozenset[str]:
        """The files that are those of a pair, or of the run itself, if they are there."""
        return self._begun.get(name, frozenset())

    def _append(self, entry: dict[str, Any], records: Any = (), totals: Any = None) -> None:
        line = line_of(entry, records, totals or {})
        offset = self._file.append(line)
        self._note(entry, _Place(offset, len(line)))


def open_journal(address: str, inputs: Iterable[str] = ()) -> Journal:
    """Open a journal, or begin one, and keep other processes out until it is closed.

    Raises
    ------
    OutputError
        It is one of `inputs`, another process has it, or it can't be written.
    FormatError
        It is no journal, or a newer version of one; it is as it was.
    """
    return _opened(Journal, open_line_file(_checked(address, inputs)))


def read_journal(address: str, inputs: Iterable[str] = ()) -> JournalReader | None:
    """Open a journal to look at what it has, whoever writes to it; None where there is none yet.

    Raises
    ------
    OutputError
        No journal can be there, or it can't be read.
    FormatError
        It is no journal, or a newer version of one.
    """
    path = _checked(address, inputs)
    return _opened(JournalReader, read_line_file(path)) if path.exists() else None


def _checked(address: str, inputs: Iterable[str]) -> Path:
    """Where a journal lies."""
    check_local(address, "journal")
    with explained(Path(address)):
        path = Path(os.path.realpath(address))
    check_place(f"journal {address}", path, inputs, force=True)
    return path


def _opened(kind: Callable[[LineFile], _Kind], file: LineFile) -> _Kind:
    try:
        return kind(file)
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
