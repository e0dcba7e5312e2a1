"""Addresses: ``FILE``, ``FILE::DATASET``, ``FILE::DATASET[0:1000]``, ``FILE::[0:1000]``.

A file may be a URL.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from kldiv_cli.errors import AxisError, UsageError
from kldiv_cli.urls import SCHEMES, is_remote, is_url, shown, split_dataset

__all__ = ["Address", "dataset_address", "parse_address", "resolve_selection"]

_SELECTION = re.compile(r"(?P<name>.*?)\[(?P<selection>[^\[\]]*)\]", re.DOTALL)
_ITEM = re.compile(
    r"\s*(?P<start>[+-]?\d{1,99})?\s*"
    r"(?:(?P<colon>:)\s*(?P<stop>[+-]?\d{1,99})?\s*(?::\s*(?P<step>[+-]?\d{1,99})?\s*)?)?"
)

Selection = tuple[slice | int, ...]


class Address(NamedTuple):
    path: str
    dataset: str | None = None
    selection: str | None = None
    """What stands between the brackets."""


def parse_address(text: str) -> Address:
    """Split an address; a file whose name itself has ``::`` is taken as such."""
    if is_url(text) and not is_remote(text) and not os.path.lexists(text.partition("::")[0]):
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UsageError(f"{shown(text)}: no such kind of address; expected a file, or one of {schemes}")
    path, separator, rest = split_dataset(text) if is_remote(text) else text.partition("::")
    if not separator or (not is_remote(text) and os.path.lexists(text)):
        return Address(text)
    match = _SELECTION.fullmatch(rest)
    name, selection = (match["name"], match["selection"]) if match else (rest, None)
    if not path or not rest:
        raise UsageError(f"{shown(text)}: expected FILE::DATASET, FILE::DATASET[0:1000] or FILE::[0:1000]")
    return Address(path, name or None, selection)


def dataset_address(path: str, name: str) -> str:
    """The address of a dataset, whatever its name is.

    >>> dataset_address("dump.h5", "/layer[1]")
    'dump.h5::/layer[1][...]'
    """
    # Without a selection of all, brackets at the end of the name would be taken for one.
    return f"{path}::{name}{'[...]' if _SELECTION.fullmatch(name) else ''}"


def resolve_selection(where: str, selection: str, shape: tuple[int, ...]) -> Selection:
    """Turn ``0:1000, 3, ...`` into one slice or integer for each dimension of `shape`.

    Raises
    ------
    UsageError
        Not made of integers, slices of step 1 and at most one ``...``.
    AxisError
        More items than dimensions, or an integer out of range.
    """
    items: list[str] = [item.strip() for item in selection.split(",")] if selection.strip() else []
    if items.count("...") > 1:
        raise UsageError(f"{where}: selection [{selection}] has more than one '...'")
    missing = len(shape) - len([item for item in items if item != "..."])
    if missing < 0:
        raise AxisError(f"{where}: selection [{selection}] has more items than the dimensions of {shape}")
    place = items.index("...") if "..." in items else len(items)
    items[place : place + 1] = [":"] * missing
    return tuple(_resolve_item(where, item, length) for item, length in zip(items, shape, strict=True))


def _resolve_item(where: str, item: str, length: int) -> slice | int:
    match = _ITEM.fullmatch(item)
    if (
        match is None
        or not item
        or match["step"] not in (None, "1")
        or not (match["colon"] or match["start"])
    ):
        raise UsageError(f"{where}: selection item {item!r}, expected an index or start:stop")
    start, stop = (None if match[name] is None else int(match[name]) for name in ("start", "stop"))
    if match["colon"]:
        first, last, _ = slice(start, stop).indices(length)
        return slice(first, max(first, last))
    if start is None or not -length <= start < length:
        raise AxisError(f"{where}: index {item} is out of range for a dimension of {length}")
    return start % length
