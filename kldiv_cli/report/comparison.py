"""What `kldiv compare` found, in every format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, assert_never

from kldiv_cli.comparison import Bucket, Comparison
from kldiv_cli.estimates import Estimate, Share
from kldiv_cli.record import SCHEMA, input_record, statistics_record, without_nonfinite
from kldiv_cli.report import text
from kldiv_cli.report.console import Format, resolve_format
from kldiv_cli.report.layout import Grid, agreement_grid, number, worst_grid
from kldiv_cli.statistics import Statistics
from kldiv_cli.streams import printable

__all__ = ["comparison_grids", "comparison_record", "render_comparison"]

_MEANS: Final = ("kl", "kl_reverse", "js", "tv", "entropy_reference", "entropy_candidate", "delta_p")
_SHARES: Final = ("same_top", "in_top_k")
_OF_LABELS: Final = ("cross_entropy_reference", "cross_entropy_candidate", "delta_p")
_ESTIMATES: Final = ("perplexity_reference", "perplexity_candidate", "ratio", "log_ratio", "difference")
_LABEL_SHARES: Final = ("accuracy_reference", "accuracy_candidate")


def render_comparison(comparison: Comparison, format: Format, precision: int | None = None) -> str:
    """Distances, percentiles, agreement, confidence, labels and the worst, each a table."""
    match resolve_format(format):
        case "table" | "auto":
            from kldiv_cli.report.table import DIGITS, render_report

            grids = list(comparison_grids(comparison, DIGITS if precision is None else precision))
            return render_report(_heading(comparison), _inputs(comparison), grids)
        case "plain":
            return text.plain_report(
                _heading(comparison), _inputs(comparison), comparison_grids(comparison, precision)
            )
        case "md":
            return text.md_report(
                _heading(comparison), _inputs(comparison), comparison_grids(comparison, precision)
            )
        case "csv":
            flat = dict(_flat(comparison_record(comparison)))
            return text.csv_rows([list(flat), [text.csv_cell(value, precision) for value in flat.values()]])
        case "json":
            import json

            return json.dumps(without_nonfinite(comparison_record(comparison)), indent=2) + "\n"
        case "jsonl":
            import json

            return json.dumps(without_nonfinite(comparison_record(comparison))) + "\n"
        case unknown:
            assert_never(unknown)


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Every field of the result under its name."""
    settings, spec = comparison.settings, comparison.settings.spec
    labels = comparison.with_labels
    return {
        "schema": SCHEMA,
        "direction": "KL(reference ‖ candidate)",
        "reference": input_record(comparison.reference),
        "candidate": input_record(comparison.candidate),
        **{
            name: input_record(beside)
            for name, beside in (("labels", comparison.labels), ("mask", comparison.mask))
            if beside is not None
        },
        "settings": {
            "temperature": spec.temperature,
            "top_k": settings.top_k,
            "ignore_value": settings.ignore_value,
            "trim_axis": spec.trim_axis,
        },
        "shape": list(comparison.shape),
        "axis": comparison.axis,
        "distributions": comparison.distributions,
        **{name: _recorded(getattr(comparison, name)) for name in (*_MEANS, "delta_p_rms", *_SHARES)},
        "buckets": [_bucket_record(bucket) for bucket in comparison.buckets],
        **({} if labels is None else {"with_labels": _label_record(comparison)}),
        **({"worst": [worst._asdict() for worst in comparison.worst]} if spec.worst else {}),
        "findings": [asdict(finding) for finding in comparison.findings],
    }


def _bucket_record(bucket: Bucket) -> dict[str, Any]:
    """One without distributions has neither a KL nor a share."""
    known = bucket.count > 0
    return {
        **bucket._asdict(),
        "kl": bucket.kl._asdict() if known else dict.fromkeys(Estimate._fields),
        "same_top": bucket.same_top._asdict() if known else {**dict.fromkeys(Share._fields), "count": 0},
    }


def _label_record(comparison: Comparison) -> dict[str, Any]:
    labels = comparison.with_labels
    names = (*_OF_LABELS, *_ESTIMATES, "correlation", *_LABEL_SHARES, "delta_p_rms")
    return {name: _recorded(getattr(labels, name)) for name in names}


def _recorded(value: Statistics | Estimate | Share | float) -> Any:
    if isinstance(value, Statistics):
        return statistics_record(value)
    return value if isinstance(value, float) else value._asdict()


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a record by their path; findings are for stderr and JSON."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key != "findings":
                yield from _flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for position, item in enumerate(value, 1):
            yield from _flat(item, f"{path}.{position}")
    elif isinstance(value, (list, tuple)):
        yield path, ("x" if path.endswith("shape") else " ").join(map(str, value))
    elif isinstance(value, str):
        yield path, printable(value)
    else:
        yield path, "" if value is None else value


# Grids


def comparison_grids(comparison: Comparison, precision: int | None) -> Iterator[Grid]:
    """All tables, one after another."""
    yield _means(comparison, precision)
    yield _percentiles(comparison, precision)
    yield _agreement(comparison, precision)
    yield _confidence(comparison, precision)
    if comparison.with_labels is not None:
        yield _labels(comparison, precision)
    if comparison.worst:
        dimensions = [d for d in range(len(comparison.shape)) if d != comparison.axis]
        yield worst_grid(comparison.worst, dimensions, "kl", precision)


def _heading(comparison: Comparison) -> str:
    reference, candidate = printable(comparison.reference.address), printable(comparison.candidate.address)
    return f"{candidate} compared with {reference}, {comparison.distributions} distributions, in nats"


def _inputs(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    roles = ("reference", "candidate", "labels", "mask")
    sources = (comparison.reference, comparison.candidate, comparison.labels, comparison.mask)
    axis, temperature = comparison.axis, comparison.settings.spec.temperature
    rows = []
    for role, source in zip(roles, sources, strict=True):
        if source is None:
            continue
        space = source.space
        if space == "logits":
            space += ", log-softmax" if temperature is None else f" / {temperature:g}, log-softmax"
        if role in ("reference", "candidate"):
            space += f" over axis {axis} ({comparison.shape[axis]})"
        rows.append((role, printable(source.address), f"{source.shape}", source.dtype, space))
    return tuple(rows)


def _means(comparison: Comparison, precision: int | None) -> Grid:
    rows = []
    for name in _MEANS:
        statistics = getattr(comparison, name)
        values = (statistics.mean, statistics.standard_error, statistics.minimum, statistics.maximum)
        rows.append((name, *(number(value, precision) for value in values)))
        if name == "kl" and statistics.blocks is not None:
            blocks = statistics.blocks
            error = number(blocks.standard_error, precision)
            rows.append((f"kl, {blocks.blocks} blocks of {blocks.of}", "", error, "", ""))
    rms = comparison.delta_p_rms
    rows.append(("delta_p_rms", number(rms.value, precision), number(rms.standard_error, precision), "", ""))
    columns = ("quantity", "mean", "standard_error", "minimum", "maximum")
    return Grid(columns=columns, rows=tuple(rows))


def _percentiles(comparison: Comparison, precision: int | None) -> Grid:
    told = {"kl": comparison.kl, "delta_p": comparison.delta_p}
    if comparison.with_labels is not None:
        told["delta_p of the label"] = comparison.with_labels.delta_p
    exact = all(statistics.exact for statistics in told.values())
    names = ("minimum", *comparison.kl.percentiles, "maximum")
    records = [statistics_record(statistics) for statistics in told.values()]
    rows = tuple((name, *(number(record[name], precision) for record in records)) for name in names)
    return Grid(columns=("percentile" if exact else "percentile ±0.05 %", *told), rows=rows)


def _agreement(comparison: Comparison, precision: int | None) -> Grid:
    in_top_k = f"in_top_{comparison.settings.top_k}"
    shares = {"same_top": comparison.same_top, in_top_k: comparison.in_top_k}
    return agreement_grid(shares, precision)


def _confidence(comparison: Comparison, precision: int | None) -> Grid:
    rows = tuple(
        (
            f"{bucket.low:g} to {bucket.high:g}",
            str(bucket.count),
            number(bucket.kl.value, precision),
            number(bucket.kl.standard_error, precision),
            number(bucket.same_top.share, precision),
        )
        for bucket in comparison.buckets
        if bucket.count
    )
    return Grid(columns=("confidence of reference", "count", "kl", "standard_error", "same_top"), rows=rows)


def _labels(comparison: Comparison, precision: int | None) -> Grid:
    labels = comparison.with_labels
    assert labels is not None
    estimates: dict[str, tuple[float, float | None]] = {}
    for name in _OF_LABELS:
        statistics = getattr(labels, name)
        estimates[name] = (statistics.mean, statistics.standard_error)
    for name in (*_ESTIMATES, "delta_p_rms"):
        estimates[name] = tuple(getattr(labels, name))
    for name in _LABEL_SHARES:
        share = getattr(labels, name)
        estimates[name] = (share.share, share.standard_error)
    estimates["correlation"] = (labels.correlation, None)
    order = (
        "cross_entropy_reference",
        "cross_entropy_candidate",
        "perplexity_reference",
        "perplexity_candidate",
        "ratio",
        "log_ratio",
        "difference",
        "correlation",
        "accuracy_reference",
        "accuracy_candidate",
        "delta_p",
        "delta_p_rms",
    )
    rows = tuple(
        (name, number(value, precision), "" if error is None else number(error, precision))
        for name, (value, error) in ((name, estimates[name]) for name in order)
    )
    return Grid(columns=("with labels", "value", "standard_error"), rows=rows)
