"""Annotations as the runner takes them, and a step summary as GitHub renders it."""

from __future__ import annotations

import itertools
import re

import pytest
from cases import repeatable
from checks import CLOSE, broken, failing, hostile_text, nonfinite, passing
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from runner_commands import command_in, commands_in

from kldiv_cli.gate import Checked
from kldiv_cli.report.github import annotate, step_summary
from kldiv_cli.streams import harmless, printable

MEBIBYTE = 1 << 20

# Annotations


@pytest.mark.parametrize("result", [failing(), nonfinite()], ids=lambda result: result.name)
def test_a_failed_pair_is_an_error_with_its_name_in_the_title_and_all_reasons(result: Checked) -> None:
    (line,) = annotate([result])
    command = command_in(line)
    assert command is not None
    assert command.name == "error"
    assert command.properties == {"title": f"kldiv check: {result.name} failed"}
    assert command.message == "; ".join(result.failures())


def test_a_pair_that_could_not_be_computed_is_an_error_too() -> None:
    (command,) = commands_in("\n".join(annotate([broken("a", "q.npy: no such file")])))
    assert command == ("error", {"title": "kldiv check: a could not be computed"}, "q.npy: no such file")


def test_pairs_that_passed_are_not_told() -> None:
    assert annotate([]) == annotate([passing(), passing()]) == []


@pytest.mark.parametrize(("wrong", "told", "rest"), [(1, 1, 0), (10, 10, 0), (11, 9, 2), (100, 9, 91)])
def test_at_most_ten_are_told_the_first_first_and_the_last_counts_the_others(
    wrong: int, told: int, rest: int
) -> None:
    results = [broken(f"pair {k}") for k in range(wrong)] + [passing()]
    commands = commands_in("\n".join(annotate(results)))
    titles = [command.properties["title"] for command in commands]
    assert titles[:told] == [f"kldiv check: pair {k} could not be computed" for k in range(told)]
    assert len(commands) == told + bool(rest)
    if rest:
        assert commands[-1].message == f"and {rest} more pairs; the step summary has all of them"


@repeatable(300)
@given(name=hostile_text(), error=hostile_text())
def test_names_and_messages_come_back_from_the_runner_as_they_are_shown(name: str, error: str) -> None:
    (line,) = annotate([broken(name, error)])
    assert not re.search(r"[\r\n]", line)
    command = command_in(line)
    assert command is not None
    assert command.name == "error"
    assert command.properties == {"title": f"kldiv check: {printable(name)} could not be computed"}
    assert command.message == printable(error)


# What is no command


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("::error::x", "error"),
        ("  \t::stop-commands::x", "stop-commands"),
        ("::ERROR title=a::x", "error"),
        ("q.npy  ##[error]x", "error"),
        ("##[warning]", "warning"),
        ("\u3000::set-output name=a::b", "set-output"),
        ("q.npy ::error::x", None),
        ("::nonsense::x", None),
        ("::error", None),
        ("##[nonsense] ##[error]x", None),
    ],
)
def test_the_parser_of_these_tests_knows_a_command(line: str, name: str | None) -> None:
    command = command_in(line)
    assert (None if command is None else command.name) == name


@repeatable(300)
@given(hostile_text())
@example("\n::error::")
@example("###[error]x")
@example(" \u3000::error::")
@example(":::error::x")
def test_harmless_text_has_no_command_in_it(text: str) -> None:
    assert commands_in(harmless(text)) == []


@repeatable(100)
@given(hostile_text())
def test_harmless_changes_nothing_but_the_beginning_of_commands(text: str) -> None:
    mended = harmless(text).replace("\\u003a", ":").replace("\\u005b", "[")
    assert mended == text.replace("\\u003a", ":").replace("\\u005b", "[")
    if not re.search(r"(^|[\r\n])[^\S\r\n]*::|##\w*\[", text):
        assert harmless(text) == text


# The step summary


def parsed(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)


def plain_text(inline: Token) -> str:
    """What is shown of a cell; fails where there is markup in it."""
    assert inline.children is not None
    assert {child.type for child in inline.children} <= {"text"}, inline.content
    return "".join(child.content for child in inline.children)


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of all rows of all tables, headers too."""
    rows: list[list[str]] = []
    tokens = parsed(markdown)
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("th_open", "td_open"):
            rows[-1].append(plain_text(token))
    return rows


def broken_rows(markdown: str) -> list[str]:
    """Paragraphs that were to be rows of a table."""
    tokens = parsed(markdown)
    pairs = itertools.pairwise(tokens)
    texts = [token.content for before, token in pairs if before.type == "paragraph_open"]
    return [text for text in texts if "|" in text.replace("\\|", "")]


def test_a_summary_has_a_row_for_each_limit_and_the_worst_losses_of_failed_pairs() -> None:
    rows = rows_of(step_summary([failing(), passing()]))
    assert [row[:3] for row in rows[:5]] == [
        ["pair", "result", "limit"],
        ["bad", "failed", "distmean < 0.1"],
        ["bad", "passed", "p99 < 100"],
        ["good", "passed", "distmean < 0.1"],
        ["good", "passed", "p99 < 100"],
    ]
    assert rows[5] == ["worst of bad", "dim 0", "kl"]


def shown_in_markdown(text: str) -> str:
    """A cell is trimmed."""
    return printable(text).strip()


@repeatable(200)
@given(name=hostile_text(), error=hostile_text(1))
def test_names_are_shown_as_they_are_whatever_markup_is_in_them(name: str, error: str) -> None:
    summary = step_summary([broken(name, error)])
    assert rows_of(summary)[1] == [shown_in_markdown(name), "error", "could not be computed", "", "", ""]
    told = [token for token in parsed(summary) if token.type == "inline"][-1]
    assert told.children is not None
    types = [child.type for child in told.children]
    assert types[:4] == ["text", "strong_open", "text", "strong_close"]
    assert set(types[4:]) == {"text"}
    assert "".join(child.content for child in told.children) == f"error: {printable(error)}".rstrip()


@repeatable(50)
@given(name=hostile_text(1))
def test_the_header_of_a_table_can_hold_any_name_too(name: str) -> None:
    rows = rows_of(step_summary([failing(name, before=CLOSE), passing()]))
    assert [f"worst of {printable(name)}".strip(), "dim 0", "kl"] in rows
    assert [f"kl of {printable(name)}".strip(), "baseline", "", "now", ""] in rows


def test_what_github_would_take_for_a_formula_is_escaped() -> None:
    assert "\\$x\\$" in step_summary([broken("$x$")])


@pytest.fixture(scope="module")
def many() -> list[Checked]:
    """More than fits, in characters of several bytes."""
    return [broken(f"{k} {'名🎈' * 50}", "é" * 1500) for k in range(500)]


@pytest.mark.parametrize("taken", [0, 1, 1000, MEBIBYTE // 2])
def test_a_summary_is_cut_below_a_mebibyte_at_a_line_and_says_so(many: list[Checked], taken: int) -> None:
    summary = step_summary(many, taken)
    assert MEBIBYTE - 5000 < len(summary.encode()) + taken < MEBIBYTE
    lines = summary.rstrip("\n").split("\n")
    assert re.fullmatch(r"\*cut: the whole is \d+ bytes, --markdown FILE writes it\*", lines[-1])
    whole = step_summary(many[:1]).split("\n")
    assert lines[-3].endswith("é") or lines[-3].endswith(" |")
    assert whole[0] in lines


def test_no_cut_breaks_a_table_or_a_character() -> None:
    results = [failing("名🎈|"), failing("b"), passing()]
    whole = step_summary(results, 1)
    size, most = len(whole.encode()), MEBIBYTE - 1024
    rows = rows_of(whole)
    for room in range(size + 2):
        cut = step_summary(results, most - room)
        assert broken_rows(cut) == []
        assert cut == whole if room >= size else len(cut.encode()) < room + 200
        assert all(row in rows for row in rows_of(cut))


@pytest.mark.parametrize("taken", [MEBIBYTE - 1024, MEBIBYTE, 5 * MEBIBYTE])
def test_where_others_left_no_room_there_is_no_summary(taken: int) -> None:
    assert step_summary([failing()], taken) == ""


def test_a_summary_begins_on_a_line_of_its_own() -> None:
    others = "| a |\n| --- |\n| 1 |"
    tokens = parsed(others + step_summary([passing()], len(others)))
    assert "heading_open" in {token.type for token in tokens}


@repeatable(20)
@given(st.lists(st.sampled_from(["passed", "failed", "error"]), max_size=12))
def test_every_pair_is_in_the_summary_and_every_wrong_one_is_told(statuses: list[str]) -> None:
    make = {"passed": PASSED, "failed": FAILED, "error": BROKEN}
    summary = step_summary([make[status] for status in statuses])
    cells = [row[1] for row in rows_of(summary) if len(row) == 6][1:]
    expected = {"passed": 2, "failed": 2, "error": 1}
    assert len(cells) == sum(expected[status] for status in statuses)
    assert len(annotate([make[status] for status in statuses])) == min(
        10, sum(status != "passed" for status in statuses)
    )


PASSED, FAILED, BROKEN = passing(), failing(), broken()
