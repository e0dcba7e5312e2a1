"""Losses that are not as they should be: infinite, clamped, negative, or lost in rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from kldiv_cli.evidence import Evidence, of_distributions, of_elements
from kldiv_cli.findings import Finding
from kldiv_cli.observations import Tally

__all__ = ["find_in_precision", "find_in_terms"]

_COARSEST: Final = {"bfloat16": 2.0**-4, "float16": 2.0**-7, "float32": 2.0**-20}
"""A distribution's KL may be this far below 0 by the rounding of its storage type."""
_DIGITS: Final = {"bfloat16": (2.0**-9, "two"), "float16": (2.0**-12, "three")}
"""Half a unit in the last place of 1, and how many decimal digits that is."""
_NOISE: Final = -1e-15
"""KL of nothing but the rounding of float64 is not spoken of."""
_FINE: Final = 2.0**-40


# Terms


def find_in_terms(evidence: Evidence) -> Iterator[Finding]:
    observed, spec = evidence.observed, evidence.spec
    if observed.zero_terms.count:
        yield _zero_terms(observed.zero_terms, evidence)
    if observed.infinite_terms.count:
        yield of_elements(
            "infinite-terms",
            observed.infinite_terms,
            evidence,
            "{terms} infinite, first {value} at {place}: the prediction rules out what the target holds "
            f"possible{_underflow(evidence)}",
        )
    if observed.nan_terms.count:
        yield of_elements(
            "nan-terms",
            observed.nan_terms,
            evidence,
            "{terms} nan, first at {place}: an input is nan or infinite, or a probability is below 0; "
            "if that is padding, leave it out with --mask FILE",
            "--mask FILE",
        )
    if observed.clamped_terms.count:
        yield _clamped(observed.clamped_terms, evidence)
    elif observed.saturated_predictions.count:
        yield of_elements(
            "saturated",
            observed.saturated_predictions,
            evidence,
            "{count} of the predictions exactly 0 or 1, first {value} at {place}: they were rounded, "
            "logits (--predictions-are logits) would not be",
            "--predictions-are logits",
            severity="note",
        )
    if spec.bce_with_logits and observed.targets_outside.count:
        yield of_elements(
            "targets-outside",
            observed.targets_outside,
            evidence,
            "targets outside [0, 1] in {terms}, first {value} at {place}: computed as PyTorch does, "
            "unchecked; labels of -1 and 1 are to be mapped to 0 and 1",
        )
    least = observed.negative_distributions.value
    if least is not None and least < _NOISE:
        yield _negative(observed.negative_distributions, evidence)


def _underflow(evidence: Evidence) -> str:
    """What float16 does to small probabilities."""
    half = evidence.dtypes and evidence.dtypes[0].itemsize == 2 and evidence.dtypes[0].kind == "f"
    if half and evidence.spec.predictions_are == "probs":
        return "; float16 makes 0 of probabilities below 3e-8, save log-probabilities or float32"
    return ""


def _zero_terms(tally: Tally, evidence: Evidence) -> Finding:
    if evidence.spec.zero_policy == "limit":
        return of_elements(
            "zero-terms",
            tally,
            evidence,
            "{terms} 0 by the limit, first at {place}: PyTorch gives nan there; --zero-policy torch does too",
            "--zero-policy torch",
            severity="note",
        )
    return of_elements(
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
        return of_elements("clamped-terms", tally, evidence, message)
    message += "; --predictions-are logits has no clamp"
    return of_elements("clamped-terms", tally, evidence, message, "--predictions-are logits")


def _negative(tally: Tally, evidence: Evidence) -> Finding:
    rounding = _COARSEST.get(_storage(evidence), _FINE)
    small = tally.value is None or tally.value >= -rounding
    cause = (
        "within the rounding of the storage type" if small else "predictions or targets are not normalised"
    )
    return of_distributions(
        "negative-kl",
        tally,
        evidence,
        f"KL below 0 in {{count}}, least {{value}} at {{place}}: {cause}",
        severity="note" if small else "warning",
    )


# Precision


def find_in_precision(evidence: Evidence) -> Iterator[Finding]:
    """Of half-precision inputs, a mean that rounding alone may have made."""
    mean, storage = evidence.scalars.distmean, _storage(evidence)
    if evidence.loss != "kl" or storage not in _DIGITS or not math.isfinite(mean):
        return
    place, digits = _DIGITS[storage]
    floor = place * max(1.0, math.log(evidence.length))
    if 0 < abs(mean) < floor:
        yield Finding(
            id="low-precision",
            severity="note",
            message=(
                f"{storage} has {digits} digits: rounding alone can move the mean KL divergence by up to "
                f"{floor:.2g}, and it is {mean:.2g}; save the outputs as float32"
            ),
            value=floor,
        )


def _storage(evidence: Evidence) -> str:
    """The coarsest of the types that are stored; of integers alone, float64."""
    if any(evidence.bfloat16):
        return "bfloat16"
    size = min((dtype.itemsize for dtype in evidence.dtypes if dtype.kind == "f"), default=8)
    return f"float{8 * size}"
