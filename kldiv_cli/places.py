"""Where in the whole array the elements of a block are: what tallies are told by."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.observations import Tally

__all__ = ["Places"]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T")


class Places(NamedTuple):
    """A piece of a block: the block's rows from `top` on, columns from `left` on."""

    shape: tuple[int, ...]
    axis: int
    block: Block
    top: int = 0
    left: int = 0
    chosen: Indices | None = None
    """The rows of the block that are looked at, where not all are."""

    def tally(self, mask: Mask, values: Array) -> Tally:
        """Count a mask over the piece, and find its first element."""
        row, column = np.nonzero(mask)
        return self.first_element(row, column, values[row, column])

    def nonfinite(self, row: Indices, column: Indices, values: Array) -> dict[str, Tally]:
        """Count the infinite and the nan among some elements."""
        infinite, nan = np.isinf(values), np.isnan(values)
        return {
            "infinite_terms": self.first_element(row[infinite], column[infinite], values[infinite]),
            "nan_terms": self.first_element(row[nan], column[nan], values[nan]),
        }

    def outside(self, values: Array) -> Tally:
        """Count values outside [0, 1]; nan is outside."""
        if values.min() >= 0 and values.max() <= 1:
            return Tally()
        return self.tally(~((values >= 0) & (values <= 1)), values)

    def above_zero(self, values: Array) -> Tally:
        """Count log-probabilities above 0; nan counts."""
        if values.max() <= 0:
            return Tally()
        return self.tally(~(values <= 0), values)

    def saturated(self, values: Array, counted: Mask | None) -> Tally:
        """Count values of exactly 0 or 1, of those that count."""
        if values.min() > 0 and values.max() < 1:
            return Tally()
        extreme = (values == 0) | (values == 1)
        return self.tally(extreme if counted is None else extreme & counted, values)

    def above(self, most: float, values: Array | None) -> Tally:
        """Count values above a limit, and find the greatest; nan is none."""
        if values is None or values.max() <= most:
            return Tally()
        return self._beyond(values > most, values, -1)

    def below_zero(self, values: Array) -> Tally:
        """Count values below 0, and find the least; nan is none."""
        if values.min() >= 0:
            return Tally()
        return self._beyond(values < 0, values, 1)

    def _beyond(self, mask: Mask, values: Array, sign: int) -> Tally:
        row, column = np.nonzero(mask)
        if row.size == 0:
            return Tally()
        rank = values[row, column] * sign
        worst = rank == rank.min()
        first = self.first_element(row[worst], column[worst], values[row[worst], column[worst]])
        return Tally(row.size, first.place, first.value)

    def first_element(self, row: Indices, column: Indices, values: Array) -> Tally:
        """Count elements, and find the first of them."""
        if row.size == 0:
            return Tally()
        flat = self.elements(row, column)
        first = int(flat.argmin())
        return Tally(row.size, int(flat[first]), float(values[first]))

    def first_distribution(self, rows: Indices, values: Array) -> Tally:
        """Count distributions, by their rows in the block, and find the first of them."""
        if rows.size == 0:
            return Tally()
        flat = self.distributions(rows)
        first = int(flat.argmin())
        return Tally(rows.size, int(flat[first]), values[rows[first]].item())

    def least_distribution(self, rows: Indices, values: Array) -> Tally:
        """Count distributions, and find the one of the smallest value, of equal ones the first."""
        return self._worst_distribution(rows, values, values[rows])

    def farthest_distribution(self, rows: Indices, values: Array) -> Tally:
        """Count distributions, and find the one of the value farthest from 1, of equal ones the first."""
        return self._worst_distribution(rows, values, -np.abs(values[rows] - 1))

    def _worst_distribution(self, rows: Indices, values: Array, rank: Array) -> Tally:
        if rows.size == 0:
            return Tally()
        worst = self.first_distribution(rows[rank == rank.min()], values)
        return Tally(rows.size, worst.place, worst.value)

    def elements(self, row: Indices, column: Indices) -> Indices:
        """Where elements of the piece lie in the flattened array."""
        if not self.shape:
            return np.zeros(row.size, np.intp)
        others = self.outer(row)
        along = column + self.left + self.block[self.axis].start
        index = (*others[: self.axis], along, *others[self.axis :])
        return np.asarray(np.ravel_multi_index(index, self.shape))

    def distributions(self, row: Indices) -> Indices:
        """Where distributions lie among all of them."""
        lengths = _without(self.shape, self.axis)
        if not lengths:
            return np.zeros(row.size, np.intp)
        return np.asarray(np.ravel_multi_index(self.outer(row), lengths))

    def outer(self, row: Indices) -> tuple[Indices, ...]:
        """The indices of rows in all dimensions but the axis."""
        row = row + self.top
        if self.chosen is not None:
            row = self.chosen[row]
        lengths = _without(block_shape(self.block), self.axis)
        if not lengths:
            return ()
        starts = [piece.start for piece in _without(self.block, self.axis)]
        index = np.unravel_index(row, lengths)
        return tuple(np.asarray(i) + start for i, start in zip(index, starts, strict=True))


def _without(items: tuple[T, ...], axis: int) -> tuple[T, ...]:
    return items[:axis] + items[axis + 1 :]
