"""What is in a stored array: counted in blocks, all of them or evenly spread ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block, Layout, axis_windows, block_shape, cut, spread
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import InputChanged, InputError
from kldiv_cli.likeness import Likeness, Traits, judge, may_be_normalized, sums_to_one, tolerance, traits
from kldiv_cli.sources import Source, open_source
from kldiv_cli.sources.stored import Storage, StoredArray, problem_of

__all__ = ["Inspection", "inspect_array", "inspect_source"]

SAMPLE: Final = 4 << 20
"""Elements; of an array of more only that many are read, unless all are asked for."""
_BLOCK: Final = 1 << 18
_SAMPLED_BLOCK: Final = 1 << 16
_LARGEST_SAMPLED_BLOCK: Final = 1 << 20
_FEWEST_BLOCKS: Final = 4
_LANES: Final = 8
"""Places at which it is tried whether a sampled array is normalised along an axis."""
_MOST_TO_UNPACK: Final = 64 << 20
"""Elements of chunks, read for the sake of one such place."""
_LONGEST_LANES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found out about one array; every output format is made from this."""

    address: str
    """As `kldiv compute` takes it."""
    shape: tuple[int, ...] | None
    dtype: str | None
    storage: Storage | None
    problem: str | None = None
    """Why it can't be read as numbers; then there are no traits."""
    traits: Traits | None = None
    """What was counted in the values that were read."""
    likeness: Likeness | None = None

    @property
    def elements(self) -> int | None:
        return None if self.shape is None else math.prod(self.shape)

    @property
    def sampled(self) -> bool:
        """Whether counts and range are those of a part only."""
        return self.traits is not None and self.traits.size != self.elements


def inspect_array(stored: StoredArray, *, exact: bool = False, allow_external: bool = False) -> Inspection:
    """Read a listed array, all of it or a part that is bounded; what can't be read is said, not raised.

    Raises
    ------
    InputChanged
        The file changed while it was read.
    """
    found: tuple[Traits, Likeness] | None = None
    problem = stored.problem
    if problem is None:
        try:
            source = open_source(stored.place, allow_external=allow_external)
            found = inspect_source(source, exact=exact)
        except InputChanged:
            raise
        except InputError as error:
            problem = problem_of(stored.address, error)
    return Inspection(
        address=stored.address,
        shape=stored.shape,
        dtype=stored.dtype,
        storage=stored.storage,
        problem=problem,
        traits=found and found[0],
        likeness=found and found[1],
    )


def inspect_source(source: Source, *, exact: bool = False) -> tuple[Traits, Likeness]:
    """Count what is in an array, and tell what it looks like."""
    whole = exact or math.prod(source.shape) <= SAMPLE
    try:
        found = _count(source, whole)
        likeness = judge(
            found,
            probs=_normalized(source, found, whole, logs=False),
            log_probs=_normalized(source, found, whole, logs=True),
        )
        source.verify()
    finally:
        source.close()
    return found, likeness


def _count(source: Source, whole: bool) -> Traits:
    buffer = Buffer()
    found = Traits(kind=source.dtype.kind)
    with np.errstate(all="ignore"):
        for block in _blocks(source, whole):
            found = found.merge(traits(source.read(block, buffer)))
    return found


def _blocks(source: Source, whole: bool) -> Iterator[Block]:
    layout = _layout(source, None)
    if whole:
        return cut(layout, _BLOCK)
    unit = _chunk_size(source)
    budget = max(_SAMPLED_BLOCK, min(unit, _LARGEST_SAMPLED_BLOCK))
    return spread(layout, budget, max(_FEWEST_BLOCKS, SAMPLE // max(budget, unit)))


def _normalized(source: Source, found: Traits, whole: bool, *, logs: bool) -> tuple[int, ...]:
    """The axis along which all distributions that were read are normalised, the last if there are several.

    An axis of length 1 only where there is no other.
    """
    axes = sorted(range(source.ndim), key=lambda axis: (source.shape[axis] > 1, axis), reverse=True)
    for axis in axes:
        possible = may_be_normalized(found, source.dtype, source.shape[axis], logs=logs)
        if possible and _is_normalized(source, axis, whole, logs=logs):
            return (axis,)
    return ()


def _is_normalized(source: Source, axis: int, whole: bool, *, logs: bool) -> bool:
    layout = _layout(source, axis)
    seen = False
    for block in cut(layout, _BLOCK) if whole else spread(layout, _BLOCK, _LANES):
        if not whole and _is_dear(source, block):
            return False
        sums = _sums(source, axis, block, logs=logs)
        if np.isnan(sums).all():
            continue
        if not sums_to_one(sums, source.dtype, source.shape[axis], logs=logs):
            return False
        seen = True
    return seen


def _sums(source: Source, axis: int, block: Block, *, logs: bool) -> npt.NDArray[Any]:
    """Sums along the axis, no further than until one of them is too large."""
    buffer = Buffer()
    most = 1 + tolerance(source.dtype, source.shape[axis], logs=logs)
    sums: npt.NDArray[Any] = np.zeros(())
    with np.errstate(all="ignore"):
        for window in axis_windows(block, axis, _BLOCK):
            values = source.read(window, buffer)
            p = np.exp(values, dtype=np.float64) if logs else values
            sums = sums + p.sum(axis, dtype=np.float64)
            if (sums > most).any():
                break
    return sums


def _is_dear(source: Source, block: Block) -> bool:
    """Whether more would have to be read or unpacked for a block than a sample is worth."""
    extents = block_shape(block)
    if source.chunks is None:
        return math.prod(extents) > _LONGEST_LANES
    touched = math.prod(-(-n // chunk) for n, chunk in zip(extents, source.chunks, strict=True))
    return touched * _chunk_size(source) > _MOST_TO_UNPACK


def _chunk_size(source: Source) -> int:
    """Elements of the unit of storage."""
    return 1 if source.chunks is None else math.prod(source.chunks)


def _layout(source: Source, axis: int | None) -> Layout:
    fastest = 0 if source.fortran_order else source.ndim - 1
    runs = ((fastest, source.dtype.itemsize),) if source.chunks is None and source.shape else ()
    return Layout(
        shape=source.shape,
        axis=axis,
        fortran_order=source.fortran_order,
        chunks=source.chunks,
        runs=runs,
    )
