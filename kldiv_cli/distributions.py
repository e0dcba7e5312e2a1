"""The rows of a block to its distributions: their losses, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Buffer
from kldiv_cli.job import Job, MapWriter
from kldiv_cli.likeness import tolerance
from kldiv_cli.masses import CONSTANT
from kldiv_cli.observations import Observations, Tally
from kldiv_cli.partials import LossPartial, WindowResult
from kldiv_cli.places import Places
from kldiv_cli.reductions import exact_sum
from kldiv_cli.sources.base import AnyArray
from kldiv_cli.spec import Loss
from kldiv_cli.statistics import Kept, groups_of, sketch_of, worst_of

__all__ = [
    "add_segments",
    "finish",
    "judge_masses",
    "labels_outside",
    "scattered",
    "with_statistics",
    "write_distributions",
]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_FILL = -100.0
"""What padding is often filled with, PyTorch's `ignore_index`."""
_FEWEST = 4
"""Of fewer logits all may be 0 by chance."""
_VANISHING = 1e-30
"""More than log-probabilities of -100 add up to, and less than any distribution does."""


def finish(job: Job, block: Block, result: WindowResult) -> tuple[LossPartial, ...]:
    """Add up the segments of each distribution, and the distributions of the block."""
    chosen, count, elements = result.rows, result.shape[0], math.prod(result.shape)
    alive: Indices | None = None
    if result.counts is not None:
        alive = np.flatnonzero(result.counts)
        chosen = alive if chosen is None else chosen[alive]
        count, elements = alive.size, int(result.counts.sum())
    whole = None if result.counts is None else result.counts == job.length
    looked_at = Places(job.shape, job.axis, block, chosen=result.rows)
    judged = judge_masses(job, result.masses, looked_at, whole)
    judged = judged._replace(labels_outside=_labels_outside(job, block, chosen))
    finished = []
    for loss, partial, sums in zip(job.spec.losses, result.partials, result.segment_sums, strict=True):
        partial = partial._replace(elements=elements, distributions=count, differ=result.differ)
        if sums is not None:
            losses = add_segments(sums if alive is None else sums[alive])
            counts = None if alive is None or result.counts is None else result.counts[alive]
            partly = None if counts is None else counts < job.length
            partial = partial.merge(_distributions(job, loss, block, losses, chosen, partly))
            if result.tops is not None:
                partial = partial._replace(same_tops=result.tops.agreeing(job.spec))
        finished.append(
            partial.merge(LossPartial(observations=judged if loss == "kl" else _of_softmax(judged)))
        )
    return tuple(finished)


def _distributions(
    job: Job,
    loss: Loss,
    block: Block,
    losses: Array,
    chosen: Indices | None,
    partly: Mask | None,
) -> LossPartial:
    """What the losses of distributions, those of the `chosen` rows of a block, come to.

    Those that are `partly` counted may be below 0.
    """
    outer = block[: job.axis] + block[job.axis + 1 :]
    write_distributions(job.distribution_writers, job.keeper(loss), outer, losses, chosen)
    places = Places(job.shape, job.axis, block, chosen=chosen)
    worst = Tally()
    if not losses.min(initial=0.0) >= 0:
        below = losses < 0 if partly is None else (losses < 0) & ~partly
        worst = places.least_distribution(np.flatnonzero(below), losses)
    part = LossPartial(total=exact_sum(losses), observations=Observations(negative_distributions=worst))
    return with_statistics(job, loss, part, losses, places.distributions)


def with_statistics(
    job: Job, loss: Loss, part: LossPartial, values: Array, lie: Callable[[Indices], Indices]
) -> LossPartial:
    """Add what statistics need of values that are not kept, and the worst; `lie` tells their places."""
    spec = job.spec
    if spec.worst:
        part = part._replace(worst=worst_of(values, lie, spec.worst))
    if job.keeper(loss) is None:
        part = part._replace(sketch=sketch_of(values, total=part.total))
        if spec.blocks_of is not None:
            part = part._replace(groups=groups_of(values, lie(np.arange(values.size)), spec.blocks_of))
    return part


def _of_softmax(judged: Observations) -> Observations:
    """What matters to a loss of elements: nothing is expected to add up to 1, but for a softmax."""
    return Observations(
        labels_outside=judged.labels_outside,
        predictions_probable=judged.predictions_probable,
        targets_probable=judged.targets_probable,
    )


def _labels_outside(job: Job, block: Block, chosen: Indices | None) -> Tally:
    """Labels that are no class, of the rows of which anything counts."""
    if job.spec.targets_are != "labels":
        return Tally()
    labels = job.inputs.targets.read(block[: job.axis] + block[job.axis + 1 :], Buffer()).ravel()
    places = Places(job.shape, job.axis, block, chosen=chosen)
    return labels_outside(labels if chosen is None else labels[chosen], job.length, places)


def labels_outside(labels: AnyArray, classes: int, places: Places) -> Tally:
    """Labels that are no class."""
    outside = (labels < 0) | (labels >= classes)
    return places.first_distribution(np.flatnonzero(outside), labels)


def write_distributions(
    writers: Iterable[MapWriter],
    kept: Kept | None,
    outer: Block,
    values: Array,
    chosen: Indices | None,
) -> None:
    """Write one value for each of the `chosen` distributions of a block, nan for the others."""
    shape = block_shape(outer)
    counted = None
    if chosen is not None:
        counted = np.zeros(math.prod(shape), np.bool_)
        counted[chosen] = True
        values = scattered(values, chosen, counted.size)
    for writer in writers:
        writer.write(outer, values.reshape(shape))
    if kept is not None:
        kept.write(outer, values.reshape(shape), None if counted is None else counted.reshape(shape))


def scattered(values: Array, chosen: Indices, count: int) -> Array:
    """Values of the chosen rows among nan for the others."""
    everywhere = np.full((count, *values.shape[1:]), np.nan)
    everywhere[chosen] = values
    return everywhere


def add_segments(segment_sums: Array) -> Array:
    """The sums of rows from those of their segments."""
    if segment_sums.shape[1] == 1:
        return segment_sums[:, 0]
    return np.array([exact_sum(sums).value for sums in segment_sums])


def judge_masses(
    job: Job, masses: tuple[Array | None, Array | None], places: Places, whole: Mask | None = None
) -> Observations:
    """Tell distributions that are none, of those that are `whole`, by what they add up to."""
    observed = Observations()
    spec, inputs = job.spec, job.inputs
    for name, space, source, mass in zip(
        ("predictions", "targets"),
        (spec.predictions_are, spec.targets_are),
        (inputs.predictions, inputs.targets),
        masses,
        strict=True,
    ):
        if mass is None:
            continue
        sums = mass[:, 0] if mass.shape[1] == 1 else mass.sum(axis=1)
        if whole is not None:
            sums[~whole] = np.nan
        judged = _judge(sums, space, job.length, source.dtype, places)
        observed = observed._replace(**{f"{name}_{what}": tally for what, tally in judged.items()})
    return observed


def _judge(mass: Array, space: str, length: int, dtype: np.dtype[Any], places: Places) -> dict[str, Tally]:
    """What is to be said of distributions that add up to `mass`; nan is not looked at."""
    logs = space == "log-probs"
    slack = tolerance(dtype, length, logs=logs)
    if not mass.size or (space != "logits" and mass.min() >= 1 - slack and mass.max() <= 1 + slack):
        return {}
    if space == "logits" and np.isnan(mass).all():
        return {}
    one = np.abs(mass - 1) <= slack
    if space == "logits":
        padding = (mass == CONSTANT) | ((mass == 0) & (length >= _FEWEST))
        return {
            "padding": places.first_distribution(np.flatnonzero(padding), mass),
            "probable": places.first_distribution(np.flatnonzero(one), mass),
        }
    padding = (mass < _VANISHING) | (mass == length) if logs else (mass == 0) | (mass == _FILL * length)
    padding &= ~one
    other = np.flatnonzero(~(one | padding | np.isnan(mass)))
    return {
        "padding": places.first_distribution(np.flatnonzero(padding), mass),
        "unnormalised": places.farthest_distribution(other, mass),
    }
