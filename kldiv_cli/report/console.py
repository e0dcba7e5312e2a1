"""The two streams: results to stdout, everything else to stderr, and what kind of file each is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, TextIO

from kldiv_cli.errors import OutputError
from kldiv_cli.findings import Finding
from kldiv_cli.streams import harmless, printable, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress

__all__ = [
    "UNLIMITED",
    "Format",
    "colours",
    "console_for",
    "drawn",
    "is_terminal",
    "resolve_format",
    "tell",
    "tell_findings",
    "write",
]

Format = Literal["auto", "table", "plain", "json", "jsonl", "csv", "md"]

UNLIMITED = 100_000
"""Columns where there is no terminal: nothing is truncated in a pipe."""


def is_terminal(stream: TextIO | None) -> bool:
    """Ask the file itself, so that no variable can make a pipe a terminal."""
    if stream is None:
        return False
    try:
        return stream.isatty()
    except ValueError:
        return False


def resolve_format(chosen: Format) -> Format:
    """A table on a terminal, plain text in a pipe, unless one was chosen."""
    if chosen != "auto":
        return chosen
    return "table" if is_terminal(sys.stdout) else "plain"


def colours(stream: TextIO) -> bool:
    """Whether to colour: on a terminal that can, unless NO_COLOR; anywhere with FORCE_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def console_for(stream: TextIO) -> Console:
    """A Rich console for a stream; only tables and progress bars need one."""
    from rich.console import Console

    terminal = is_terminal(stream)
    coloured = colours(stream)
    return Console(
        file=stream,
        force_terminal=terminal or coloured,
        no_color=not coloured,
        color_system=_colour_system(terminal) if coloured else None,
        width=None if terminal else UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _colour_system(terminal: bool) -> Literal["auto", "256"]:
    """What the terminal says it can do; where there is none, or a dumb one, what FORCE_COLOR wants."""
    return "auto" if terminal and os.environ.get("TERM") != "dumb" else "256"


@contextlib.contextmanager
def drawn(view: Live | Progress) -> Iterator[None]:
    """Draw a view while it lasts; that its terminal is gone at the end is no fault of what it showed."""
    view.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            view.stop()


def write(text: str) -> None:
    """Write a result to stdout.

    Raises
    ------
    OutputError
        There is no stdout, or it can't take the result.
    """
    if sys.stdout is None:
        raise OutputError("stdout: closed; give the result somewhere to go")
    sys.stdout.write(harmless(text))
    sys.stdout.flush()


def tell(kind: str, text: str) -> None:
    """Say something beside the result, on one line of stderr."""
    say(f"{kind}: {printable(text)}")


def tell_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        tell(finding.severity, finding.message)
