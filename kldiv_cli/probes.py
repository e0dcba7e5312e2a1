"""A second look at a part of the data, where the pass over all of it gave a reason for one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from kldiv_cli.alignment import FEWEST_ROWS, Alignment, Rows, align, rows_of
from kldiv_cli.block_reader import BlockReader
from kldiv_cli.blocks import Layout, spread
from kldiv_cli.buffers import Buffer, Workspace
from kldiv_cli.functional import log_softmax
from kldiv_cli.job import Job
from kldiv_cli.likeness import Likeness
from kldiv_cli.sources.base import AnyArray, Block, Source

__all__ = ["alignment_of", "is_bfloat16", "look_at"]

Array = npt.NDArray[np.float64]

_ROWS: Final = 512
_ENOUGH: Final = 200
"""Rows that are worth a fourth of the elements."""
_SHARE: Final = 16
"""At most one in that many elements is looked at once more."""
_FREE: Final = 1 << 16
"""Elements that may always be."""
_PLACES: Final = 8
_GLANCE: Final = 4096


def look_at(source: Source) -> Likeness:
    """What an array looks like, by a sample of it."""
    from kldiv_cli.inspection import inspect_source

    return inspect_source(source)[1]


def is_bfloat16(source: Source) -> bool:
    """Whether float32 values have no more digits than bfloat16 has, as a sample of them shows."""
    if source.dtype.newbyteorder("=") != np.float32 or 0 in source.shape:
        return False
    fractions = 0
    for block in spread(Layout(shape=source.shape, axis=None), _GLANCE // _PLACES, _PLACES):
        values = np.ascontiguousarray(source.read(block, Buffer()), np.float32)
        bits = values.view(np.uint32)
        if (bits & 0xFFFF).any():
            return False
        # Whole numbers, and halves and quarters, are short in every storage type.
        fractions += int(np.count_nonzero((bits & 0x0F0000 != 0) & (values != np.rint(values))))
    return fractions > 0


def alignment_of(job: Job) -> Alignment | None:
    """How rows of predictions and targets belong together; None where there are too few to tell."""
    length = job.length
    elements = math.prod(job.shape)
    allowed = max(max(_FREE, elements // _SHARE), min(_ENOUGH * length, elements // 4)) // max(length, 1)
    wanted = min(allowed, max(_ROWS, _FREE // max(length, 1)))
    if wanted < FEWEST_ROWS or length < 2:
        return None
    together: Rows | None = None
    for log_predictions, targets in _samples(job, wanted):
        rows = rows_of(log_predictions, targets)
        together = rows if together is None else together.merge(rows)
    return None if together is None or not together.count else align(together)


def _samples(job: Job, wanted: int) -> Iterator[tuple[Array, Array]]:
    """Rows of log-probabilities and target probabilities, from evenly spread places."""
    source = job.inputs.predictions
    layout = Layout(shape=job.shape, axis=job.axis, fortran_order=source.fortran_order, chunks=source.chunks)
    budget = max(1, wanted // _PLACES) * job.length
    for block in spread(layout, budget, _PLACES):
        with np.errstate(all="ignore"):
            sample = _read(job, block)
        if sample is not None:
            yield sample


def _read(job: Job, block: Block) -> tuple[Array, Array] | None:
    spec, rows = job.spec, BlockReader(job, Workspace()).read(block)
    chosen, counted = rows.selection
    if counted is not None:
        return None
    predictions, stored = rows.predictions, rows.targets
    if chosen is not None:
        predictions, stored = predictions[chosen], stored[chosen]
    log_predictions = _log_probs(predictions, "logits" if spec.log_softmax else spec.predictions_are, job)
    labels = spec.targets_are == "labels"
    targets = _one_hot(stored, job.length) if labels else _probs(stored, job)
    known = np.isfinite(targets).all(axis=1) & ~np.isnan(log_predictions).any(axis=1)
    return log_predictions[known], targets[known]


def _one_hot(labels: AnyArray, classes: int) -> Array:
    targets = np.zeros((labels.size, classes))
    known = np.flatnonzero((labels >= 0) & (labels < classes))
    targets[known, labels[known].astype(np.intp)] = 1.0
    return targets


def _log_probs(values: AnyArray, space: str, job: Job) -> Array:
    x = values.astype(np.float64)
    if space == "logits":
        return log_softmax(x / (job.spec.temperature or 1.0), -1)
    return np.asarray(np.log(x)) if space == "probs" else x


def _probs(values: AnyArray, job: Job) -> Array:
    if job.spec.targets_are == "probs":
        return values.astype(np.float64)
    return np.asarray(np.exp(_log_probs(values, job.spec.targets_are, job)))
