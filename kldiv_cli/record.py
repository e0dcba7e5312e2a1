"""The record that JSON, JSON lines and CSV are written from; its keys are a contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from kldiv_cli.evaluation import Evaluation, Input
from kldiv_cli.map_view import MapView
from kldiv_cli.reductions import Reduction
from kldiv_cli.spec import Loss
from kldiv_cli.statistics import Statistics
from kldiv_cli.target_split import TargetSplit

__all__ = [
    "SCALARS",
    "SCHEMA",
    "direction",
    "direction_of",
    "evaluation_record",
    "input_record",
    "number_in",
    "split_groups",
    "split_record",
    "statistics_record",
    "value_at",
    "without_nonfinite",
]

SCHEMA: Final = "kldiv/1"
SCALARS: Final = ("sum", "mean", "batchmean", "distmean")


def direction(evaluation: Evaluation, predictions: str = "predictions", targets: str = "targets") -> str:
    """Which way the loss is taken."""
    return direction_of(evaluation.loss, predictions, targets)


def direction_of(loss: Loss, predictions: str = "predictions", targets: str = "targets") -> str:
    """The same of a loss alone."""
    if loss == "kl":
        return f"KL({targets} ‖ {predictions})"
    return f"BCE({predictions}, {targets})"


def evaluation_record(
    evaluation: Evaluation, reduction: Reduction | None = None, view: MapView | None = None
) -> dict[str, Any]:
    """Every field of the result under its name, ready for JSON: no value is a bare nan or inf."""
    chosen = SCALARS if reduction in (None, "none") else (reduction,)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "loss": evaluation.loss,
        "direction": direction(evaluation),
        "predictions": input_record(evaluation.predictions),
        "targets": input_record(evaluation.targets),
        **{
            name: input_record(factor)
            for name, factor in (
                ("weight", evaluation.weight),
                ("pos_weight", evaluation.pos_weight),
                ("mask", evaluation.mask),
            )
            if factor is not None
        },
        "settings": _settings(evaluation),
        "shape": list(evaluation.shape),
        "axis": evaluation.axis,
        "elements": evaluation.scalars.elements,
        "distributions": evaluation.scalars.distributions,
        "batch": evaluation.scalars.batch,
        **{name: getattr(evaluation, name) for name in chosen},
    }
    record["statistics"] = statistics_record(evaluation.statistics)
    if evaluation.top1 is not None:
        record["top1"] = evaluation.top1._asdict()
    if evaluation.settings.worst:
        record["worst"] = [worst._asdict() for worst in evaluation.worst]
    if evaluation.by_target is not None:
        record["by_target"] = split_record(evaluation.by_target)
    record["findings"] = [asdict(finding) for finding in evaluation.findings]
    if view is not None:
        record["map"] = _map(view)
    return without_nonfinite(record)


def input_record(described: Input) -> dict[str, Any]:
    """What is known of an input; its digest only where one was asked for."""
    return {name: value for name, value in described._asdict().items() if value is not None}


def statistics_record(statistics: Statistics) -> dict[str, Any]:
    """All statistics by name, from the smallest value to the largest; the histogram is for baselines."""
    record = statistics._asdict()
    del record["histogram"]
    blocks = record.pop("blocks")
    percentiles, maximum, exact = (record.pop(name) for name in ("percentiles", "maximum", "exact"))
    record |= {**percentiles, "maximum": maximum, "exact": exact}
    return record if blocks is None else {**record, "blocks": blocks._asdict()}


def split_record(split: TargetSplit) -> dict[str, Any]:
    """The count and the mean of each group, by its name."""
    return {name: {"count": group.count, "mean": group.mean} for name, group in split_groups(split)}


def split_groups(split: TargetSplit) -> list[tuple[str, Any]]:
    """The groups by name; the one for targets outside [0, 1] only where there are any."""
    groups = [("one", split.one), ("zero", split.zero), ("between", split.between)]
    return [*groups, ("outside", split.outside)] if split.outside.count else groups


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    spec = evaluation.settings
    return {
        "log_softmax": evaluation.axis if spec.log_softmax else None,
        "temperature": spec.temperature,
        "zero_policy": spec.zero_policy,
        "broadcast": spec.broadcast,
        "ignore_value": spec.ignore_value,
        "trim_axis": spec.trim_axis,
    }


def _map(view: MapView) -> dict[str, Any]:
    return {
        "shape": list(view.shape),
        "cut": view.cut,
        "indices": [list(indices) for indices in view.indices],
        "values": view.values.tolist(),
    }


def without_nonfinite(record: dict[str, Any]) -> dict[str, Any]:
    """Replace nan and inf by null, and name them under "nonfinite"."""
    if not _has_nonfinite(record):
        return record
    odd: dict[str, str] = {}

    def cleaned(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: cleaned(item, f"{path}.{key}" if path else key) for key, item in value.items()}
        if isinstance(value, list):
            return [cleaned(item, f"{path}.{position}") for position, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            odd[path] = str(value)
            return None
        return value

    clean: dict[str, Any] = cleaned(record, "")
    return {**clean, "nonfinite": odd}


def _has_nonfinite(value: object) -> bool:
    """Whether there is any: mostly there is none, and looking is quicker than copying."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_nonfinite, value.values()))
    return isinstance(value, list) and any(map(_has_nonfinite, value))


def number_in(record: Mapping[str, Any], *keys: str) -> float | None:
    """A number of a record, nan and inf as they were before they were replaced; None where there is none.

    >>> record = without_nonfinite({"statistics": {"mean": math.inf, "p99.9": 1.5}})
    >>> number_in(record, "statistics", "mean"), number_in(record, "statistics", "p99.9")
    (inf, 1.5)
    """
    value = value_at(record, *keys)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def value_at(record: Mapping[str, Any], *keys: str) -> Any:
    """A field of a record, its nan and inf as such; None where there is none.

    >>> value_at({"sum": None, "nonfinite": {"sum": "inf"}}, "sum")
    inf
    """
    item: Any = record
    for key in keys:
        if isinstance(item, (list, tuple)):
            item = item[int(key)] if int(key) < len(item) else None
        else:
            item = item.get(key)
        if item is None:
            odd = record.get("nonfinite", {}).get(".".join(keys))
            return None if odd is None else float(odd)
    return item
