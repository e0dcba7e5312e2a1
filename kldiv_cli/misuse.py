"""Inputs that are not what they were taken for, by what they add up to and what they look like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kldiv_cli.evidence import Evidence, is_suspicious, of_distributions, of_elements
from kldiv_cli.findings import Finding
from kldiv_cli.likeness import Likeness
from kldiv_cli.observations import Tally

__all__ = ["find_in_pairing", "find_in_predictions", "find_in_targets"]


# What the predictions are


def find_in_predictions(evidence: Evidence) -> Iterator[Finding]:
    observed, spec, look = evidence.observed, evidence.spec, evidence.predictions_look
    yield from _padding("predictions", observed.predictions_padding, evidence)
    if _mostly(observed.predictions_probable, evidence):
        yield of_distributions(
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
        yield of_distributions(
            "predictions-probs",
            worst,
            evidence,
            f"the {_of('predictions', evidence)} look like probabilities, not log-probabilities: "
            f"the exp of {{count}} adds up to something else than 1, worst {{value:.6g}} at {{place}}; "
            f"say {option}",
            option,
        )
    elif observed.predictions_above_zero.count:
        yield of_elements(
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
    if not tally.count or _all_alike(name, tally, evidence):
        return
    filled = _fill_of(name, tally, evidence)
    ignorable = name == "targets" and filled == "all -100"
    option = "--ignore-value -100" if ignorable else "--mask FILE"
    yield of_distributions(
        f"{name}-padding",
        tally,
        evidence,
        f"{{count}} of the {_of(name, evidence)} {filled}, first at {{place}}: padding that counts? "
        f"leave it out with {option}",
        option,
    )


def _all_alike(name: str, tally: Tally, evidence: Evidence) -> bool:
    count = evidence.scalars.distributions
    if name == "predictions" and evidence.sampled:
        return 4 * tally.count > 0.9 * count
    return tally.count == count


def _of(name: str, evidence: Evidence) -> str:
    """What was looked at."""
    return f"{name} (of every fourth)" if name == "predictions" and evidence.sampled else name


def _fill_of(name: str, tally: Tally, evidence: Evidence) -> str:
    """What padding is filled with, by what it adds up to."""
    space = getattr(evidence.spec, f"{name}_are")
    if space == "logits":
        return "of equal logits"
    exp_of_fill = 1 if space == "log-probs" else 0
    if tally.value == exp_of_fill * evidence.length:
        return "all 0"
    return "all of probability 0" if tally.value == 0 else "all -100"


def _unnormalised(name: str, tally: Tally, evidence: Evidence) -> Iterator[Finding]:
    if not tally.count:
        return
    logs = getattr(evidence.spec, f"{name}_are") == "log-probs"
    option, remedy = _remedy(name, evidence)
    yield of_distributions(
        f"{name}-unnormalised",
        tally,
        evidence,
        f"{{count}} of the {_of(name, evidence)}{', whose exp adds' if logs else ' adding'} up to something "
        f"else than 1, worst {{value:.6g}} at {{place}}{remedy}",
        option,
    )


def _remedy(name: str, evidence: Evidence) -> tuple[str, str]:
    """What may mend distributions that do not add up to 1: the option, and how it is said."""
    predictions = name == "predictions"
    look = evidence.predictions_look if predictions else evidence.targets_look
    space = look.space if look is not None else None
    logs = getattr(evidence.spec, f"{name}_are") == "log-probs"
    if space == "log-probs" and not logs:
        option = f"--{name}-are log-probs"
        return option, f"; they look like log-probabilities, say {option}"
    if logs or space == "logits":
        option = f"--log-softmax {evidence.axis}" if predictions else "--targets-are logits"
        return option, f"; if they are logits, say {option}"
    return "--axis", "; is --axis the one they are normalised along?"


def _elsewhere(look: Likeness, space: str, evidence: Evidence) -> bool:
    """Whether an array is what it was taken for, but along another axis."""
    return look.space == space and look.axis is not None and look.axis != evidence.axis


def _other_axis(look: Likeness, evidence: Evidence) -> str:
    """The option for the axis of an array, where that is another one."""
    return "" if look.axis in (None, evidence.axis) else f" --axis {look.axis}"


def _wrong_axis(name: str, tally: Tally, look: Likeness, evidence: Evidence) -> Finding:
    option = f"--log-softmax {look.axis}" if evidence.spec.log_softmax else f"--axis {look.axis}"
    return of_distributions(
        "wrong-axis",
        tally,
        evidence,
        f"the {_of(name, evidence)} are normalised along axis {look.axis}, not along axis {evidence.axis}: "
        f"{{count}} adding up to something else than 1, worst {{value:.6g}} at {{place}}; say {option}",
        option,
    )


# What the targets are


def find_in_targets(evidence: Evidence) -> Iterator[Finding]:
    observed, spec, look = evidence.observed, evidence.spec, evidence.targets_look
    yield from _padding("targets", observed.targets_padding, evidence)
    if _mostly(observed.targets_probable, evidence):
        yield of_distributions(
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
    if below.count and below.count == observed.targets_padding.count * evidence.length:
        below = Tally()
    if look is not None and _elsewhere(look, spec.targets_are, evidence):
        yield _wrong_axis("targets", worst, look, evidence)
    elif look is not None and look.space == "log-probs" and below.count:
        option = f"--log-target{_other_axis(look, evidence)}"
        yield of_elements(
            "targets-log-probs",
            below,
            evidence,
            "the targets look like log-probabilities: {count} below 0, worst {value:.6g} at {place}; "
            f"say {option}",
            option,
        )
    elif below.count:
        yield of_elements(
            "targets-logits",
            below,
            evidence,
            "the targets are no probabilities: {count} below 0, worst {value:.6g} at {place}; "
            "if they are logits, say --targets-are logits",
            "--targets-are logits",
        )
    elif look is not None and look.space == "probs" and spec.targets_are == "log-probs":
        yield of_distributions(
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


def find_in_pairing(evidence: Evidence) -> Iterator[Finding]:
    alone = evidence.scalars.elements == 1 or (evidence.loss == "kl" and evidence.length == 1)
    if not evidence.differ and not alone:
        yield Finding(
            id="identical",
            severity="warning",
            message="predictions and targets are the same data, to the last element: "
            "a loss of them says nothing about a model",
        )
    if evidence.loss == "bce" and evidence.spec.bce_with_logits and _are_probabilities(evidence):
        yield Finding(
            id="sigmoid-of-probs",
            severity="warning",
            message="the sigmoid is taken of predictions that all lie within [0, 1]: "
            "if they are probabilities already, drop --predictions-are logits",
            count=evidence.scalars.elements,
            option="--predictions-are probs",
        )
    alignment = evidence.alignment
    if alignment is not None and alignment.misaligned:
        yield Finding(
            id="misaligned",
            severity="warning",
            message=(
                "rows may be misaligned, or the predictions know nothing of them: predictions and targets "
                "agree on the top class in "
                f"{alignment.agreement:.1%} of {alignment.rows} sampled distributions, where chance gives "
                f"{alignment.chance:.1%}, while their means over all rows agree; are both in the same order?"
            ),
            count=alignment.rows,
            value=alignment.agreement,
        )


_FEW: Final = 8
"""So few logits may lie within [0, 1] by chance."""


def _are_probabilities(evidence: Evidence) -> bool:
    return not evidence.observed.logits_outside.count and evidence.scalars.elements > _FEW


def _mostly(tally: Tally, evidence: Evidence) -> bool:
    return 2 * tally.count > evidence.scalars.distributions
