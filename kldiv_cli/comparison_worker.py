"""One block of two models' outputs to what it adds to their comparison."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kldiv_cli.block_reader import BlockReader, differ
from kldiv_cli.blocks import Block
from kldiv_cli.buffers import Workspace
from kldiv_cli.comparison_partial import ComparisonPartial, partial_of
from kldiv_cli.comparison_rows import RowComparer
from kldiv_cli.comparison_spec import ComparisonSpec
from kldiv_cli.distributions import judge_masses, labels_outside, write_distributions
from kldiv_cli.job import Job
from kldiv_cli.observations import Tally
from kldiv_cli.places import Places
from kldiv_cli.statistics import Kept

__all__ = ["ComparisonWorker"]


class ComparisonWorker:
    """Compares one block after another."""

    def __init__(self, job: Job, settings: ComparisonSpec, kept: Mapping[str, Kept | None]) -> None:
        self.job, self.settings, self.kept = job, settings, kept
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
