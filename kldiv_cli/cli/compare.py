"""``kldiv compare``: two models' outputs on the same inputs."""

from __future__ import annotations

from kldiv_cli.cli import options
from kldiv_cli.cli.formats import choose_format

__all__ = ["compare"]


def compare(
    reference: options.Reference,
    candidate: options.Candidate,
    reference_are: options.ReferenceAre = "logits",
    candidate_are: options.CandidateAre = "logits",
    axis: options.ClassAxis = -1,
    labels: options.Labels = None,
    temperature: options.Temperature = None,
    mask: options.MaskOfDistributions = None,
    ignore_value: options.IgnoreValue = None,
    trim_axis: options.TrimAxis = False,
    top_k: options.TopK = 5,
    quantiles: options.Quantiles = None,
    worst: options.WorstCount = 0,
    blocks_of: options.BlocksOf = None,
    format: options.FormatName = "auto",
    json: options.Json = False,
    precision: options.Precision = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    progress: options.ProgressBar = None,
    allow_external: options.AllowExternal = False,
    strict: options.Strict = False,
    debug: options.Debug = False,
) -> int:
    """Compare two models' outputs on the same inputs.

    \b
    A quantized model's logits with those it was made from:
      kldiv compare original.npy quantized.npy
    With the tokens that came next, padding left out:
      kldiv compare original.npy quantized.npy --labels tokens.npy --ignore-value -100
    The ten tokens that moved most, 512 tokens a text:
      kldiv compare original.h5::/logits quantized.h5::/logits --worst 10 --blocks-of 512

    KL both ways, Jensen-Shannon, total variation, agreement of the top classes, change of the top
    class' probability; with labels cross-entropy, perplexity and accuracy of both.

    Exit codes: 0 fine, 1 a warning with --strict, 2 could not be computed, 3 an internal error.
    """
    from kldiv_cli.api import compare_to, open_comparison
    from kldiv_cli.comparison_spec import resolve_comparison
    from kldiv_cli.placement import resources_of
    from kldiv_cli.report.comparison import render_comparison
    from kldiv_cli.report.console import tell_findings, write
    from kldiv_cli.report.progress import progress_of

    settings = resolve_comparison(
        reference_are=reference_are,
        candidate_are=candidate_are,
        axis=axis,
        temperature=temperature,
        labels=labels is not None,
        mask=mask is not None,
        ignore_value=ignore_value,
        trim_axis=trim_axis,
        top_k=top_k,
        quantiles=options.parse_numbers("quantiles", quantiles),
        worst=worst,
        blocks_of=blocks_of,
    )
    shown = choose_format(format, json=json, precision=precision)
    inputs = open_comparison(reference, candidate, labels, mask, allow_external=allow_external)
    with (
        resources_of(workers, memory, scheduler) as resources,
        progress_of(settings.spec, inputs, wanted=progress) as advance,
    ):
        comparison = compare_to(settings, inputs, resources=resources, progress=advance)
    write(render_comparison(comparison, shown, precision))
    tell_findings(comparison.findings)
    return int(strict and any(finding.severity == "warning" for finding in comparison.findings))
