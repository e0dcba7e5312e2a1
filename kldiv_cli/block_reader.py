"""One block of every input, as rows of distributions, and what of them counts."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block
from kldiv_cli.buffers import Workspace
from kldiv_cli.job import Job
from kldiv_cli.pieces import Rows
from kldiv_cli.selection import Selection, select
from kldiv_cli.sources.base import AnyArray, Source

__all__ = ["BlockReader", "differ"]

Mask = npt.NDArray[np.bool_]

_GLANCE: Final = 1 << 14
"""Elements that are compared at a time; most arrays differ within the first."""


class BlockReader:
    """Reads blocks one after another, reusing its memory."""

    def __init__(self, job: Job, workspace: Workspace) -> None:
        self.job, self.spec = job, job.spec
        self._workspace = workspace

    def read(self, block: Block) -> Rows:
        """All inputs on one block, with the axis last, and what of them counts."""
        inputs = self.job.inputs
        labels = self.spec.targets_are == "labels"
        rows = Rows(
            block[self.job.axis].start if block else 0,
            self._rows("predictions", inputs.predictions, block),
            self._outer(inputs.targets, block) if labels else self._rows("targets", inputs.targets, block),
            None if inputs.weight is None else self._rows("weight", inputs.weight, block),
            None if inputs.pos_weight is None else self._rows("pos_weight", inputs.pos_weight, block),
            self.job.length,
        )
        if self.spec.selects:
            rows = rows._replace(selection=self._select(rows, block))
        if self.job.samples_masses:
            looked_at = _every_fourth(block[: self.job.axis] + block[self.job.axis + 1 :])
            chosen = rows.selection.rows
            rows = rows._replace(looked_at=looked_at if chosen is None else looked_at[chosen])
        return rows

    def _rows(self, name: str, source: Source, block: Block) -> AnyArray:
        array = source.read(block, self._workspace[f"{name} as stored"])
        moved = np.atleast_1d(array)
        if self.job.axis < moved.ndim - 1:
            moved = np.moveaxis(moved, self.job.axis, -1)
        if not moved.flags.c_contiguous:
            straight = self._workspace[f"{name} as rows"].array(moved.shape, moved.dtype)
            np.copyto(straight, moved)
            moved = straight
        return moved.reshape(-1, moved.shape[-1])

    def labels(self, block: Block) -> AnyArray | None:
        """The class indices beside the inputs, one a row."""
        labels = self.job.inputs.labels
        return None if labels is None else self._outer(labels, block)

    def _outer(self, source: Source, block: Block) -> AnyArray:
        axis = self.job.axis
        without_axis = block[:axis] + block[axis + 1 :]
        return source.read(without_axis, self._workspace["labels as stored"]).ravel()

    def _select(self, rows: Rows, block: Block) -> Selection:
        source = self.job.inputs.mask
        if source is None:
            return select(self.spec, rows.targets, None, "")
        axis = self.job.axis
        of_rows = not block or source.shape[axis] == 1
        if block and of_rows:
            block = (*block[:axis], slice(0, 1), *block[axis + 1 :])
        mask = self._rows("mask", source, block)
        return select(self.spec, rows.targets, mask[:, 0] if of_rows else mask, source.address)


def differ(rows: Rows) -> bool:
    """Whether what counts of predictions and targets is two things; of labels there is no doubt."""
    if rows.targets.ndim < rows.predictions.ndim:
        return True
    count, length = rows.shape
    step, everything = max(1, _GLANCE // max(length, 1)), slice(0, length)
    for top in range(0, count, step):
        part = slice(top, min(top + step, count))
        ours, theirs = (rows.part(values, part, everything) for values in (rows.predictions, rows.targets))
        other = (ours != theirs) & ((ours == ours) | (theirs == theirs))  # nan is the same as nan
        counted = rows.selection.elements
        if (other if counted is None else other & counted[part]).any():
            return True
    return False


def _every_fourth(outer: Block) -> Mask:
    """Distributions by a sum of indices, so that it does not matter how they are cut into blocks."""
    sums = sum(np.ogrid[outer], start=np.zeros((), np.intp))
    looked_at: Mask = (sums & 3) == 0
    return looked_at.ravel()
