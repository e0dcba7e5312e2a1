"""What counts: which rows of a block, and which of their elements, by mask and by ignored targets."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kldiv_cli.errors import DomainError
from kldiv_cli.spec import Spec

__all__ = ["EVERYTHING", "Selection", "select"]

AnyArray = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


class Selection(NamedTuple):
    """The part of some rows that counts."""

    rows: Indices | None = None
    """Those to be looked at; None for all."""
    elements: Mask | None = None
    """Of the rows looked at, the elements that count; None for all."""


EVERYTHING = Selection()


def select(spec: Spec, targets: AnyArray, mask: AnyArray | None, where: str) -> Selection:
    """What counts of some rows.

    Parameters
    ----------
    targets : array, shape ``(rows, length)``, of labels ``(rows,)``
        As stored.
    mask : array, shape ``(rows, length)`` or ``(rows,)``, optional
        1 where an element, or a whole row, counts, else 0.
    where : str
        The address of the mask, for what is wrong with it.

    Raises
    ------
    DomainError
        The mask holds something else than 0 and 1.
    """
    row_masks: list[Mask] = []
    element_masks: list[Mask] = []
    if mask is not None:
        chosen = _as_bool(mask, where)
        (row_masks if mask.ndim == 1 else element_masks).append(chosen)
    if spec.ignore_value is not None:
        heeded = ~_equal(targets, spec.ignore_value)
        (row_masks if targets.ndim == 1 else element_masks).append(heeded)
    rows = _rows(row_masks)
    elements = _elements(element_masks)
    if rows is not None and elements is not None:
        elements = elements[rows]
    return Selection(rows, elements)


def _equal(values: AnyArray, value: float) -> Mask:
    """Where values are this one, rounded as they are stored; nan is nan, and rounding to inf is none."""
    if math.isnan(value):
        return np.isnan(values)
    with np.errstate(over="ignore"):
        lost = values.dtype.kind == "f" and np.isinf(values.dtype.type(value)) and math.isfinite(value)
    return np.zeros(values.shape, np.bool_) if lost else np.asarray(values == value)


def _as_bool(mask: AnyArray, where: str) -> Mask:
    chosen: Mask = mask != 0
    odd = chosen & (mask != 1)
    if odd.any():
        raise DomainError(
            f"mask {where}: holds {mask[odd][0].item()}, expected 1 (or true) where something counts, else 0"
        )
    return chosen


def _rows(masks: list[Mask]) -> Indices | None:
    together = None
    for mask in masks:
        together = mask if together is None else together & mask
    return None if together is None or together.all() else np.flatnonzero(together)


def _elements(masks: list[Mask]) -> Mask | None:
    together = None
    for mask in masks:
        together = mask if together is None else together & mask
    return None if together is None or together.all() else together
