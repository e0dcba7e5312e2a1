"""Arrays that lie in a file as plain bytes: .npy, stored .npz members, contiguous HDF5 datasets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kldiv_cli.blocks import Block, block_shape, contiguous_from, run_starts
from kldiv_cli.buffers import Buffer
from kldiv_cli.sources.base import AnyArray, Source
from kldiv_cli.sources.readable import ReadableFile
from kldiv_cli.sources.spans import read_runs

__all__ = ["RawSource"]

_SPAN = 4
"""Read up to this many times the bytes that are needed rather than many short runs."""
_SHORT_RUN = 1024


class RawSource(Source):
    """An array that begins at `offset` of a file, in C or Fortran order."""

    def __init__(
        self,
        address: str,
        file: ReadableFile,
        *,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        fortran_order: bool = False,
    ) -> None:
        self.address = address
        self.file = file
        self.offset = offset
        self.shape = shape
        self.dtype = dtype
        self.fortran_order = fortran_order

    @property
    def path(self) -> str:
        return self.file.path

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        if self.fortran_order:
            return self._read(self.shape[::-1], block[::-1], buffer).T
        return self._read(self.shape, block, buffer)

    def verify(self) -> None:
        self.file.verify()

    def close(self) -> None:
        self.file.close()

    def _read(self, shape: tuple[int, ...], block: Block, buffer: Buffer) -> AnyArray:
        """Read a block of a C-ordered array."""
        lengths = block_shape(block)
        if math.prod(lengths) == 0:
            return np.empty(lengths, self.dtype)
        inner = contiguous_from(shape, lengths)
        if self._is_scattered(shape, lengths, inner):
            widened = (*block[:inner], *(slice(0, length) for length in shape[inner:]))
            return self._read(shape, widened, buffer)[(*(slice(None),) * inner, *block[inner:])]
        array = buffer.array(lengths, self.dtype)
        view = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        run = math.prod(lengths[inner:]) * self.dtype.itemsize
        if self.file.request_bytes:
            starts = (self.offset + start * self.dtype.itemsize for start in run_starts(shape, block, inner))
            read_runs(self.file, view, run, starts)
            return array
        for position, start in enumerate(run_starts(shape, block, inner)):
            self.file.read_into(
                view[position * run : (position + 1) * run],
                self.offset + start * self.dtype.itemsize,
            )
        return array

    def _is_scattered(self, shape: tuple[int, ...], lengths: tuple[int, ...], inner: int) -> bool:
        """Whether the block is many short runs so close together that reading across is cheaper."""
        needed, across = math.prod(lengths[inner:]), math.prod(shape[inner:])
        short = needed * self.dtype.itemsize < _SHORT_RUN
        return inner > 0 and needed < across <= _SPAN * needed and short
