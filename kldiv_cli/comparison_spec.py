"""How two models' outputs are compared: the options of a comparison, checked and made explicit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kldiv_cli.errors import UsageError
from kldiv_cli.spec import PREDICTION_SPACES, Spec, resolve_spec

__all__ = ["ComparisonSpec", "resolve_comparison"]


_QUARTILES = (0.25, 0.75)
"""Told besides those that are always told: changes of a probability have two tails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSpec:
    """What to compare, with nothing left to be inferred."""

    spec: Spec
    """Of KL, with the candidate for predictions and the reference for targets."""
    top_k: int = 5
    ignore_value: float | None = None
    """Labels of this value do not count, nor what stands beside them."""


def resolve_comparison(
    *,
    reference_are: str = "logits",
    candidate_are: str = "logits",
    axis: int = -1,
    temperature: float | None = None,
    labels: bool = False,
    mask: bool = False,
    ignore_value: float | None = None,
    trim_axis: bool = False,
    top_k: int = 5,
    quantiles: Sequence[float] = (),
    worst: int = 0,
    blocks_of: int | None = None,
) -> ComparisonSpec:
    """Check options against each other and fill in what they imply.

    `labels` and `mask` say whether there are such arrays.

    Raises
    ------
    UsageError
        An option has no such value, or two contradict each other.
    """
    for name, space in (("reference_are", reference_are), ("candidate_are", candidate_are)):
        if space not in PREDICTION_SPACES:
            raise UsageError(f"{name} {space!r}: expected one of {', '.join(PREDICTION_SPACES)}")
    if temperature is not None and "logits" not in (reference_are, candidate_are):
        raise UsageError("temperature: divides logits, but neither reference nor candidate are logits")
    if ignore_value is not None and not labels:
        raise UsageError("ignore_value: is one of labels; add --labels FILE, or leave out with --mask FILE")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise UsageError(f"top_k {top_k!r}: expected a whole number, 1 or more")
    spec = resolve_spec(
        predictions_are=candidate_are,
        targets_are=reference_are,
        axis=axis,
        temperature=temperature,
        mask=mask,
        ignore_value=ignore_value,
        trim_axis=trim_axis,
        quantiles=(*_QUARTILES, *quantiles),
        worst=worst,
        blocks_of=blocks_of,
    )
    spec = replace(spec, ignore_value=None, roles=("candidate", "reference"))
    return ComparisonSpec(spec=spec, top_k=top_k, ignore_value=ignore_value)
