"""Unpacked storage chunks that are kept, so that blocks which share one don't unpack it again."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from kldiv_cli.sources.base import AnyArray, Source

__all__ = ["SMALLEST_CACHE", "ChunkCache", "cache_size"]

SMALLEST_CACHE: Final = 16 << 20
_LARGEST_CACHE: Final = 256 << 20


def cache_size(source: Source) -> int:
    """Bytes for a row of chunks along any dimension, so that none is decompressed again and again."""
    if source.chunks is None:
        return SMALLEST_CACHE
    chunk = math.prod(source.chunks) * source.dtype.itemsize
    longest = max((-(-n // along) for n, along in zip(source.shape, source.chunks, strict=True)), default=1)
    return max(SMALLEST_CACHE, chunk, min(longest * chunk, _LARGEST_CACHE))


class ChunkCache:
    """The chunks used last, up to so many bytes; a chunk that two threads want is unpacked by one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, ...], Future[AnyArray]] = OrderedDict()

    def get(self, place: tuple[int, ...], unpack: Callable[[], AnyArray]) -> AnyArray:
        with self._lock:
            future = self._kept.get(place)
            first = future is None
            if future is None:
                future = self._kept[place] = Future()
            self._kept.move_to_end(place)
        if first:
            self._fill(place, future, unpack)
        return future.result()

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def _fill(self, place: tuple[int, ...], future: Future[AnyArray], unpack: Callable[[], Any]) -> None:
        try:
            future.set_result(unpack())
        except BaseException as error:
            with self._lock:
                self._kept.pop(place, None)
            future.set_exception(error)
            raise
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        """Forget what was used longest ago; what is being unpacked stays."""
        done = {place: future.result().nbytes for place, future in self._kept.items() if future.done()}
        excess = sum(done.values()) - self._limit
        for place, size in list(done.items())[:-1]:
            if excess <= 0:
                return
            del self._kept[place]
            excess -= size
