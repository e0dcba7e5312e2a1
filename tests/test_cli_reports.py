"""The reports of `kldiv check`: where they go, what they never touch, what a CI runner reads in them."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from checks import CLOSE, PREDICTIONS, TARGETS
from runner_commands import commands_in

from kldiv_cli.__main__ import main
from kldiv_cli.cli.reports import Reports
from kldiv_cli.report.gate import MARKDOWN_MARK
from kldiv_cli.report.junit import JUNIT_MARK

KEPT = ("good.npy", "p.npy", "--limit", "distmean < 0.1")
BROKEN = ("bad.npy", "p.npy", "--limit", "distmean < 0.1")
WRONG = ("good.npy", "p.npy", "--limit", "nonsense < 0.1")
GONE = ("gone.npy", "p.npy", "--limit", "distmean < 0.1")
CODES = ((KEPT, 0), (BROKEN, 1), (GONE, 2), (WRONG, 2))
REPORTS = (("--junit", "report.xml", JUNIT_MARK), ("--markdown", "report.md", MARKDOWN_MARK))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, array in (("bad", PREDICTIONS), ("good", CLOSE), ("p", TARGETS)):
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "suite.toml").write_text(
        '[pairs.one]\npredictions = "good.npy"\ntargets = "p.npy"\nlimits = ["distmean < 0.1"]\n', "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tmp_path


def check(*arguments: str) -> int:
    return main(["check", *arguments])


def outcomes(path: str = "report.xml") -> list[str]:
    """What became of each pair, as JUnit has it."""
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return [case[0].tag if len(case) else "passed" for case in cases]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# Exit codes and contents


@pytest.mark.parametrize(("arguments", "code"), CODES)
def test_reports_change_no_exit_code(arguments: tuple[str, ...], code: int) -> None:
    assert check(*arguments) == code
    assert check(*arguments, "--junit", "report.xml", "--markdown", "report.md", "--github") == code
    assert outcomes() == [{0: "passed", 1: "failure", 2: "error"}[code]]
    assert Path("report.md").read_text("utf-8").startswith(MARKDOWN_MARK + "**1 pair: 1 ")


def test_reports_do_not_change_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    check(*BROKEN)
    before = capsys.readouterr()
    check(*BROKEN, "--junit", "report.xml", "--markdown", "report.md")
    assert capsys.readouterr() == before
    check(*BROKEN, "--github")
    out, err = capsys.readouterr()
    assert out == before.out
    assert [command.name for command in commands_in(err)] == ["error"]


# Where they may go


@pytest.mark.parametrize(("option", "name", "mark"), REPORTS)
def test_an_earlier_report_is_replaced(option: str, name: str, mark: str) -> None:
    assert check(*BROKEN, option, name) == 1
    first = Path(name).read_text("utf-8")
    assert check(*KEPT, option, name) == 0
    second = Path(name).read_text("utf-8")
    assert first != second
    assert second.startswith(mark)


@pytest.mark.parametrize(("option", "name", "mark"), REPORTS)
@pytest.mark.parametrize("arguments", [KEPT, BROKEN, GONE, WRONG])
def test_another_file_is_refused_and_stays(
    arguments: tuple[str, ...],
    option: str,
    name: str,
    mark: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(name).write_text("precious", "utf-8")
    before = contents(folder)
    assert check(*arguments, option, name) == 2
    assert contents(folder) == before
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"kldiv: error: {option} {name}: exists; overwrite it with --force\n"


@pytest.mark.parametrize(("option", "name", "mark"), REPORTS)
def test_another_file_is_replaced_by_force(option: str, name: str, mark: str) -> None:
    Path(name).write_text("precious", "utf-8")
    assert check(*KEPT, option, name, "--force") == 0
    assert Path(name).read_text("utf-8").startswith(mark)


@pytest.mark.parametrize(("option", "name", "mark"), REPORTS)
def test_one_kind_of_report_does_not_take_the_place_of_the_other(option: str, name: str, mark: str) -> None:
    (other,) = {"--junit", "--markdown"} - {option}
    assert check(*KEPT, other, name) == 0
    assert check(*KEPT, option, name) == 2


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
@pytest.mark.parametrize("place", ["good.npy", "p.npy", "suite.toml", "baseline.json", "mask.npy"])
@pytest.mark.parametrize("limit", ["distmean < 0.1", "nonsense < 0.1"])
def test_no_input_is_overwritten_even_by_force_or_when_the_limits_are_wrong(
    option: str, place: str, limit: str, folder: Path
) -> None:
    np.save("mask.npy", np.ones(3, bool))
    assert main(["baseline", "record", "suite.toml", "--baseline", "baseline.json"]) == 0
    suite = Path("suite.toml").read_text("utf-8")
    mask = 'mask = "mask.npy"\n' if place == "mask.npy" else ""
    Path("suite.toml").write_text(suite.replace("distmean < 0.1", limit) + mask, "utf-8")
    before = contents(folder)
    if place != "suite.toml":
        pair = ("good.npy", "p.npy", "--name", "one", "--limit", limit)
        masked = ("--mask", "mask.npy") if mask else ("--baseline", "baseline.json")
        assert check(*pair, *masked, option, place, "--force") == 2
    whole = () if mask else ("--baseline", "baseline.json")
    assert check("suite.toml", *whole, option, place, "--force") == 2
    assert contents(folder) == before


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
@pytest.mark.parametrize("arguments", [KEPT, WRONG])
@pytest.mark.parametrize(
    ("place", "problem"),
    [("folder", "is a directory"), ("gone/report", "no directory"), ("pipe", "not a regular")],
)
def test_what_is_no_place_for_a_file_is_refused(
    option: str, arguments: tuple[str, ...], place: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
    elif place == "pipe":
        pytest.skip("no named pipes here")
    assert check(*arguments, option, place, "--force") == 2
    assert problem in capsys.readouterr().err


def test_two_reports_do_not_go_to_the_same_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    before = contents(folder)
    assert check(*KEPT, "--junit", "report", "--markdown", "./report") == 2
    assert "--markdown ./report: is where --junit goes" in capsys.readouterr().err
    assert contents(folder).keys() - before.keys() == {"report"}
    assert outcomes("report") == ["error"]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and modes of POSIX")
def test_a_report_is_written_where_a_link_leads_and_keeps_its_mode() -> None:
    check(*KEPT, "--junit", "report.xml")
    Path("report.xml").chmod(0o640)
    Path("link.xml").symlink_to("report.xml")
    assert check(*BROKEN, "--junit", "link.xml") == 1
    assert Path("link.xml").is_symlink()
    assert outcomes() == ["failure"]
    assert stat.S_IMODE(Path("report.xml").stat().st_mode) == 0o640


# No report outlives what it is of


@pytest.mark.parametrize(
    "wrong",
    [
        WRONG,
        ("suite.toml", "--pair", "none-of-them"),
        ("gone.toml",),
        ("good.npy", "p.npy"),
        (*KEPT, "--baseline", "gone.json"),
        (*KEPT, "--json", "--precision", "3"),
        ("suite.toml", "--log-softmax", "1"),
    ],
)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_is_wrong_before_anything_is_read_replaces_an_earlier_report(
    wrong: tuple[str, ...], force: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    reports = ("--junit", "report.xml", "--markdown", "report.md")
    assert check(*KEPT, *reports) == 0
    capsys.readouterr()
    assert check(*wrong, *reports, "--github", *force) == 2
    assert outcomes() == ["error"]
    assert "1 could not be computed" in Path("report.md").read_text("utf-8")
    out, err = capsys.readouterr()
    assert out == ""
    (command,) = commands_in(err)
    assert err.splitlines()[-1].startswith("kldiv: error: ")
    assert len(command.message) > 10


@pytest.mark.parametrize("place", ["gone/report.md", "folder", "p.npy", "precious.txt"])
def test_a_report_that_has_no_place_leaves_none_of_the_others_that_says_it_passed(
    place: str, folder: Path
) -> None:
    Path("folder").mkdir()
    Path("precious.txt").write_text("precious", "utf-8")
    assert check(*KEPT, "--junit", "report.xml") == 0
    before = contents(folder)
    assert check(*KEPT, "--junit", "report.xml", "--markdown", place) == 2
    assert outcomes() == ["error"]
    after = contents(folder)
    assert after | {"report.xml": b""} == before | {"report.xml": b""}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_a_run_that_is_cut_short_leaves_no_report_that_says_it_passed(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*arguments: Any, **options: Any) -> None:
        raise error

    assert check("suite.toml", "--junit", "report.xml", "--markdown", "report.md") == 0
    monkeypatch.setattr("kldiv_cli.gate.evaluate_to", cut)
    assert check("suite.toml", "--junit", "report.xml", "--markdown", "report.md") != 0
    assert outcomes() == ["error"]
    assert "the run was cut short" in Path("report.md").read_text("utf-8")


def test_a_report_is_whole_at_any_time(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    check(*KEPT, "--junit", "report.xml")
    before = contents(folder)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert check(*BROKEN, "--junit", "report.xml") == 2
    assert contents(folder) == before


def test_one_report_that_cannot_be_written_keeps_neither_the_others_nor_the_result_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "gone/summary.md")
    assert check(*BROKEN, "--github", "--junit", "report.xml") == 2
    out, err = capsys.readouterr()
    assert out.startswith("1 pair: 1 failed\n")
    assert outcomes() == ["failure"]
    assert [command.name for command in commands_in(err)] == ["error"]
    assert err.splitlines()[-1].startswith("kldiv: error: gone/summary.md: No such file")


def test_without_options_no_report_is_written(folder: Path) -> None:
    before = contents(folder)
    assert check(*KEPT) == 0
    Reports().begin(["one"])
    assert Reports().write([]) is None
    assert contents(folder) == before


# GitHub


@pytest.mark.parametrize("others", ["", "# Others\n", "| a |\n| --- |\n| 1 |", "é"])
def test_the_step_summary_stands_behind_what_others_wrote(
    others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = Path("summary.md")
    summary.write_text(others, "utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert check(*BROKEN, "--github") == 1
    written = summary.read_text("utf-8")
    assert written.startswith(others)
    heading = (
        "\n## kldiv check\n\n**1 pair: 1 failed**\n" if others else "## kldiv check\n\n**1 pair: 1 failed**\n"
    )
    assert written.removeprefix(others).startswith(heading)


def test_a_step_summary_is_written_without_annotations_where_all_passed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert check(*KEPT, "--github") == 0
    assert "1 passed" in Path("summary.md").read_text("utf-8")
    assert commands_in(capsys.readouterr().err) == []


def test_a_step_summary_is_written_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert check(*KEPT) == 0
    assert not Path("summary.md").exists()


@pytest.mark.parametrize("taken", [0, 500_000, 1_047_000, 1_048_575, 2_000_000])
def test_with_what_others_wrote_the_step_summary_stays_below_a_mebibyte(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("summary.md").write_bytes(b"x" * taken)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert check(*BROKEN, "--name", "é" * 600_000, "--github") == 1
    assert Path("summary.md").stat().st_size <= max(taken, (1 << 20) - 1)


# What files are called


HOSTILE = (
    "::error::x",
    " ::error::x",
    "##[error]x",
    "##[stop-commands]x",
    "x##[group]",
    "##vso[x]",
    "a\n::error::b",
    "::set-output name=a::b",
)
FORMATS = ("table", "plain", "md", "csv", "json", "jsonl")
posix = pytest.mark.skipif(os.name != "posix", reason="names that Windows has not")


def titles(printed: str) -> list[str | None]:
    return [command.properties.get("title") for command in commands_in(printed)]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("coloured", [False, True])
def test_no_name_of_a_pair_is_taken_for_a_command(
    name: str,
    format: str,
    coloured: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR" if coloured else "NO_COLOR", "1")
    assert check(*BROKEN, "--name", name, "--github", "--format", format) == 1
    out, err = capsys.readouterr()
    assert commands_in(out) == []
    assert titles(err) == [f"kldiv check: {name} failed".replace("\n", "\\n")]


@posix
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("bad", [False, True])
def test_no_name_of_a_file_is_taken_for_a_command(
    name: str, format: str, bad: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for role in ("bad", "p"):
        shutil.copy(f"{role}.npy", f"{name}-{role}.npy")
    if bad:
        Path(f"{name}-bad.npy").write_bytes(b"nothing")
    pair = (f"{name}-bad.npy", f"{name}-p.npy")
    assert check(*pair, "--limit", "distmean < 0.1", "--github", "--format", format) == 1 + bad
    out, err = capsys.readouterr()
    assert commands_in(out) == []
    assert len(titles(err)) == 1
    assert check(*pair, "--limit", "distmean < nonsense", "--github", "--debug") == 2
    assert len(titles(capsys.readouterr().err)) == 1
    assert check(*pair, "--limit", "distmean < 0.1", "--junit", pair[0], "--debug") == 2
    assert titles(capsys.readouterr().err) == []


@posix
@pytest.mark.parametrize("name", HOSTILE)
def test_no_other_command_prints_one_either(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for role in ("bad", "p"):
        shutil.copy(f"{role}.npy", f"{name}-{role}.npy")
    pair = (f"{name}-bad.npy", f"{name}-p.npy")
    for format in FORMATS:
        assert main(["compute", *pair, "--format", format]) == 0
        assert main(["inspect", *pair, "--format", format]) == 0
        out, err = capsys.readouterr()
        assert out
        assert commands_in(out) == commands_in(err) == []
    assert main(["compute", f"{name}-gone.npy", f"{name}-p.npy"]) == 2
    assert main(["compute", f"{name}-gone.npy"]) == 2
    assert main([name]) == 2
    assert commands_in(capsys.readouterr().err) == []


@posix
def test_json_reads_back_to_the_name_that_was_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert check(*BROKEN, "--name", "##[error]x", "--json") == 1
    out = capsys.readouterr().out
    assert "##[" not in out
    assert json.loads(out)["results"][0]["pair"] == "##[error]x"


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_name_that_is_no_unicode_gets_through_all_reports(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"\xff\x01.npy")
    shutil.copy("bad.npy", name)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    reports = ("--junit", "report.xml", "--markdown", "report.md", "--github")
    assert check(name, "p.npy", "--limit", "distmean < 0.1", *reports) == 1
    assert titles(capsys.readouterr().err) == ["kldiv check: \\udcff\\x01 failed"]
    (case,) = ElementTree.parse("report.xml").getroot().iter("testcase")
    assert case.attrib["name"] == "\\udcff\\x01"
    for path in ("report.md", "summary.md"):
        assert "\\\\udcff\\\\x01" in Path(path).read_text("utf-8")
