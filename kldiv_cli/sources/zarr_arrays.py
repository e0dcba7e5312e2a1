"""Zarr arrays, versions 2 and 3, in a directory, a zip archive or behind a URL.

Chunks that were left out are read as zeros or refused, by the rule in `zarr_chunks`. Blocks are read by
whole chunks: a block that takes a small part of large ones is put together from chunks that are kept
unpacked for the next. Of a sharded array the chunk inside the shard is the unit, since a shard is read
in parts; two workers take as long for chunks of 64 KiB and of 1 MiB as for their whole shards of 8 MiB,
which need more memory.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np

from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import FormatError, InputChanged, InputError, InputNotFound, KldivError
from kldiv_cli.sources.arrival import SAME_FOR_ALL, a_worker, unseen
from kldiv_cli.sources.base import AnyArray, Source, check_dtype
from kldiv_cli.sources.chunk_cache import ChunkCache, cache_size
from kldiv_cli.sources.remote_errors import RequestFault
from kldiv_cli.sources.zarr_chunks import Census, Mark, check_written, mark_of, take_census
from kldiv_cli.sources.zarr_names import dtype_of, find_array, open_node
from kldiv_cli.sources.zarr_store import (
    FAULTS,
    LISTING_FAULTS,
    OpenStore,
    ZarrArray,
    is_array,
    missing_codec,
    open_store,
    reason_of,
)
from kldiv_cli.urls import is_remote, shown

__all__ = ["ZarrSource", "census_of", "open_zarr"]

Result = TypeVar("Result")

_HARDLY_MORE: Final = 1.25


class ZarrSource(Source):
    """An array of a store, opened where it is read.

    What is watched: name, size, time and inode of every file that is a chunk or metadata of the array;
    of a zip archive its index; of a store of objects their ETags, of the first 100,000 below the array;
    on a web server the metadata only.
    """

    chunks: tuple[int, ...]

    def __init__(
        self,
        address: str,
        path: str,
        name: str,
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunks: tuple[int, ...],
        mark: Mark,
        location: str | None = None,
    ) -> None:
        self.address = address
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.chunks = chunks
        self._path = path
        self._location = location or path
        """Where it is opened: the same store where the working directory is another one."""
        self._was_sent = location is not None
        self._mark = mark
        self._lock = threading.Lock()
        self._cache = ChunkCache(cache_size(self))
        self._opened: tuple[OpenStore, ZarrArray] | None = None

    @property
    def path(self) -> str:
        return shown(self._path)

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        if math.prod(block_shape(block)) == 0:
            return np.empty(block_shape(block), self.dtype)
        if self._is_nearly_whole(block):
            return self._fetch(block)
        return self._assemble(block, buffer)

    def verify(self) -> None:
        try:
            with contextlib.closing(self._store()) as store:
                now = _listed(self.address, mark_of, store, self._array_of(store))
        except InputError as error:
            if is_remote(self._path) and not isinstance(error, (FormatError, InputNotFound, InputChanged)):
                raise  # the server can't be asked, which says nothing of the array
            now = None
        if now != self._mark:
            raise self._changed()

    def close(self) -> None:
        with self._lock:
            self._cache.clear()
            if self._opened is not None:
                self._opened[0].close()
                self._opened = None

    def _is_nearly_whole(self, block: Block) -> bool:
        """Whether hardly more has to be unpacked for a block than is in it."""
        touched: int = math.prod(
            min(-(-part.stop // chunk) * chunk, n) - part.start // chunk * chunk
            for part, n, chunk in zip(block, self.shape, self.chunks, strict=True)
        )
        return touched <= _HARDLY_MORE * math.prod(block_shape(block))

    def _assemble(self, block: Block, buffer: Buffer) -> AnyArray:
        array = buffer.array(block_shape(block), self.dtype)
        touched = (
            range(part.start // chunk, -(-part.stop // chunk))
            for part, chunk in zip(block, self.chunks, strict=True)
        )
        for place in itertools.product(*touched):
            region = self._region(place)
            values = self._cache.get(place, lambda region=region: self._fetch(region))  # type: ignore[misc]
            to, of = _overlap(block, region)
            array[to] = values[of]
        return array

    def _region(self, place: tuple[int, ...]) -> Block:
        return tuple(
            slice(k * chunk, min((k + 1) * chunk, n))
            for k, chunk, n in zip(place, self.chunks, self.shape, strict=True)
        )

    def _fetch(self, block: Block) -> AnyArray:
        store, array = self._opened if self._opened is not None else self._open()
        try:
            values = store.run(array.getitem, block)
        except RequestFault as fault:
            raise self._changed() if isinstance(fault.error, InputNotFound) else fault.error from None
        except FAULTS as error:
            raise InputError(f"{self.address}: {_damage(error)}") from None
        return np.asarray(values, self.dtype).reshape(block_shape(block))

    def _open(self) -> tuple[OpenStore, ZarrArray]:
        with self._lock:
            if self._opened is None:
                if self._was_sent:
                    self._look_for_it()
                store = self._store()
                self._opened = store, self._array_of(store)
            return self._opened

    def _store(self) -> OpenStore:
        return open_store(self._path, self._location)

    def check_arrival(self) -> None:
        """Look for it where it was sent to.

        Raises
        ------
        InputNotFound
            It is not there, so that it lies where only the sender sees it.
        InputChanged
            It is there, but its files have other sizes or times.
        """
        if self._was_sent:
            self._look_for_it()

    def _look_for_it(self) -> None:
        try:
            os.stat(self._location)
        except OSError as error:
            raise unseen(self.address, self._location, error) from None
        with contextlib.closing(self._store()) as store:
            array = open_node(store, self.name)
            if is_array(array) and _listed(self.address, mark_of, store, array).arrival == self._mark.arrival:
                return
        raise InputChanged(
            f"{self.address}: {a_worker()} sees another store at {self._location}, expected one whose files "
            f"have the sizes and times that were found before; {SAME_FOR_ALL}"
        )

    def _changed(self) -> InputChanged:
        return InputChanged(f"{self.address}: changed while it was read; run again when nothing writes to it")

    def _array_of(self, store: OpenStore) -> ZarrArray:
        array = open_node(store, self.name)
        if not is_array(array) or array.shape != self.shape or dtype_of(array) != self.dtype:
            raise InputChanged(f"{self.address}: is no longer the array that was opened; run again")
        store.expect(array)
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        known: dict[str, Any] = {
            "shape": self.shape,
            "dtype": self.dtype,
            "chunks": self.chunks,
            "mark": self._mark,
            "location": None if is_remote(self._path) else os.path.abspath(self._location),
        }
        return functools.partial(ZarrSource, **known), (self.address, self._path, self.name)


def open_zarr(address: str, path: str, name: str | None) -> ZarrSource:
    """Open an array of a store; without a name it must be the only numeric one.

    Raises
    ------
    DatasetError
        There is none of that name, it is a group, or there are several.
    FormatError
        It is damaged, not numeric, or has parts that were never written.
    """
    with contextlib.closing(open_store(path)) as store:
        array = find_array(store, name)
        check_dtype(address, dtype_of(array))
        census = census_of(address, store, array)
    check_written(address, array, census)
    return ZarrSource(
        address,
        path,
        array.path,
        shape=array.shape,
        dtype=dtype_of(array),
        chunks=array.chunks,
        mark=census.mark,
    )


def census_of(address: str, store: OpenStore, array: ZarrArray) -> Census:
    """Count the chunks of an array.

    Raises
    ------
    InputError
        They can't be listed.
    """
    return _listed(address, take_census, store, array)


def _listed(
    address: str, look: Callable[[OpenStore, ZarrArray], Result], store: OpenStore, array: ZarrArray
) -> Result:
    try:
        return look(store, array)
    except KldivError:
        raise
    except LISTING_FAULTS as error:
        raise InputError(f"{address}: its chunks can't be listed: {reason_of(error)}") from None


def _overlap(block: Block, region: Block) -> tuple[Block, Block]:
    """Where a region lies in a block, and which part of the region that is."""
    to, of = [], []
    for wanted, there in zip(block, region, strict=True):
        first, last = max(wanted.start, there.start), min(wanted.stop, there.stop)
        to.append(slice(first - wanted.start, last - wanted.start))
        of.append(slice(first - there.start, last - there.start))
    return tuple(to), tuple(of)


def _damage(error: BaseException) -> str:
    remedy = "; write the array again" if missing_codec(error) is None else ""
    return f"a chunk can't be read: {reason_of(error)}{remedy}"
