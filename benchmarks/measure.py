"""Whole processes, in turn: wall clock and peak memory of each, and ratios taken round by round.

A child's peak can't read below what this process held when it started it (`own_peak_mib`), so
nothing large is imported here.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in one of ru_maxrss."""


class ContenderFailed(Exception):
    """It ended with an error; the text is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    name: str
    command: tuple[str, ...]
    folder: Path
    """Where it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    seconds: float
    peak_mib: float
    output: str


@dataclass(slots=True)
class Series:
    """The runs of one contender, the warm-up left out; none if it failed."""

    contender: Contender
    runs: list[Run] = field(default_factory=list)
    failure: str | None = None

    @property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.runs]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak_mib(self) -> float:
        return max(run.peak_mib for run in self.runs)

    @property
    def batchmean(self) -> float | None:
        """The result that it printed, if it prints one."""
        match = re.search(r"^batchmean\s+(\S+)", self.runs[-1].output, re.MULTILINE)
        return None if match is None else float(match[1])


def run_rounds(
    contenders: Sequence[Contender], rounds: int, tell: Callable[[str], None]
) -> dict[str, Series]:
    """Run all of them in turn, so that a drift of the machine's speed meets each; then again."""
    all_series = [Series(contender) for contender in contenders]
    for number in range(rounds + 1):
        tell(f"round {number} of {rounds}" if number else "warm-up")
        for series in all_series:
            _run_next(series, tell, keep=number > 0)
    return {series.contender.name: series for series in all_series}


def ratio(slow: Series | None, fast: Series | None) -> float | None:
    """How many times as long one takes as the other: the median of the rounds' ratios."""
    if slow is None or fast is None or slow.failure or fast.failure:
        return None
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def own_peak_mib() -> float:
    """The least that a child's peak can read."""
    return _peak_mib(resource.getrusage(resource.RUSAGE_SELF))


def _run_next(series: Series, tell: Callable[[str], None], *, keep: bool) -> None:
    if series.failure is not None:
        return
    try:
        run = _run(series.contender)
    except ContenderFailed as error:
        series.failure = str(error)
        tell(f"{series.contender.name} failed: {error}")
        series.runs.clear()
        return
    if keep:
        series.runs.append(run)


def _run(contender: Contender) -> Run:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(contender.command, cwd=contender.folder, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise ContenderFailed(f"exit code {process.returncode}\n{_text(errors)}".rstrip())
        return Run(seconds=seconds, peak_mib=_peak_mib(usage), output=_text(output))


def _peak_mib(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss * _RSS_UNIT / 2**20


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
