"""What to compute: the options of a computation, checked against each other and made explicit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from kldiv_cli.errors import UsageError
from kldiv_cli.functional import ZeroPolicy, check_axis

__all__ = [
    "LOSSES",
    "PREDICTION_SPACES",
    "QUANTILES",
    "Loss",
    "PredictionSpace",
    "Spec",
    "TargetSpace",
    "check_written",
    "resolve_spec",
]

Loss = Literal["kl", "bce"]
PredictionSpace = Literal["log-probs", "probs", "logits"]
TargetSpace = Literal["probs", "log-probs", "logits", "labels"]

QUANTILES: Final = (0.001, 0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999)
"""Always told; 0.5 is the median."""
_MOST_LISTED: Final = 10_000

_DEFAULT_PREDICTIONS: Final[dict[Loss, PredictionSpace]] = {"kl": "log-probs", "bce": "probs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to compute, with nothing left to be inferred."""

    losses: tuple[Loss, ...] = ("kl",)
    predictions_are: PredictionSpace = "log-probs"
    targets_are: TargetSpace = "probs"
    axis: int = -1
    """The distribution axis; for a loss without distributions, the axis of `distmean`."""
    log_softmax: bool = False
    """The predictions are normalised along the axis."""
    temperature: float | None = None
    """Divides whichever of predictions and targets are logits."""
    zero_policy: ZeroPolicy = "limit"
    by_target: bool = False
    broadcast: bool = False
    mask: bool = False
    """There is an array that says what counts."""
    ignore_value: float | None = None
    """Elements, or labels, of this target do not count."""
    trim_axis: bool = False
    """The longer of predictions and targets is cut to the other's length along the axis."""
    quantiles: tuple[float, ...] = QUANTILES
    more_quantiles: bool = False
    """Some were asked for."""
    worst: int = 0
    """As many of the largest losses are listed."""
    blocks_of: int | None = None
    """Consecutive losses that depend on each other."""
    top1: bool = False
    """It is counted how often the top classes of predictions and targets are the same."""
    histogram: bool = False
    """The losses are counted by octave."""
    roles: tuple[str, str] = ("predictions", "targets")
    """What these are to the user: a candidate and a reference, where two models are compared."""

    @property
    def selects(self) -> bool:
        """Not everything counts."""
        return self.mask or self.ignore_value is not None

    @property
    def elementwise(self) -> bool:
        """No value depends on another, so that blocks may cut the axis anywhere."""
        return self.losses == ("bce",) and not (
            self.log_softmax or self.targets_are == "labels" or self.targets_softmax or self.selects
        )

    @property
    def normalised(self) -> bool:
        """Predictions and targets are expected to add up to 1 along the axis."""
        return "kl" in self.losses

    @property
    def targets_softmax(self) -> bool:
        """Logit targets are normalised along the axis; otherwise they pass through the sigmoid."""
        return self.targets_are == "logits" and (self.log_softmax or "kl" in self.losses)

    @property
    def bce_with_logits(self) -> bool:
        return self.predictions_are == "logits" and not self.log_softmax


def check_written(spec: Spec, *, elements: bool, distributions: bool) -> None:
    """Refuse losses that can't be written: of elements there is one map, of distributions only KL has any.

    Raises
    ------
    UsageError
        Of those.
    """
    if elements and len(spec.losses) > 1:
        raise UsageError("loss: a per-element map is of one loss; give one --loss at a time")
    if distributions and spec.losses != ("kl",):
        raise UsageError("distributions: kl has losses of distributions, bce of elements: see --output")


def resolve_spec(
    *,
    losses: tuple[str, ...] = ("kl",),
    log_softmax: int | None = None,
    predictions_are: str | None = None,
    targets_are: str | None = None,
    log_target: bool = False,
    axis: int | None = None,
    temperature: float | None = None,
    zero_policy: str = "limit",
    by_target: bool = False,
    broadcast: bool = False,
    weight: bool = False,
    pos_weight: bool = False,
    mask: bool = False,
    ignore_value: float | None = None,
    trim_axis: bool = False,
    quantiles: Sequence[float] = (),
    worst: int = 0,
    blocks_of: int | None = None,
    top1: bool = False,
    histogram: bool = False,
) -> Spec:
    """Check options against each other and fill in what they imply.

    `weight`, `pos_weight` and `mask` say whether there are such arrays; `quantiles` come to those
    that are always told.

    Raises
    ------
    UsageError
        An option has no such value, or two contradict each other.
    """
    for name, given in (("axis", axis), ("log_softmax", log_softmax)):
        if given is not None:
            check_axis(name, given)
    chosen = tuple(dict.fromkeys(_choice("loss", loss, LOSSES) for loss in losses))
    if not chosen:
        raise UsageError("loss: none given; expected kl, bce or both")
    space = _prediction_space(chosen, log_softmax, predictions_are)
    softmax = log_softmax is not None or (space == "logits" and "kl" in chosen)
    spec = Spec(
        losses=chosen,
        predictions_are=space,
        targets_are=_target_space(targets_are, log_target),
        axis=_axis(log_softmax, axis),
        log_softmax=softmax,
        temperature=temperature,
        zero_policy=_choice("zero_policy", zero_policy, _ZERO_POLICIES),
        by_target=by_target,
        broadcast=broadcast,
        mask=mask,
        ignore_value=_number("ignore_value", ignore_value),
        trim_axis=trim_axis,
        quantiles=_quantiles(quantiles),
        more_quantiles=bool(quantiles),
        worst=_worst(worst),
        blocks_of=None if blocks_of is None else _count("blocks_of", blocks_of, 2),
        top1=top1,
        histogram=histogram,
    )
    if top1 and "kl" not in chosen:
        raise UsageError(
            "top1: bce has elements, not distributions with a top class; add --loss kl or drop it"
        )
    if broadcast and spec.targets_are == "labels":
        raise UsageError("broadcast: does not go with labels, whose shape is that without the axis")
    if trim_axis and spec.targets_are == "labels":
        raise UsageError("trim_axis: does not go with labels, which have no axis; drop it")
    if broadcast and trim_axis:
        raise UsageError("trim_axis: does not go with --broadcast; give only one of them")
    _check_temperature(spec)
    _check_weights(spec, weight, pos_weight)
    return spec


LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
PREDICTION_SPACES: Final[tuple[PredictionSpace, ...]] = get_args(PredictionSpace)
_TARGET_SPACES: Final[tuple[TargetSpace, ...]] = get_args(TargetSpace)
_ZERO_POLICIES: Final[tuple[ZeroPolicy, ...]] = get_args(ZeroPolicy)

Name = TypeVar("Name", bound=str)


def _choice(option: str, value: str, choices: tuple[Name, ...]) -> Name:
    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{option} {value!r}: expected one of {', '.join(choices)}")


def _number(option: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise UsageError(f"{option} {value!r}: expected a number")
    return float(value)


def _count(option: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise UsageError(f"{option} {value!r}: expected a whole number, {least} or more")
    return int(value)


def _worst(value: int) -> int:
    if _count("worst", value, 0) > _MOST_LISTED:
        raise UsageError(
            f"worst {value}: expected at most {_MOST_LISTED}; --distributions FILE writes the losses of all"
        )
    return int(value)


def _quantiles(given: Sequence[float]) -> tuple[float, ...]:
    """Those that are always told and the given ones, in order."""
    if not isinstance(given, Iterable):
        raise UsageError(f"quantiles {given!r}: expected several numbers, such as [0.25, 0.75]")
    for quantile in given:
        if not (hasattr(quantile, "__float__") and 0 <= quantile <= 1):
            raise UsageError(f"quantiles {quantile!r}: expected numbers between 0 and 1, such as 0.999")
    return tuple(sorted({*QUANTILES, *map(float, given)}))


def _prediction_space(
    losses: tuple[Loss, ...], log_softmax: int | None, predictions_are: str | None
) -> PredictionSpace:
    if predictions_are is None:
        if log_softmax is not None:
            return "logits"
        if len(losses) > 1:
            raise UsageError(
                "loss kl takes predictions for log-probs and bce for probs, so both need to be told; "
                "say which with --predictions-are or --log-softmax AXIS"
            )
        return _DEFAULT_PREDICTIONS[losses[0]]
    space = _choice("predictions_are", predictions_are, PREDICTION_SPACES)
    if log_softmax is not None and space != "logits":
        raise UsageError(
            f"predictions_are {space}: log-softmax takes logits; drop --log-softmax or say logits"
        )
    if space == "logits" and log_softmax is None and len(losses) > 1:
        raise UsageError(
            "predictions_are logits: kl would take the softmax and bce the sigmoid; "
            "for the softmax in both say --log-softmax AXIS, else compute them one at a time"
        )
    return space


def _target_space(targets_are: str | None, log_target: bool) -> TargetSpace:
    if targets_are is None:
        return "log-probs" if log_target else "probs"
    space = _choice("targets_are", targets_are, _TARGET_SPACES)
    if log_target and space != "log-probs":
        raise UsageError(f"targets_are {space}: contradicts --log-target; give only one of them")
    return space


def _axis(log_softmax: int | None, axis: int | None) -> int:
    if log_softmax is None:
        return -1 if axis is None else axis
    if axis is not None and axis != log_softmax:
        raise UsageError(f"axis {axis}: contradicts log-softmax along {log_softmax}; give only one")
    return log_softmax


def _check_temperature(spec: Spec) -> None:
    if spec.temperature is None:
        return
    number = isinstance(spec.temperature, (int, float))
    if not (number and math.isfinite(spec.temperature) and spec.temperature > 0):
        raise UsageError(f"temperature {spec.temperature}: expected a finite number above 0")
    if "logits" not in (spec.predictions_are, spec.targets_are):
        raise UsageError(
            "temperature: divides logits, but neither predictions nor targets are logits; "
            "say --log-softmax AXIS, --predictions-are logits or --targets-are logits"
        )


def _check_weights(spec: Spec, weight: bool, pos_weight: bool) -> None:
    if weight and "kl" in spec.losses:
        raise UsageError("weight: kl has none, in PyTorch too; it goes with --loss bce")
    if pos_weight and not (spec.bce_with_logits and spec.losses == ("bce",)):
        raise UsageError("pos_weight: goes with --loss bce --predictions-are logits only")
