"""How an array is cut into blocks: along storage order, with whole distributions where they fit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from kldiv_cli.kernels import SEGMENT

__all__ = [
    "Block",
    "Layout",
    "ascends",
    "axis_windows",
    "block_shape",
    "contiguous_from",
    "cut",
    "fits_whole",
    "run_starts",
    "spread",
]

_SHORT_RUN: Final = 1024
"""Bytes."""

Block = tuple[slice, ...]
"""A rectangular part of an array: one slice a dimension, start and stop given, step 1."""


class Layout(NamedTuple):
    """What is to be cut, and what its storage makes cheap."""

    shape: tuple[int, ...]
    axis: int | None
    """The dimension that is not cut: the distribution axis, where there is one."""
    fortran_order: bool = False
    chunks: tuple[int, ...] | None = None
    runs: tuple[tuple[int, int], ...] = ()
    """Of each array that lies in plain order: its fastest dimension, and the bytes of an element."""

    @property
    def order(self) -> tuple[int, ...]:
        """Dimensions from the slowest in storage to the fastest."""
        dimensions = range(len(self.shape))
        return tuple(reversed(dimensions)) if self.fortran_order else tuple(dimensions)


def block_shape(block: Block) -> tuple[int, ...]:
    return tuple(piece.stop - piece.start for piece in block)


def contiguous_from(shape: tuple[int, ...], lengths: tuple[int, ...]) -> int:
    """The first dimension from which on a block lies in one piece of a C-ordered array."""
    inner = max(0, len(shape) - 1)
    while inner > 0 and lengths[inner] == shape[inner]:
        inner -= 1
    return inner


def run_starts(shape: tuple[int, ...], block: Block, inner: int) -> Iterator[int]:
    """Offsets, in elements, of the pieces that a block of a C-ordered array lies in, in order."""
    strides = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
    base = sum(piece.start * stride for piece, stride in zip(block[inner:], strides[inner:], strict=True))
    outer = [
        range(piece.start * stride, piece.stop * stride, stride)
        for piece, stride in zip(block[:inner], strides[:inner], strict=True)
    ]
    return (base + sum(starts) for starts in itertools.product(*outer))


def fits_whole(layout: Layout, budget: int) -> bool:
    """Whether blocks of `budget` elements are to hold whole distributions.

    Not where one is larger than a block; and not where blocks would be so narrow that they lie in
    the file in short runs, each of which is a read of its own.
    """
    if layout.axis is None:
        return True
    if layout.shape[layout.axis] > budget:
        return False
    if layout.shape[layout.axis] <= SEGMENT:
        return True
    extents = _extents(layout, budget, whole=True)
    return all(
        d == layout.axis or extents[d] == layout.shape[d] or extents[d] * itemsize >= _SHORT_RUN
        for d, itemsize in layout.runs
    )


def cut(layout: Layout, budget: int) -> Iterator[Block]:
    """Blocks of about `budget` elements, in storage order; the axis is whole in each.

    Where `fits_whole` says no, a block is as many neighbouring distributions as have one segment
    each within the budget, to be read by `axis_windows`.
    """
    if math.prod(layout.shape) == 0:
        return
    extents = _extents(layout, budget, whole=fits_whole(layout, budget))
    for starts in itertools.product(*_starts(layout, extents)):
        yield _block(layout, extents, starts)


def ascends(layout: Layout, budget: int, dimensions: Collection[int]) -> bool:
    """Whether `cut` gives adjoining ranges of the C order of an array of these dimensions, each once."""
    if not fits_whole(layout, budget):
        return False
    if math.prod(layout.shape) == 0:
        return True
    extents = _extents(layout, budget, whole=True)
    several = [d for d in layout.order if extents[d] < layout.shape[d]]
    if not several:
        return True
    outer = (d for d in dimensions if d < several[-1])
    return (
        several == sorted(several) and set(several) <= set(dimensions) and all(extents[d] == 1 for d in outer)
    )


def spread(layout: Layout, budget: int, most: int) -> Iterator[Block]:
    """At most that many of the blocks that `cut` gives, evenly spread from the first to the last."""
    if math.prod(layout.shape) == 0:
        return
    extents = _extents(layout, budget, whole=fits_whole(layout, budget))
    ranges = _starts(layout, extents)
    last, steps = math.prod(map(len, ranges)) - 1, max(1, most - 1)
    for position in sorted({last * k // steps for k in range(most)}):
        starts: list[int] = []
        for along in reversed(ranges):
            position, k = divmod(position, len(along))
            starts.insert(0, along[k])
        yield _block(layout, extents, tuple(starts))


def axis_windows(block: Block, axis: int, budget: int) -> Iterator[Block]:
    """Cut a block of distributions that are too large together into windows of whole segments."""
    length = block[axis].stop
    lanes = math.prod(block_shape(block)) // length
    step = max(1, budget // (lanes * SEGMENT)) * SEGMENT
    for start in range(0, length, step):
        window = slice(start, min(start + step, length))
        yield (*block[:axis], window, *block[axis + 1 :])


def _starts(layout: Layout, extents: list[int]) -> list[range]:
    """Where blocks begin, from the slowest dimension in storage to the fastest."""
    return [range(0, layout.shape[d], extents[d]) for d in layout.order]


def _block(layout: Layout, extents: list[int], starts: tuple[int, ...]) -> Block:
    start_of = dict(zip(layout.order, starts, strict=True))
    return tuple(
        slice(start_of[d], min(start_of[d] + extents[d], length)) for d, length in enumerate(layout.shape)
    )


def _extents(layout: Layout, budget: int, *, whole: bool) -> list[int]:
    """Grow a block from the fastest dimension to the slowest until it is full."""
    fixed = 1
    extents = [1] * len(layout.shape)
    if layout.axis is not None:
        extents[layout.axis] = layout.shape[layout.axis]
        fixed = layout.shape[layout.axis] if whole else SEGMENT
    free = [d for d in reversed(layout.order) if d != layout.axis]
    units = _units(layout, free, budget // fixed)
    for d in free:
        extents[d] = units[d]
    for d in free:
        room = budget // (fixed * math.prod(extents[other] for other in free if other != d))
        grown = max(units[d], room // units[d] * units[d])
        extents[d] = min(grown, layout.shape[d])
        if extents[d] < layout.shape[d]:
            break
    return extents


def _units(layout: Layout, free: list[int], budget: int) -> dict[int, int]:
    """The smallest block extents: one storage chunk, where that fits the budget."""
    if layout.chunks is not None:
        units = {d: min(layout.chunks[d], layout.shape[d]) for d in free}
        if math.prod(units.values()) <= budget:
            return units
    return dict.fromkeys(free, 1)
