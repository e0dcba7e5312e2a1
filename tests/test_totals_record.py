"""Totals as text: nothing is lost on the way there and back, and nothing else is taken for them."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.histogram import histogram_of
from kldiv_cli.reductions import ExactSum
from kldiv_cli.spread import few_values
from kldiv_cli.statistics import Sketch, sketch_of
from kldiv_cli.target_split import Group, TargetSplit, split_by_target
from kldiv_cli.totals import Totals
from kldiv_cli.totals_record import totals_from, totals_record

repeatable = settings(derandomize=True, deadline=None, max_examples=20)

NASTY = st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 2.0**-1033, 1.7e308, -1.7e308])
VALUES = st.lists(st.one_of(NASTY, st.floats()), max_size=12)
COUNTS = st.integers(0, 2**63 - 1)


@st.composite
def all_totals(draw: st.DrawFn) -> Totals:
    values = np.array(draw(VALUES), np.float64)
    targets = np.resize(np.array([0.0, 1.0, 0.5, math.nan]), values.size)
    return Totals(
        losses=sketch_of(values, spread=draw(st.sampled_from([few_values, histogram_of]))),
        elements=draw(COUNTS),
        batch=draw(COUNTS),
        distributions=draw(COUNTS),
        same_tops=draw(st.none() | COUNTS),
        by_target=split_by_target(targets, values) if draw(st.booleans()) else None,
    )


def through_json(record: object) -> Any:
    return json.loads(json.dumps(record, allow_nan=False))


@repeatable
@given(all_totals())
def test_totals_come_back_to_the_bit(totals: Totals) -> None:
    found = totals_from(through_json(totals_record(totals)))
    assert found == totals
    assert repr(found.losses.minimum) == repr(totals.losses.minimum)


@repeatable
@given(all_totals(), all_totals())
def test_what_came_back_merges_like_what_was_there(one: Totals, other: Totals) -> None:
    found = [totals_from(through_json(totals_record(totals))) for totals in (one, other)]
    merged = one.merge(other)
    assert found[0].merge(found[1]) == merged


def test_sums_of_any_size_and_sign_come_back() -> None:
    for scaled in (0, 1, -1, 3 << 2097, -((1 << 2200) + 1), 1 << 1074):
        total = ExactSum(scaled, 1, 2, 3)
        split = TargetSplit(one=Group(6, total), zero=Group(0, ExactSum(scaled)))
        found = totals_from(through_json(totals_record(Totals(by_target=split))))
        assert found.by_target == split


def test_the_text_is_as_short_as_what_it_says() -> None:
    record = totals_record(Totals(sketch_of(np.full(1000, 0.75)), 4000, 10, 1000))
    assert record["losses"]["sum"] == ["177", 1075]
    assert record["losses"]["histogram"]["above"] == [[1047040], [1000]]
    assert len(json.dumps(record)) < 300


# What is no record of totals

TOTALS = Totals(
    sketch_of(np.array([0.5, -2.0, 5e-324, math.inf, 0.75, 0.0])),
    elements=24,
    batch=2,
    distributions=6,
    same_tops=3,
    by_target=TargetSplit(one=Group(24, ExactSum(5, 1))),
)
RECORD = through_json(totals_record(TOTALS))
ODD = (
    None,
    True,
    -1,
    1.5,
    2**70,
    "",
    "nan",
    "zz",
    [],
    {},
    [1],
    [None, None],
    [[0], [True]],
    [[5, 0], [1, 1]],
)


def parts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a record, itself too."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from parts(item, (*path, key))


def changed(path: tuple[Any, ...], value: object) -> Any:
    if not path:
        return value
    record = copy.deepcopy(RECORD)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


def test_whatever_stands_in_its_place_is_a_value_error_or_other_totals() -> None:
    sound = totals_from(RECORD)
    refused = 0
    for path in parts(RECORD):
        for odd in ODD:
            try:
                found = totals_from(changed(path, odd))
            except ValueError:
                refused += 1
            else:
                assert found != sound or changed(path, odd) == RECORD
                found.statistics("kl", (0.5, 0.99))
    assert refused > 500


@pytest.mark.parametrize("key", [*RECORD, "more"])
def test_a_missing_or_an_unknown_entry_is_an_error(key: str) -> None:
    record = copy.deepcopy(RECORD)
    if key in ("same_tops", "by_target"):
        del record[key]
        assert getattr(totals_from(record), key) is None
        return
    if record.pop(key, None) is None:
        record[key] = 0
    with pytest.raises(ValueError, match="totals: expected a table of"):
        totals_from(record)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("losses", "count"), 7, "count: found 7, and there are 6 values"),
        (("losses", "sum"), ["0x1", 2], "sum: expected a hexadecimal number"),
        (("losses", "sum"), ["1", 1 << 40], "sum: expected a whole number"),
        (("losses", "sum"), ["1" * 2000, 0], "sum: expected a hexadecimal number"),
        (("losses", "minimum"), math.nan, "minimum: expected a number, inf or -inf"),
        (("losses", "histogram", "above"), [[0], [1, 2]], "1 bins and 2 counts"),
        (("losses", "histogram", "above"), [[5, 0], [1, 1]], "bins in ascending order"),
        (("losses", "histogram", "above"), [[2047 << 10], [1]], "whole numbers below"),
        (("losses", "histogram", "above"), [[2_000_000, 2_000_000], [1, 1]], "bins in ascending order"),
        (("losses", "histogram", "least"), [[1024], [1]], "bins in ascending order from -1074 to 1023"),
        (("losses", "histogram", "below"), [[5], [0]], "counts of 1 or more"),
        (("losses", "histogram", "below"), [[5, 1], [2**62, 2**62]], "together below"),
        (("by_target", "one"), [1], "by_target.one: expected a list of 3 to 6"),
    ],
)
def test_an_error_says_where_it_is(path: tuple[str, ...], value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        totals_from(changed(path, value))


def base64_of(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f8").tobytes()).decode()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (base64_of(0.5, 0.75), "count: found 6, and there are 3 values"),
        (base64_of(0.75, 0.5), "values: expected finite numbers in ascending order"),
        (base64_of(0.5, math.inf), "values: expected finite numbers"),
        (base64_of(math.nan), "values: expected finite numbers"),
        (base64_of(0.5)[4:], "values: expected the bytes"),
        ("€", "values: expected the bytes"),
        ([0.5], "values: expected the bytes"),
        (None, "values: expected the bytes"),
    ],
)
def test_values_that_are_none_are_an_error(values: object, problem: str) -> None:
    record = copy.deepcopy(RECORD)
    del record["losses"]["histogram"]
    record["losses"]["values"] = values
    with pytest.raises(ValueError, match=problem):
        totals_from(record)


def test_a_record_has_values_or_a_histogram_and_not_both() -> None:
    both, neither = copy.deepcopy(RECORD), copy.deepcopy(RECORD)
    both["losses"]["values"] = base64_of(0.5)
    del neither["losses"]["histogram"]
    for record in (both, neither):
        with pytest.raises(ValueError, match=r"losses: found \[.*\], expected one of"):
            totals_from(record)


def test_empty_totals_have_a_record_too() -> None:
    assert totals_from(through_json(totals_record(Totals()))) == Totals(Sketch())
