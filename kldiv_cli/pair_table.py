"""Pairs from a table, CSV or JSON Lines: one a row, with addresses as they stand and options of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from kldiv_cli.addresses import COMMAND_LINE, Viewpoint, Written, address_from
from kldiv_cli.errors import UsageError
from kldiv_cli.pair import OPTIONS, Pair
from kldiv_cli.pair_names import check_name, name_of_address
from kldiv_cli.streams import excerpt
from kldiv_cli.suite_tables import Kind
from kldiv_cli.table_rows import STDIN, Row, open_rows

__all__ = ["read_pair_table"]

_COLUMNS: Final[Mapping[str, Kind]] = {
    "predictions": "address",
    "targets": "address",
    "name": "string",
    **OPTIONS,
}
_ADDRESSES: Final = tuple(column for column, kind in _COLUMNS.items() if kind == "address")
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


def read_pair_table(path: str, options: Mapping[str, Any] = _NONE) -> tuple[Pair, ...]:
    """Read the pairs of a .csv, .jsonl or .ndjson file, or of standard input if it is called ``-``.

    A row has ``predictions`` and ``targets``, and may have a ``name`` and any option; `options` are
    those of rows that don't. Files are seen from the table's directory, of standard input from the
    working one. Wildcards mean nothing.

    Raises
    ------
    UsageError
        A column, a value or a name is not what a table may have, or two pairs have one name.
    InputNotFound, InputError, FormatError
        The file is not there, can't be read or is no table.
    """
    view = COMMAND_LINE
    if path != STDIN:
        view = Viewpoint(os.path.dirname(path), "the table's directory", COMMAND_LINE.allow_unmatched)
    named: dict[str, str] = {}
    pairs: list[Pair] = []
    with open_rows(path, _COLUMNS) as rows:
        for row in rows:
            pair = _pair(view, row, options)
            if pair.name in named:
                raise _same_name(pair.name, row, named[pair.name])
            named[pair.name] = row.where
            pairs.append(pair)
    if not pairs:
        raise UsageError(
            f"{'stdin' if path == STDIN else excerpt(path, 1000)}: no pairs, expected at least one; "
            "add rows with predictions and targets"
        )
    return tuple(pairs)


def _pair(view: Viewpoint, row: Row, options: Mapping[str, Any]) -> Pair:
    values = row.values
    addresses = {
        column: address_from(view, Written(values[column], f"{row.where}: {column}"))
        for column in _ADDRESSES
        if column in values
    }
    for column in ("predictions", "targets"):
        if column not in addresses:
            raise UsageError(f"{row.where}: no {column}, expected an array's address; fill it in")
    own = {option: addresses.get(option, value) for option, value in values.items() if option in OPTIONS}
    return Pair(
        name=_name(view, row),
        predictions=addresses["predictions"],
        targets=addresses["targets"],
        options={**options, **own} if own else options,
        where=row.where if own else "",
    )


def _name(view: Viewpoint, row: Row) -> str:
    given: str | None = row.values.get("name")
    name = name_of_address(view.directory, row.values["predictions"]) if given is None else given
    remedy = "give the row another name" if given is not None else "give it one in a column 'name'"
    check_name(name, lambda text: UsageError(f"{row.where}: {text}"), remedy)
    return name


def _same_name(name: str, row: Row, first: str) -> UsageError:
    remedy = "rename one" if "name" in row.values else "give each row its own in a column 'name'"
    return UsageError(
        f"{row.where}: a second pair named '{excerpt(name)}', expected one, "
        f"after {first.rpartition(': ')[2]}; {remedy}"
    )
