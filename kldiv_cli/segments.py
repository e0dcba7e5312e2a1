"""Segments: the parts that distributions are normalised and summed in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kldiv_cli.kernels import SEGMENT

__all__ = ["by_segment", "count_segments", "segment_sums", "segments_of"]

Array = npt.NDArray[np.float64]


def count_segments(length: int) -> int:
    return -(-length // SEGMENT)


def segments_of(columns: slice) -> slice:
    """The segments that a piece's columns are."""
    return slice(columns.start // SEGMENT, count_segments(columns.stop))


def by_segment(values: Array) -> Array:
    """The values of a piece, one segment a row."""
    return values.reshape(-1, min(values.shape[1], SEGMENT))


def segment_sums(values: Array) -> Array:
    """The sums of a piece, by row and segment."""
    sums: Array = by_segment(values).sum(axis=-1).reshape(len(values), -1)
    return sums
