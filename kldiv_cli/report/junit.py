"""JUnit XML for CI servers: a test suite a pair, with its statistics as properties, and one test case in it.

The form is what Jenkins' xUnit plugin validates (junit-10.xsd): there a test case has no properties
of its own, so that each pair is a suite.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from xml.etree import ElementTree

from kldiv_cli.gate import Checked
from kldiv_cli.quantities import once_named, quantities_of

__all__ = ["JUNIT_MARK", "junit_xml"]

_NAME: Final = "kldiv check"
JUNIT_MARK: Final = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="{_NAME}"'
"""What a report begins with, so that the next one may take its place."""

_FORBIDDEN: Final = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to hold (section 2.2), and the return, which it reads as a new line."""


def junit_xml(results: Sequence[Checked]) -> str:
    """The report; each failed pair has one failure, each that could not be computed one error."""
    suites = ElementTree.Element("testsuites", {"name": _NAME, **_counts(results)})
    for result in results:
        _add_suite(suites, result)
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _counts(results: Sequence[Checked]) -> dict[str, str]:
    statuses = [result.status for result in results]
    return {
        "tests": str(len(results)),
        "failures": str(statuses.count("failed")),
        "errors": str(statuses.count("error")),
        "time": f"{sum(result.seconds for result in results):.3f}",
    }


def _add_suite(suites: ElementTree.Element, result: Checked) -> None:
    name = _clean(result.name)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, **_counts([result])})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _properties(result):
        ElementTree.SubElement(properties, "property", {"name": key, "value": _clean(value)})
    time = f"{result.seconds:.3f}"
    case = ElementTree.SubElement(suite, "testcase", {"name": name, "classname": _NAME, "time": time})
    if result.error is not None:
        _add_outcome(case, "error", "could not be computed", [result.error])
    elif result.status == "failed":
        _add_outcome(case, "failure", "limit", list(result.failures()), _worst(result))


def _add_outcome(
    case: ElementTree.Element, tag: str, kind: str, lines: list[str], beside: Iterable[str] = ()
) -> None:
    message = lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"
    outcome = ElementTree.SubElement(case, tag, {"type": kind, "message": _clean(message)})
    outcome.text = _clean("\n".join((*lines, *beside)))


def _worst(result: Checked) -> Iterator[str]:
    """The largest losses of each kind, a line each."""
    for evaluation in result.evaluations:
        ranked = ", ".join(f"{worst.value:.6g} at {list(worst.index)}" for worst in evaluation.worst)
        if ranked:
            yield f"worst {evaluation.loss}: {ranked}"


def _properties(result: Checked) -> Iterator[tuple[str, str]]:
    """What the pair is and every number of it, by the names that limits have."""
    for evaluation in result.evaluations[:1]:
        yield "predictions", evaluation.predictions.address
        yield "targets", evaluation.targets.address
        yield "shape", str(evaluation.shape)
    for name, value in once_named({e.loss: quantities_of(e) for e in result.evaluations}).items():
        yield name, repr(value)


def _clean(text: str) -> str:
    """Escape what XML forbids, so that the report can be read whatever a file is called."""
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
