from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from kldiv_cli.baseline import Baseline, Change, changes
from kldiv_cli.baseline_file import baseline_text
from kldiv_cli.report.baseline import render_baseline, render_changes
from kldiv_cli.report.console import Format
from tests.baselines import baselines, described, recorded
from tests.cases import repeatable

FORMATS: tuple[Format, ...] = ("plain", "table", "md", "csv", "json", "jsonl")
PAIR = recorded(elements=1_234_567, mean=1 / 3, p99=math.inf, standard_error=math.nan)
BOTH = replace(
    PAIR,
    settings={**PAIR.settings, "loss": ("kl", "bce"), "temperature": 2.0},
    statistics={**PAIR.statistics, "bce": {"elements": 1_234_567, "mean": 0.5}},
)
BASELINE = Baseline(path="b.json", pairs={"one": PAIR, "both": BOTH})
CHANGES = [
    Change("a", "elements", 1_234_567, 1_234_567),
    Change("a", "mean", 0.25, 1 / 3),
    Change("a", "p99", 0.5, 0.25),
    Change("a", "standard_error", math.nan, math.nan),
    Change("new", "mean", None, 0.5),
    Change("gone", "mean", 0.5, None),
    Change("odd", "mean", math.inf, 0.5),
]


def strict_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def rows_of(text: str) -> list[list[str]]:
    """The words of each line of any table of text."""
    return [line.replace("|", " ").replace("\\", "").split() for line in text.splitlines() if line.strip()]


# What a baseline holds


@pytest.mark.parametrize("format", ["plain", "table", "md"])
def test_every_number_of_every_pair_is_shown(format: Format) -> None:
    rows = rows_of(render_baseline(BASELINE, format, 17))
    assert rows[0] in (["b.json:", "2", "pairs"], ["**b.json:", "2", "pairs**"])
    assert ["mean", "0.33333333333333331"] in rows
    assert ["mean", "0.33333333333333331", "0.5"] in rows
    assert ["p99", "inf"] in rows
    assert ["p99", "inf", "–"] in rows
    assert ["standard_error", "nan"] in rows
    assert rows.count(["predictions_are", "logits"]) == 2
    assert ["loss", "kl", "and", "bce"] in rows
    assert ["temperature", "2.0"] in rows
    assert not [row for row in rows if "none" in row]
    assert [row[:3] for row in rows if "q.npy" in row] == [
        [name, "predictions", "q.npy"] for name in ("one", "both")
    ]


@pytest.mark.parametrize("format", ["plain", "table", "md", "csv"])
def test_counts_are_whole_however_few_digits_are_asked_for(format: Format) -> None:
    assert "1234567" in render_baseline(BASELINE, format, 2)
    assert "1234567" in render_changes(CHANGES, format, 2)
    assert "0.33" in render_baseline(BASELINE, format, 2)
    assert "0.333" not in render_baseline(BASELINE, format, 2)


def test_csv_has_a_row_for_each_number() -> None:
    rows = list(csv.DictReader(io.StringIO(render_baseline(BASELINE, "csv"))))
    assert [row["loss"] for row in rows] == ["kl"] * 8 + ["bce"] * 2
    assert rows[1] == {"pair": "one", "loss": "kl", "statistic": "mean", "value": repr(1 / 3)}
    assert rows[2]["value"] == "inf"


def test_json_is_the_file_itself_and_jsonl_has_it_on_a_line() -> None:
    assert render_baseline(BASELINE, "json") == baseline_text(BASELINE)
    lines = render_baseline(BASELINE, "jsonl")
    assert lines.count("\n") == 1
    assert strict_json(lines) == strict_json(baseline_text(BASELINE))


@pytest.mark.parametrize("format", FORMATS)
def test_a_baseline_of_no_pairs_is_shown_in_every_format(format: Format) -> None:
    shown = render_baseline(Baseline(path="b.json"), format)
    assert "pairs" in shown or "pair,loss" in shown


@pytest.mark.parametrize("format", FORMATS)
def test_no_control_character_of_a_file_reaches_the_terminal(format: Format) -> None:
    odd = "\x1b[31m\x07\u202e\n"
    pair = replace(
        PAIR,
        settings={**PAIR.settings, "zero_policy": odd},
        inputs={"predictions": described(odd, address=odd, sha256=odd)._replace(dtype=odd)},
    )
    shown = render_baseline(Baseline(path=odd, pairs={odd: pair}), format)
    shown += render_changes([Change(odd, "mean", 1.0, 2.0)], format)
    assert all(line.isprintable() for line in shown.split("\n"))


# How it changes


def test_each_number_is_shown_before_and_after() -> None:
    assert render_changes(CHANGES, "plain", 6) == (
        "5 of 7 numbers changed\n"
        "\n"
        "pair  statistic           old          new   change\n"
        "a     elements        1234567  →   1234567        =\n"
        "a     mean               0.25  →  0.333333  +33.3 %\n"
        "a     p99                 0.5  →      0.25    -50 %\n"
        "a     standard_error      nan  →       nan        =\n"
        "new   mean                  –  →       0.5\n"
        "gone  mean                0.5  →         –\n"
        "odd   mean                inf  →       0.5\n"
    )


@pytest.mark.parametrize("format", ["plain", "table", "md"])
def test_tables_of_changes_say_the_same(format: Format) -> None:
    rows = rows_of(re.sub(r"\*\*", "", render_changes(CHANGES, format, 6)))
    assert rows[0] == ["5", "of", "7", "numbers", "changed"]
    assert ["a", "mean", "0.25", "→", "0.333333", "+33.3", "%"] in rows
    assert ["gone", "mean", "0.5", "→", "–"] in rows


def test_changes_in_csv_have_empty_cells_where_there_is_nothing() -> None:
    rows = list(csv.DictReader(io.StringIO(render_changes(CHANGES, "csv"))))
    assert rows[2] == {"pair": "a", "statistic": "p99", "old": "0.5", "new": "0.25", "change": "-0.5"}
    assert [rows[4]["old"], rows[5]["new"], rows[6]["change"]] == ["", "", ""]


def test_changes_in_json_are_json_with_what_is_not_finite_named() -> None:
    record = strict_json(render_changes(CHANGES, "json"))
    assert (record["schema"], record["changed"], len(record["numbers"])) == ("kldiv/1", 5, 7)
    assert record["numbers"][2] == {"pair": "a", "statistic": "p99", "old": 0.5, "new": 0.25, "change": -0.5}
    assert record["nonfinite"] == {"numbers.3.old": "nan", "numbers.3.new": "nan", "numbers.6.old": "inf"}
    lines = [strict_json(line) for line in render_changes(CHANGES, "jsonl").splitlines()]
    assert lines[2] == record["numbers"][2]
    assert lines[6]["nonfinite"] == {"old": "inf"}


@pytest.mark.parametrize("format", FORMATS)
def test_no_changes_are_shown_in_every_format(format: Format) -> None:
    assert "0 of 0" in render_changes([], format) or format in ("csv", "json", "jsonl")


@pytest.mark.parametrize("format", FORMATS)
@given(one=baselines(), other=baselines())
@repeatable(15)
def test_any_baseline_and_any_change_is_shown_in_printable_lines(
    format: Format, one: Baseline, other: Baseline
) -> None:
    shown = render_baseline(one, format) + render_changes(list(changes(one, other)), format)
    assert all(line.isprintable() for line in shown.split("\n"))
    if format == "json":
        strict_json(render_changes(list(changes(one, other)), format))
