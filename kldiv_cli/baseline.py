"""Baselines: what a pair came to when it was last accepted, and whether a run may be held to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kldiv_cli.errors import ShapeMismatch, UsageError
from kldiv_cli.evaluation import Evaluation, Input
from kldiv_cli.findings import Finding
from kldiv_cli.octaves import Octaves
from kldiv_cli.quantities import named, once_named, quantities_of
from kldiv_cli.spec import LOSSES, Loss, Spec
from kldiv_cli.streams import printable

__all__ = [
    "ROLES",
    "Baseline",
    "Change",
    "Recorded",
    "Setting",
    "changes",
    "check_recorded",
    "find_changes",
    "other_changes",
    "record_pair",
    "shown_setting",
]

Setting = bool | float | str | None | tuple[str, ...]

ROLES: Final = ("predictions", "targets", "weight", "pos_weight", "mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One pair: its settings, its inputs, and every number it came to."""

    settings: Mapping[str, Setting]
    shape: tuple[int, ...]
    inputs: Mapping[str, Input]
    """By role; with the SHA-256 of their contents."""
    statistics: Mapping[Loss, Mapping[str, float]]
    """By loss and name, as limits know them."""
    histograms: Mapping[Loss, Octaves]

    def quantities(self) -> dict[str, float]:
        """The numbers by their names, as those of a run."""
        return named(self.statistics)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A baseline file."""

    path: str
    pairs: Mapping[str, Recorded] = field(default_factory=dict)


class Change(NamedTuple):
    """One number of a pair, before and after an update; None where there is none."""

    pair: str
    name: str
    old: float | None
    new: float | None

    @property
    def moved(self) -> bool:
        """Whether there is a change; nan is no change from nan."""
        both = [value for value in (self.old, self.new) if value is not None and math.isnan(value)]
        return self.old != self.new and len(both) < 2

    @property
    def relative(self) -> float | None:
        """By how much it changed, as a share of what it was; None where that says nothing."""
        if self.old is None or self.new is None or not self.old:
            return None
        share = (self.new - self.old) / abs(self.old)
        return share if math.isfinite(share) else None


def record_pair(evaluations: Sequence[Evaluation]) -> Recorded:
    """What is stored of a pair: nothing that depends on where or how it was computed."""
    first = evaluations[0]
    described = {role: getattr(first, role) for role in ROLES}
    inputs = {role: of_role for role, of_role in described.items() if of_role is not None}
    histograms = {e.loss: e.statistics.histogram for e in evaluations}
    return Recorded(
        settings=_settings_of(first.settings, first.axis, inputs.keys()),
        shape=first.shape,
        inputs=inputs,
        statistics={e.loss: quantities_of(e) for e in evaluations},
        histograms={loss: octaves for loss, octaves in histograms.items() if octaves is not None},
    )


def _settings_of(spec: Spec, axis: int, roles: Collection[str]) -> dict[str, Setting]:
    """What decides the numbers, by the name of its option; the axis counted from the front."""
    return {
        "loss": tuple(loss for loss in LOSSES if loss in spec.losses),
        "log_softmax": spec.log_softmax,
        "predictions_are": spec.predictions_are,
        "targets_are": spec.targets_are,
        "axis": axis,
        "temperature": None if spec.temperature is None else float(spec.temperature),
        "zero_policy": spec.zero_policy,
        "broadcast": spec.broadcast,
        "ignore_value": _comparable(spec.ignore_value),
        "trim_axis": spec.trim_axis,
        "blocks_of": spec.blocks_of,
        **{role: role in roles for role in ("weight", "pos_weight", "mask")},
    }


def _comparable(value: float | None) -> Setting:
    """A number that equals itself and that JSON has; the name of one that does not."""
    return value if value is None or math.isfinite(value) else str(value)


def check_recorded(recorded: Recorded, now: Recorded, where: str) -> None:
    """Refuse to hold a run to numbers of other settings or shapes.

    Raises
    ------
    UsageError
        A setting differs.
    ShapeMismatch
        The shape does.
    """
    for name, value in now.settings.items():
        before = recorded.settings.get(name)
        if before != value:
            raise UsageError(
                f"{where}: recorded with {name} {shown_setting(before)}, now {shown_setting(value)}; "
                "give the same options, or record it anew with kldiv baseline update"
            )
    if recorded.shape != now.shape:
        raise ShapeMismatch(
            f"{where}: recorded of shape {recorded.shape}, now {now.shape}; "
            "give the same data, or record it anew with kldiv baseline update"
        )


def shown_setting(value: Setting) -> str:
    """A setting as a message or a table has it."""
    if isinstance(value, tuple):
        return " and ".join(value)
    return "none" if value is None else printable(str(value)).lower()


def find_changes(recorded: Recorded, now: Recorded) -> Iterator[Finding]:
    """What a reviewer should know of the inputs, beside those that the baseline was made of.

    Predictions are expected to change; what they are held against is not.
    """
    before = {role: recorded.inputs[role] for role in now.inputs if role in recorded.inputs}
    other = [
        role
        for role, described in before.items()
        # Of other shapes the same bytes may be stretched in another way.
        if role != "predictions"
        and (described.shape, described.sha256) != (now.inputs[role].shape, now.inputs[role].sha256)
    ]
    if other:
        yield Finding(
            id="inputs-changed",
            severity="warning",
            message=f"{' and '.join(other)} changed since the baseline was recorded: "
            "its numbers are of other data; record it anew with kldiv baseline update",
        )
    for role, described in before.items():
        # Of another byte order alone the digest is the same.
        if described.dtype != now.inputs[role].dtype and described.sha256 != now.inputs[role].sha256:
            yield Finding(
                id="dtype-changed",
                severity="note",
                message=f"{role} are {now.inputs[role].dtype}, in the baseline {printable(described.dtype)}",
            )
    if not other and now.inputs["predictions"].sha256 == recorded.inputs["predictions"].sha256:
        yield Finding(
            id="predictions-unchanged",
            severity="note",
            message="the predictions are those of the baseline, to the last element: were they made anew?",
        )


def changes(old: Baseline, new: Baseline) -> Iterator[Change]:
    """Every number of every pair, before and after; of pairs that are gone too."""
    for pair in (*new.pairs, *(name for name in old.pairs if name not in new.pairs)):
        before, after = (_numbers(baseline.pairs.get(pair)) for baseline in (old, new))
        for name in dict.fromkeys((*after, *before)):
            yield Change(pair, name, before.get(name), after.get(name))


def other_changes(old: Baseline, new: Baseline) -> Iterator[str]:
    """What changes of pairs beside their numbers: ``conv1: targets and axis``."""
    for pair, after in new.pairs.items():
        before = old.pairs.get(pair)
        if before is None:
            continue
        names = [*(name for name in ROLES if before.inputs.get(name) != after.inputs.get(name))]
        names += [name for name in after.settings if before.settings.get(name) != after.settings[name]]
        names += ["shape"] * (before.shape != after.shape)
        if names:
            yield f"{pair}: {', '.join(dict.fromkeys(names))}"


def _numbers(recorded: Recorded | None) -> dict[str, float]:
    return {} if recorded is None else once_named(recorded.statistics)
