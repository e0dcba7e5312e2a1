"""A job: what every worker needs to know of a computation."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block
from kldiv_cli.sources.base import AnyArray, Inputs
from kldiv_cli.spec import Loss, Spec
from kldiv_cli.statistics import Kept

_ADDED_UP = 1 << 20

__all__ = ["Job", "MapWriter", "Marks"]


class MapWriter(Protocol):
    """Takes losses, block by block, from any thread."""

    def write(self, block: Block, values: AnyArray) -> None: ...


class Marks:
    """Which entries of a dimension were seen; blocks may be marked in any order and from any thread."""

    def __init__(self, length: int) -> None:
        self.seen = np.zeros(length, np.bool_)

    def write(self, block: Block, seen: npt.NDArray[np.bool_]) -> None:
        # Only True is ever written, for other threads write to the same entries.
        self.seen[block][seen] = True

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.seen))


class Job(NamedTuple):
    """What a worker needs to evaluate any block; all of it can be pickled but what it writes to.

    That is memory that threads share, and open files: see `apart` for where there are no such.
    """

    spec: Spec
    shape: tuple[int, ...]
    axis: int
    """The dimension that rows run along, counted from the front."""
    inputs: Inputs
    """Of one shape, but for labels, and for a mask of whole distributions."""
    writers: tuple[MapWriter, ...] = ()
    """Where the map goes; there is only one loss then."""
    distribution_writers: tuple[MapWriter, ...] = ()
    """Where the losses of distributions go; there is only KL then."""
    kept: tuple[Kept | None, ...] = (None, None)
    """For each loss, where its values go that statistics are made of; None for too many of them."""
    batches: Marks | None = None
    """The entries of the first dimension of which something counts; None where all do."""

    def keeper(self, loss: Loss) -> Kept | None:
        return self.kept[self.spec.losses.index(loss)]

    @property
    def samples_masses(self) -> bool:
        """Only every fourth distribution of log-probabilities is added up, of more than a few of them."""
        log_probs = self.spec.normalised and self.spec.predictions_are == "log-probs"
        return log_probs and math.prod(self.shape) > _ADDED_UP

    @property
    def outer_shape(self) -> tuple[int, ...]:
        """Of the distributions."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    @property
    def length(self) -> int:
        """Of a distribution."""
        return self.shape[self.axis] if self.shape else 1
