"""The TOML tables of a suite: bounded and well-formed, every key known, every value of its type."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, assert_never

from kldiv_cli.errors import FormatError, UsageError
from kldiv_cli.sources.regular import RegularFile, is_empty
from kldiv_cli.spelling import mistaken
from kldiv_cli.streams import excerpt

__all__ = ["Kind", "Table", "expected", "fits", "found", "read_table"]

Kind = Literal[
    "string",
    "address",
    "strings",
    "string or strings",
    "integer",
    "number",
    "numbers",
    "boolean",
    "table",
    "tables",
]
"""What a value is.

An address is a string that names a file, seen from the suite's directory; tables are one table of
others, by names of the user's choice.
"""

_MOST_BYTES: Final = 16 << 20
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")

_ELEMENTS: Final[dict[Kind, Kind]] = {
    "strings": "string",
    "string or strings": "string",
    "numbers": "number",
}
_EXPECTED: Final[dict[Kind, str]] = {
    "string": 'a string, as in {} = "…"',
    "address": 'the path of a file, as in {} = "FILE"',
    "strings": 'an array of strings, as in {} = ["…"]',
    "string or strings": 'a string or an array of them, as in {} = ["…"]',
    "integer": "a whole number, as in {} = 1",
    "number": "a number, as in {} = 0.5",
    "numbers": "an array of numbers, as in {} = [0.5]",
    "boolean": "true or false, without quotes",
    "table": "a table; write it as [{}]",
    "tables": "tables with names; write each as [{}.NAME]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of a suite and where it stands, so that whatever is wrong with it can say so."""

    file: str
    name: str
    """As it is written between the brackets, without what stands before it in all of the suite."""
    prefix: str
    """``tool.kldiv`` in a pyproject.toml, else nothing."""
    entries: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The name in brackets; nothing for the top of a file."""
        name = ".".join(part for part in (self.prefix, self.name) if part)
        return f"[{name}]" if name else ""

    def where(self, key: str = "") -> str:
        """How an error about this table, or about a key of it, begins."""
        place = " ".join(part for part in (self.title, _quoted(key) if key else "") if part)
        return f"{excerpt(self.file, 1000)}: {place}" if place else excerpt(self.file, 1000)

    def error(self, text: str, key: str = "") -> UsageError:
        return UsageError(f"{self.where(key)}: {text}")

    def values(self, kinds: Mapping[str, Kind], elsewhere: Mapping[str, str]) -> dict[str, Any]:
        """All entries, by their names with underscores, arrays as tuples and tables as they are.

        `kinds` are the keys that there may be, and `elsewhere` says of others where they belong.

        Raises
        ------
        UsageError
            A key is unknown, is there with a dash and with an underscore, or has a value of another type.
        """
        written: dict[str, str] = {}
        for key, value in self.entries.items():
            name = key.replace("-", "_")
            if name not in kinds:
                raise self.error(_unknown(name, kinds, elsewhere), key)
            if name in written:
                raise self.error(f"there as {written[name]} too, expected one of them; drop the other", key)
            if not fits(kinds[name], value):
                raise self._misfit(kinds[name], value, key, key)
            written[name] = key
        return {name: _frozen(self.entries[key]) for name, key in written.items()}

    def table(self, key: str) -> Table:
        """The table under a key that `values` has found to be one; an empty one if it is not there."""
        return self._below(key, self.entries.get(key, {}))

    def tables(self) -> Iterator[tuple[str, Table]]:
        """The tables in this one, under names of the user's choice."""
        for name, entries in self.entries.items():
            if not isinstance(entries, dict):
                raise self._misfit("table", entries, name, "NAME")
            yield name, self._below(name, entries)

    def _misfit(self, kind: Kind, value: object, key: str, example: str) -> UsageError:
        """What to say of a value that is not of the kind; `example` is the key in an example."""
        path = f"{self.title[1:-1]}.{example}".lstrip(".") if kind in ("table", "tables") else example
        return self.error(f"{found(kind, value)}, expected {_EXPECTED[kind].format(path)}", key)

    def _below(self, key: str, entries: Mapping[str, Any]) -> Table:
        name = f"{self.name}.{_quoted(key)}" if self.name else _quoted(key)
        return Table(file=self.file, name=name, prefix=self.prefix, entries=entries)


def read_table(path: str) -> Table:
    """The suite in a TOML file: all of it, or ``[tool.kldiv]`` of a file named pyproject.toml.

    Raises
    ------
    InputNotFound, InputError
        There is no such file, or it is not a regular one that can be read.
    FormatError
        It is no TOML, or too large to be a suite.
    UsageError
        A pyproject.toml says nothing of kldiv.
    """
    entries = _parse(path, _text(path))
    if os.path.basename(path) != "pyproject.toml":
        return Table(file=path, name="", prefix="", entries=entries)
    tool = entries.get("tool")
    suite = tool.get("kldiv") if isinstance(tool, dict) else None
    if not isinstance(suite, dict):
        raise UsageError(
            f"{excerpt(path, 1000)}: no table [tool.kldiv], expected the suite in it; "
            "add [tool.kldiv.pairs.NAME] with predictions and targets, or name another file"
        )
    return Table(file=path, name="", prefix="tool.kldiv", entries=suite)


def _text(path: str) -> str:
    if is_empty(path):
        return ""
    file = RegularFile(path)
    try:
        if file.size > _MOST_BYTES:
            raise FormatError(
                f"{excerpt(path, 1000)}: {file.size} bytes, "
                f"expected a suite of at most {_MOST_BYTES}; name another file"
            )
        contents = file.read(0, file.size)
        file.verify()
    finally:
        file.close()
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{excerpt(path, 1000)}: byte {error.start} is 0x{contents[error.start]:02x}, "
            "expected TOML in UTF-8; save it in that encoding"
        ) from None


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = "arrays or tables too deep in each other"
    except ValueError as error:  # of tomllib, and of int() for a number of more than 4300 digits
        problem = excerpt(str(error), 300)
    raise FormatError(f"{excerpt(path, 1000)}: {problem}, expected TOML; mend it there") from None


def _quoted(key: str) -> str:
    return key if len(key) <= 200 and _BARE.fullmatch(key) else f'"{excerpt(key, 200)}"'


def _unknown(name: str, kinds: Mapping[str, Kind], elsewhere: Mapping[str, str]) -> str:
    if name in elsewhere:
        return f"not a key of this table, expected in {elsewhere[name]}; move it there"
    return f"unknown key{mistaken(name, kinds)}"


def fits(kind: Kind, value: object) -> bool:
    """Whether a value is of a kind; in TOML true is no number, and a whole number has 64 bits."""
    match kind:
        case "string" | "address":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        case "number":
            return isinstance(value, float) or fits("integer", value)
        case "boolean":
            return isinstance(value, bool)
        case "table" | "tables":
            return isinstance(value, dict)
        case "strings" | "numbers":
            return isinstance(value, list) and all(fits(_ELEMENTS[kind], element) for element in value)
        case "string or strings":
            return isinstance(value, str) or fits("strings", value)
        case _:
            assert_never(kind)


def found(kind: Kind, value: object) -> str:
    """What a value is that does not fit; of an array, its first element that does not."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value) if fits("integer", value) else "a whole number of more than 64 bits"
        case float():
            return str(value)
        case str():
            return f"'{excerpt(value)}'"
        case dict():
            return "a table"
        case list() if kind in _ELEMENTS:
            element = next(e for e in value if not fits(_ELEMENTS[kind], e))
            return f"an array with {found(_ELEMENTS[kind], element)} in it"
        case list():
            return "an array"
        case None:
            return "null"
        case _:
            return "a date or time"


def expected(kind: Kind) -> str:
    """What a value of a kind is, in a file that is no TOML."""
    return _EXPECTED[kind].partition(", as in")[0]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
