"""A source from its first element to its last, in C order, in bounded memory, however it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from kldiv_cli.blocks import Block, Layout, block_shape, contiguous_from, cut
from kldiv_cli.buffers import Buffer
from kldiv_cli.sources.base import AnyArray, ArraySource, Source

__all__ = ["in_sequence"]

_BLOCK: Final = 4 << 20
"""Bytes to read at a time of what lies in C order."""
_PER_READ: Final = 8192
"""Bytes that are read in the time that one more read takes."""


def in_sequence(source: Source, memory: int) -> Iterator[AnyArray]:
    """Parts that are the source, one after another; each is valid until the next is taken.

    What does not lie in C order is read in larger parts, up to half of `memory` bytes: by whole rows
    of HDF5's chunks, so that none is decompressed again and again, and of a Fortran-ordered array
    by runs as long as may be.
    """
    if isinstance(source, ArraySource):
        yield source.array
        return
    across = source.fortran_order and source.ndim > 1
    plain = not across and source.chunks is None
    budget = max(1, (min(memory // 2, _BLOCK) if plain else memory // 2) // source.dtype.itemsize)
    buffer, window = Buffer(), Buffer()
    for block in cut(_layout(source, budget), budget):
        if across:
            part = buffer.array(block_shape(block), source.dtype)
            _read_across(source, block, part, window, max(1, budget // 8))
            yield part
        else:
            yield source.read(block, buffer)


def _layout(source: Source, budget: int) -> Layout:
    """What makes `cut` give blocks in C order; of whole rows of chunks, where these fit the budget."""
    shape, chunks = source.shape, source.chunks
    if not shape or chunks is None:
        return Layout(shape, axis=None)
    cut_along = next(d for d in range(len(shape)) if math.prod(shape[d + 1 :]) <= budget)
    row = (*(1,) * cut_along, chunks[cut_along], *shape[cut_along + 1 :])
    return Layout(shape, axis=None, chunks=row)


def _read_across(source: Source, block: Block, part: AnyArray, window: Buffer, most: int) -> None:
    """Read a block of a Fortran-ordered array into `part`, `most` elements at a time.

    Fast dimensions that the block has little of may be read whole, and what is wanted picked: one
    long read takes less time than many of an element each.
    """
    whole = _dimensions_read_whole(source, block, most)
    wide = (*source.shape[:whole], *block_shape(block)[whole:])
    for inner in cut(Layout(wide, axis=None, fortran_order=True), most):
        rest = inner[whole:]
        moved = (
            slice(within.start + outer.start, within.stop + outer.start)
            for within, outer in zip(rest, block[whole:], strict=True)
        )
        values = source.read((*inner[:whole], *moved), window)
        part[(slice(None),) * whole + rest] = values[block[:whole]]


def _dimensions_read_whole(source: Source, block: Block, most: int) -> int:
    """How many of the fastest dimensions are to be read whole, by what the reads take together."""
    lengths = block_shape(block)

    def cost(whole: int) -> int:
        stored = (*source.shape[:whole], *lengths[whole:])[::-1]
        inner = contiguous_from(source.shape[::-1], stored)
        run = math.prod(stored[inner:]) * source.dtype.itemsize
        return math.prod(stored[:inner]) * (_PER_READ + run)

    fitting = (whole for whole in range(1, source.ndim) if math.prod(source.shape[:whole]) <= most)
    return min((0, *fitting), key=cost)
