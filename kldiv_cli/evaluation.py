"""Inputs and a spec to the one record that every output is made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kldiv_cli.budget import DEFAULT_RESOURCES, Resources
from kldiv_cli.diagnosis import find
from kldiv_cli.errors import DomainError
from kldiv_cli.estimates import Share, share_of
from kldiv_cli.evidence import Evidence, is_suspicious
from kldiv_cli.findings import Finding
from kldiv_cli.functional import normalize_axis
from kldiv_cli.job import Job, MapWriter, Marks
from kldiv_cli.likeness import tolerance
from kldiv_cli.observations import Observations, Tally, unravel
from kldiv_cli.partials import LossPartial
from kldiv_cli.probes import alignment_of, is_bfloat16, look_at
from kldiv_cli.reductions import Divisors, Scalars, divisors_of, reduce_sum
from kldiv_cli.shapes import fit
from kldiv_cli.sources import Inputs, Source
from kldiv_cli.spec import Loss, Spec, check_written
from kldiv_cli.spread import LIMIT
from kldiv_cli.statistics import Groups, Kept, Sketch, Statistics, check_groups
from kldiv_cli.streaming import Progress, stream
from kldiv_cli.target_split import TargetSplit
from kldiv_cli.totals import Totals, unit_of

if TYPE_CHECKING:
    from kldiv_cli.digests import Digests

__all__ = [
    "Evaluation",
    "Input",
    "WorstLoss",
    "check_labels",
    "describe_input",
    "describe_optional",
    "diagnose",
    "evaluate_sources",
]


class Input(NamedTuple):
    """One of the arrays: where it lies, and what is stored there."""

    address: str
    shape: tuple[int, ...]
    dtype: str
    space: str
    """What its values are taken for: logits, log-probs, probs or labels; factors, or a mask."""
    sha256: str | None = None
    """Of its elements in C order, as stored but little-endian; None where that was not asked for."""


class WorstLoss(NamedTuple):
    """One of the largest losses, and which distribution or element it is of."""

    index: tuple[int, ...]  # type: ignore[assignment]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The result of one loss on one pair: every output format is made from this."""

    loss: Loss
    predictions: Input
    targets: Input
    shape: tuple[int, ...]
    axis: int
    settings: Spec
    scalars: Scalars
    statistics: Statistics
    worst: tuple[WorstLoss, ...] = ()
    """The largest losses, the worst first, as many as were asked for."""
    top1: Share | None = None
    """Of how many distributions the top class is that of the target, where it was asked for (kl)."""
    weight: Input | None = None
    pos_weight: Input | None = None
    mask: Input | None = None
    by_target: TargetSplit | None = None
    totals: Totals | None = None
    """What it adds to the totals of many pairs, where that was asked for."""
    findings: tuple[Finding, ...] = ()

    @property
    def sum(self) -> float:
        """Exact sum of the losses, rounded once, in nats."""
        return self.scalars.sum

    @property
    def mean(self) -> float:
        """The sum divided by the number of elements, as PyTorch's "mean"."""
        return self.scalars.mean

    @property
    def batchmean(self) -> float | None:
        """The sum divided by the length of the first dimension; None for BCE."""
        return self.scalars.batchmean

    @property
    def distmean(self) -> float:
        """The sum divided by the number of distributions: the mean KL divergence."""
        return self.scalars.distmean


def evaluate_sources(
    spec: Spec,
    inputs: Inputs,
    *,
    writers: Sequence[MapWriter] = (),
    distribution_writers: Sequence[MapWriter] = (),
    resources: Resources = DEFAULT_RESOURCES,
    progress: Progress | None = None,
    sha256: bool = False,
    totals: bool = False,
) -> tuple[Evaluation, ...]:
    """Compute every loss of `spec` in one pass (two, for a distribution that does not fit a block).

    `writers` take the per-element map, `distribution_writers` the loss of each distribution, nan
    where it does not count; `progress` is told how many elements were done since it
    was last called. `sha256` asks for that of each input: in the same pass where its blocks come in
    the order of its elements, else by reading it once more: always here, so that it is a pass of its
    own of what a cluster or processes have read. `totals` asks for what the pair adds to those of many.

    Raises
    ------
    KldivError
        The inputs do not fit each other or the options, or can't be read.
    """
    check_written(spec, elements=bool(writers), distributions=bool(distribution_writers))
    fitted = fit(spec, inputs)
    shape = fitted.predictions.shape
    axis = normalize_axis(spec.axis, len(shape))
    job = Job(
        spec=spec,
        shape=shape,
        axis=axis,
        inputs=fitted,
        writers=tuple(writers),
        distribution_writers=tuple(distribution_writers),
        kept=tuple(_keeper(spec, loss, shape, axis) for loss in spec.losses),
        batches=Marks(shape[0] if shape else 1) if spec.selects else None,
    )
    digests = _digests(inputs) if sha256 else None
    results = stream(job, resources, progress or (lambda done: None), digests)
    evaluations = tuple(
        _evaluation(job, inputs, loss, result, totals=totals)
        for loss, result in zip(spec.losses, results, strict=True)
    )
    if digests is not None:
        hashed = digests.finish(resources.memory_here)
        evaluations = tuple(_with_digests(evaluation, hashed) for evaluation in evaluations)
    inputs.verify()
    return evaluations


def _digests(inputs: Inputs) -> Digests:
    """Loads OpenSSL, which costs a start of the command several milliseconds."""
    from kldiv_cli.digests import Digests

    return Digests(inputs)


def _with_digests(evaluation: Evaluation, hashed: dict[str, str]) -> Evaluation:
    described = {role: getattr(evaluation, role)._replace(sha256=digest) for role, digest in hashed.items()}
    return replace(evaluation, **described)


def _are_bfloat16(job: Job, observed: Observations) -> tuple[bool, bool]:
    """Whether what does not add up to 1 was rounded to bfloat16 before it was stored."""
    first, second = (
        bool(tally.count) and is_bfloat16(source)
        for tally, source in (
            (observed.predictions_unnormalised, job.inputs.predictions),
            (observed.targets_unnormalised, job.inputs.targets),
        )
    )
    return first, second


def _within_bfloat16(observed: Observations, bfloat16: tuple[bool, bool], job: Job) -> Observations:
    """Without the sums that are off by no more than that rounding, eight times that of float16."""
    spaces = (job.spec.predictions_are, job.spec.targets_are)
    for name, rounded, space in zip(("predictions", "targets"), bfloat16, spaces, strict=True):
        worst = getattr(observed, f"{name}_unnormalised").value
        slack = 8 * tolerance(np.dtype(np.float16), job.length, logs=space == "log-probs")
        if rounded and abs(worst - 1) <= slack:
            observed = observed._replace(**{f"{name}_unnormalised": Tally()})
    return observed


def _unit_shape(loss: Loss, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :] if loss == "kl" else shape


def _keeper(spec: Spec, loss: Loss, shape: tuple[int, ...], axis: int) -> Kept | None:
    """What keeps every value for the statistics, where they are few enough."""
    units = _unit_shape(loss, shape, axis)
    if spec.blocks_of is not None:
        check_groups(math.prod(units), spec.blocks_of, LIMIT // len(spec.losses))
    if math.prod(units) > LIMIT // len(spec.losses):
        return None
    return Kept(units, selected=spec.selects)


def _statistics(job: Job, loss: Loss, result: LossPartial, sketch: Sketch) -> Statistics:
    spec, kept, unit = job.spec, job.keeper(loss), unit_of(loss)
    if kept is not None:
        blocks = None if spec.blocks_of is None else kept.block_error(spec.blocks_of)
        octaves = kept.octaves() if spec.histogram else None
        statistics = kept.statistics(unit, sketch, spec.quantiles)
    else:
        groups = result.groups or (spec.blocks_of and Groups(spec.blocks_of))
        blocks = groups.block_error() if groups else None
        octaves = sketch.octaves() if spec.histogram else None
        statistics = sketch.statistics(unit, spec.quantiles)
    return statistics._replace(blocks=blocks, histogram=octaves)


def _worst(job: Job, loss: Loss, result: LossPartial) -> tuple[WorstLoss, ...]:
    if result.worst is None:
        return ()
    shape = _unit_shape(loss, job.shape, job.axis)
    return tuple(WorstLoss(unravel(place, shape) or (), value) for value, place in result.worst.ranked)


def _divisors(job: Job, result: LossPartial) -> Divisors:
    if job.batches is None:
        return divisors_of(job.shape, job.axis)
    return Divisors(result.elements, job.batches.count, result.distributions)


def _sketch(job: Job, loss: Loss, result: LossPartial, *, totals: bool) -> Sketch:
    """Of all losses; of values that are kept with their spread only where it is for `totals`."""
    kept = job.keeper(loss)
    if kept is None:
        return result.sketch or Sketch()
    return kept.sketch(result.total, spread=totals)


def _totals(job: Job, loss: Loss, result: LossPartial, scalars: Scalars, sketch: Sketch) -> Totals:
    return Totals(
        sketch,
        scalars.elements,
        scalars.batch,
        scalars.distributions,
        result.same_tops if job.spec.top1 and loss == "kl" else None,
        result.split,
    )


def _evaluation(job: Job, inputs: Inputs, loss: Loss, result: LossPartial, *, totals: bool) -> Evaluation:
    _check_domain(job, loss, result.observations)
    scalars = reduce_sum(result.total.value, _divisors(job, result), batchmean=loss == "kl")
    sketch = _sketch(job, loss, result, totals=totals)
    return Evaluation(
        loss=loss,
        predictions=describe_input(inputs.predictions, job.spec.predictions_are),
        targets=describe_input(inputs.targets, job.spec.targets_are),
        shape=job.shape,
        axis=job.axis,
        settings=job.spec,
        scalars=scalars,
        statistics=_statistics(job, loss, result, sketch),
        totals=_totals(job, loss, result, scalars, sketch) if totals else None,
        worst=_worst(job, loss, result),
        top1=share_of(result.same_tops, scalars.distributions) if job.spec.top1 and loss == "kl" else None,
        weight=describe_optional(inputs.weight, "factors"),
        pos_weight=describe_optional(inputs.pos_weight, "factors"),
        mask=describe_optional(inputs.mask, "mask"),
        by_target=result.split,
        findings=diagnose(job, loss, result.observations, result.differ, scalars),
    )


_WORTH_ALIGNING: Final = 0.01
"""Nats; of rows in another order the divergence is larger, or it makes no difference."""


def diagnose(
    job: Job, loss: Loss, observed: Observations, differ: bool, scalars: Scalars
) -> tuple[Finding, ...]:
    """What is to be said of what was observed, after a second look at what is suspicious."""
    predictions, targets = job.inputs.predictions, job.inputs.targets
    bfloat16 = _are_bfloat16(job, observed)
    observed = _within_bfloat16(observed, bfloat16, job)
    odd_predictions, odd_targets = is_suspicious(observed)
    regular = not (odd_predictions or odd_targets)
    evidence = Evidence(
        spec=job.spec,
        loss=loss,
        shape=job.shape,
        axis=job.axis,
        scalars=scalars,
        observed=observed,
        differ=differ,
        sampled=job.samples_masses,
        dtypes=(predictions.dtype, targets.dtype),
        bfloat16=bfloat16,
        predictions_look=look_at(predictions) if odd_predictions else None,
        targets_look=look_at(targets) if odd_targets else None,
        alignment=alignment_of(job)
        if loss == "kl" and regular and scalars.distmean > _WORTH_ALIGNING
        else None,
    )
    return find(evidence)


def describe_input(source: Source, space: str) -> Input:
    return Input(address=source.address, shape=source.shape, dtype=str(source.dtype), space=space)


def describe_optional(source: Source | None, space: str) -> Input | None:
    return None if source is None else describe_input(source, space)


def _check_domain(job: Job, loss: Loss, observations: Observations) -> None:
    """Labels are classes; BCE is defined on probabilities only, unless it is taken of logits."""
    check_labels(job, job.inputs.targets, observations.labels_outside)
    if loss == "bce" and not job.spec.bce_with_logits:
        in_logs = "log-" * (job.spec.predictions_are != "probs")
        _check_range(
            job,
            job.inputs.predictions,
            observations.predictions_outside,
            f"{in_logs}probabilities {'above 0 or nan' if in_logs else 'outside [0, 1]'}",
            "a logit of its distribution is nan or infinite"
            if job.spec.log_softmax
            else "if these are logits, say --predictions-are logits",
        )
        _check_range(
            job,
            job.inputs.targets,
            observations.targets_outside,
            "targets outside [0, 1]",
            "expected probabilities or 0/1; labels of -1 and 1 are to be mapped to these",
        )


def check_labels(job: Job, source: Source, outside: Tally) -> None:
    """Refuse labels that are no class."""
    if outside.count:
        where = job.shape[: job.axis] + job.shape[job.axis + 1 :]
        raise DomainError(
            f"{source.address}: {outside.count} of {math.prod(where)} labels outside 0 to "
            f"{job.length - 1}, first {outside.value} at index {unravel(outside.place, where)}; "
            f"expected the classes along axis {job.axis}; if it is padding, "
            f"say --ignore-value {outside.value}"
        )


def _check_range(job: Job, source: Source, outside: Tally, what: str, remedy: str) -> None:
    if outside.count:
        raise DomainError(
            f"{source.address}: {outside.count} of {math.prod(job.shape)} {what}, "
            f"first {outside.value} at index {unravel(outside.place, job.shape)}; {remedy}"
        )
