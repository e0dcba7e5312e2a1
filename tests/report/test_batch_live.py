"""A batch while it runs, on a pseudo-terminal and where there is none."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from batches import SPEC, broken, computed, impossible, renamed
from rich.cells import cell_len
from rich.console import Console

from kldiv_cli.report.batch_live import LiveBatch

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from batches import *
from kldiv_cli.report.batch import batch_lines
from kldiv_cli.report.console import tell, write
from kldiv_cli.report.progress import batch_progress
results = {results}
lines = batch_lines({format!r}, SPEC)
with batch_progress(SPEC, None, len(results), {format!r}, wanted={wanted!r}) as live:
    write(lines.begin())
    for result in results:
        write(lines.pair(result))
        if live is not None:
            live.add(result)
    {said}
write(lines.end(summed(results)))
"""
THREE = '[computed("first"), broken(), renamed(computed("b", seed=2), "\\x1b[31m[red]name\\n")]'
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
pty = pytest.importorskip("pty")


def seen(
    format: str,
    results: str = THREE,
    *,
    streams: Sequence[str] = ("stdout", "stderr"),
    columns: int = 100,
    wanted: bool | None = None,
    said: str = "",
    variables: Mapping[str, str] = {},
) -> tuple[str, str]:
    """What a pseudo-terminal got, and what the pipe of the streams that are not on it."""
    import fcntl
    import termios

    tests = str(Path(__file__).parents[1])
    script = SCRIPT.format(tests=tests, results=results, format=format, wanted=wanted, said=said)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")
    clean = {name: value for name, value in os.environ.items() if name not in unwanted}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**clean, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **variables},
        stdin=subprocess.DEVNULL,
        stdout=theirs if "stdout" in streams else subprocess.PIPE,
        stderr=theirs if "stderr" in streams else subprocess.PIPE,
    )
    os.close(theirs)
    terminal = b""
    try:
        while piece := os.read(ours, 65536):
            terminal += piece
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, (terminal, err)
    return terminal.decode().replace("\r\n", "\n"), ((out or b"") + (err or b"")).decode()


@pytest.mark.parametrize("columns", [100, 40])
def test_pairs_and_a_bar_are_drawn_and_then_wiped_for_the_tables(columns: int) -> None:
    screen, _ = seen("table", columns=columns)
    text = ESCAPE.sub("", screen)
    live, final = text.split("KL(targets", 1)
    assert "worst so far: distmean 0.456603  first" in live
    assert re.search(r"3/3", live)
    assert "1 failed" in live
    assert re.search(r"ugly +error", live)
    assert max(map(len, re.split(r"[\r\n]", live))) <= columns
    assert "ugly/q.npy: no such file" in final.replace("\n", "")
    assert r"\x1b[31m[red]name\n" in final.replace("\n", "")
    assert "\x1b[31m[red]" not in screen
    assert "\x1b[2K" in screen


def test_a_failed_pair_is_in_the_colour_of_failures_unless_colours_are_unwanted() -> None:
    coloured, _ = seen("table")
    plain, _ = seen("table", variables={"NO_COLOR": "1"})
    assert "\x1b[1;31m" in coloured
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", plain) is None
    assert "3/3 pairs" in ESCAPE.sub("", plain)


def test_a_terminal_that_cannot_redraw_gets_the_tables_only() -> None:
    screen, _ = seen("table", variables={"TERM": "dumb"})
    assert "\x1b" not in screen
    assert "3/3" not in screen
    assert screen.startswith("KL(targets")


@pytest.mark.parametrize("format", ["plain", "jsonl"])
def test_lines_on_the_same_terminal_are_not_drawn_over(format: str) -> None:
    screen, _ = seen(format)
    assert "\x1b[2K" not in screen
    assert "3/3" not in screen


@pytest.mark.parametrize("format", ["auto", "table"])
def test_where_results_go_elsewhere_there_is_a_bar_alone(format: str) -> None:
    screen, out = seen(format, streams=["stderr"])
    assert "3/3 pairs" in ESCAPE.sub("", screen)
    assert "first" not in screen
    assert "first" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("streams", [["stdout"], []])
def test_without_a_terminal_for_it_nothing_is_drawn(streams: list[str]) -> None:
    screen, out = seen("table", streams=streams)
    assert "3/3" not in screen + out
    assert "\x1b[2K" not in screen + out


def test_progress_that_is_not_wanted_is_not_shown() -> None:
    screen, _ = seen("table", wanted=False)
    assert "3/3" not in screen


def test_many_pairs_are_drawn_a_few_times_a_second_and_not_one_by_one() -> None:
    screen, _ = seen("table", '[renamed(computed("a"), f"p{k}") for k in [0]] * 20_000')
    assert "20000/20000 pairs" in ESCAPE.sub("", screen)
    assert screen.count(" pairs ") < 60


# One frame


def frame(live: LiveBatch, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False, highlight=False)
    with console.capture() as captured:
        console.print(live.frame(console))
    return captured.get().splitlines()


def running(results: Sequence[Any], pairs: int = 1000) -> LiveBatch:
    live = LiveBatch(SPEC, None, pairs, table=True)
    for result in results:
        live.add(result)
    return live


@pytest.mark.parametrize("height", [4, 12, 24, 60])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_frame_fits_the_terminal_with_the_newest_at_the_bottom(width: int, height: int) -> None:
    a = computed("a")
    lines = frame(running([renamed(a, f"pair-{k:03}" * 9) for k in range(300)]), width, height)
    assert len(lines) < max(height, 6)
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.lstrip().startswith("pair-")]
    assert rows[-1].lstrip().startswith("pair-299")
    assert len(rows) == max(height - 5, 1)


def test_names_in_wide_letters_are_cut_at_the_edge_and_keep_the_columns() -> None:
    a = computed("a")
    lines = frame(running([renamed(a, "名" * 30), renamed(a, "短"), renamed(a, "x" * 99)]), 40)
    assert max(map(cell_len, lines)) <= 40
    ends = {cell_len(line.rstrip()) for line in lines if "0.456603" in line and "worst" not in line}
    assert len(ends) == 1
    assert lines[2].startswith("名名")
    assert "…" in lines[2]


def test_what_is_said_meanwhile_stands_whole_above_what_is_drawn() -> None:
    said = "tell('warning', 'a.npy: ' + 'long ' * 30 + '[red]end')"
    screen, _ = seen("table", said=said, columns=60)
    text = " ".join(ESCAPE.sub("", screen).split())
    assert "warning: a.npy: " + "long " * 30 + "[red]end" in text


def test_the_worst_so_far_is_the_largest_and_one_that_is_not_known_is_worse() -> None:
    a, inf = computed("a"), impossible()
    nan = computed("unknown", predictions=computed_nan())
    assert any("worst so far: distmean 0.456603  a" in line for line in frame(running([a, broken()])))
    assert any("worst so far: distmean inf  nan" in line for line in frame(running([inf, a])))
    assert any("worst so far: distmean nan  unknown" in line for line in frame(running([nan, inf])))


def computed_nan() -> Any:
    import numpy as np

    predictions = np.log(np.full((3, 2), 0.5))
    predictions[0, 0] = np.nan
    return predictions


def test_pairs_of_the_journal_count_as_done_but_not_for_the_speed() -> None:
    live = LiveBatch(SPEC, None, 10, table=False)
    for _ in range(4):
        live.add(computed("a"), from_journal=True)
    (line,) = frame(live)
    assert "4/10 pairs" in line
    assert "0 bytes, 0 bytes/s" in line
    assert "-:--:--" in line


def test_the_bar_goes_by_bytes_where_they_are_known() -> None:
    batch = LiveBatch(SPEC, None, 3, table=False, size=4_000_000_000)
    batch.add(computed("taken"), from_journal=True, size=2_000_000_000)
    batch.advance(500_000_000)
    batch.advance(500_000_000.0)
    console = Console(file=io.StringIO(), width=100)
    console.print(batch.frame(console))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1/3 pairs" in shown
    assert "1 GB, " in shown
    # Half of what is left to read, though no pair was computed yet.
    assert "-:--:--" not in shown
    assert batch._of_all() == (1e9, 2e9)
