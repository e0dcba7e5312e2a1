from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from kldiv_cli.inspection import Inspection
from kldiv_cli.likeness import Likeness, Traits
from kldiv_cli.pairing import Suggestion
from kldiv_cli.report.inspection import inspection_grid, inspection_record, render_inspections
from kldiv_cli.report.table import render_grids
from kldiv_cli.sources.stored import Storage

PROBS = Inspection(
    address="a.h5::/p",
    shape=(6, 5),
    dtype="float32",
    storage=Storage("chunked", 120, 80, chunks=(2, 5), compression="gzip 4, shuffle"),
    traits=Traits(kind="f", size=30, lowest=1 / 3, highest=0.5, nan=1, neginf=2, zeros=3),
    likeness=Likeness("probs", 1),
)
SAMPLED = Inspection(
    address="big.npy",
    shape=(1 << 20, 1 << 10),
    dtype="uint8",
    storage=Storage("contiguous", 1 << 30, 1 << 30, order="F"),
    traits=Traits(kind="u", size=1 << 22, lowest=0, highest=2**62 + 1),
    likeness=Likeness("labels"),
)
LINK = Inspection(address="a.h5::/l\x1b", shape=None, dtype=None, storage=None, problem="a link | away")
ALL = [PROBS, SAMPLED, LINK]
LINES = [Suggestion("a.h5::/p", "a b.npy", ("--axis", "0"))]
FORMATS = ("table", "plain", "md", "csv", "json", "jsonl")


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def render(format: Any, precision: int | None = None) -> str:
    return render_inspections(ALL, LINES, format, precision)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_names_every_array_what_it_looks_like_and_the_lines(format: str) -> None:
    text = render(format).replace("\\", "")
    for shown in (
        "a.h5::/p",
        "big.npy",
        "a link | away",
        "probs",
        "kldiv compute a.h5::/p 'a b.npy' --axis 0",
    ):
        assert shown in text


@pytest.mark.parametrize("format", FORMATS)
def test_control_characters_of_a_name_are_escaped(format: str) -> None:
    assert "\x1b" not in render(format)


def test_a_grid_says_what_was_read_only_where_something_was_sampled() -> None:
    grid = inspection_grid(ALL, 6)
    read = grid.columns.index("read")
    assert [row[read] for row in grid.rows] == ["all", "4194304 of 1073741824", "–"]
    assert "read" not in inspection_grid([PROBS], 6).columns


def test_a_grid_says_how_an_array_is_stored_and_how_large_it_is() -> None:
    rows = inspection_grid(ALL, 6).rows
    assert rows[0][3:5] == ("chunked (2, 5), gzip 4, shuffle", "120 B in 80 B")
    assert rows[1][3:5] == ("contiguous, Fortran order", "1 GiB")
    assert rows[2][1:5] == ("–",) * 4


def test_a_grid_says_which_value_below_0_is_no_class() -> None:
    found = Traits(kind="i", size=30, lowest=-100, highest=9, second_lowest=0, second_highest=8)
    array = Inspection(
        address="x", shape=(30,), dtype="int64", storage=None, traits=found, likeness=Likeness("labels")
    )
    assert inspection_grid([array], 6).rows[0][-1] == "labels but for -100"
    assert inspection_record(array)["looks_like"] == "labels"


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1023, "1023 B"), (1024, "1 KiB"), (5 << 40, "5 TiB")]
)
def test_sizes_are_shown_in_the_unit_that_suits_them(count: int, shown: str) -> None:
    array = Inspection(address="x", shape=(count,), dtype="u1", storage=Storage("contiguous", count, count))
    assert inspection_grid([array], 6).rows[0][4] == shown


def test_numbers_are_whole_in_a_pipe_short_in_a_table_and_integers_never_cut() -> None:
    assert "0.3333333333333333 " in render("plain")
    assert " 0.333333 " in render("table")
    assert " 0.33 " in render("plain", 2)
    assert "4611686018427387905" in render("table")


def test_a_record_has_every_field_and_the_lines_of_its_array() -> None:
    record = inspection_record(PROBS, LINES)
    assert record["storage"]["chunks"] == (2, 5)
    assert (record["min"], record["nan"], record["posinf"], record["neginf"]) == (1 / 3, 1, 0, 2)
    assert (record["looks_like"], record["axis"], record["sampled"]) == ("probs", 1, False)
    assert record["compute"] == [LINES[0].command]
    assert inspection_record(SAMPLED, LINES)["compute"] == []
    assert {key: value for key, value in inspection_record(LINK).items() if value} == {
        "address": LINK.address,
        "problem": LINK.problem,
    }


def test_json_is_one_document_and_json_lines_are_one_an_array() -> None:
    document = json.loads(render("json"))
    assert document["schema"] == "kldiv/1"
    lines = [json.loads(line) for line in render("jsonl").splitlines()]
    assert [{k: v for k, v in line.items() if k != "schema"} for line in lines] == document["arrays"]
    assert {line["schema"] for line in lines} == {"kldiv/1"}


def test_csv_has_a_row_for_each_array_and_empty_cells_for_what_is_not_known() -> None:
    rows = list(csv.DictReader(io.StringIO(render("csv"))))
    assert [row["address"] for row in rows] == ["a.h5::/p", "big.npy", "a.h5::/l\\x1b"]
    assert rows[0]["shape"] == "6x5"
    assert float(rows[0]["min"]) == 1 / 3
    assert rows[1]["sampled"] == "true"
    assert rows[2]["nan"] == rows[2]["storage.kind"] == rows[2]["looks_like"] == ""


@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "plain", "md", "table"])
def test_no_arrays_at_all_are_no_error(format: Any) -> None:
    assert render_inspections([], [], format) is not None


def test_a_terminal_too_narrow_for_one_table_gets_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.report.console.UNLIMITED", 90)
    parts = render("table").split("\n\n")
    headers = [line.split() for part in parts for line in part.splitlines() if line.split()[:1] == ["array"]]
    assert headers == [
        ["array", "shape", "dtype", "looks", "like"],
        ["array", "storage", "size"],
        ["array", "min", "max", "nan", "inf", "-inf", "zeros", "read"],
    ]
    monkeypatch.setattr("kldiv_cli.report.console.UNLIMITED", 300)
    assert render("table").count("array  ") == 1


def test_of_several_layouts_the_last_is_taken_where_none_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.report.console.UNLIMITED", 10)
    grid = inspection_grid([PROBS], 6)
    assert "a.h5::/p" in render_grids([grid], [grid, grid]).replace("\n", "")
