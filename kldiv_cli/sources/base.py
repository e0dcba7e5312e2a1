"""What a source of array blocks is, the array in memory, and views on other sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import FormatError

__all__ = [
    "AnyArray",
    "ArraySource",
    "Block",
    "BroadcastSource",
    "ExpandedSource",
    "Inputs",
    "ObservedSource",
    "SliceSource",
    "Source",
    "check_dtype",
    "describe",
    "is_numeric",
]

AnyArray = npt.NDArray[Any]


class Source(ABC):
    """An array that is read block by block; picklable, opened where it is read, safe to read from threads."""

    address: str
    """Where the array lies, as the user would name it."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool = False
    """The first dimension varies fastest in storage."""
    chunks: tuple[int, ...] | None = None
    """The unit of storage, where there is one: cheap to read whole, dear in parts."""
    one_at_a_time: bool = False
    """Of the threads of a process only one reads at a time."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @abstractmethod
    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        """Return one block, in the storage dtype, in `buffer` or as a view; not to be written to."""

    def verify(self) -> None:
        """Raise `InputChanged` if the file is no longer the one that was opened."""

    def close(self) -> None:
        """Close what is open here; reading opens it again."""

    @property
    def path(self) -> str | None:
        """The file it lies in."""
        return None


class ArraySource(Source):
    """An array in memory."""

    def __init__(self, array: AnyArray, address: str = "array") -> None:
        if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
            raise FormatError(f"{address}: a masked array, whose mask would be lost; fill or select it first")
        check_dtype(address, array.dtype)
        self.array, self.address = array, address
        self.shape, self.dtype = array.shape, array.dtype
        flags = array.flags
        self.fortran_order = flags.f_contiguous and not flags.c_contiguous

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        return self.array[block]


class Inputs(NamedTuple):
    """The sources of one computation."""

    predictions: Source
    targets: Source
    weight: Source | None = None
    pos_weight: Source | None = None
    mask: Source | None = None
    labels: Source | None = None
    """Class indices beside two models' outputs."""

    def all(self) -> tuple[Source, ...]:
        return tuple(source for source in self if source is not None)

    def verify(self) -> None:
        """Raise `InputChanged` if a file is no longer the one that was opened."""
        for source in self.all():
            source.verify()

    def close(self) -> None:
        for source in self.all():
            source.close()


class _View(Source):
    """A source seen through another shape."""

    def __init__(self, base: Source) -> None:
        self.base = base
        self.address = base.address
        self.dtype = base.dtype
        self.fortran_order = base.fortran_order
        self.one_at_a_time = base.one_at_a_time

    def verify(self) -> None:
        self.base.verify()

    def close(self) -> None:
        self.base.close()

    @property
    def path(self) -> str | None:
        return self.base.path


class SliceSource(_View):
    """A part of another source: one slice (kept) or integer (dropped) a dimension."""

    def __init__(self, base: Source, address: str, selection: tuple[slice | int, ...]) -> None:
        super().__init__(base)
        self.address = address
        self.selection = selection
        kept = [(i, s) for i, s in enumerate(selection) if isinstance(s, slice)]
        self.shape = tuple(s.stop - s.start for _, s in kept)
        if base.chunks is not None:
            self.chunks = tuple(base.chunks[i] for i, _ in kept)

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        wanted = iter(block)
        inner: list[slice] = []
        for part in self.selection:
            if isinstance(part, int):
                inner.append(slice(part, part + 1))
            else:
                piece = next(wanted)
                inner.append(slice(part.start + piece.start, part.start + piece.stop))
        shape = block_shape(block)
        return self.base.read(tuple(inner), buffer).reshape(shape)


class BroadcastSource(_View):
    """A source stretched to a larger shape by NumPy's rules."""

    def __init__(self, base: Source, shape: tuple[int, ...]) -> None:
        super().__init__(base)
        self.shape = shape

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        trailing = block[len(block) - self.base.ndim :]
        inner = tuple(
            slice(0, 1) if length == 1 else piece
            for length, piece in zip(self.base.shape, trailing, strict=True)
        )
        shape = block_shape(block)
        return np.broadcast_to(self.base.read(inner, buffer), shape)


class ExpandedSource(_View):
    """A source with one more dimension, of length 1."""

    def __init__(self, base: Source, axis: int) -> None:
        super().__init__(base)
        self.axis = axis
        self.shape = (*base.shape[:axis], 1, *base.shape[axis:])

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        inner = (*block[: self.axis], *block[self.axis + 1 :])
        expanded = np.expand_dims(self.base.read(inner, buffer), self.axis)
        return expanded[(slice(None),) * self.axis + (block[self.axis],)]


class ObservedSource(_View):
    """A source that shows each block that is read to someone else too, in the thread that reads."""

    def __init__(self, base: Source, observe: Callable[[Block, AnyArray], None]) -> None:
        super().__init__(base)
        self.shape, self.chunks = base.shape, base.chunks
        self.observe = observe

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        array = self.base.read(block, buffer)
        self.observe(block, array)
        return array


def is_numeric(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fiub"


def describe(arrays: Iterable[tuple[str, tuple[int, ...], np.dtype[Any]]], most: int = 12) -> str:
    """List the arrays of a container on one line: name, shape, dtype."""
    items = [f"{name!r} {shape} {dtype}" for name, shape, dtype in arrays]
    if not items:
        return "no arrays"
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def check_dtype(where: str, dtype: np.dtype[Any]) -> None:
    """Refuse what are not real numbers."""
    if is_numeric(dtype):
        return
    if dtype.hasobject and "vlen" in (dtype.metadata or {}):
        raise FormatError(
            f"{where}: dtype object: text or arrays of any length, expected one number an element"
        )
    if dtype.hasobject:
        raise FormatError(
            f"{where}: dtype object, which only unpickling could read and pickles run code; "
            "save it as a plain numeric array"
        )
    if dtype.names is not None:
        raise FormatError(
            f"{where}: structured dtype with fields {', '.join(dtype.names)}; "
            "expected one number an element: save the field you mean as an array of its own"
        )
    hint = "; is it bfloat16? save it as float32" if dtype.kind == "V" and dtype.itemsize == 2 else ""
    raise FormatError(f"{where}: dtype {dtype}, expected real numbers{hint}")
