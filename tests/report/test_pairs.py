"""What `--dry-run` prints."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, get_args

import pytest

from kldiv_cli.batch_pair import BatchPair
from kldiv_cli.report.console import Format
from kldiv_cli.report.pairs import render_pairs
from kldiv_cli.spec import Spec

PAIRS = (
    BatchPair(name="a", predictions="q/a.npy", targets="p/a.npy", spec=Spec()),
    BatchPair(
        name="x/[red]b", predictions="q/b.npy", targets="p/b.npy", spec=Spec(), files={"mask": "m\x1b[1m.npy"}
    ),
)
FIRST = {"pair": "a", "status": "finished", "predictions": "q/a.npy", "targets": "p/a.npy"}
SECOND = {
    "pair": "x/[red]b",
    "status": "to be computed",
    "predictions": "q/b.npy",
    "targets": "p/b.npy",
    "mask": "m\x1b[1m.npy",
}


def rendered(format: Format, finished: tuple[str, ...] = ("a",)) -> str:
    return render_pairs(PAIRS, format, finished)


def without_schema(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "schema"}


def test_json_has_all_pairs_under_one_schema() -> None:
    record = json.loads(rendered("json"))
    assert record == {"schema": "kldiv/1", "pairs": [FIRST, SECOND]}


def test_json_lines_have_one_a_pair() -> None:
    records = [json.loads(line) for line in rendered("jsonl").splitlines()]
    assert [record["schema"] for record in records] == ["kldiv/1", "kldiv/1"]
    assert list(map(without_schema, records)) == [FIRST, SECOND]


def test_csv_has_a_column_for_each_file_that_any_pair_has() -> None:
    rows = list(csv.DictReader(io.StringIO(rendered("csv"))))
    assert rows == [{**FIRST, "mask": ""}, {**SECOND, "mask": r"m\x1b[1m.npy"}]


def test_plain_text_begins_with_how_many_there_are_and_lists_them() -> None:
    title, _, head, *rows = rendered("plain").splitlines()
    assert title == "2 pairs, 1 of them finished"
    assert head.split() == ["pair", "status", "predictions", "targets", "mask"]
    assert rows[0].split() == ["a", "finished", "q/a.npy", "p/a.npy"]
    assert rows[1].split() == ["x/[red]b", "to", "be", "computed", "q/b.npy", "p/b.npy", r"m\x1b[1m.npy"]


def test_markdown_does_not_take_names_for_markup() -> None:
    assert r"x/\[red\]b" in rendered("md")


def test_without_a_journal_nothing_is_said_of_one() -> None:
    assert rendered("plain", ()).startswith("2 pairs\n")
    assert render_pairs(PAIRS[:1], "plain").startswith("1 pair\n")


@pytest.mark.parametrize("format", get_args(Format))
def test_no_format_lets_control_characters_through_and_each_names_every_pair(format: Format) -> None:
    text = rendered(format)
    assert "\x1b[1m" not in text
    assert "red" in text
    assert text.endswith("\n")
