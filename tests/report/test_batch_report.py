"""What `kldiv batch` shows, in every format."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any, Final

import pytest
from batches import SPEC, TARGETS, broken, computed, impossible, renamed, summed

from kldiv_cli.batch_summary import BatchSummary
from kldiv_cli.pair_result import PairResult
from kldiv_cli.report.batch import batch_lines, tell_pair
from kldiv_cli.report.batch_grids import byte_size
from kldiv_cli.report.console import Format
from kldiv_cli.report.told import Told
from kldiv_cli.spec import Spec, resolve_spec

STREAMING: Final[tuple[Format, ...]] = ("jsonl", "csv", "plain")
FORMATS: Final[tuple[Format, ...]] = (*STREAMING, "json", "md", "table")
BOTH: Final = resolve_spec(
    losses=("kl", "bce"),
    predictions_are="probs",
    top1=True,
    by_target=True,
    worst=2,
    blocks_of=2,
    quantiles=[0.25],
)


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def written(
    results: Sequence[PairResult],
    format: Format,
    spec: Spec = SPEC,
    *,
    summary: BatchSummary | None = None,
    **options: Any,
) -> str:
    """All that a format writes of these."""
    lines = batch_lines(format, spec, **options)
    body = "".join(map(lines.pair, results))
    return lines.begin() + body + lines.end(summed(results, spec) if summary is None else summary)


def strict_json(text: str) -> Any:
    """Refuse NaN and Infinity, which Python's reader takes and others do not."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


RESULTS: Final = (computed("a", seed=1), computed("dir/b", seed=2), broken())

PLAIN: Final = """\
pair                              loss   distributions        sum       mean  batchmean   distmean        p99    maximum  findings
a                                 kl                 3       1.37      0.228      0.457      0.457      0.714      0.716
dir/b                             kl                 3      0.327     0.0545      0.109      0.109      0.275       0.28
ugly                              error  ugly/q.npy: no such file

KL(targets ‖ predictions), in nats; 3 pairs: 2 computed, 1 could not be computed; 192 bytes

worst  pair   kl distmean
    1  a            0.457
    2  dir/b        0.109

micro         kl  divisor  of
sum          1.7        1
mean       0.141       12  elements
batchmean  0.283        6  batch
distmean   0.283        6  distributions

macro         kl  standard_error
mean       0.141          0.0869
batchmean  0.283           0.174
distmean   0.283           0.174

statistic           kl  of
mean             0.283  6 distributions
standard_error    0.13
minimum         0.0128
p0.1            0.0129
p1              0.0136
p5              0.0168
p10             0.0208
p50              0.157
p90              0.671
p95              0.693
p99              0.711
p99.9            0.715
maximum          0.716
"""  # noqa: E501


def test_plain_text_is_laid_out_as_stored() -> None:
    assert written(RESULTS, "plain", precision=3) == PLAIN


def test_markdown_has_the_pairs_and_the_same_tables() -> None:
    text = written(RESULTS, "md", precision=3)
    assert text.startswith("**KL(targets ‖ predictions), in nats; 3 pairs: 2 computed")
    assert "| dir/b | kl | 3 | 0.327 | 0.0545 | 0.109 | 0.109 | 0.275 | 0.28 |  |" in text
    assert "| ugly | ugly/q.npy: no such file |" in text
    assert "| distmean | 0.283 | 6 | distributions |" in text
    assert "| distmean | 0.283 | 0.174 |" in text


# As pairs come


@pytest.mark.parametrize("format", STREAMING)
def test_what_a_pair_adds_does_not_depend_on_the_others(format: Format) -> None:
    for result in RESULTS:
        alone = batch_lines(format, SPEC).pair(result)
        lines = batch_lines(format, SPEC)
        assert [lines.pair(other) for other in (*RESULTS, result)][-1] == alone
        assert alone.endswith("\n")


@pytest.mark.parametrize("format", ["json", "md", "table"])
def test_a_format_that_needs_all_pairs_is_silent_until_the_end(format: Format) -> None:
    lines = batch_lines(format, SPEC)
    assert lines.begin() == ""
    assert {lines.pair(result) for result in RESULTS} == {""}


# JSON


@pytest.mark.parametrize("spec", [SPEC, BOTH], ids=["kl", "both"])
def test_a_line_is_what_compute_prints_with_the_pair_and_its_status(spec: Spec) -> None:
    result = impossible(spec=spec) if spec is SPEC else computed("a", spec)
    *lines, summary = map(strict_json, written([result, broken()], "jsonl", spec).splitlines())
    printed = [json.loads(json.dumps(record)) for record in result.records]
    assert lines[:-1] == [{**record, "pair": result.name, "status": "ok"} for record in printed]
    assert list(lines[0])[:3] == ["schema", "pair", "status"]
    assert lines[-1] == {
        "schema": "kldiv/1",
        "pair": "ugly",
        "status": "error",
        "error": "ugly/q.npy: no such file",
        "predictions": {"address": "ugly/q.npy"},
        "targets": {"address": "ugly/p.npy"},
    }
    assert summary["summary"]["failed"] == [{"pair": "ugly", "error": "ugly/q.npy: no such file"}]


@pytest.mark.parametrize(
    "results", [RESULTS, (impossible(), *RESULTS), ()], ids=["three", "with inf", "none"]
)
def test_json_is_the_lines_in_one(results: Sequence[PairResult]) -> None:
    whole = strict_json(written(results, "json"))
    *lines, summary = map(strict_json, written(results, "jsonl").splitlines())
    assert [{"schema": "kldiv/1", **pair} for pair in whole["pairs"]] == lines
    assert {key: value for key, value in whole.items() if key != "pairs"} == summary


def test_the_summary_has_micro_macro_worst_and_counts() -> None:
    summary = summed(RESULTS)
    record = strict_json(written(RESULTS, "jsonl").splitlines()[-1])["summary"]
    (loss,) = record.pop("losses")
    assert record == {
        "pairs": 3,
        "computed": 2,
        "from_journal": 0,
        "failed": [{"pair": "ugly", "error": "ugly/q.npy: no such file"}],
        "not_reached": 0,
        "unmatched": [],
        "bytes": 192,
        "seconds": 1.5,
    }
    (expected,) = summary.losses
    assert loss["micro"]["distmean"] == expected.scalars.distmean
    assert loss["micro"]["statistics"]["count"] == 6
    assert loss["macro"]["distmean"] == expected.macro["distmean"]._asdict()
    assert loss["worst"] == [{"pair": name, "value": value} for name, value in expected.worst]
    assert [worst["pair"] for worst in loss["worst"]] == ["a", "dir/b"]


def test_a_summary_names_what_is_not_finite() -> None:
    line = strict_json(written([impossible(), computed("a")], "jsonl").splitlines()[-1])
    assert line["summary"]["losses"][0]["micro"]["sum"] is None
    assert line["nonfinite"]["summary.losses.0.micro.sum"] == "inf"
    assert line["nonfinite"]["summary.losses.0.macro.mean.value"] == "inf"


@pytest.mark.parametrize("results", [RESULTS, (impossible(),)], ids=["finite", "inf"])
def test_one_reduction_leaves_the_others_out_everywhere(results: Sequence[PairResult]) -> None:
    *lines, summary = map(strict_json, written(results, "jsonl", reduction="distmean").splitlines())
    for line in lines:
        if line["status"] == "ok":
            assert {"sum", "mean", "batchmean"}.isdisjoint(line)
            assert {"sum", "mean", "batchmean"}.isdisjoint(line.get("nonfinite", {}))
            assert "distmean" in line
    micro = summary["summary"]["losses"][0]["micro"]
    assert {"sum", "mean", "batchmean"}.isdisjoint(micro)
    assert list(summary["summary"]["losses"][0]["macro"]) == ["distmean"]
    (header, *_) = written(results, "csv", reduction="distmean").splitlines()
    assert ",batch,distmean,predictions.dtype," in header


@pytest.mark.parametrize("format", ["plain", "md", "table", "csv"])
def test_of_the_sum_alone_there_is_no_table_of_means(format: Format) -> None:
    assert "macro" in written(RESULTS, format)
    assert "macro" not in written(RESULTS, format, reduction="sum")
    assert "micro" in written(RESULTS, format, reduction="sum")


# CSV


@pytest.mark.parametrize("spec", [SPEC, BOTH], ids=["kl", "both"])
def test_every_number_of_csv_reads_back_to_the_same_value(spec: Spec) -> None:
    results = [computed("a", spec), computed("b", spec, seed=5)]
    rows = table(written(results, "csv", spec))
    records = [record for result in results for record in result.records]
    for row, record in zip(rows, records, strict=False):
        for name in ("sum", "mean", "distmean"):
            assert float(row[name]) == record[name]
        for name in ("p99.9", "minimum", "maximum", "standard_error"):
            assert float(row[f"statistics.{name}"]) == record["statistics"][name]
        assert int(row["elements"]) == record["elements"]
        assert row["batchmean"] == ("" if record["batchmean"] is None else repr(record["batchmean"]))
        if spec is BOTH:
            assert float(row["worst.2.value"]) == record["worst"][1]["value"]
            assert row["worst.2.index"] == " ".join(map(str, record["worst"][1]["index"]))
            assert float(row["by_target.between.mean"]) == record["by_target"]["between"]["mean"]
            assert row["by_target.outside.count"] == "0"
            assert float(row["statistics.p25"]) == record["statistics"]["p25"]
            assert int(row["statistics.blocks.blocks"]) == record["statistics"]["blocks"]["blocks"]
            assert row["top1.count"] == (str(record["top1"]["count"]) if record["loss"] == "kl" else "")


def test_csv_ends_with_what_all_pairs_come_to() -> None:
    *pairs, micro, macro, errors = table(written(RESULTS, "csv"))
    (loss,) = summed(RESULTS).losses
    assert [row["status"] for row in pairs] == ["ok", "ok", "error"]
    assert [row["status"] for row in (micro, macro, errors)] == ["micro", "macro", "macro.standard_error"]
    assert {row["pair"] for row in (micro, macro, errors)} == {""}
    assert float(micro["sum"]) == loss.scalars.sum
    assert float(micro["statistics.p50"]) == loss.statistics.percentiles["p50"]
    assert float(macro["distmean"]) == loss.macro["distmean"].value
    assert float(errors["distmean"]) == loss.macro["distmean"].standard_error


def test_csv_says_inf_and_names_findings_and_errors() -> None:
    odd, ugly, *_ = table(written([impossible(), broken()], "csv"))
    assert odd["sum"] == odd["statistics.maximum"] == "inf"
    assert "infinite-kl" in odd["findings"].split() or "infinite-terms" in odd["findings"].split()
    assert (ugly["loss"], ugly["sum"], ugly["error"]) == ("", "", "ugly/q.npy: no such file")
    assert (ugly["predictions"], ugly["targets"]) == ("ugly/q.npy", "ugly/p.npy")


# Many pairs


def many(count: int) -> list[PairResult]:
    result = computed("a")
    return [renamed(result, f"pair-{k:04}") for k in range(count)]


@pytest.mark.parametrize("format", ["md", "table"])
@pytest.mark.parametrize(
    ("count", "full", "shown"), [(50, False, True), (51, False, False), (51, True, True)]
)
def test_of_many_pairs_the_worst_are_listed_and_it_is_said(
    format: Format, count: int, full: bool, shown: bool
) -> None:
    text = written(many(count), format, full=full, precision=3)
    assert ("pair-0040" in text) == shown
    assert "pair-0003" in text
    assert ("--full lists all" in text) != shown


def test_plain_text_lists_every_pair_as_it_comes() -> None:
    text = written(many(60), "plain")
    assert all(f"pair-{k:04} " in text for k in range(60))
    assert "--full" not in text


def test_of_many_failed_pairs_some_are_listed_and_the_rest_counted() -> None:
    results = [broken(f"bad-{k:02}", "no such file") for k in range(60)]
    text = written(results, "md")
    assert "bad-49" in text
    assert "bad-50" not in text
    assert "| and 10 more | --full shows all |" in text
    assert "bad-59" in written(results, "md", full=True)


def test_what_belongs_to_no_pair_is_counted_and_listed_with_what_it_is() -> None:
    names = [f"d.h5::/odd-{k:02}" for k in range(60)]
    unmatched = tuple((name, "group" if k % 2 else "targets") for k, name in enumerate(names))
    summary = dataclasses.replace(summed(RESULTS), unmatched=unmatched)
    text = written(RESULTS, "plain", summary=summary)
    assert "1 could not be computed; 60 unmatched; 192 bytes" in text
    assert "\nd.h5::/odd-48  targets\nd.h5::/odd-49  group\nand 10 more    --full shows all\n" in text
    assert "\nd.h5::/odd-59  group\n" in written(RESULTS, "plain", summary=summary, full=True)
    record = strict_json(written(RESULTS, "jsonl", summary=summary).splitlines()[-1])
    assert record["summary"]["unmatched"] == names


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("columns", "shown", "left_out"),
    [
        (120, {"batchmean", "findings", "p99"}, set()),
        (70, {"distmean", "maximum"}, {"sum", "findings"}),
        (40, {"distmean", "loss"}, {"sum", "p99"}),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns_and_is_told_so(
    columns: int, shown: set[str], left_out: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = written(RESULTS, "table")
    header = next(line for line in text.splitlines() if line.split()[:1] == ["pair"])
    assert shown <= set(header.split())
    assert left_out.isdisjoint(header.split())
    assert ("columns left out to fit" in text) == bool(left_out)
    assert max(map(len, text.splitlines())) <= columns
    whole = written(RESULTS, "table", full=True)
    assert "columns left out" not in whole
    assert "batchmean" in whole


@pytest.mark.parametrize("format", FORMATS)
def test_a_batch_of_which_nothing_could_be_computed_is_shown(format: Format) -> None:
    assert "no such file" in written([broken()], format)


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_batch_is_shown(format: Format) -> None:
    text = written([], format)
    if format == "csv":
        assert len(text.splitlines()) == 1
    elif format in ("json", "jsonl"):
        assert strict_json(text)["summary"]["pairs"] == 0
    else:
        assert "0 pairs: nothing to do" in text


# Names from outside

NAME: Final = "a\n\x1b[31m[bold]|*é,\"' \udcff"


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_is_text_and_never_a_command_to_the_terminal(format: Format) -> None:
    results = [renamed(computed("a"), NAME), broken(NAME, f"{NAME}: no such file")]
    text = written(results, format)
    assert "\x1b" not in text
    text.encode()
    if format == "csv":
        assert len(table(text)) == 5
    if format == "json":
        assert {pair["pair"] for pair in strict_json(text)["pairs"]} == {NAME}


def test_a_long_name_moves_its_line_and_is_not_cut() -> None:
    name = "long/" * 20
    line = batch_lines("plain", SPEC).pair(renamed(computed("a"), name))
    assert line.startswith(f"{name}  kl ")


# What is told beside it


def told(results: Sequence[PairResult], most_errors: int | None = None) -> list[tuple[str, str]]:
    told = Told(most_errors)
    for result in results:
        tell_pair(told, result)
    return list(told.lines())


def test_what_many_pairs_have_is_told_once_with_their_number() -> None:
    odd = impossible()
    few = told([renamed(odd, f"p{k}") for k in range(3)])
    many = told([renamed(odd, f"p{k}") for k in range(9)])
    ids = list(dict.fromkeys(f["id"] for record in odd.records for f in record["findings"]))
    assert len(few) == 3 * len(ids)
    assert len(many) == len(ids)
    for (kind, text), id in zip(many, ids, strict=True):
        assert kind == odd.records[0]["findings"][ids.index(id)]["severity"]
        assert text.startswith("p0: ")
        assert text.endswith(f" ({id} in 8 other pairs too)")


def test_a_pair_says_the_same_of_two_losses_once() -> None:
    result = computed("same", BOTH, predictions=TARGETS.copy())
    ids = [f["id"] for record in result.records for f in record["findings"]]
    assert len(set(ids)) < len(ids)
    assert len(told([result])) == len(set(ids))


def test_errors_are_told_one_by_one_and_the_rest_counted() -> None:
    lines = told([broken(f"p{k}", "gone") for k in range(9)], most_errors=2)
    assert lines == [
        ("error", "p0: gone"),
        ("error", "p1: gone"),
        ("error", "7 more pairs could not be computed"),
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (1.5e9, "1.5 GB"),
        (2e18, "2000 PB"),
    ],
)
def test_a_size_is_told_in_a_unit_that_people_read(count: float, text: str) -> None:
    assert byte_size(count) == text


@pytest.mark.parametrize("format", ["md", "table", "json"])
def test_what_is_whole_at_the_end_has_the_pairs_in_their_order(format: Format) -> None:
    results = [computed(name, seed=3) for name in ("first", "second", "third")]
    told = written(results[::-1], format, names=[result.name for result in results])
    places = [told.index(result.name) for result in results]
    assert places == sorted(places)


def test_losses_of_unlike_pairs_stand_beside_their_own_divisors() -> None:
    summary = summed([computed("a")])
    (kl,) = summary.losses
    bce = dataclasses.replace(kl, loss="bce", scalars=kl.scalars._replace(elements=600, batch=60))
    told = written([], "plain", summary=dataclasses.replace(summary, losses=(kl, bce)))
    divisors = [line.split()[-2] for line in told.splitlines() if line.endswith("  elements")]
    assert divisors[:2] == ["6", "600"]
