"""SHA-256 of what arrays hold, however they are stored: in the pass that computes, where its order allows.

What is hashed are the elements in C order, in the stored dtype, as little-endian bytes. In the pass
these are the bytes that the computation saw; what is not read in order there is read once more.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np

from kldiv_cli.blocks import Block, Layout, ascends, run_starts
from kldiv_cli.sequence import in_sequence
from kldiv_cli.sources.base import AnyArray, ExpandedSource, Inputs, ObservedSource, Source

__all__ = ["Digest", "Digests", "digest_of"]

_PIECE: Final = 1 << 16
"""Elements that are copied at a time, where byte order or storage order ask for a copy."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class Digest:
    """Hashes an array from parts that any thread brings; a part whose turn has not come waits for it.

    Nobody waits forever as long as the parts are handed out in order, for then whoever is next is
    running; one who fails before adding a part must `abandon`.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._added = 0
        self._abandoned = False
        self._turn = threading.Condition()

    def add(self, start: int, array: AnyArray) -> None:
        """Hash a part that begins at element `start` of the C order, as soon as all before it was added.

        Of an abandoned digest nothing more is hashed: there will be no result to put it into.
        """
        with self._turn:
            self._turn.wait_for(lambda: self._abandoned or self._added >= start)
            if self._abandoned:
                return
            assert self._added == start, f"element {start} is hashed already"
        for piece in _little_endian(array):
            self._hash.update(memoryview(piece))  # type: ignore[arg-type]
        with self._turn:
            self._added += array.size
            self._turn.notify_all()

    def append(self, array: AnyArray) -> None:
        """Hash what comes next."""
        self.add(self._added, array)

    def abandon(self) -> None:
        """Let nobody wait any longer for a part that will never come."""
        with self._turn:
            self._abandoned = True
            self._turn.notify_all()

    def hexdigest(self, size: int) -> str:
        """The digest of all `size` elements."""
        assert not self._abandoned
        assert self._added == size, f"{self._added} of {size} elements were hashed"
        return self._hash.hexdigest()


def digest_of(source: Source, memory: int) -> str:
    """Read a whole source in C order, within `memory` bytes, and hash it."""
    digest = Digest()
    for part in in_sequence(source, memory):
        digest.append(part)
    return digest.hexdigest(math.prod(source.shape))


class Digests:
    """The digests of all inputs of a computation."""

    def __init__(self, inputs: Inputs) -> None:
        """Of `inputs` as they were opened, before they are stretched or trimmed."""
        self._inputs = inputs
        self._in_pass: dict[str, Digest] = {}

    def follow(self, fitted: Inputs, axis: int, layout: Layout, budget: int) -> Inputs:
        """The inputs to compute from: those that blocks of this layout cover in order are hashed as they go.

        Each block must be read once, and worked on by what is `guarded`.
        """
        followed = {
            role: used and self._followed(role, used, axis, layout, budget)
            for role, used in fitted._asdict().items()
        }
        return Inputs(**followed)

    def guarded(self, work: Callable[[Task], Result]) -> Callable[[Task], Result]:
        """The same work; but if it fails, nobody waits for what it would have hashed."""

        def guarded_work(task: Task) -> Result:
            try:
                return work(task)
            except BaseException:
                for digest in self._in_pass.values():
                    digest.abandon()
                raise

        return guarded_work

    def finish(self, memory: int) -> dict[str, str]:
        """The digests by the role of each input; what was not hashed in the pass is read now."""
        return {
            role: self._in_pass[role].hexdigest(math.prod(source.shape))
            if role in self._in_pass
            else digest_of(source, memory)
            for role, source in self._inputs._asdict().items()
            if source is not None
        }

    def _followed(self, role: str, used: Source, axis: int, layout: Layout, budget: int) -> Source:
        """Labels are not followed: a block of them is read once more, to be checked."""
        opened, every = getattr(self._inputs, role), range(len(layout.shape))
        if isinstance(used, ExpandedSource) and used.base is opened:
            outer = [d for d in every if d != axis]
            follows = ascends(layout, budget, outer)
            return ExpandedSource(self._observed(role, opened), used.axis) if follows else used
        follows = used is opened and used.ndim == len(every) and ascends(layout, budget, every)
        return self._observed(role, opened) if follows else used

    def _observed(self, role: str, source: Source) -> Source:
        digest = self._in_pass[role] = Digest()

        def add(block: Block, array: AnyArray) -> None:
            (start,) = run_starts(source.shape, block, 0)
            digest.add(start, array)

        return ObservedSource(source, add)


def _little_endian(array: AnyArray) -> Iterator[AnyArray]:
    """The bytes of an array in C order: its own memory, or a few copies one after another."""
    array, dtype = np.asarray(array), array.dtype.newbyteorder("<")
    if array.dtype == dtype and array.flags.c_contiguous:
        yield array.reshape(-1).view(np.uint8)
        return
    copy = np.empty(min(_PIECE, array.size), dtype)
    for piece in _pieces(array):
        straight = copy[: piece.size]
        np.copyto(straight.reshape(piece.shape), piece)
        yield straight.view(np.uint8)


def _pieces(array: AnyArray) -> Iterator[AnyArray]:
    """Cut an array into pieces of a few elements, in C order."""
    if array.size <= _PIECE:
        yield array
        return
    rest = math.prod(array.shape[1:])
    step = max(1, _PIECE // rest)
    for start in range(0, array.shape[0], step):
        piece = array[start : start + step]
        yield from _pieces(piece[0] if rest > _PIECE else piece)
