"""Diagnosis: the evidence of a computation, told as findings that name the option that mends it.

Most wrong numbers come from inputs that are not what they were taken for.
"""

from __future__ import annotations

import math

from kldiv_cli.anomalies import find_in_precision, find_in_terms
from kldiv_cli.evidence import Evidence
from kldiv_cli.findings import Finding, counted, told
from kldiv_cli.misuse import find_in_pairing, find_in_predictions, find_in_targets
from kldiv_cli.observations import Observations
from kldiv_cli.reductions import Scalars
from kldiv_cli.spec import Loss

__all__ = ["find", "find_odd_distributions", "find_reduction"]


def find(evidence: Evidence) -> tuple[Finding, ...]:
    """Turn what was observed into what is said; nothing for data that is as it should be."""
    if not evidence.scalars.elements:
        return (_empty(evidence),)
    predictions, targets = list(find_in_predictions(evidence)), list(find_in_targets(evidence))
    named = {(finding.id, finding.option) for finding in predictions}
    targets = [finding for finding in targets if (finding.id, finding.option) not in named]
    misuse = [*predictions, *targets, *find_in_pairing(evidence)]
    return (*misuse, *find_in_terms(evidence), *find_in_precision(evidence))


def find_reduction(
    loss: Loss, reduction: str | None, scalars: Scalars, shape: tuple[int, ...]
) -> tuple[Finding, ...]:
    """What is to be said of the reduction that was asked for."""
    if loss != "kl":
        return ()
    if reduction == "mean":
        divided = f"all {scalars.elements} elements"
    elif reduction == "batchmean" and shape and scalars.batch != scalars.distributions:
        divided = f"the first dimension, {scalars.batch}"
    else:
        return ()
    return (
        Finding(
            id="which-mean",
            severity="note",
            message=(
                f"{reduction} divides by {divided}, as in PyTorch; the mean KL divergence of the "
                f"{counted(scalars.distributions, 'distribution')} is --reduction distmean"
            ),
            option="--reduction distmean",
        ),
    )


def _empty(evidence: Evidence) -> Finding:
    return Finding(
        id="empty",
        severity="warning",
        message="nothing counts: all of it is masked or ignored"
        if math.prod(evidence.shape)
        else "the arrays are empty: there is nothing to measure",
        count=0,
    )


def find_odd_distributions(observed: Observations, shape: tuple[int, ...]) -> tuple[Finding, ...]:
    """What is to be said of distributions, of this shape, whose divergence is not finite."""
    infinite, nan = observed.infinite_terms, observed.nan_terms
    findings = []
    if infinite.count:
        message = (
            "{count} with an infinite KL, first at {place}: the candidate rules out what the reference "
            "holds possible"
        )
        findings.append(told("infinite-kl", infinite, shape, "distribution", message, None, "warning"))
    if nan.count:
        message = (
            "{count} with a KL of nan, first at {place}: an input is nan or infinite; if that is padding, "
            "leave it out with --mask FILE"
        )
        findings.append(told("nan-kl", nan, shape, "distribution", message, "--mask FILE", "warning"))
    return tuple(findings)
