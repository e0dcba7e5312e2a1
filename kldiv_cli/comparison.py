"""Two models' outputs on the same inputs, to the one record that every output is made from.

Names and formulas are those that llama.cpp's perplexity tool made common; all is in nats.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

from kldiv_cli.blocks import cut
from kldiv_cli.budget import DEFAULT_RESOURCES, Resources, budget_of, layout_of
from kldiv_cli.comparison_partial import BUCKETS, KEPT, ComparisonPartial
from kldiv_cli.comparison_spec import ComparisonSpec
from kldiv_cli.comparison_worker import comparer, kept_by_name, kept_names
from kldiv_cli.diagnosis import find_odd_distributions
from kldiv_cli.errors import ShapeMismatch, UsageError
from kldiv_cli.estimates import (
    Estimate,
    Share,
    correlation_of,
    covariance_of,
    difference_of,
    exp_of,
    mean_of,
    root_of,
    share_of,
)
from kldiv_cli.evaluation import (
    Input,
    WorstLoss,
    check_labels,
    describe_input,
    describe_optional,
    diagnose,
)
from kldiv_cli.findings import Finding
from kldiv_cli.functional import normalize_axis
from kldiv_cli.job import Job
from kldiv_cli.observations import Tally, unravel
from kldiv_cli.placement import executor_of
from kldiv_cli.reductions import Divisors, reduce_sum
from kldiv_cli.shapes import check_label_shape, fit
from kldiv_cli.sources import Inputs
from kldiv_cli.spec import Spec
from kldiv_cli.spread import LIMIT
from kldiv_cli.statistics import Kept, Sketch, Statistics, check_groups
from kldiv_cli.streaming import Progress, merge_blocks

__all__ = [
    "Bucket",
    "Comparison",
    "LabelComparison",
    "compare_sources",
]

_PER_ROW: Final = 512
"""Bytes held of a distribution: some twenty quantities, and what is made of them."""
LARGEST: Final = 4 << 20
"""Classes of a distribution: a block holds at least one of them whole."""


class Bucket(NamedTuple):
    """The distributions in which the reference is confident to a certain degree."""

    low: float
    high: float
    count: int  # type: ignore[assignment]
    kl: Estimate
    """Its mean."""
    same_top: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelComparison:
    """How well reference and candidate predict the labels."""

    cross_entropy_reference: Statistics
    cross_entropy_candidate: Statistics
    perplexity_reference: Estimate
    perplexity_candidate: Estimate
    log_ratio: Estimate
    """Of the perplexities, candidate over reference: the difference of the cross-entropies."""
    ratio: Estimate
    difference: Estimate
    """Of the perplexities, candidate less reference."""
    correlation: float
    """Of the logarithms of the perplexities; the same as of both cross-entropies over all labels."""
    accuracy_reference: Share
    accuracy_candidate: Share
    delta_p: Statistics
    """Probability of the label by the candidate, less that by the reference."""
    delta_p_rms: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of comparing a candidate with a reference, distribution by distribution."""

    reference: Input
    candidate: Input
    labels: Input | None
    mask: Input | None
    shape: tuple[int, ...]
    axis: int
    settings: ComparisonSpec
    distributions: int
    kl: Statistics
    """KL(reference || candidate)."""
    kl_reverse: Statistics
    """KL(candidate || reference)."""
    js: Statistics
    """Jensen-Shannon divergence, at most log 2."""
    tv: Statistics
    """Total variation, half the sum of absolute differences, at most 1."""
    entropy_reference: Statistics
    entropy_candidate: Statistics
    same_top: Share
    """The most probable class is the same, the first of equal ones."""
    in_top_k: Share
    """The reference's most probable class is among the candidate's k most probable."""
    delta_p: Statistics
    """Probability of the reference's top class by the candidate, less that by the reference."""
    delta_p_rms: Estimate
    buckets: tuple[Bucket, ...]
    with_labels: LabelComparison | None
    worst: tuple[WorstLoss, ...] = ()
    findings: tuple[Finding, ...] = ()


def compare_sources(
    settings: ComparisonSpec,
    inputs: Inputs,
    *,
    resources: Resources = DEFAULT_RESOURCES,
    progress: Progress | None = None,
) -> Comparison:
    """Compare in one pass; `inputs` has the candidate for predictions and the reference for targets.

    Raises
    ------
    KldivError
        The inputs do not fit each other or the options, or can't be read.
    """
    job = _job(settings, inputs)
    layout = layout_of(job)
    budget = budget_of(job, resources, _PER_ROW)
    _check_length(job)
    blocks = cut(layout, max(budget.elements, job.length))
    told = progress or (lambda done: None)
    with executor_of(job, resources, budget.workers) as executor:
        total = merge_blocks(job, blocks, partial(comparer, settings), ComparisonPartial(), executor, told)
    if inputs.labels is not None:
        check_labels(job, inputs.labels, total.observations.labels_outside)
    comparison = _comparison(settings, job, inputs, total)
    inputs.verify()
    return comparison


def _job(settings: ComparisonSpec, inputs: Inputs) -> Job:
    spec = settings.spec
    fitted = fit(spec, inputs)
    shape = fitted.predictions.shape
    axis = normalize_axis(spec.axis, len(shape))
    outer = shape[:axis] + shape[axis + 1 :]
    if not shape:
        raise ShapeMismatch(f"{inputs.predictions.address}: 0 dimensions, expected an axis of classes")
    if fitted.mask is not None and fitted.mask.shape[axis] != 1:
        raise ShapeMismatch(
            f"mask {fitted.mask.address} {fitted.mask.shape}: is of single classes; "
            f"expected shape {outer}, one value a distribution"
        )
    if inputs.labels is not None:
        check_label_shape(fitted.predictions, inputs.labels, axis)
    names = kept_names(inputs)
    if spec.blocks_of is not None:
        check_groups(math.prod(outer), spec.blocks_of, LIMIT // len(names))
    few = math.prod(shape) > 0 and math.prod(outer) <= LIMIT // len(names)
    selected = spec.mask or settings.ignore_value is not None
    return Job(
        spec=spec,
        shape=shape,
        axis=axis,
        inputs=fitted._replace(labels=inputs.labels),
        kept=tuple(Kept(outer, selected=selected) if few else None for _ in names),
    )


def _check_length(job: Job) -> None:
    if job.length > LARGEST:
        raise UsageError(
            f"axis {job.axis}: distributions of {job.length} classes, expected at most {LARGEST}; "
            "that is all that compare holds; take compute, or choose another --axis"
        )


def _comparison(
    settings: ComparisonSpec,
    job: Job,
    inputs: Inputs,
    partial: ComparisonPartial,
) -> Comparison:
    told = _Told(settings.spec, kept_by_name(job), partial)
    count = partial.sketches["kl"].count if partial.sketches else 0
    outer = job.shape[: job.axis] + job.shape[job.axis + 1 :]
    ranked = partial.worst.ranked if partial.worst is not None else ()
    return Comparison(
        reference=describe_input(inputs.targets, job.spec.targets_are),
        candidate=describe_input(inputs.predictions, job.spec.predictions_are),
        labels=describe_optional(inputs.labels, "labels"),
        mask=describe_optional(inputs.mask, "mask"),
        shape=job.shape,
        axis=job.axis,
        settings=settings,
        distributions=count,
        kl=told.statistics("kl"),
        kl_reverse=told.statistics("kl_reverse"),
        js=told.statistics("js"),
        tv=told.statistics("tv"),
        entropy_reference=told.statistics("entropy_reference"),
        entropy_candidate=told.statistics("entropy_candidate"),
        same_top=told.share("same_top"),
        in_top_k=told.share("in_top_k"),
        delta_p=told.statistics("delta_p"),
        delta_p_rms=root_of(told.mean("delta_p_squared")),
        buckets=told.buckets(),
        with_labels=None if inputs.labels is None else told.labels(),
        worst=tuple(WorstLoss(unravel(place, outer) or (), value) for value, place in ranked),
        findings=_findings(job, partial, count),
    )


def _findings(job: Job, partial: ComparisonPartial, count: int) -> tuple[Finding, ...]:
    observed = partial.observations
    regular = observed._replace(infinite_terms=Tally(), nan_terms=Tally())
    total = partial.sketches["kl"].total.value if partial.sketches else 0.0
    scalars = reduce_sum(total, Divisors(count * job.length, count, count), batchmean=True)
    found = diagnose(job, "kl", regular, partial.differ, scalars)
    return (*map(_in_words_of_comparison, found), *find_odd_distributions(observed, job.outer_shape))


_WORDS: Final = (
    ("--predictions-are", "--candidate-are"),
    ("--targets-are", "--reference-are"),
    ("--log-target", "--reference-are log-probs"),
    ("--log-softmax", "--candidate-are logits --axis"),
    ("predictions", "candidate outputs"),
    ("targets", "reference outputs"),
    ("target", "reference"),
    ("--ignore-value -100", "--mask FILE"),
    ("drop --reference-are logits", "say --reference-are probs"),
    ("drop --reference-are log-probs", "say --reference-are probs"),
)


_ID_WORDS: Final = (("predictions", "candidate"), ("targets", "reference"), ("target-", "reference-"))


def _in_words_of_comparison(finding: Finding) -> Finding:
    """Predictions and targets are those of a candidate and a reference here."""
    id, message, option = finding.id, finding.message, finding.option
    for ours, theirs in _WORDS:
        message = message.replace(ours, theirs)
        option = option and option.replace(ours, theirs)
    for ours, theirs in _ID_WORDS:
        id = id.replace(ours, theirs)
    return replace(finding, id=id, message=message, option=option)


class _Told:
    """What partial results come to, by the names of quantities."""

    def __init__(self, spec: Spec, kept: dict[str, Kept | None], partial: ComparisonPartial) -> None:
        self.spec, self.kept, self.partial = spec, kept, partial

    def sketch(self, name: str) -> Sketch:
        return self.partial.sketches.get(name, Sketch())

    def statistics(self, name: str) -> Statistics:
        kept = self.kept.get(name)
        quantiles = self.spec.quantiles if name in KEPT else ()
        if kept is None:
            groups = self.partial.groups if name == "kl" else None
            blocks = None if groups is None else groups.block_error()
            return self.sketch(name).statistics("distributions", quantiles)._replace(blocks=blocks)
        of = self.spec.blocks_of if name == "kl" else None
        blocks = None if of is None else kept.block_error(of)
        sketch = kept.sketch(self.sketch(name).total, spread=False)
        return kept.statistics("distributions", sketch, quantiles)._replace(blocks=blocks)

    def mean(self, name: str) -> Estimate:
        return mean_of(self.sketch(name))

    def share(self, name: str) -> Share:
        return share_of(self.partial.counts.get(name, 0), self.sketch("kl").count)

    def buckets(self) -> tuple[Bucket, ...]:
        edges = itertools.pairwise(BUCKETS)
        return tuple(
            Bucket(low, high, bucket.kl.count, mean_of(bucket.kl), share_of(bucket.same_top, bucket.kl.count))
            for (low, high), bucket in zip(edges, self.partial.buckets, strict=True)
        )

    def labels(self) -> LabelComparison:
        reference, candidate = self.mean("nll_reference"), self.mean("nll_candidate")
        log_ratio = self.mean("log_ratio")
        perplexities = exp_of(reference), exp_of(candidate)
        covariance = covariance_of(reference, candidate, log_ratio)
        return LabelComparison(
            cross_entropy_reference=self.statistics("nll_reference"),
            cross_entropy_candidate=self.statistics("nll_candidate"),
            perplexity_reference=perplexities[0],
            perplexity_candidate=perplexities[1],
            log_ratio=log_ratio,
            ratio=exp_of(log_ratio),
            difference=difference_of(*perplexities, covariance),
            correlation=correlation_of(reference, candidate, covariance),
            accuracy_reference=self.share("correct_reference"),
            accuracy_candidate=self.share("correct_candidate"),
            delta_p=self.statistics("delta_p_label"),
            delta_p_rms=root_of(self.mean("delta_p_label_squared")),
        )
