"""What `kldiv check` shows, in every format."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from checks import CLOSE, PREDICTIONS, TARGETS, broken, checked, failing, nonfinite, passing

from kldiv_cli.gate import Checked
from kldiv_cli.report.console import Format
from kldiv_cli.report.gate import MARKDOWN_MARK, heading_of, markdown_file, render_checked
from kldiv_cli.verdicts import Verdict

FORMATS: Final[tuple[Format, ...]] = ("table", "plain", "md", "csv", "json", "jsonl")


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def strict_json(text: str) -> Any:
    """Refuse NaN and Infinity, which Python's reader takes and others do not."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


# One that failed and one that passed

PLAIN: Final = """\
2 pairs: 1 failed, 1 passed

pair  result  limit           obtained  bound  margin
bad   failed  distmean < 0.1     0.382    0.1  would pass with 0.383
bad   passed  p99 < 100          0.858    100  99.1 %
good  passed  distmean < 0.1  0.000128    0.1  99.9 %
good  passed  p99 < 100       0.000268    100  100 %

worst of bad  dim 0     kl
           1      2  0.872
           2      1  0.144
           3      0  0.131
"""
MD: Final = """\
**2 pairs: 1 failed, 1 passed**

| pair | result | limit | obtained | bound | margin |
| --- | --- | --- | ---: | ---: | --- |
| bad | failed | distmean \\< 0.1 | 0.382 | 0.1 | would pass with 0.383 |
| bad | passed | p99 \\< 100 | 0.858 | 100 | 99.1 % |
| good | passed | distmean \\< 0.1 | 0.000128 | 0.1 | 99.9 % |
| good | passed | p99 \\< 100 | 0.000268 | 100 | 100 % |

| worst of bad | dim 0 | kl |
| ---: | ---: | ---: |
| 1 | 2 | 0.872 |
| 2 | 1 | 0.144 |
| 3 | 0 | 0.131 |
"""
CSV: Final = """\
pair,status,limit,statistic,obtained,bound,passed,margin,would_pass,findings,error
bad,failed,distmean < 0.1,distmean,0.382,0.1,false,-2.82,distmean < 0.383,,
bad,failed,p99 < 100,p99,0.858,100,true,0.991,,,
good,passed,distmean < 0.1,distmean,0.000128,0.1,true,0.999,,,
good,passed,p99 < 100,p99,0.000268,100,true,1,,,
"""


@pytest.mark.parametrize(("format", "expected"), [("plain", PLAIN), ("md", MD), ("csv", CSV)])
def test_text_is_laid_out_as_stored(format: Format, expected: str) -> None:
    assert render_checked([failing(), passing()], format, 3) == expected


def test_a_single_pair_is_told_with_its_inputs() -> None:
    lines = render_checked([passing()], "plain", 3).splitlines()
    assert lines[:3] == [
        "1 pair: 1 passed",
        "predictions  predictions  (3, 2)  float64  log-probs",
        "targets      targets      (3, 2)  float64  probs over axis 1 (2)",
    ]


def test_a_record_has_every_field_under_its_name() -> None:
    record = strict_json(render_checked([failing(), passing()], "json"))
    results = record.pop("results")
    assert record == {
        "schema": "kldiv/1",
        "exit_code": 1,
        "pairs": 2,
        "passed": 1,
        "failed": 1,
        "errors": 0,
    }
    assert [result["pair"] for result in results] == ["bad", "good"]
    bad = results[0]
    distmean = np.sum(TARGETS * (np.log(TARGETS) - PREDICTIONS)) / 3
    assert set(bad) == {
        *("pair", "status", "error", "predictions", "targets", "shape", "axis"),
        *("limits", "statistics", "worst", "histogram", "findings"),
    }
    assert (bad["status"], bad["error"], bad["shape"], bad["axis"]) == ("failed", None, [3, 2], 1)
    assert bad["limits"][0] == {
        "limit": "distmean < 0.1",
        "statistic": "distmean",
        "obtained": pytest.approx(distmean, rel=1e-12),
        "bound": 0.1,
        "passed": False,
        "margin": pytest.approx(1 - distmean / 0.1, rel=1e-12),
        "would_pass": "distmean < 0.383",
    }
    assert bad["statistics"]["kl"]["distmean"] == bad["limits"][0]["obtained"]
    assert [worst["index"] for worst in bad["worst"]["kl"]] == [[2], [1], [0]]


def test_json_lines_are_the_results_of_the_record() -> None:
    results = [failing(), passing(), broken()]
    lines = render_checked(results, "jsonl").splitlines()
    whole = strict_json(render_checked(results, "json"))["results"]
    assert [strict_json(line) for line in lines] == [{"schema": "kldiv/1", **result} for result in whole]


def test_json_has_no_bare_nan_or_infinity_but_names_them() -> None:
    record = strict_json(render_checked([nonfinite()], "json"))
    (line,) = map(strict_json, render_checked([nonfinite()], "jsonl").splitlines())
    assert record["results"][0]["limits"][0]["obtained"] is None
    assert record["nonfinite"]["results.0.limits.0.obtained"] == "nan"
    assert record["nonfinite"]["results.0.statistics.kl.sum"] == "nan"
    assert line["limits"][0]["obtained"] is None
    assert line["nonfinite"]["limits.0.obtained"] == "nan"


def test_what_could_not_be_computed_has_its_error_and_no_numbers() -> None:
    record = strict_json(render_checked([broken()], "json"))
    assert (record["exit_code"], record["errors"]) == (2, 1)
    assert record["results"][0] == {
        "pair": "ugly",
        "status": "error",
        "error": "q.npy: no such file",
        "limits": [],
        "statistics": {},
        "worst": {},
        "histogram": {},
        "findings": [],
    }
    (row,) = csv.DictReader(io.StringIO(render_checked([broken()], "csv")))
    assert (row["pair"], row["status"], row["error"]) == ("ugly", "error", "q.npy: no such file")
    assert "could not be computed" in render_checked([broken()], "plain")


def test_a_finding_that_fails_a_pair_is_a_row_of_its_own() -> None:
    result = nonfinite()
    rows = [line.split() for line in render_checked([result], "plain").splitlines()]
    assert {finding.id for finding in result.errors()} >= {"nan-terms"}
    for finding in result.errors():
        assert ["nan", "failed", "no", finding.id, *([str(finding.count)] if finding.count else [])] in rows
    assert all(row["findings"] for row in csv.DictReader(io.StringIO(render_checked([result], "csv"))))


def test_findings_are_told_under_markdown_with_what_lets_them_pass() -> None:
    text = render_checked([nonfinite(), broken()], "md")
    assert "- **error**: nan: " in text
    assert "(to let it pass, allow nan-terms)" in text
    assert "- **error**: ugly: q.npy: no such file" in text


def test_limits_of_a_pair_are_shown_the_worst_first() -> None:
    result = failing(limits=["p99 < 100", "distmean < 0.5", "maximum < 0.1", "minimum > 0.1"])
    shown = re.findall(r"(?:failed|passed)  (\w+)", render_checked([result], "plain"))
    assert shown == ["maximum", "distmean", "minimum", "p99"]


@pytest.mark.parametrize(
    ("limit", "margin"),
    [
        ("distmean < 1", "61.8 %"),
        ("distmean > 0.3", "27.4 %"),
        ("distmean < 0.1", "would pass with 0.383"),
        ("distmean > 0.6", "would pass with 0.382"),
        ("distmean > 0", ""),
        ("maximum < 0", "would pass with 0.873"),
    ],
)
def test_the_margin_says_how_much_room_there_is_or_what_would_have_passed(limit: str, margin: str) -> None:
    row = render_checked([failing(limits=[limit])], "md", 3).splitlines()[7]
    assert row.split(" | ")[-1].removesuffix(" |").strip() == margin


def test_what_would_pass_is_told_with_its_comparison_where_that_is_another() -> None:
    result = checked("zero", np.log(TARGETS), limits=["maximum < 0"], allow_external=False)
    verdict = result.verdicts[0]
    exact = Checked(name="zero", verdicts=(Verdict(verdict.limit, 0.0, 0.0, False),))
    assert exact.verdicts[0].would_pass == "maximum <= 0"
    assert "would pass with <= 0" in render_checked([exact], "plain")


def test_nan_passes_nothing_and_nothing_would_make_it_pass() -> None:
    result = nonfinite()
    assert math.isnan(result.verdicts[0].obtained)
    assert "would pass" not in render_checked([result], "plain")


# Many pairs


def names_shown(text: str) -> list[str]:
    return re.findall(r"^(pair\d+) ", text, re.MULTILINE)


def test_of_many_pairs_that_passed_twenty_are_shown_and_the_rest_is_counted() -> None:
    results = [failing(), *(passing(f"pair{k}", limits=["p99 < 1"]) for k in range(25))]
    text = render_checked(results, "plain", 3)
    assert names_shown(text) == [f"pair{k}" for k in range(20)]
    assert re.search(r"^and 5 more +passed +--full shows all$", text, re.MULTILINE)
    assert text.startswith("26 pairs: 1 failed, 25 passed\n")
    full = render_checked(results, "plain", 3, full=True)
    assert names_shown(full) == [f"pair{k}" for k in range(25)]
    assert "more" not in full


@pytest.mark.parametrize("format", ["csv", "json", "jsonl"])
def test_what_machines_read_always_has_all_pairs(format: Format) -> None:
    results = [passing(f"pair{k}", limits=["p99 < 1"]) for k in range(25)]
    text = render_checked(results, format)
    assert all(f'"pair{k}"' in text or f"pair{k}," in text for k in range(25))


def test_every_failed_pair_is_shown_and_ten_of_them_in_detail() -> None:
    results = [failing(f"pair{k}", limits=["p99 < 0"]) for k in range(30)]
    text = render_checked(results, "plain", 3)
    assert names_shown(text) == [f"pair{k}" for k in range(30)]
    assert re.findall(r"worst of (\w+)", text) == [f"pair{k}" for k in range(10)]
    full = render_checked(results, "plain", 3, full=True)
    assert re.findall(r"worst of (\w+)", full) == [f"pair{k}" for k in range(30)]


def test_of_two_losses_each_has_its_worst() -> None:
    result = failing(loss=("kl", "bce"), log_softmax=-1, limits=["kl.distmean < 0"], before=CLOSE)
    text = render_checked([result, passing()], "plain", 3)
    assert [line.split() for line in text.splitlines() if line.lstrip().startswith("worst")] == [
        ["worst", "of", "bad", "dim", "0", "kl"],
        ["worst", "of", "bad", "dim", "0", "dim", "1", "bce"],
    ]
    assert re.findall(r"^ *(\w+) of bad +baseline", text, re.MULTILINE) == ["kl", "bce"]


@pytest.mark.parametrize(
    ("results", "heading"),
    [
        ([passing()], "1 pair: 1 passed"),
        ([broken(), failing(), passing()], "3 pairs: 1 could not be computed, 1 failed, 1 passed"),
        ([failing(), failing()], "2 pairs: 2 failed"),
    ],
)
def test_the_heading_counts_how_pairs_fared(results: list[Checked], heading: str) -> None:
    assert heading_of(results) == heading
    for format in ("table", "plain", "md"):
        assert heading in render_checked(results, format)


# Beside a baseline


@pytest.mark.parametrize("format", ["table", "plain", "md"])
def test_a_failed_pair_is_laid_beside_its_baseline(format: Format) -> None:
    limits = ["distmean < baseline * 1.1"]
    failed = render_checked([failing(before=CLOSE, limits=limits)], format, 3)
    assert "baseline" in failed.split("worst")[1]
    assert "now" in failed
    assert "█" in failed
    assert "0.125 to 0.25" in failed
    passed = render_checked([passing(before=CLOSE, limits=limits)], format, 3)
    assert "now" not in passed


def test_without_a_baseline_there_is_no_histogram() -> None:
    assert "now" not in render_checked([failing()], "plain")


def test_a_pair_in_which_nothing_counts_can_be_laid_beside_a_baseline_too() -> None:
    result = checked("empty", PREDICTIONS, before=PREDICTIONS, mask=np.zeros(3, bool), limits=["p99 < 1"])
    assert result.status == "failed"
    for format in FORMATS:
        assert "empty" in render_checked([result], format)


# Names, and files that come again


@pytest.mark.parametrize("format", ["table", "plain", "md", "csv"])
def test_a_name_stays_on_its_line(format: Format) -> None:
    name = "a\nb\x1b[31m\u2028c"
    text = render_checked([failing(name, before=CLOSE), broken(name, error="d\ne")], format)
    assert not re.search("[\x1b\u2028]", text)
    assert not re.search(r"^(b|e)", text, re.MULTILINE)


def test_a_file_in_markdown_begins_with_the_mark_that_lets_the_next_one_take_its_place() -> None:
    assert markdown_file([passing()]).startswith(MARKDOWN_MARK)
    assert markdown_file([passing()]).removeprefix(MARKDOWN_MARK) == render_checked([passing()], "md")


# On a terminal


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A directory with a suite of a pair that passes and one with a long name that fails."""
    for name, array in (("bad", PREDICTIONS), ("good", CLOSE), ("p", TARGETS)):
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "suite.toml").write_text(
        f"""
[defaults]
limits = ["distmean < 0.1", "p99 < 100"]
[pairs.good]
predictions = "good.npy"
targets = "p.npy"
[pairs."{"long-" * 12}name"]
predictions = "bad.npy"
targets = "p.npy"
""",
        encoding="utf-8",
    )
    return tmp_path


def without_layout(text: str) -> str:
    """What is told, whatever it is wrapped or ruled with."""
    return re.sub(r"\x1b\[[0-9;]*m|[\s─]", "", text)


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
@pytest.mark.parametrize("columns", [200, 100, 60, 24])
def test_a_terminal_of_any_width_is_told_everything(suite: Path, columns: int) -> None:
    from test_main import on_terminal

    seen = on_terminal("check", "suite.toml", cwd=suite, columns=columns, streams=("stdout",))
    assert seen.code == 1
    piped = on_terminal("check", "suite.toml", "--precision", "6", "--format", "plain", cwd=suite)
    assert without_layout(seen.text) == without_layout(piped.text)


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_terminal_shows_by_colour_what_failed(suite: Path) -> None:
    from test_main import on_terminal

    lines = on_terminal("check", "suite.toml", cwd=suite, columns=200).text.splitlines()
    failed, passed = (
        [line for line in lines if re.search(f"{word}.*<", line)] for word in ("failed", "passed")
    )
    assert (len(failed), len(passed)) == (1, 3)
    assert all("\x1b[1;31m" in line for line in failed)
    assert all("\x1b[32m" in line for line in passed)
