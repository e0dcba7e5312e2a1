"""What `kldiv check` found, in every format: the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, assert_never

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.findings import counted
from kldiv_cli.gate import Checked, exit_code
from kldiv_cli.quantities import quantities_of
from kldiv_cli.record import SCHEMA, input_record, without_nonfinite
from kldiv_cli.report import text
from kldiv_cli.report.console import Format, resolve_format
from kldiv_cli.report.layout import Grid, Tone, inputs, number, worst_grid
from kldiv_cli.report.octaves import octave_grid
from kldiv_cli.report.told import Told
from kldiv_cli.streams import printable
from kldiv_cli.verdicts import Verdict

__all__ = [
    "MARKDOWN_MARK",
    "check_grids",
    "check_record",
    "heading_of",
    "markdown",
    "markdown_file",
    "render_checked",
    "told_findings",
]

MARKDOWN_MARK: Final = "<!-- kldiv check -->\n"
"""What a report in Markdown begins with, so that the next one may take its place."""

_PASSES_SHOWN: Final = 20
_DETAILED: Final = 10
"""Of so many failed pairs the worst losses are listed, and how they spread."""


def render_checked(
    results: Sequence[Checked], format: Format, precision: int | None = None, *, full: bool = False
) -> str:
    """Every limit with what was obtained; of failed pairs the worst losses, and how all of them spread."""
    match resolve_format(format):
        case "table" | "auto":
            from kldiv_cli.report.table import DIGITS, render_report

            digits = DIGITS if precision is None else precision
            grids = list(check_grids(results, digits, full=full))
            return render_report(heading_of(results), _inputs(results), grids)
        case "plain":
            return text.plain_report(
                heading_of(results), _inputs(results), check_grids(results, precision, full=full)
            )
        case "md":
            return markdown(results, precision, full=full)
        case "csv":
            return text.csv_rows(_csv_rows(results, precision))
        case "json":
            import json

            return json.dumps(without_nonfinite(check_record(results)), indent=2) + "\n"
        case "jsonl":
            import json

            records = ({"schema": SCHEMA, **_pair_record(result)} for result in results)
            return "".join(json.dumps(without_nonfinite(record)) + "\n" for record in records)
        case unknown:
            assert_never(unknown)


def markdown(results: Sequence[Checked], precision: int | None = None, *, full: bool = False) -> str:
    """For a pull request: with the messages that a terminal has beside the tables."""
    body = text.md_report(heading_of(results), _inputs(results), check_grids(results, precision, full=full))
    lines = [
        f"- **{text.escape_md(kind)}**: {text.escape_md(printable(said))}"
        for kind, said in told_findings(results)
    ]
    return body + ("\n" + "\n".join(lines) + "\n" if lines else "")


def markdown_file(results: Sequence[Checked]) -> str:
    """The same as a file that the next one replaces."""
    return MARKDOWN_MARK + markdown(results)


def told_findings(results: Sequence[Checked]) -> Iterator[tuple[str, str]]:
    """What is to be said beside the tables: its kind, and the message with the pair it is of.

    Errors one by one; what is said of many pairs alike, once.
    """
    told = Told()
    for result in results:
        where = f"{result.name}: " if len(results) > 1 else ""
        if result.error is not None:
            told.error(f"{where}{result.error}")
        for finding in result.findings:
            if finding.severity == "error":
                told.error(f"{where}{finding.message} (to let it pass, allow {finding.id})")
            else:
                told.finding(finding.severity, finding.id, f"{where}{finding.message}")
    return told.lines()


def heading_of(results: Sequence[Checked]) -> str:
    """How many pairs, and how they fared."""
    counts = _counts(results)
    fared = ", ".join(
        f"{counts[key]} {word}"
        for key, word in (("errors", "could not be computed"), ("failed", "failed"), ("passed", "passed"))
        if counts[key]
    )
    return f"{counted(len(results), 'pair')}: {fared}"


def _counts(results: Sequence[Checked]) -> dict[str, int]:
    statuses = [result.status for result in results]
    return {
        "pairs": len(results),
        "passed": statuses.count("passed"),
        "failed": statuses.count("failed"),
        "errors": statuses.count("error"),
    }


def _inputs(results: Sequence[Checked]) -> tuple[tuple[str, ...], ...]:
    """What a single pair is of; of many, none."""
    return inputs(results[0].evaluations) if len(results) == 1 and results[0].evaluations else ()


# Records


def check_record(results: Sequence[Checked]) -> dict[str, Any]:
    """Every field of the result under its name."""
    return {
        "schema": SCHEMA,
        "exit_code": exit_code(results),
        **_counts(results),
        "results": [_pair_record(result) for result in results],
    }


def _pair_record(result: Checked) -> dict[str, Any]:
    record: dict[str, Any] = {"pair": result.name, "status": result.status, "error": result.error}
    if result.evaluations:
        first = result.evaluations[0]
        record |= {
            "predictions": input_record(first.predictions),
            "targets": input_record(first.targets),
            "shape": list(first.shape),
            "axis": first.axis,
        }
    record["limits"] = [_verdict_record(verdict) for verdict in result.verdicts]
    record["statistics"] = {e.loss: quantities_of(e) for e in result.evaluations}
    record["worst"] = {e.loss: [worst._asdict() for worst in e.worst] for e in result.evaluations}
    record["histogram"] = {e.loss: _histogram_record(result, e) for e in result.evaluations}
    record["findings"] = [asdict(finding) for finding in result.findings]
    return record


def _histogram_record(result: Checked, evaluation: Evaluation) -> dict[str, Any]:
    """How many losses lie in each octave: now, and when the baseline was recorded."""
    now = evaluation.statistics.histogram
    before = None if result.baseline is None else result.baseline.histograms.get(evaluation.loss)
    both = {"now": now, "baseline": before}
    return {
        when: None if octaves is None else octaves._asdict() | {"counts": list(octaves.counts)}
        for when, octaves in both.items()
    }


def _verdict_record(verdict: Verdict) -> dict[str, Any]:
    return {
        "limit": verdict.limit.text,
        "statistic": verdict.limit.statistic,
        "obtained": verdict.obtained,
        "bound": verdict.bound,
        "passed": verdict.passed,
        "margin": verdict.margin,
        "would_pass": verdict.would_pass,
    }


_CSV: Final = ("limit", "statistic", "obtained", "bound", "passed", "margin", "would_pass")


def _csv_rows(results: Sequence[Checked], precision: int | None) -> Iterator[list[str]]:
    yield ["pair", "status", *_CSV, "findings", "error"]
    for result in results:
        failing = " ".join(finding.id for finding in result.errors())
        name, error = printable(result.name), printable(result.error or "")
        for verdict in result.verdicts:
            record = _verdict_record(verdict)
            cells = ("" if record[key] is None else text.csv_cell(record[key], precision) for key in _CSV)
            yield [name, result.status, *cells, failing, error]
        if not result.verdicts:
            yield [name, result.status, *("" for _ in _CSV), failing, error]


# Grids


def check_grids(results: Sequence[Checked], precision: int | None, *, full: bool = False) -> Iterator[Grid]:
    """The limits of all pairs, then of the failed ones the worst losses and how all of them spread."""
    yield _verdict_grid(results, precision, full=full)
    failed = [result for result in results if result.status == "failed"]
    for result in failed if full else failed[:_DETAILED]:
        yield from _details(result, precision, named=len(results) > 1)


def _details(result: Checked, precision: int | None, *, named: bool) -> Iterator[Grid]:
    of = f" of {printable(result.name)}" if named else ""
    for e in result.evaluations:
        if e.worst:
            dimensions = [d for d in range(len(e.shape)) if e.loss != "kl" or d != e.axis]
            grid = worst_grid(e.worst, dimensions, e.loss, precision)
            yield grid._replace(columns=(f"worst{of}", *grid.columns[1:]))
        before = None if result.baseline is None else result.baseline.histograms.get(e.loss)
        if before is not None and e.statistics.histogram is not None:
            yield octave_grid(f"{e.loss}{of}", before, e.statistics.histogram)


def _verdict_grid(results: Sequence[Checked], precision: int | None, *, full: bool) -> Grid:
    rows: list[tuple[str, ...]] = []
    tones: list[Tone] = []
    passes, left_out = 0, 0
    for result in results:
        passes += result.status == "passed"
        if result.status == "passed" and passes > _PASSES_SHOWN and not full:
            left_out += 1
            continue
        for row, tone in _rows(result, precision):
            rows.append((printable(result.name), *row))
            tones.append(tone)
    if left_out:
        rows.append((f"and {left_out} more", "passed", "--full shows all", "", "", ""))
        tones.append("")
    columns = ("pair", "result", "limit", "obtained", "bound", "margin")
    return Grid(columns=columns, rows=tuple(rows), words=(0, 1, 2, 5), tones=tuple(tones))


def _rows(result: Checked, precision: int | None) -> Iterator[tuple[tuple[str, ...], Tone]]:
    if result.error is not None:
        yield ("error", "could not be computed", "", "", ""), "bad"
    for finding in result.errors():
        count = "" if finding.count is None else str(finding.count)
        yield ("failed", f"no {finding.id}", count, "", ""), "bad"
    for verdict in sorted(result.verdicts, key=lambda verdict: -verdict.excess):
        numbers = (number(value, precision) for value in (verdict.obtained, verdict.bound))
        word, tone = _RESULTS[verdict.passed]
        yield (word, verdict.limit.text, *numbers, _margin(verdict)), tone


_RESULTS: Final[dict[bool, tuple[str, Tone]]] = {True: ("passed", "good"), False: ("failed", "bad")}


def _margin(verdict: Verdict) -> str:
    """How much room is left, or what would have passed."""
    if verdict.would_pass is not None:
        _, comparison, bound = verdict.would_pass.split()
        other = "" if comparison == verdict.limit.comparison else f"{comparison} "
        return f"would pass with {other}{bound}"
    if verdict.passed and verdict.margin == verdict.margin:
        return f"{100 * verdict.margin:.3g} %"
    return ""
