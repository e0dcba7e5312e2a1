"""The README can't drift: its commands run, what it shows is what they print."""

from __future__ import annotations

import doctest
import os
import re
import shlex
from pathlib import Path

import pytest

from kldiv_cli.__main__ import main
from kldiv_cli.findings import IDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [match["text"] for match in BLOCK.finditer(README) if match["language"] == language]


def console_commands() -> list[tuple[str, str]]:
    """Each command, and the output that the README shows under it (empty where it shows none)."""
    commands: list[tuple[str, str]] = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            commands.append((command, output))
    return commands


def words_and_numbers(text: str) -> tuple[list[str], list[float]]:
    """Apart, since a last digit may differ between processors, and with it the width of a column."""
    number = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]\d+)?")
    return number.sub("#", text).split(), [float(found) for found in number.findall(text)]


@pytest.fixture
def beside_the_sample_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("beside_the_sample_data")
@pytest.mark.parametrize(("command", "shown"), console_commands(), ids=lambda text: text[:60])
def test_a_command_of_the_readme_runs_and_prints_what_is_shown(
    command: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, tells_exit_code, _ = command.partition("; echo")
    name, *arguments = shlex.split(command)
    assert name == "kldiv"
    both = arguments[-1] == "2>&1"
    code = main(arguments[:-1] if both else arguments)
    assert tells_exit_code or code == 0
    out, err = capsys.readouterr()
    printed = out + err if both else out + err * (not out)
    if tells_exit_code:
        printed += f"exit code {code}\n"
    assert printed
    if shown:
        words, numbers = words_and_numbers(shown)
        printed_words, printed_numbers = words_and_numbers(printed)
        assert printed_words == words
        assert printed_numbers == pytest.approx(numbers, rel=1e-9)


@pytest.mark.usefixtures("beside_the_sample_data")
def test_the_python_examples_of_the_readme_give_what_is_shown() -> None:
    (text,) = blocks("pycon")
    example = doctest.DocTestParser().get_doctest(text, {}, "README.md", None, None)
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_setup_lines_are_the_ones_that_ci_runs() -> None:
    setup, tests, with_uv, *_ = (block.strip() for block in blocks("sh"))
    assert all("\n" not in line for line in (setup, tests, with_uv))
    assert "kldiv compute sample_data/" in setup
    assert tests.endswith("-m pytest -n auto")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep '([^']+)' README.md", ci)
    assert pattern is not None
    assert [line for line in README.splitlines() if re.match(pattern[1], line)] == [setup, tests]
    assert 'bash -c "$line"' in ci


def test_the_readme_lists_every_finding() -> None:
    section = README.partition("## What is diagnosed")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {id for cell in cells for id in re.findall("`([a-z-]+)`", cell)} - {"compare", "check"} == IDS


def test_every_file_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert os.path.exists(ROOT / target), target
