"""What of a Zarr array was written, and whether it is still the same.

Zarr answers a chunk that is not there with the fill value, in silence. Writers leave out, by default,
a chunk that is the fill value everywhere, so one that is not there is either that or never written,
and nothing in a store tells which. The rule:

A chunk that is not there stands for zeros if the fill value is 0 and some other chunk of its row, the
chunks with the same index in the first dimension, is there. Otherwise the array was not written whole.

So an array of one chunk a row must have all of them. Targets that are zeros for most classes are read;
a dump that was broken off between two rows of chunks is refused. What can't be told: a row that was
broken off in its middle, and chunks missing inside a shard, which is written as one.

Where nothing can be listed, on a plain web server, every chunk counts as stored, and one that is not
there is refused by who reads it. A change is then told by the metadata alone.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from kldiv_cli.errors import FormatError
from kldiv_cli.sources.store_names import METADATA
from kldiv_cli.sources.zarr_store import Entry, OpenStore, ZarrArray

__all__ = ["Census", "Mark", "check_written", "mark_of", "take_census"]

_SEPARATORS: Final = re.compile(r"[./]")
_NUMBER: Final = re.compile(r"\d{1,18}")
_HASH: Final = 16
_MODULUS: Final = 1 << 8 * _HASH
_WATCHED: Final = 100_000
"""Objects behind a URL of which a change is told: what a hundred requests list."""


class Mark(NamedTuple):
    """What changes where something of an array is written again."""

    here: int
    arrival: int
    """The same on every machine that sees the same store."""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Mark:
        """Hashes are added up, so that entries may come in any order and none is kept."""
        here, arrival = 0, 0
        for entry in entries:
            here += _hash(entry.key, entry.stamp)
            arrival += _hash(entry.key, entry.arrival)
        return cls(here % _MODULUS, arrival % _MODULUS)


class Census(NamedTuple):
    """The chunks of an array, or its shards, that are in the store."""

    stored: int
    expected: int
    rows: int
    """Indices of the first dimension that some of them have."""
    bytes: int | None
    """Where that can't be told, None."""
    mark: Mark

    @property
    def missing(self) -> int:
        return self.expected - self.stored


def take_census(store: OpenStore, array: ZarrArray) -> Census:
    """Count chunks by listing them: a `stat` for each file of a directory, a request for 1000 objects.

    Raises
    ------
    InputError
        What is behind a URL can't be listed.
    """
    grid = _grid(array)
    stored, size, rows = 0, 0, set()

    def counted() -> Iterator[Entry]:
        nonlocal stored, size
        for entry, place in _parts(store, array, grid):
            if place is not None:
                stored += 1
                size += entry.size
                rows.add(place[:1])
            yield entry

    entries = counted()
    mark = Mark.of(_watched(store, entries))
    collections.deque(entries, maxlen=0)  # counts what isn't watched
    if store.is_listed:
        return Census(stored, math.prod(grid), len(rows), size, mark)
    return Census(math.prod(grid), math.prod(grid), (grid or (1,))[0], None, mark)


def mark_of(store: OpenStore, array: ZarrArray) -> Mark:
    """The mark of a census, without looking at more than it takes."""
    return Mark.of(_watched(store, (entry for entry, _ in _parts(store, array, _grid(array)))))


def _watched(store: OpenStore, entries: Iterator[Entry]) -> Iterator[Entry]:
    return itertools.islice(entries, _WATCHED) if store.is_remote else entries


def _parts(
    store: OpenStore, array: ZarrArray, grid: tuple[int, ...]
) -> Iterator[tuple[Entry, tuple[int, ...] | None]]:
    """The chunks of an array with their places in the grid, and its metadata, which have none."""
    for entry in store.entries(array.path):
        if entry.key in METADATA:
            yield entry, None
        elif (place := _place(array, entry.key)) is not None and _is_inside(place, grid):
            yield entry, place


def check_written(address: str, array: ZarrArray, census: Census) -> None:
    """Refuse an array with parts that were never written, by the rule above.

    Raises
    ------
    FormatError
        There are such.
    """
    if not census.missing:
        return
    fill = array.metadata.fill_value
    complete = census.rows == (_grid(array) or (1,))[0]
    if complete and fill is not None and fill == 0:
        return
    unit = "chunks" if array.shards is None else "shards"
    raise FormatError(
        f"{address}: {census.missing} of {census.expected} {unit} never written, Zarr would read them as "
        f"{'anything' if fill is None else fill}; write the array whole, with write_empty_chunks=True "
        "where they are meant to be that"
    )


def _grid(array: ZarrArray) -> tuple[int, ...]:
    unit = array.shards or array.chunks
    return tuple(-(-n // along) for n, along in zip(array.shape, unit, strict=True))


def _place(array: ZarrArray, key: str) -> tuple[int, ...] | None:
    """Where in the grid a chunk belongs; None of what is no chunk."""
    parts = [part for part in _SEPARATORS.split(key) if part != "c"]
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    place = tuple(map(int, parts)) if array.ndim else ()
    known: Any = array.metadata
    return place if len(place) == array.ndim and known.encode_chunk_key(place) == key else None


def _is_inside(place: tuple[int, ...], grid: tuple[int, ...]) -> bool:
    """Whether a chunk is part of the array; one that shrank may have left others."""
    return all(k < n for k, n in zip(place, grid, strict=True))


def _hash(key: str, stamp: str) -> int:
    text = f"{key}\0{stamp}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=_HASH).digest(), "little")
