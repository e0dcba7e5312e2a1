"""Misuse and its traces: what was observed, told as findings that name the option that mends it.

Most wrong numbers come from inputs that are not what they were taken for. What a pass over the data
observes is the evidence; what the arrays look like, which a sample shows, tells what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from kldiv_cli.alignment import Alignment
from kldiv_cli.likeness import Likeness
from kldiv_cli.observations import Observations, Tally, unravel
from kldiv_cli.reductions import Scalars
from kldiv_cli.spec import Loss, Spec

__all__ = [
    "Evidence",
    "Finding",
    "Severity",
    "find",
    "find_odd_distributions",
    "find_reduction",
    "is_suspicious",
]

Severity = Literal["note", "warning"]

_COARSEST = {2: 2.0**-7, 4: 2.0**-20}
"""A distribution's KL may be this far below 0 by the rounding of its storage type (by item size)."""
_FINE = 2.0**-40


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about the input or the options that a user would want to know."""

    id: str
    severity: Severity
    message: str
    count: int | None = None
    place: tuple[int, ...] | None = None
    """Where the worst is, or the first of equal ones."""
    value: float | None = None
    option: str | None = None
    """The option that mends or changes it."""


class Evidence(NamedTuple):
    """All that findings are made from."""

    spec: Spec
    loss: Loss
    shape: tuple[int, ...]
    axis: int
    scalars: Scalars
    observed: Observations
    differ: bool = True
    """Predictions and targets are not the same data."""
    dtypes: tuple[np.dtype[Any], ...] = ()
    """That predictions and targets are stored in."""
    predictions_look: Likeness | None = None
    """What the predictions look like, where there was a reason to look."""
    targets_look: Likeness | None = None
    sampled: bool = False
    """Only every fourth distribution of the predictions was added up."""
    alignment: Alignment | None = None
    """How rows of predictions and targets belong together, where there was a reason to look."""

    @property
    def outer(self) -> tuple[int, ...]:
        """The shape of the distributions."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]


def is_suspicious(observed: Observations) -> tuple[bool, bool]:
    """Whether there is a reason to look at what the predictions are, and at what the targets are."""
    return (
        bool(observed.predictions_above_zero.count or observed.predictions_unnormalised.count),
        bool(
            observed.targets_above_zero.count
            or observed.targets_below_zero.count
            or observed.targets_unnormalised.count
        ),
    )


def find(evidence: Evidence) -> tuple[Finding, ...]:
    """Turn what was observed into what is said; nothing for data that is as it should be."""
    if not evidence.scalars.elements:
        return (_empty(),)
    predictions, targets = list(_predictions(evidence)), list(_targets(evidence))
    named = {(finding.id, finding.option) for finding in predictions}
    targets = [finding for finding in targets if (finding.id, finding.option) not in named]
    misuse = [*predictions, *targets, *_pairing(evidence)]
    return (*misuse, *_terms(evidence, misuse), *_precision(evidence))


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
                f"{_counted(scalars.distributions, 'distribution')} is --reduction distmean"
            ),
            option="--reduction distmean",
        ),
    )


def _empty() -> Finding:
    return Finding(
        id="empty",
        severity="warning",
        message="nothing counts: the arrays are empty, or all of them is masked",
        count=0,
    )


# What the predictions are


def _predictions(evidence: Evidence) -> Iterator[Finding]:
    observed, spec, look = evidence.observed, evidence.spec, evidence.predictions_look
    yield from _padding("predictions", observed.predictions_padding, evidence)
    if _mostly(observed.predictions_probable, evidence):
        yield _distributions(
            "softmax-of-probs",
            observed.predictions_probable,
            evidence,
            "the softmax is taken of predictions that are probabilities already: {count} within [0, 1] and "
            "adding up to 1, first at {place}; say --predictions-are probs",
            "--predictions-are probs",
        )
    if not any(is_suspicious(observed)[:1]):
        return
    worst = observed.predictions_unnormalised
    if look is not None and _elsewhere(look, spec.predictions_are, evidence):
        yield _wrong_axis("predictions", worst, look, evidence)
    elif look is not None and look.space == "probs" and spec.predictions_are == "log-probs":
        option = f"--predictions-are probs{_other_axis(look, evidence)}"
        yield _distributions(
            "predictions-probs",
            worst,
            evidence,
            "the predictions look like probabilities, not log-probabilities: the exp of {count} adds up to "
            f"something else than 1, worst {{value:.6g}} at {{place}}; say {option}",
            option,
        )
    elif observed.predictions_above_zero.count:
        yield _elements(
            "predictions-logits",
            observed.predictions_above_zero,
            evidence,
            "the predictions are no log-probabilities: {count} above 0, worst {value:.6g} at {place}; "
            f"if they are logits, say --log-softmax {evidence.axis}",
            f"--log-softmax {evidence.axis}",
        )
    else:
        yield from _unnormalised("predictions", worst, evidence)


def _padding(name: str, tally: Tally, evidence: Evidence) -> Iterator[Finding]:
    """Distributions that are none at all; where all are alike they are what was meant."""
    if not 0 < tally.count < evidence.scalars.distributions:
        return
    filled = _fill_of(name, tally, evidence)
    ignorable = name == "targets" and filled == "all -100"
    option = "--ignore-value -100" if ignorable else "--mask FILE"
    yield _distributions(
        f"{name}-padding",
        tally,
        evidence,
        f"{{count}} of the {name} {filled}, first at {{place}}: padding that counts? "
        f"leave it out with {option}",
        option,
    )


def _fill_of(name: str, tally: Tally, evidence: Evidence) -> str:
    """What padding is filled with, by what it adds up to."""
    space = getattr(evidence.spec, f"{name}_are")
    if space == "logits":
        return "of equal logits"
    exp_of_fill = 1 if space == "log-probs" else 0
    length = evidence.shape[evidence.axis] if evidence.shape else 1
    return "all 0" if tally.value == exp_of_fill * length else "all -100"


def _unnormalised(name: str, tally: Tally, evidence: Evidence) -> Iterator[Finding]:
    if not tally.count:
        return
    logs = getattr(evidence.spec, f"{name}_are") == "log-probs"
    sample = " (of every fourth)" * (evidence.sampled and name == "predictions")
    if logs and name == "predictions":
        remedy, option = f"; if they are logits, say --log-softmax {evidence.axis}", "--log-softmax"
    elif logs:
        remedy, option = "; if they are logits, say --targets-are logits", "--targets-are logits"
    else:
        remedy, option = "; is --axis the one they are normalised along?", "--axis"
    yield _distributions(
        f"{name}-unnormalised",
        tally,
        evidence,
        f"{{count}} of the {name}{sample}{', whose exp adds' if logs else ' adding'} up to something else "
        f"than 1, "
        f"worst {{value:.6g}} at {{place}}{remedy}",
        option,
    )


def _elsewhere(look: Likeness, space: str, evidence: Evidence) -> bool:
    """Whether an array is what it was taken for, but along another axis."""
    return look.space == space and look.axis is not None and look.axis != evidence.axis


def _other_axis(look: Likeness, evidence: Evidence) -> str:
    """The option for the axis of an array, where that is another one."""
    return "" if look.axis in (None, evidence.axis) else f" --axis {look.axis}"


def _wrong_axis(name: str, tally: Tally, look: Likeness, evidence: Evidence) -> Finding:
    option = f"--log-softmax {look.axis}" if evidence.spec.log_softmax else f"--axis {look.axis}"
    return _distributions(
        "wrong-axis",
        tally,
        evidence,
        f"the {name} are normalised along axis {look.axis}, not along axis {evidence.axis}: {{count}} adding "
        f"up to something else than 1, worst {{value:.6g}} at {{place}}; say {option}",
        option,
    )


# What the targets are


def _targets(evidence: Evidence) -> Iterator[Finding]:
    observed, spec, look = evidence.observed, evidence.spec, evidence.targets_look
    yield from _padding("targets", observed.targets_padding, evidence)
    if _mostly(observed.targets_probable, evidence):
        yield _distributions(
            "softmax-of-target-probs",
            observed.targets_probable,
            evidence,
            "the softmax is taken of targets that are probabilities already: {count} within [0, 1] and "
            "adding up to 1, first at {place}; drop --targets-are logits",
            "--targets-are probs",
        )
    if not is_suspicious(observed)[1]:
        return
    worst, below = observed.targets_unnormalised, observed.targets_below_zero
    if below.count and below.count == observed.targets_padding.count * evidence.shape[evidence.axis]:
        below = Tally()
    if look is not None and _elsewhere(look, spec.targets_are, evidence):
        yield _wrong_axis("targets", worst, look, evidence)
    elif look is not None and look.space == "log-probs" and below.count:
        option = f"--log-target{_other_axis(look, evidence)}"
        yield _elements(
            "targets-log-probs",
            below,
            evidence,
            "the targets look like log-probabilities: {count} below 0, worst {value:.6g} at {place}; "
            f"say {option}",
            option,
        )
    elif below.count:
        yield _elements(
            "targets-logits",
            below,
            evidence,
            "the targets are no probabilities: {count} below 0, worst {value:.6g} at {place}; "
            "if they are logits, say --targets-are logits",
            "--targets-are logits",
        )
    elif look is not None and look.space == "probs" and spec.targets_are == "log-probs":
        yield _distributions(
            "targets-probs",
            worst,
            evidence,
            "the targets look like probabilities, not log-probabilities: the exp of {count} adds up to "
            "something else than 1, worst {value:.6g} at {place}; drop --log-target",
            "--targets-are probs",
        )
    else:
        yield from _unnormalised("targets", worst, evidence)


# How both belong together


def _pairing(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.differ:
        yield Finding(
            id="identical",
            severity="warning",
            message="predictions and targets are the same data, to the last element: "
            "a loss of them says nothing about a model",
        )
    alignment = evidence.alignment
    if alignment is not None and alignment.misaligned:
        yield Finding(
            id="misaligned",
            severity="warning",
            message=(
                f"rows may be misaligned: predictions and targets agree on the top class in "
                f"{alignment.agreement:.1%} of {alignment.rows} sampled distributions, where chance gives "
                f"{alignment.chance:.1%}, while their means over all rows agree; are both in the same order?"
            ),
            count=alignment.rows,
            value=alignment.agreement,
        )


def _mostly(tally: Tally, evidence: Evidence) -> bool:
    return 2 * tally.count > evidence.scalars.distributions


# Terms


def _terms(evidence: Evidence, misuse: list[Finding]) -> Iterator[Finding]:
    observed, spec = evidence.observed, evidence.spec
    if observed.zero_terms.count:
        yield _zero_terms(observed.zero_terms, evidence)
    if observed.infinite_terms.count:
        yield _elements(
            "infinite-terms",
            observed.infinite_terms,
            evidence,
            "{terms} infinite, first {value} at {place}: the prediction rules out what the target holds "
            "possible",
        )
    if observed.nan_terms.count:
        yield _elements(
            "nan-terms",
            observed.nan_terms,
            evidence,
            "{terms} nan, first at {place}: an input is nan or infinite, or a probability is below 0; "
            "if that is padding, leave it out with --mask FILE",
            "--mask",
        )
    if observed.clamped_terms.count:
        yield _clamped(observed.clamped_terms, evidence)
    elif observed.saturated_predictions.count:
        yield _elements(
            "saturated",
            observed.saturated_predictions,
            evidence,
            "{count} of the predictions exactly 0 or 1, first {value} at {place}: they were rounded, "
            "logits (--predictions-are logits) would not be",
            "--predictions-are logits",
            severity="note",
        )
    if spec.bce_with_logits and observed.targets_outside.count:
        yield _elements(
            "targets-outside",
            observed.targets_outside,
            evidence,
            "targets outside [0, 1] in {terms}, first {value} at {place}: computed as PyTorch does, "
            "unchecked; labels of -1 and 1 are to be mapped to 0 and 1",
        )
    if observed.negative_distributions.count and not misuse:
        yield _negative(observed.negative_distributions, evidence)


def find_odd_distributions(observed: Observations, shape: tuple[int, ...]) -> tuple[Finding, ...]:
    """What is to be said of distributions, of this shape, whose divergence is not finite."""
    infinite, nan = observed.infinite_terms, observed.nan_terms
    findings = []
    if infinite.count:
        message = (
            "{count} with an infinite KL, first at {place}: the candidate rules out what the reference "
            "holds possible"
        )
        findings.append(_told("infinite-kl", infinite, shape, "distribution", message, None, "warning"))
    if nan.count:
        message = (
            "{count} with a KL of nan, first at {place}: an input is nan or infinite; if that is padding, "
            "leave it out with --mask FILE"
        )
        findings.append(_told("nan-kl", nan, shape, "distribution", message, "--mask FILE", "warning"))
    return tuple(findings)


def _zero_terms(tally: Tally, evidence: Evidence) -> Finding:
    if evidence.spec.zero_policy == "limit":
        return _elements(
            "zero-terms",
            tally,
            evidence,
            "{terms} 0 by the limit, first at {place}: PyTorch gives nan there; --zero-policy torch does too",
            "--zero-policy torch",
            severity="note",
        )
    return _elements(
        "zero-terms",
        tally,
        evidence,
        "{terms} nan as in PyTorch though 0 in the limit, first at {place}; --zero-policy limit gives 0",
        "--zero-policy limit",
    )


def _clamped(tally: Tally, evidence: Evidence) -> Finding:
    message = (
        "{terms} clamped at a logarithm of -100 as in PyTorch, first {value} at {place}: "
        "the sum is not the true loss"
    )
    if evidence.spec.log_softmax:
        return _elements("clamped-terms", tally, evidence, message)
    message += "; --predictions-are logits has no clamp"
    return _elements("clamped-terms", tally, evidence, message, "--predictions-are logits")


def _negative(tally: Tally, evidence: Evidence) -> Finding:
    rounding = _COARSEST.get(_itemsize(evidence), _FINE)
    small = tally.value is None or tally.value >= -rounding
    cause = (
        "within the rounding of the storage type" if small else "predictions or targets are not normalised"
    )
    return _distributions(
        "negative-kl",
        tally,
        evidence,
        f"KL below 0 in {{count}}, least {{value}} at {{place}}: {cause}",
        severity="note" if small else "warning",
    )


# Precision


def _precision(evidence: Evidence) -> Iterator[Finding]:
    """Of half-precision inputs, a mean that rounding alone may have made."""
    mean = evidence.scalars.distmean
    if evidence.loss != "kl" or _itemsize(evidence) > 2 or not math.isfinite(mean):
        return
    floor = _noise_floor(evidence.shape[evidence.axis] if evidence.shape else 1)
    if 0 < abs(mean) < floor:
        yield Finding(
            id="low-precision",
            severity="note",
            message=(
                f"float16 has three digits: rounding alone can move the mean KL divergence by up to "
                f"{floor:.2g}, and it is {mean:.2g}; save the outputs as float32"
            ),
            value=floor,
        )


def _noise_floor(classes: int) -> float:
    """By half a unit in the last place of log-probabilities, each as large as the entropy may be."""
    return 2.0**-12 * max(1.0, math.log(classes))


def _itemsize(evidence: Evidence) -> int:
    """Bytes of the narrowest floats stored; of integers alone, those of float64."""
    return min((dtype.itemsize for dtype in evidence.dtypes if dtype.kind == "f"), default=8)


# Findings


def _elements(
    id: str,
    tally: Tally,
    evidence: Evidence,
    message: str,
    option: str | None = None,
    *,
    severity: Severity = "warning",
) -> Finding:
    return _told(id, tally, evidence.shape, "element", message, option, severity)


def _distributions(
    id: str,
    tally: Tally,
    evidence: Evidence,
    message: str,
    option: str | None = None,
    *,
    severity: Severity = "warning",
) -> Finding:
    return _told(id, tally, evidence.outer, "distribution", message, option, severity)


def _told(
    id: str,
    tally: Tally,
    shape: tuple[int, ...],
    noun: str,
    message: str,
    option: str | None,
    severity: Severity,
) -> Finding:
    place = unravel(tally.place, shape)
    text = message.format(
        count=_counted(tally.count, noun),
        terms=_counted(tally.count, "term"),
        place=list(place or ()),
        value=tally.value,
    )
    return Finding(
        id=id,
        severity=severity,
        message=text,
        count=tally.count,
        place=place,
        value=tally.value,
        option=option,
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
