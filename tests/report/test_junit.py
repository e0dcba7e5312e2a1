"""JUnit XML as those read it who have never heard of kldiv."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from xml.etree import ElementTree

import junitparser
import numpy as np
import pytest
from cases import repeatable
from checks import CLOSE, PREDICTIONS, TARGETS, broken, checked, failing, hostile_text, nonfinite, passing
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.gate import Checked
from kldiv_cli.quantities import quantities_of
from kldiv_cli.report.junit import JUNIT_MARK, junit_xml

DOCUMENTS: Final[dict[str, list[Checked]]] = {
    "none": [],
    "one that passed": [passing()],
    "one that failed": [failing()],
    "one that could not be computed": [broken()],
    "of every kind": [broken(), nonfinite(), failing(), passing()],
    "of two losses": [checked("both", loss=("kl", "bce"), log_softmax=-1, limits=["kl.mean < 1"])],
}


def suites_of(results: list[Checked]) -> list[junitparser.TestSuite]:
    parsed = junitparser.JUnitXml.fromstring(junit_xml(results).encode())
    assert isinstance(parsed, junitparser.JUnitXml)
    return list(parsed)


# The schema, in our words


class Element(NamedTuple):
    """What Jenkins' xUnit plugin lets an element have (its junit-10.xsd), as far as it is used here."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    text: bool = False


COUNTS: Final = frozenset({"tests", "failures", "errors"})
SCHEMA: Final[dict[str, Element]] = {
    "testsuites": Element(
        optional=COUNTS | {"name", "time"},
        children=frozenset({"testsuite"}),
    ),
    "testsuite": Element(
        required=COUNTS | {"name"},
        optional=frozenset({"time", "skipped", "timestamp", "hostname", "id", "package", "file"}),
        children=frozenset({"testsuite", "properties", "testcase", "system-out", "system-err"}),
    ),
    "testcase": Element(
        required=frozenset({"name"}),
        optional=frozenset({"classname", "time", "group"}),
        children=frozenset({"skipped", "error", "failure", "system-out", "system-err"}),
    ),
    "properties": Element(children=frozenset({"property"})),
    "property": Element(required=frozenset({"name", "value"})),
    "failure": Element(optional=frozenset({"type", "message"}), text=True),
    "error": Element(optional=frozenset({"type", "message"}), text=True),
}
TIME: Final = re.compile(r"[0-9]*(\.[0-9]*)?")
"""The schema lets thousands be parted by commas too."""


def violations(element: ElementTree.Element) -> list[str]:
    """Where an element and those in it break the rules."""
    rules = SCHEMA[element.tag]
    given_names = set(element.attrib)
    found = [f"{element.tag}: no {name}" for name in rules.required - given_names]
    found += [f"{element.tag}: has {name}" for name in given_names - rules.required - rules.optional]
    if "time" in element.attrib and not TIME.fullmatch(element.attrib["time"]):
        found.append(f"{element.tag}: time {element.attrib['time']}")
    if not rules.text and (element.text or "").strip():
        found.append(f"{element.tag}: has text")
    for child in element:
        if (child.tail or "").strip():
            found.append(f"{element.tag}: has text")
        if child.tag not in rules.children:
            found.append(f"{element.tag}: has <{child.tag}>")
        else:
            found += violations(child)
    return found


@pytest.mark.parametrize("results", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_report_keeps_to_the_schema_that_jenkins_validates(results: list[Checked]) -> None:
    root = ElementTree.fromstring(junit_xml(results))
    assert root.tag == "testsuites"
    assert violations(root) == []


@pytest.mark.parametrize(
    "document",
    [
        '<testsuite name="x" tests="1" failures="0" />',
        '<testsuite name="x" tests="1" failures="0" errors="0"><property name="a" value="b" /></testsuite>',
        '<testcase name="x" time="1"><properties /></testcase>',
        '<testcase name="x" time="1e-5" />',
        '<testcase name="x">text</testcase>',
    ],
)
def test_the_rules_find_what_breaks_them(document: str) -> None:
    assert violations(ElementTree.fromstring(document))


def test_a_time_is_written_as_the_schema_wants_it_however_long_it_took() -> None:
    for seconds in (0.0, 1e-9, 0.25, 61.5, 123456.789, 1e7):
        result = Checked(name="slow", error="", seconds=seconds)
        assert violations(ElementTree.fromstring(junit_xml([result]))) == []
        assert suites_of([result])[0].time == pytest.approx(seconds, abs=5e-4)


# What it says


def test_each_pair_is_a_suite_of_one_case_in_the_order_of_the_results() -> None:
    results = [broken(), nonfinite(), failing(), passing()]
    suites = suites_of(results)
    assert [suite.name for suite in suites] == [result.name for result in results]
    assert [[case.name for case in suite] for suite in suites] == [[result.name] for result in results]


@pytest.mark.parametrize(
    ("result", "kind", "counts"),
    [
        (passing(), None, (1, 0, 0)),
        (failing(), junitparser.Failure, (1, 1, 0)),
        (nonfinite(), junitparser.Failure, (1, 1, 0)),
        (broken(), junitparser.Error, (1, 0, 1)),
        (failing(limits=["distmean < 0.1", "p99 < 0.1", "maximum < 0.1"]), junitparser.Failure, (1, 1, 0)),
    ],
    ids=lambda value: value.name if isinstance(value, Checked) else "",
)
def test_a_pair_has_one_outcome_whatever_went_wrong(
    result: Checked, kind: type[junitparser.junitparser.Result] | None, counts: tuple[int, int, int]
) -> None:
    (suite,) = suites_of([result])
    (case,) = suite
    assert [type(outcome) for outcome in case.result] == ([] if kind is None else [kind])
    assert (suite.tests, suite.failures, suite.errors) == counts


def test_the_whole_is_counted_and_timed() -> None:
    results = [broken(), nonfinite(), failing(), passing()]
    parsed = junitparser.JUnitXml.fromstring(junit_xml(results).encode())
    assert (parsed.tests, parsed.failures, parsed.errors) == (4, 2, 1)
    assert parsed.time == pytest.approx(sum(result.seconds for result in results), abs=1e-3)


def test_a_failure_lists_all_reasons_and_is_headed_by_the_first() -> None:
    result = failing(limits=["distmean < 0.1", "p99 < 0.1", "maximum < 100"])
    ((case,),) = suites_of([result])
    (failure,) = case.result
    reasons = list(result.failures())
    assert len(reasons) == 2
    *told, worst = failure.text.splitlines()
    assert told == reasons
    (evaluation,) = result.evaluations
    largest = evaluation.worst[0]
    assert worst.startswith(f"worst kl: {largest.value:.6g} at {list(largest.index)}, ")
    assert failure.message == f"{reasons[0]} (and 1 more)"


def test_an_error_says_what_was_wrong() -> None:
    ((case,),) = suites_of([broken(error="q.npy: no such file")])
    (error,) = case.result
    assert (error.message, error.text) == ("q.npy: no such file", "q.npy: no such file")


@pytest.mark.parametrize("result", [passing(), failing(), nonfinite()], ids=lambda result: result.name)
def test_every_statistic_is_a_property_that_reads_back_to_the_same_value(result: Checked) -> None:
    (suite,) = suites_of([result])
    properties = {entry.name: entry.value for entry in suite.properties()}
    for name, value in quantities_of(result.evaluations[0]).items():
        np.testing.assert_array_equal(float(properties.pop(name)), value)
    assert properties == {"predictions": "predictions", "targets": "targets", "shape": "(3, 2)"}


def test_statistics_of_two_losses_are_told_apart() -> None:
    (suite,) = suites_of(DOCUMENTS["of two losses"])
    names = [entry.name for entry in suite.properties()]
    assert len(set(names)) == len(names)
    assert {"kl.mean", "bce.mean", "kl.p99", "bce.p99"} <= set(names)


def test_a_report_begins_with_the_mark_that_lets_the_next_one_take_its_place() -> None:
    for results in DOCUMENTS.values():
        assert junit_xml(results).startswith(JUNIT_MARK)


# Text that XML can't hold


def readable(text: str) -> str:
    """The text, with what XML 1.0 has no way to hold escaped as Python would."""
    kept = (
        c in "\t\n" or (c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff") for c in text
    )
    return "".join(
        c if keep else c.encode("unicode_escape").decode() for c, keep in zip(text, kept, strict=True)
    )


@repeatable(300)
@given(name=hostile_text(), error=hostile_text())
def test_whatever_a_pair_is_called_and_whatever_is_wrong_the_report_can_be_read(
    name: str, error: str
) -> None:
    text = junit_xml([broken(name, error)])
    root = ElementTree.fromstring(text.encode())
    assert violations(root) == []
    (case,) = root.iter("testcase")
    assert case.attrib["name"] == readable(name)
    assert case[0].attrib["message"] == readable(error)
    assert (case[0].text or "") == readable(error)
    assert [suite.name for suite in junitparser.JUnitXml.fromstring(text.encode())] == [readable(name)]


@repeatable(20)
@given(names=st.lists(hostile_text(), min_size=2, max_size=4))
def test_pairs_stay_apart_whatever_they_are_called(names: list[str]) -> None:
    suites = suites_of([broken(name) for name in names])
    assert [suite.name for suite in suites] == [readable(name) for name in names]


def test_the_arrays_of_these_tests_fail_and_pass_as_they_are_called() -> None:
    assert {result.status for result in (failing(), nonfinite())} == {"failed"}
    assert (passing().status, broken().status) == ("passed", "error")
    assert CLOSE.shape == PREDICTIONS.shape == TARGETS.shape
