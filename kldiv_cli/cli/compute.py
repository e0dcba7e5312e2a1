"""``kldiv compute``: one loss, or both, on one pair of arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kldiv_cli.cli import options
from kldiv_cli.cli.computation import inputs_of, spec_of, takes_computation
from kldiv_cli.cli.formats import choose_format
from kldiv_cli.errors import UsageError

if TYPE_CHECKING:
    from kldiv_cli.evaluation import Evaluation
    from kldiv_cli.findings import Finding
    from kldiv_cli.map_view import MapWindow
    from kldiv_cli.reductions import Reduction
    from kldiv_cli.report.console import Format
    from kldiv_cli.sources import Inputs
    from kldiv_cli.spec import Spec

__all__ = ["chosen_reduction", "compute"]


@takes_computation
def compute(
    predictions: options.Predictions,
    targets: options.Targets,
    *,
    top1: options.Top1 = False,
    reduction: options.ReductionName = None,
    size_average: options.SizeAverage = None,
    reduce: options.Reduce = None,
    map_slice: options.MapSlice = None,
    full: options.Full = False,
    format: options.FormatName = "auto",
    json: options.Json = False,
    precision: options.Precision = None,
    output: options.Output = None,
    distributions: options.Distributions = None,
    output_dtype: options.OutputDtype = None,
    force: options.Force = False,
    workers: options.Workers = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    progress: options.ProgressBar = None,
    strict: options.Strict = False,
    debug: options.Debug = False,
    **computation: Any,
) -> int:
    """Compute KL divergence or BCE of predictions and targets.

    \b
    Student logits against teacher probabilities:
      kldiv compute student.npy teacher.npy --log-softmax -1
    Both in one HDF5 file, as JSON:
      kldiv compute outputs.h5::/logits outputs.h5::/probs --log-softmax 1 --json
    Binary probabilities against 0/1 labels:
      kldiv compute probs.npy labels.npy --loss bce
    The per-element map, shown and written:
      kldiv compute heat.npy gauss.npy --reduction none --output map.npy

    Which tokens are worst, padding not counted:
      kldiv compute logits.npy teacher.npy --log-softmax -1 --mask mask.npy --worst 10

    Exit codes: 0 fine, 1 a warning with --strict, 2 could not be computed, 3 an internal error.
    """
    from kldiv_cli.api import evaluate_to
    from kldiv_cli.placement import resources_of
    from kldiv_cli.report.progress import progress_of

    spec = spec_of(computation, top1=top1)
    shown = choose_format(format, json=json, precision=precision)
    chosen = chosen_reduction(reduction, size_average, reduce, spec)
    inputs = inputs_of(predictions, targets, computation)
    window = _window(spec, inputs, chosen, map_slice, full)
    with (
        resources_of(workers, memory, scheduler) as resources,
        progress_of(spec, inputs, wanted=progress) as advance,
    ):
        evaluations = evaluate_to(
            spec,
            inputs,
            output=output,
            distributions=distributions,
            output_dtype=output_dtype,
            force=force,
            writers=() if window is None else (window,),
            resources=resources,
            progress=advance,
        )
    findings = _report(evaluations, shown, chosen, window, precision)
    return int(strict and any(finding.severity == "warning" for finding in findings))


def chosen_reduction(
    reduction: Reduction | None, size_average: bool | None, reduce: bool | None, spec: Spec
) -> Reduction | None:
    """The reduction asked for, PyTorch 0.4's flags first; None for all of them."""
    from kldiv_cli.reductions import check_reduction, legacy_reduction
    from kldiv_cli.report.console import tell

    legacy = legacy_reduction(size_average, reduce)
    if legacy is not None:
        if reduction == "batchmean":
            raise UsageError("size_average: contradicts --reduction batchmean, as does --reduce; drop them")
        tell(
            "note",
            f"size_average and reduce are deprecated in PyTorch; --reduction {legacy} says the same",
        )
    chosen = legacy or reduction
    if chosen is not None:
        check_reduction(chosen, spec.losses)
    return chosen


def _window(
    spec: Spec, inputs: Inputs, reduction: Reduction | None, map_slice: str | None, full: bool
) -> MapWindow | None:
    """What gathers the map to be shown, where one was asked for."""
    if reduction != "none":
        if full or map_slice is not None:
            raise UsageError(
                "map_slice: chooses what is shown of a map, as --full does; add --reduction none"
            )
        return None
    from kldiv_cli.map_view import open_window
    from kldiv_cli.shapes import map_shape
    from kldiv_cli.sources import resolve_selection

    shape = map_shape(spec, inputs)
    selection = None if map_slice is None else resolve_selection("map_slice", map_slice, shape)
    return open_window(shape, selection, full=full)


def _report(
    evaluations: tuple[Evaluation, ...],
    format: Format,
    reduction: Reduction | None,
    window: MapWindow | None,
    precision: int | None,
) -> list[Finding]:
    from kldiv_cli.diagnosis import find_reduction
    from kldiv_cli.report.console import tell, tell_findings, write
    from kldiv_cli.report.render import render

    view = None if window is None else window.view()
    evaluations = tuple(
        replace(e, findings=(*find_reduction(e.loss, reduction, e.scalars, e.shape), *e.findings))
        for e in evaluations
    )
    write(render(evaluations, format, reduction, view, precision))
    if view is not None and view.cut:
        tell("note", f"{view.values.size} of {view.asked} elements shown; --full shows all")
    findings = list(dict.fromkeys(f for e in evaluations for f in e.findings))
    tell_findings(findings)
    return findings
