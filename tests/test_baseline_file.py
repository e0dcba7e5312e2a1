from __future__ import annotations

import copy
import difflib
import json
import os
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.baseline import Baseline, Recorded
from kldiv_cli.baseline_file import BASELINE_SCHEMA, baseline_text, parse_baseline, read_baseline
from kldiv_cli.errors import FormatError, InputError, InputNotFound, KldivError
from tests.baselines import baselines, recorded
from tests.cases import repeatable

EXAMPLE = Baseline(
    path="b.json", pairs={"b": recorded(mean=0.5, sum=float("nan")), "a/c": recorded(mean=0.25)}
)
TEXT = baseline_text(EXAMPLE)


def parsed(text: str) -> Baseline:
    return parse_baseline(text, "b.json")


def refusal(text: str) -> str:
    """What is said of a text that is no baseline: always one line that begins with the file."""
    with pytest.raises(KldivError) as caught:
        parsed(text)
    message = str(caught.value)
    assert message.startswith("b.json: ")
    assert message.isprintable()
    assert len(message) < 400
    return message


def with_entry(path: tuple[str, ...], value: object) -> str:
    """The example with another value somewhere."""
    record = json.loads(TEXT)
    part = record
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return json.dumps(record).replace("Infinity", "1e999")


def entries(part: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The place of every entry, of tables too."""
    for key, value in part.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from entries(value, (*path, key))


PLACES = [place for place in entries(json.loads(TEXT)) if place[1:2] != ("b",)]
TABLES = [place for place in PLACES if place[1:] and any(p[:-1] == place for p in PLACES)]


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same with every table in another order."""
    if not isinstance(value, Mapping):
        return value
    items = [(key, shuffled(item, rng)) for key, item in value.items()]
    rng.shuffle(items)
    return dict(items)


# There and back


@given(baselines())
@repeatable(60)
def test_a_baseline_reads_back_to_an_equal_one(baseline: Baseline) -> None:
    again = parsed(baseline_text(baseline))
    assert repr(sorted_in_all(again)) == repr(sorted_in_all(baseline))


def sorted_in_all(baseline: Baseline) -> Any:
    """With nan as text, which is equal to itself, and tables in one order."""

    def plain(value: Any) -> Any:
        return {key: plain(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value

    parts = ("settings", "shape", "inputs", "statistics", "histograms")
    pairs = {name: {part: getattr(pair, part) for part in parts} for name, pair in baseline.pairs.items()}
    return baseline.path, plain(pairs)


@given(baselines())
@repeatable(60)
def test_a_text_that_was_read_is_written_as_it_was(baseline: Baseline) -> None:
    text = baseline_text(baseline)
    assert baseline_text(parsed(text)) == text


@given(baselines(), st.randoms(use_true_random=False))
@repeatable(60)
def test_the_text_does_not_depend_on_the_order_of_any_table(baseline: Baseline, rng: random.Random) -> None:
    pairs = {
        name: Recorded(
            settings=shuffled(pair.settings, rng),
            shape=pair.shape,
            inputs=shuffled(pair.inputs, rng),
            statistics=shuffled(pair.statistics, rng),
            histograms=shuffled(pair.histograms, rng),
        )
        for name, pair in shuffled(baseline.pairs, rng).items()
    }
    assert baseline_text(Baseline(path="elsewhere.json", pairs=pairs)) == baseline_text(baseline)


@given(baselines())
@repeatable(60)
def test_the_text_is_printable_utf8_in_lines_with_one_entry_each(baseline: Baseline) -> None:
    text = baseline_text(baseline)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.endswith("}\n")
    text.encode("utf-8")
    assert not [line for line in text.splitlines() if re.search(r"\[$|^\s*\]", line)]


def test_the_text_is_that_of_the_stored_one() -> None:
    """A contract: what a release wrote the next one reads, and a diff shows no more than what changed."""
    assert baseline_text(Baseline(path="", pairs={"é\n": recorded(p99=1e-300, mean=1.0, elements=2)})) == (
        '{\n  "schema": "kldiv-baseline/1",\n  "pairs": {\n    "\\u00e9\\n": {\n      "settings": {\n'
        '        "loss": ["kl"],\n        "log_softmax": true,\n        "predictions_are": "logits",\n'
        '        "targets_are": "probs",\n        "axis": 1,\n        "temperature": null,\n'
        '        "zero_policy": "limit",\n        "broadcast": false,\n        "ignore_value": null,\n'
        '        "trim_axis": false,\n        "blocks_of": null,\n        "weight": false,\n'
        '        "pos_weight": false,\n        "mask": false\n      },\n      "shape": [40, 5],\n'
        '      "inputs": {\n        "predictions": {\n          "address": "q.npy",\n'
        '          "shape": [40, 5],\n          "dtype": "float64",\n          "space": "logits",\n'
        f'          "sha256": "{"0123456789abcdef" * 4}"\n        }},\n        "targets": {{\n'
        '          "address": "p.npy",\n          "shape": [40, 5],\n          "dtype": "float64",\n'
        f'          "space": "probs",\n          "sha256": "{"0123456789abcdef" * 4}"\n        }}\n'
        "      },\n"
        '      "statistics": {\n        "kl": {\n          "elements": 2,\n          "mean": 1.0,\n'
        '          "p99": 1e-300\n        }\n      },\n      "histogram": {\n        "kl": {\n'
        '          "below": 1,\n          "first": -3,\n          "counts": [2, 0, 8],\n'
        '          "infinite": 0,\n          "nan": 0\n        }\n      }\n    }\n  }\n}\n'
    )


def test_a_number_that_changed_is_a_line_that_changed() -> None:
    old = Baseline(path="", pairs={"a": recorded(mean=0.5, sum=3.0), "b": recorded(mean=0.5)})
    new = Baseline(path="", pairs={**old.pairs, "a": recorded(mean=0.5000000001, sum=3.0)})
    before, after = (baseline_text(baseline).splitlines() for baseline in (old, new))
    told = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
    assert [line.split(":")[0].split() for line in told] == [["-", '"mean"'], ["+", '"mean"']]


def test_a_pair_that_came_is_lines_that_came() -> None:
    old = Baseline(path="", pairs={"a": recorded(mean=0.5), "c": recorded(mean=0.5)})
    new = Baseline(path="", pairs={**old.pairs, "b": recorded(mean=0.5)})
    before, after = (baseline_text(baseline).splitlines() for baseline in (old, new))
    assert not [line for line in difflib.ndiff(before, after) if line[0] == "-"]


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_other_line_endings_read_the_same(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(TEXT.replace("\n", ending).encode())
    assert baseline_text(read_baseline(str(path))) == TEXT


# What is no baseline


def test_a_file_that_ends_at_any_byte_is_refused_in_one_line(tmp_path: Path) -> None:
    text = baseline_text(Baseline(path="", pairs={"é": recorded(mean=0.5)})).encode()
    path = tmp_path / "b.json"
    for length in range(len(text) - 1):
        path.write_bytes(text[:length])
        with pytest.raises(FormatError) as caught:
            read_baseline(str(path))
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).isprintable()
    path.write_bytes(text[:-1])
    assert set(read_baseline(str(path)).pairs) == {"é"}


VALUES = [
    None,
    True,
    -1,
    0.5,
    "text",
    [],
    ["text"],
    {},
    {"": 0},
    2**64,
    10**400,
    1e999,
    [-1],
    [True],
    [2**64],
]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_wrong_type_at_any_place_is_refused_and_the_place_told(place: tuple[str, ...]) -> None:
    """Whatever is taken all the same is written as it was read."""
    refused = 0
    for value in VALUES:
        text = with_entry(place, value)
        try:
            baseline_text(parsed(text))
        except FormatError:
            message = refusal(text)
            refused += 1
            if place[1:]:
                assert f'"{place[-1]}"' in message
    assert refused >= len(VALUES) - 4


@pytest.mark.parametrize("place", [p for p in PLACES if p[-3:-1] != ("statistics", "kl")], ids=".".join)
def test_an_entry_that_is_missing_is_refused_but_for_a_number_or_a_pair(place: tuple[str, ...]) -> None:
    record = json.loads(TEXT)
    part = record
    for key in place[:-1]:
        part = part[key]
    del part[place[-1]]
    if place in {("pairs", "a/c"), ("pairs", "a/c", "histogram", "kl")}:
        parsed(json.dumps(record))
    else:
        assert place[-2:][0] in refusal(json.dumps(record))


@pytest.mark.parametrize("place", [(), *TABLES], ids=".".join)
def test_an_entry_that_is_unknown_is_refused_but_for_a_pair(place: tuple[str, ...]) -> None:
    record = json.loads(TEXT)
    part = record
    for key in place:
        part = part[key]
    part["a\nb"] = 1
    assert "a\\nb" in refusal(json.dumps(record))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no JSON"),
        ("[]", "no baseline: its schema is null"),
        ("3", "no baseline"),
        ('"kldiv-baseline/1"', "no baseline"),
        ("null", "no baseline"),
        ('{"schema": "kldiv/1", "loss": "kl"}', 'no baseline: its schema is "kldiv/1"'),
        ('{"schema": ["kldiv-baseline/1"]}', "no baseline: its schema is a list"),
        ('{"schema": "kldiv-baseline"}', "no baseline"),
        ('{"schema": "kldiv-baseline/x"}', "no baseline"),
        ('{"schema": "kldiv-baseline/2"}', "upgrade kldiv"),
        ('{"schema": "kldiv-baseline/10", "pairs": []}', "upgrade kldiv"),
        (f'{{"schema": "{"x" * 10_000}"}}', "no baseline"),
        ('{"schema": "kldiv-baseline/1"}', "not there, expected a table"),
        ('{"schema": "kldiv-baseline/1", "pairs": {}, "pairs": {}}', '"pairs" stands there twice'),
        (
            '{"schema": "kldiv-baseline/1", "pairs": {"a\\nX": 1, "a\\nX": 1}}'.replace("X", "b" * 999),
            "twice",
        ),
        ('{"schema": "kldiv-baseline/1", "pairs": {}} x', "no JSON"),
        ("\ufeff" + TEXT, "no JSON"),
        (TEXT.replace("0.25", "NaN"), "NaN is none"),
        (TEXT.replace("0.25", "-Infinity"), "-Infinity is none"),
        (TEXT.replace("0.25", '"NaN"'), 'found "NaN", expected a number'),
        (TEXT.replace("0.25", "1e999"), '"mean": found Infinity'),
        (TEXT.replace("0.25", "9" * 400), '"mean": found 999'),
        (TEXT.replace("0.25", "9" * 5000), "no JSON"),
        (TEXT.replace('"mean"', '"Mean Loss"'), '"Mean Loss": no name of a statistic'),
        (TEXT.replace("-3", "-1075"), "expected them from -1074 to 1024"),
        (TEXT.replace("-3", "1022"), "expected them from -1074 to 1024"),
        (TEXT.replace('["kl"]', '["bce"]'), "not those of the losses"),
        (TEXT.replace('["kl"]', '["kl", "kl"]'), "expected kl, bce or both"),
        (TEXT.replace('"ignore_value": null', '"ignore_value": "x"'), '"ignore_value": found "x"'),
        ("[" * 100_000, "no JSON"),
        ('{"a":' * 100_000, "no JSON"),
        ('{"schema": ' + "[" * 900 + "]" * 900 + "}", "no baseline"),
    ],
    ids=lambda value: None,
)
def test_what_is_no_baseline_is_refused_in_one_line_that_says_why(text: str, told: str) -> None:
    assert told in refusal(text)


def test_the_place_in_a_pair_is_told_whatever_it_is_called() -> None:
    record = json.loads(TEXT)
    record["pairs"] = {"a\n\x1b[31m\udc80" + "x" * 5000: copy.deepcopy(record["pairs"]["b"])}
    next(iter(record["pairs"].values()))["statistics"]["kl"]["mean"] = None
    message = refusal(json.dumps(record))
    assert r'"a\n\u001b[31m' in message
    assert message.endswith("; restore it, or choose another file to record")


def test_a_missing_file_says_how_to_record_one(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match=r"no such baseline; record it with kldiv baseline record"):
        read_baseline(str(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"", "empty, expected a baseline"),
        (TEXT.encode("utf-16"), "not UTF-8"),
        (b'{"\xff": 1}', "not UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, contents: bytes, told: str) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(contents)
    with pytest.raises(FormatError, match=told):
        read_baseline(str(path))


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(FormatError, match="1099511627776 bytes, expected a baseline of at most"):
        read_baseline(str(path))


def test_a_directory_is_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a directory, expected a regular file"):
        read_baseline(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
def test_a_pipe_is_no_baseline_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.json")
    with pytest.raises(InputError, match="a pipe"):
        read_baseline(str(tmp_path / "b.json"))


def test_a_name_that_no_file_can_have_is_an_input_error() -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(InputError):
            read_baseline(name)


def test_many_keys_are_read_in_no_more_than_linear_time() -> None:
    many = ", ".join(f'"{k}": 0' for k in range(300_000))
    assert '"0" stands there twice' in refusal(f'{{{many}, "0": 1}}')


def test_a_record_that_lacks_a_statistic_is_read_and_names_what_it_has() -> None:
    """Numbers come and go from release to release; a limit that needs one that is not there says so."""
    baseline = parsed(TEXT.replace('"mean": 0.25', '"mean_of_old": 0.25'))
    assert baseline.pairs["a/c"].quantities() == {"mean_of_old": 0.25, "kl.mean_of_old": 0.25}


def test_the_schema_is_in_the_first_lines() -> None:
    assert TEXT.splitlines()[1] == f'  "schema": "{BASELINE_SCHEMA}",'
    assert replace(EXAMPLE, path="other.json") != EXAMPLE
