"""Tables of pairs: a row is a pair, and whatever is wrong with one is told with its line."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import repeatable
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.errors import FormatError, InputError, InputNotFound, KldivError, UsageError
from kldiv_cli.pair import OPTIONS, Pair
from kldiv_cli.pair_table import read_pair_table


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(text: str | bytes, path: str = "pairs.csv", **options: Any) -> tuple[Pair, ...]:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return read_pair_table(path, options)


def names(text: str | bytes, path: str = "pairs.csv") -> list[str]:
    return [pair.name for pair in table(text, path)]


def problem(text: str | bytes, path: str = "pairs.csv") -> str:
    with pytest.raises(KldivError) as caught:
        table(text, path)
    said = str(caught.value)
    assert "\n" not in said
    return said.replace(os.sep, "/")


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(contents: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(contents), "utf-8"))

    return give


CSV = "name,predictions,targets,log-softmax,loss,quantiles,log_target,temperature,mask\n"
FULL = (
    CSV + 'first,out/a.npy,ref/d.h5::/p[0:5],-1,"kl, bce","0.5,0.75",TRUE,2,m.npy\nsecond,b.npy,c.npy,,,,,,\n'
)


# What a table says


def test_a_row_is_a_pair_with_the_options_of_its_cells_and_files_seen_from_the_table() -> None:
    assert table(FULL, "lists/pairs.csv") == (
        Pair(
            name="first",
            predictions=os.path.join("lists", "out/a.npy"),
            targets=os.path.join("lists", "ref/d.h5::/p[0:5]"),
            options={
                "log_softmax": -1,
                "loss": ("kl", "bce"),
                "quantiles": (0.5, 0.75),
                "log_target": True,
                "temperature": 2,
                "mask": os.path.join("lists", "m.npy"),
            },
        ),
        Pair(
            name="second",
            predictions=os.path.join("lists", "b.npy"),
            targets=os.path.join("lists", "c.npy"),
            options={},
        ),
    )


def test_lines_of_json_say_the_same_as_a_csv() -> None:
    rows = [
        {
            "name": "first",
            "predictions": "out/a.npy",
            "targets": "ref/d.h5::/p[0:5]",
            "log-softmax": -1,
            "loss": ["kl", "bce"],
            "quantiles": [0.5, 0.75],
            "log_target": True,
            "temperature": 2,
            "mask": "m.npy",
        },
        {"name": "second", "predictions": "b.npy", "targets": "c.npy", "axis": None},
    ]
    lines = "\n\n".join(map(json.dumps, rows))
    for suffix in (".jsonl", ".ndjson", ".JSONL"):
        assert table(lines, f"pairs{suffix}") == table(FULL)


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_may_be_a_column_in_both_forms(option: str) -> None:
    kind = OPTIONS[option]
    cells: dict[str, tuple[str, Any]] = {
        "string": ("x", "x"),
        "address": ("x.npy", "x.npy"),
        "string or strings": ("kl", "kl"),
        "integer": ("-3", -3),
        "number": ("-0.5", -0.5),
        "numbers": ("0.5", (0.5,)),
        "boolean": ("false", False),
    }
    cell, value = cells[kind]
    (pair,) = table(f"predictions,targets,{option}\na,b,{cell}\n")
    assert pair.options == {option: value}
    json_value = list(value) if isinstance(value, tuple) else value
    (same,) = table(json.dumps({"predictions": "a", "targets": "b", option: json_value}), "pairs.jsonl")
    assert same == pair


def test_given_options_are_for_rows_that_do_not_have_their_own() -> None:
    text = "predictions,targets,axis\na,b,1\nc,d,\n"
    assert [pair.options for pair in table(text, axis=0, loss="bce")] == [
        {"axis": 1, "loss": "bce"},
        {"axis": 0, "loss": "bce"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpredictions,targets\na,b\nc,d\n",
        "predictions,targets\r\na,b\r\nc,d\r\n",
        "\n\npredictions,targets\n\na,b\n , \nc,d",
        "predictions , targets\na, b\nc, d\n",
        '"predictions","targets"\n"a","b"\nc,d\n',
    ],
    ids=["bom", "crlf", "blank", "spaces", "quotes"],
)
def test_how_a_csv_is_written_changes_nothing(text: str) -> None:
    assert [(p.predictions, p.targets) for p in table(text)] == [("a", "b"), ("c", "d")]


def test_a_cell_may_have_commas_quotes_and_line_ends_and_lines_are_counted_on() -> None:
    text = 'predictions,targets,name\n"a,1","b""2\n3",x\nc,d,x\n'
    (first,) = table(text.replace("c,d,x\n", ""))
    assert (first.predictions, first.targets) == ("a,1", 'b"2\n3')
    assert problem(text).startswith("pairs.csv: line 4: a second pair named 'x', expected one, after line 2")


def test_wildcards_and_urls_stay_as_they_are() -> None:
    urls = ["s3://bucket/a.npy", "gs://b/d.h5::/probs[0:9]", "https://example.org/w.npy?x=1"]
    (pair,) = table(f"predictions,targets,weight,mask\n{','.join(urls)},m[1]*.npy\n", "lists/pairs.csv")
    assert [pair.predictions, pair.targets, pair.options["weight"]] == urls
    assert pair.options["mask"] == os.path.join("lists", "m[1]*.npy")


def test_an_absolute_path_stands_for_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    assert table(f"predictions,targets\n{path},b\n", "lists/pairs.csv")[0].predictions == path


# Standard input


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbf\n \npredictions,targets\na,b\n", b'\n\n {"predictions": "a", "targets": "b"}\n']
)
def test_standard_input_tells_its_form_by_its_beginning(text: bytes, stdin: Any) -> None:
    stdin(text)
    assert read_pair_table("-") == (Pair(name="a", predictions="a", targets="b", options={}),)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"\n\npredictions,targets\na,b,c\n", 4),
        (b'\n\n{"predictions": "a", "targets": 1}', 3),
        (b"\n\nx,y\n", 3),
    ],
)
def test_errors_in_standard_input_name_it_and_the_line(text: bytes, line: int, stdin: Any) -> None:
    stdin(text)
    with pytest.raises(UsageError, match=f"^stdin: line {line}: "):
        read_pair_table("-")


def test_standard_input_without_a_row_is_an_error(stdin: Any) -> None:
    stdin(b"")
    with pytest.raises(UsageError, match="stdin"):
        read_pair_table("-")


# Names


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("out/a.npy", "out/a"),
        ("out/a.b.npy", "out/a.b"),
        ("d.h5::/layer1/logits", "d/layer1/logits"),
        ("d.h5::logits[0:10]", "d/logits[0:10]"),
        ("d.npy::[0:10]", "d[0:10]"),
        ("s3://bucket/a.npy", "s3://bucket/a"),
    ],
)
def test_a_row_without_a_name_is_named_after_its_predictions(address: str, name: str) -> None:
    assert names(f"predictions,targets,name\n{address},p.npy,\n", "lists/pairs.csv") == [name]


def test_two_rows_that_would_have_one_name_ask_for_a_column() -> None:
    said = problem("predictions,targets\na.npy,b\na.npz,b\n")
    assert said == (
        "pairs.csv: line 3: a second pair named 'a', expected one, after line 2; "
        "give each row its own in a column 'name'"
    )


@pytest.mark.parametrize("name", ["::error::x", "a##[group]", "x" * 201, "a\x07b"])
def test_a_name_that_can_not_be_shown_is_refused(name: str) -> None:
    assert "give the row another name" in problem(f"predictions,targets,name\na,b,{name}\n")


# What is wrong

WRONG_CSV = {
    "unknown column": ("predictions,target\n", "line 1: unknown column 'target'; did you mean 'targets'?"),
    "semicolons": ("predictions;targets\n", "line 1: unknown column 'predictions;targets'; separate columns"),
    "column twice": ("predictions,targets,axis,axis\n", "line 1: two columns 'axis', expected one; drop"),
    "twice by dash": ("predictions,targets,log-target,log_target\n", "line 1: two columns 'log_target'"),
    "no targets": ("predictions,name\na,b\n", "line 1: no column 'targets', expected one in the header; add"),
    "no header": ("", "line 1: no column 'predictions'"),
    "no rows": ("predictions,targets\n\n", "pairs.csv: no pairs, expected at least one; add rows"),
    "short row": ("predictions,targets\n\na\n", "line 3: 1 cells, expected 2 as in the header; leave"),
    "long row": ("predictions,targets\na,b,c\n", "line 2: 3 cells, expected 2"),
    "empty cell": (
        "predictions,targets\na,\n",
        "line 2: no targets, expected an array's address; fill it in",
    ),
    "no address": (
        "predictions,targets\na::,b\n",
        "line 2: predictions: 'a::', expected FILE, FILE::DATASET",
    ),
    "integer": ("predictions,targets,axis\na,b,1.5\n", "line 2: axis '1.5', expected a whole number; mend"),
    "large integer": (f"predictions,targets,axis\na,b,{2**63}\n", "expected a whole number; mend the cell"),
    "number": ("predictions,targets,temperature\na,b,1_0\n", "temperature '1_0', expected a number; mend"),
    "numbers": ("predictions,targets,quantiles\na,b,0.5;1\n", "'0.5;1', expected numbers, several with"),
    "boolean": ("predictions,targets,log_target\na,b,1\n", "log_target '1', expected true or false; mend"),
    "open quote": ('predictions,targets\na,"b\n', "line 2: unexpected end of data, expected CSV; look for a"),
    "garbage": ('predictions,targets\na,"b"c\n', "line 2: "),
}


@pytest.mark.parametrize("mistake", WRONG_CSV)
def test_each_mistake_in_a_csv_is_told_on_one_line_with_its_place(mistake: str) -> None:
    text, said = WRONG_CSV[mistake]
    assert said in problem(text)


GOOD = '"predictions": "a", "targets": "b"'
WRONG_JSON = {
    "unknown key": (f'{{{GOOD}, "los": "kl"}}', "line 1: unknown key 'los'; did you mean 'loss'?"),
    "key twice": (
        '{"predictions": "a", "predictions": "b"}',
        "line 1: 'predictions' is there twice, expected {",
    ),
    "type": (f'\n{{{GOOD}, "axis": "1"}}', "line 2: axis is '1', expected a whole number; mend it"),
    "array": (
        f'{{{GOOD}, "quantiles": ["x"]}}',
        "quantiles is an array with 'x' in it, expected an array of",
    ),
    "null in array": (f'{{{GOOD}, "quantiles": [null]}}', "an array with null in it"),
    "object": (f'{{{GOOD}, "loss": {{"a": 1}}}}', "loss is an object, expected a string or an array of them"),
    "with a dash": ('{"log-target": true, "log_target": true}', "is there with a dash and without; drop one"),
    "true as number": (f'{{{GOOD}, "axis": true}}', "axis is true, expected a whole number"),
    "no object": ("[1]", "line 1: a value that is no object, expected {"),
    "no json": ('{"predictions": }', "line 1: column 17: Expecting value, expected {"),
    "two objects": (f"{{{GOOD}}} {{{GOOD}}}", "column 38: Extra data"),
    "depth": ("[" * 100_000, "too deep in each other"),
    "digits": ('{"axis": ' + "1" * 5000 + "}", "Exceeds the limit"),
    "no targets": (
        '{"predictions": "a", "targets": null}',
        "line 1: no targets, expected an array's address",
    ),
    "nothing": ("\n\n", "pairs.jsonl: no pairs"),
}


@pytest.mark.parametrize("mistake", WRONG_JSON)
def test_each_mistake_in_json_is_told_on_one_line_with_its_place(mistake: str) -> None:
    text, said = WRONG_JSON[mistake]
    assert said in problem(text, "pairs.jsonl")


@pytest.mark.parametrize("path", ["pairs.csv", "pairs.jsonl"])
def test_a_line_of_megabytes_is_not_read_whole(path: str) -> None:
    assert "line 2: a row of more than 1048576 bytes" in problem(b"\n" + b"x" * (3 << 20), path)


def test_a_row_of_many_lines_is_bounded_as_one_line_is() -> None:
    cells = '"a\n",' * 300_000
    assert "line 2: a row of more than 1048576 bytes" in problem(f"predictions,targets\n{cells}\n")


def test_a_file_in_another_encoding_says_where() -> None:
    said = problem("predictions,targets\na,ä\n".encode("latin-1"))
    assert said.startswith("pairs.csv: line 2: byte 2 is 0xe4, expected a table in UTF-8")
    assert "line 1: byte 0 is 0xff" in problem("predictions,targets\n".encode("utf-16"))


def test_each_error_is_of_the_kind_a_caller_would_catch() -> None:
    Path("pairs.csv").mkdir()
    with pytest.raises(InputNotFound):
        read_pair_table("missing.csv")
    with pytest.raises(InputError, match="a directory"):
        read_pair_table("pairs.csv")
    with pytest.raises(FormatError):
        table('predictions,targets\n"', "open.csv")


@repeatable(150)
@given(st.binary(max_size=60) | st.text('{}[]":,ab\n\r 1\\', max_size=40).map(str.encode), st.booleans())
def test_no_bytes_raise_anything_but_our_own_errors(contents: bytes, as_json: bool) -> None:
    path, start = ("x.jsonl", b"") if as_json else ("x.csv", b"predictions,targets,axis\n")
    said = path
    try:
        assert table(start + contents, path)
    except KldivError as error:
        said = str(error)
    assert said.startswith(path)
    assert "\n" not in said


ADDRESS = st.characters(blacklist_characters="\0:")


@repeatable(60)
@given(st.lists(st.tuples(*[st.text(ADDRESS, min_size=1, max_size=8)] * 2), min_size=1, max_size=5))
def test_what_is_written_as_a_table_is_read_as_it_was(rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"name": f"{k}", "predictions": p, "targets": t}) for k, (p, t) in enumerate(rows)]
    pairs = table("\n".join(lines), "x.jsonl")
    assert [(pair.predictions, pair.targets) for pair in pairs] == rows


def test_rows_that_have_no_option_of_their_own_share_those_that_are_given() -> None:
    first, second = table("predictions,targets\na,b\nc,d\n", axis=1)
    assert first.options is second.options
