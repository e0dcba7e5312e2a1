"""What is shown of a comparison, from the same record in every format."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kldiv_cli import compare
from kldiv_cli.comparison import Comparison
from kldiv_cli.report.comparison import comparison_grids, comparison_record, render_comparison

FORMATS = ("table", "plain", "md", "csv", "json", "jsonl")
STATISTICS = {"of", "count", "mean", "standard_error", "minimum", "maximum", "exact"}
PERCENTILES = {"p0.1", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9"}
SHARE = {"count", "share", "standard_error"}
ESTIMATE = {"value", "standard_error"}
INPUT = {"address", "shape", "dtype", "space"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def compared(**options: Any) -> Comparison:
    random = np.random.default_rng(8)
    z = random.normal(0, 3, (6, 5, 7))
    return compare(z, z + random.normal(0, 0.5, z.shape), **options)


@pytest.fixture
def plain() -> Comparison:
    return compared()


@pytest.fixture
def full() -> Comparison:
    """With all that there may be."""
    random = np.random.default_rng(9)
    return compared(
        labels=random.integers(0, 7, (6, 5)),
        mask=random.random((6, 5)) < 0.8,
        ignore_value=3,
        temperature=1.5,
        quantiles=[0.3],
        worst=2,
        blocks_of=5,
        top_k=3,
    )


@pytest.fixture
def unknown() -> Comparison:
    """Nothing counts."""
    return compared(mask=np.zeros((6, 5), bool), labels=np.zeros((6, 5), int), worst=1)


def strict_json(text: str) -> Any:
    """Refuse NaN and Infinity, which Python's reader takes and others do not."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


# The record


def test_a_record_has_every_key_and_no_other(plain: Comparison) -> None:
    record = comparison_record(plain)
    assert list(record) == [
        "schema", "direction", "reference", "candidate", "settings", "shape", "axis", "distributions",
        "kl", "kl_reverse", "js", "tv", "entropy_reference", "entropy_candidate", "delta_p", "delta_p_rms",
        "same_top", "in_top_k", "buckets", "findings",
    ]  # fmt: skip
    assert record["schema"] == "kldiv/1"
    assert record["direction"] == "KL(reference ‖ candidate)"
    assert record["reference"].keys() == record["candidate"].keys() == INPUT
    assert record["settings"].keys() == {"temperature", "top_k", "ignore_value", "trim_axis"}
    for name in ("kl", "delta_p"):
        assert record[name].keys() == STATISTICS | PERCENTILES
    for name in ("kl_reverse", "js", "tv", "entropy_reference", "entropy_candidate"):
        assert record[name].keys() == STATISTICS
    assert record["delta_p_rms"].keys() == ESTIMATE
    assert record["same_top"].keys() == record["in_top_k"].keys() == SHARE
    for bucket in record["buckets"]:
        assert bucket.keys() == {"low", "high", "count", "kl", "same_top"}
        assert bucket["kl"].keys() == ESTIMATE
        assert bucket["same_top"].keys() == SHARE
        if not bucket["count"]:
            assert bucket["kl"] == dict.fromkeys(ESTIMATE)
            assert bucket["same_top"] == {**dict.fromkeys(SHARE), "count": 0}


def test_a_record_with_everything_has_the_keys_that_come_to_them(plain: Comparison, full: Comparison) -> None:
    record = comparison_record(full)
    assert record.keys() - comparison_record(plain).keys() == {"labels", "mask", "with_labels", "worst"}
    assert record["labels"].keys() == record["mask"].keys() == INPUT
    assert record["kl"].keys() == STATISTICS | PERCENTILES | {"p30", "blocks"}
    assert record["kl"]["blocks"].keys() == {"of", "blocks", "standard_error"}
    assert record["delta_p"].keys() == STATISTICS | PERCENTILES | {"p30"}
    assert [item.keys() for item in record["worst"]] == [{"index", "value"}] * 2
    labels = record["with_labels"]
    assert list(labels) == [
        "cross_entropy_reference", "cross_entropy_candidate", "delta_p",
        "perplexity_reference", "perplexity_candidate", "ratio", "log_ratio", "difference", "correlation",
        "accuracy_reference", "accuracy_candidate", "delta_p_rms",
    ]  # fmt: skip
    for name in ("cross_entropy_reference", "cross_entropy_candidate"):
        assert labels[name].keys() == STATISTICS
    assert labels["delta_p"].keys() == STATISTICS | PERCENTILES | {"p30"}
    for name in ("perplexity_reference", "perplexity_candidate", "ratio", "log_ratio", "difference"):
        assert labels[name].keys() == ESTIMATE
    assert labels["accuracy_reference"].keys() == labels["accuracy_candidate"].keys() == SHARE


def test_a_record_has_the_values_of_the_result(full: Comparison) -> None:
    record = comparison_record(full)
    assert record["settings"] == {"temperature": 1.5, "top_k": 3, "ignore_value": 3.0, "trim_axis": False}
    assert (record["shape"], record["axis"], record["distributions"]) == ([6, 5, 7], 2, full.kl.count)
    assert record["kl"]["p99.9"] == full.kl.percentiles["p99.9"]
    assert record["same_top"] == full.same_top._asdict()
    assert record["worst"][0] == {"index": full.worst[0].index, "value": full.kl.maximum}
    assert full.with_labels is not None
    assert record["with_labels"]["correlation"] == full.with_labels.correlation
    assert record["with_labels"]["delta_p_rms"] == full.with_labels.delta_p_rms._asdict()


@pytest.mark.parametrize("asked", [0, 1])
def test_the_worst_are_in_the_record_where_they_were_asked_for(asked: int) -> None:
    assert ("worst" in comparison_record(compared(worst=asked))) == bool(asked)


def test_a_digest_is_in_the_record_only_where_there_is_one(full: Comparison) -> None:
    with_digest = replace(full, reference=full.reference._replace(sha256="ab"))
    record = comparison_record(with_digest)
    assert record["reference"]["sha256"] == "ab"
    assert all("sha256" not in record[role] for role in ("candidate", "labels", "mask"))


def test_a_finding_is_in_the_record() -> None:
    z = np.random.default_rng(1).normal(0, 1, (4, 5))
    (finding,) = comparison_record(compare(z, z))["findings"]
    assert (finding["id"], finding["severity"]) == ("identical", "warning")


# JSON and CSV


def test_json_reads_back_to_the_record_and_json_lines_are_one_line_of_it(full: Comparison) -> None:
    document = strict_json(render_comparison(full, "json"))
    line = render_comparison(full, "jsonl")
    assert line.count("\n") == 1
    assert strict_json(line) == document
    assert document["kl"]["mean"] == full.kl.mean
    assert "nonfinite" not in document or all(".buckets" not in key for key in document["nonfinite"])


def test_json_says_what_is_nan_or_infinite(unknown: Comparison) -> None:
    document = strict_json(render_comparison(unknown, "json"))
    assert document["kl"]["mean"] is None
    assert document["nonfinite"]["kl.mean"] == "nan"
    assert document["nonfinite"]["with_labels.correlation"] == "nan"
    z = np.zeros((2, 3))
    z[0, 1] = -math.inf
    document = strict_json(render_comparison(compare(np.eye(2, 3), z), "json"))
    assert document["nonfinite"]["kl.mean"] == "inf"


def csv_row(comparison: Comparison, precision: int | None = None) -> dict[str, str]:
    (row,) = csv.DictReader(io.StringIO(render_comparison(comparison, "csv", precision)), strict=True)
    return row


def test_csv_is_one_row_of_every_leaf_but_findings(full: Comparison) -> None:
    row = csv_row(full)
    assert float(row["kl.mean"]) == full.kl.mean
    assert float(row["kl.blocks.standard_error"]) == comparison_record(full)["kl"]["blocks"]["standard_error"]
    assert float(row["settings.ignore_value"]) == 3
    assert row["worst.1.index"] == " ".join(map(str, full.worst[0].index))
    assert float(row["buckets.6.high"]) == 1
    assert (
        float(row["with_labels.delta_p.p99.9"]) == comparison_record(full)["with_labels"]["delta_p"]["p99.9"]
    )
    assert not [name for name in row if "finding" in name]


def test_csv_of_all_and_of_nothing_has_cells_for_what_is_not_known(unknown: Comparison) -> None:
    row = csv_row(unknown)
    assert (row["kl.mean"], row["distributions"], row["settings.temperature"]) == ("nan", "0", "")


def test_csv_numbers_have_the_precision_asked_for(plain: Comparison) -> None:
    assert csv_row(plain, 3)["kl.mean"] == f"{plain.kl.mean:.3g}"


def test_csv_has_shapes_as_the_other_commands_have_them(full: Comparison) -> None:
    assert csv_row(full)["shape"] == "6x5x7"


def test_csv_has_the_same_columns_whatever_the_data_are(plain: Comparison) -> None:
    flat = compare(np.zeros((4, 7)), np.arange(28.0).reshape(4, 7) % 3)
    assert csv_row(flat).keys() == csv_row(plain).keys()


# Tables


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("which", ["plain", "full", "unknown"])
def test_every_format_takes_every_result(which: str, format: Any, request: pytest.FixtureRequest) -> None:
    text = render_comparison(request.getfixturevalue(which), format)
    assert "kl_reverse" in text.replace("\\", "")
    assert text.endswith("\n")


def test_grids_stand_in_order_and_only_where_there_is_something(plain: Comparison, full: Comparison) -> None:
    names = ["quantity", "percentile", "agreement", "confidence of reference", "with labels", "worst"]
    assert [grid.columns[0] for grid in comparison_grids(plain, None)] == names[:4]
    assert [grid.columns[0] for grid in comparison_grids(full, None)] == names
    for grid in comparison_grids(full, None):
        assert {len(row) for row in grid.rows} == {len(grid.columns)}


def test_the_name_of_in_top_k_says_k(full: Comparison) -> None:
    rows = {row[0]: row for grid in comparison_grids(full, None) for row in grid.rows}
    assert rows["in_top_3"][1] == str(full.in_top_k.count)


def test_only_buckets_that_hold_something_are_shown(plain: Comparison) -> None:
    (grid,) = (grid for grid in comparison_grids(plain, None) if grid.columns[0].startswith("confidence"))
    assert [row[0] for row in grid.rows] == [f"{b.low:g} to {b.high:g}" for b in plain.buckets if b.count]
    assert sum(int(row[1]) for row in grid.rows) == plain.distributions


def test_the_second_error_stands_below_kl(full: Comparison) -> None:
    grid = next(comparison_grids(full, None))
    assert full.kl.blocks is not None
    assert [row[0] for row in grid.rows][:3] == ["kl", "kl, 6 blocks of 5", "kl_reverse"]
    assert grid.rows[1] == ("kl, 6 blocks of 5", "", repr(full.kl.blocks.standard_error), "", "")


def test_percentiles_from_a_histogram_say_so(monkeypatch: pytest.MonkeyPatch, plain: Comparison) -> None:
    exact = render_comparison(plain, "plain")
    assert "percentile ±" not in exact
    monkeypatch.setattr("kldiv_cli.comparison.LIMIT", 0)
    assert "percentile ±0.05 %" in render_comparison(compared(), "plain")


def test_the_worst_are_shown_with_the_dimensions_that_they_lie_along(full: Comparison) -> None:
    (grid,) = (grid for grid in comparison_grids(full, None) if grid.columns[0] == "worst")
    assert grid.columns == ("worst", "dim 0", "dim 1", "kl")
    (grid,) = (g for g in comparison_grids(compared(axis=0, worst=1), None) if g.columns[0] == "worst")
    assert grid.columns == ("worst", "dim 1", "dim 2", "kl")


def test_the_heading_names_both_and_the_inputs_what_they_were_taken_for(full: Comparison) -> None:
    lines = render_comparison(full, "plain").splitlines()
    assert lines[0] == f"candidate compared with reference, {full.distributions} distributions, in nats"
    cells = [re.split(r"\s{2,}", line) for line in lines[1:5]]
    softmax = "logits / 1.5, log-softmax over axis 2 (7)"
    assert cells == [
        ["reference", "reference", "(6, 5, 7)", "float64", softmax],
        ["candidate", "candidate", "(6, 5, 7)", "float64", softmax],
        ["labels", "labels", "(6, 5)", "int64", "labels"],
        ["mask", "mask", "(6, 5)", "bool", "mask"],
    ]


def test_what_is_no_logits_is_named_without_a_softmax() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(4), 3)
    text = render_comparison(compare(np.log(p), p, reference_are="log-probs", candidate_are="probs"), "plain")
    assert re.search(r"^reference .* log-probs over axis 1 \(4\)$", text, re.MULTILINE)
    assert re.search(r"^candidate .* probs over axis 1 \(4\)$", text, re.MULTILINE)
    assert "softmax" not in text


def test_numbers_are_whole_in_a_pipe_and_short_in_a_table(plain: Comparison) -> None:
    assert repr(plain.kl.mean) in render_comparison(plain, "plain")
    assert repr(plain.kl.mean) not in render_comparison(plain, "table")
    assert f" {plain.kl.mean:.6g} " in render_comparison(plain, "table")
    for format in ("plain", "md", "table"):
        shown = render_comparison(plain, format, 3)
        assert f" {plain.kl.mean:.3g} " in shown


ESCAPED = [pytest.param(name) if name == "csv" else name for name in FORMATS]


@pytest.mark.parametrize("format", ESCAPED)
def test_control_characters_of_a_name_are_escaped(format: Any, tmp_path: Any) -> None:
    path = tmp_path / "a\x1b[31m.npy"
    np.save(path, np.eye(3))
    assert "\x1b" not in render_comparison(compare(str(path), np.ones((3, 3))), format)


def test_markdown_escapes_what_would_be_markup(tmp_path: Any) -> None:
    path = tmp_path / "a|b_c.npy"
    np.save(path, np.eye(3))
    text = render_comparison(compare(str(path), np.ones((3, 3))), "md")
    assert "a\\|b\\_c.npy" in text
    for table in re.split(r"\n\n", text)[2:]:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}) == 1


@pytest.mark.parametrize("columns", [1, 10, 40, 80, 300])
@pytest.mark.parametrize("which", ["plain", "full", "unknown"])
def test_a_terminal_of_any_width_shows_every_number_whole(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, which: str, columns: int
) -> None:
    comparison = request.getfixturevalue(which)
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = render_comparison(comparison, "auto")
    assert max(map(len, text.splitlines())) <= columns
    joined = "".join(text.split())
    for grid in comparison_grids(comparison, 6):
        for row in grid.rows:
            for cell in row:
                assert "".join(cell.split()) in joined
    assert "…" not in text


def test_a_pipe_is_as_wide_as_it_needs_to_be(monkeypatch: pytest.MonkeyPatch, full: Comparison) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    for format in ("plain", "table"):
        lines = render_comparison(full, format).splitlines()
        assert max(map(len, lines)) > 60
        assert "…" not in "".join(lines)
