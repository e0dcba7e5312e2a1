"""One block of two models' outputs to what it adds to their comparison."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kldiv_cli.block_reader import BlockReader, differ
from kldiv_cli.blocks import Block
from kldiv_cli.buffers import Workspace
from kldiv_cli.comparison_partial import KEPT, ComparisonPartial, partial_of
from kldiv_cli.comparison_rows import RowComparer
from kldiv_cli.comparison_spec import ComparisonSpec
from kldiv_cli.distributions import judge_masses, labels_outside, write_distributions
from kldiv_cli.job import Job
from kldiv_cli.observations import Tally
from kldiv_cli.places import Places
from kldiv_cli.sources import Inputs
from kldiv_cli.statistics import Kept

__all__ = ["ComparisonWorker", "comparer", "kept_by_name", "kept_names"]


def kept_names(inputs: Inputs) -> tuple[str, ...]:
    """The quantities whose values are kept, where they are few enough."""
    return tuple(name for name in KEPT if inputs.labels is not None or name != "delta_p_label")


def kept_by_name(job: Job) -> dict[str, Kept | None]:
    """Where the values of each quantity go."""
    return dict(zip(kept_names(job.inputs), job.kept, strict=True))


def comparer(settings: ComparisonSpec, job: Job) -> Callable[[Block], ComparisonPartial]:
    """What compares one block after another."""
    return ComparisonWorker(settings, job).evaluate


class ComparisonWorker:
    """Compares one block after another."""

    def __init__(self, settings: ComparisonSpec, job: Job) -> None:
        self.job, self.settings = job, settings
        self.kept = kept_by_name(job)
        self._workspace = Workspace()
        self._blocks = BlockReader(job, self._workspace)
        self._rows = RowComparer(job.spec, self._workspace, settings.top_k)

    def evaluate(self, block: Block) -> ComparisonPartial:
        job, spec = self.job, self.job.spec
        with np.errstate(all="ignore"):
            rows = self._blocks.read(block)
            labels = self._blocks.labels(block)
            if labels is not None and self.settings.ignore_value is not None:
                rows = rows.restricted(labels != self.settings.ignore_value)
            chosen = rows.selection.rows
            if labels is not None and chosen is not None:
                labels = labels[chosen]
            values = self._rows.compare(rows, labels)
            places = Places(job.shape, job.axis, block, chosen=chosen)
            outer = block[: job.axis] + block[job.axis + 1 :]
            for name, kept in self.kept.items():
                write_distributions((), kept, outer, getattr(values, name), chosen)
            partial = partial_of(
                values,
                places.distributions,
                kept=self.kept["kl"] is not None,
                worst=spec.worst,
                blocks_of=spec.blocks_of,
            )
            observed = judge_masses(job, values.masses, places)
        return partial._replace(
            observations=observed._replace(
                labels_outside=Tally() if labels is None else labels_outside(labels, job.length, places),
                infinite_terms=places.first_distribution(np.flatnonzero(np.isinf(values.kl)), values.kl),
                nan_terms=places.first_distribution(np.flatnonzero(np.isnan(values.kl)), values.kl),
            ),
            differ=differ(rows),
        )
