"""The part of a per-element map that is shown: chosen indices, gathered as the blocks come by."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block

__all__ = ["MapView", "MapWindow", "open_window"]

THRESHOLD: Final = 1000
"""Maps of more elements than this are cut, as NumPy cuts them."""
EDGE: Final = 3
"""Indices kept at each end of a dimension that is cut."""


class MapView(NamedTuple):
    """A map, or the part of it that is shown."""

    shape: tuple[int, ...]
    """Of the whole map."""
    selection: tuple[slice | int, ...]
    """What was asked for."""
    indices: tuple[tuple[int, ...], ...]
    """For each dimension, the indices shown; where they jump, something was left out."""
    values: npt.NDArray[np.float64]
    """One value for each combination of indices."""
    full: bool = False
    """Nothing may be left out to make it fit."""

    @property
    def asked(self) -> int:
        """How many elements were asked for."""
        return math.prod(part.stop - part.start for part in self.selection if isinstance(part, slice))

    @property
    def cut(self) -> bool:
        """Whether something that was asked for is not shown."""
        return self.values.size < self.asked


class MapWindow:
    """Gathers the chosen elements of a map; blocks may come in any order and from any thread."""

    def __init__(self, shape: tuple[int, ...], selection: tuple[slice | int, ...], *, full: bool) -> None:
        self._shape, self._selection, self._full = shape, selection, full
        lengths = [part.stop - part.start for part in selection if isinstance(part, slice)]
        cut = not full and (math.prod(lengths) > THRESHOLD or max(lengths, default=0) > THRESHOLD)
        self._indices = tuple(_shown(part, cut) for part in selection)
        self._values = np.full([len(indices) for indices in self._indices], np.nan)

    def write(self, block: Block, values: npt.NDArray[Any]) -> None:
        places: list[npt.NDArray[np.intp]] = []
        chosen: list[npt.NDArray[np.intp]] = []
        for part, indices in zip(block, self._indices, strict=True):
            first, last = np.searchsorted(indices, [part.start, part.stop])
            places.append(np.arange(first, last))
            chosen.append(np.asarray(indices[first:last], np.intp) - part.start)
        self._values[np.ix_(*places)] = values[np.ix_(*chosen)]

    def view(self) -> MapView:
        return MapView(
            shape=self._shape,
            selection=self._selection,
            indices=self._indices,
            values=self._values,
            full=self._full,
        )


def open_window(
    shape: tuple[int, ...], selection: tuple[slice | int, ...] | None, *, full: bool
) -> MapWindow:
    """Begin to gather a map of `shape`, or the selected part of it; whole if `full`, else cut."""
    everything = tuple(slice(0, length) for length in shape)
    return MapWindow(shape, everything if selection is None else selection, full=full)


def _shown(part: slice | int, cut: bool) -> tuple[int, ...]:
    if isinstance(part, int):
        return (part,)
    if cut and part.stop - part.start > 2 * EDGE + 1:
        return (
            *range(part.start, part.start + EDGE),
            *range(part.stop - EDGE, part.stop),
        )
    return tuple(range(part.start, part.stop))
