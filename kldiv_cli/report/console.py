"""The two streams: results to stdout, everything else to stderr, and what kind of file each is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TextIO, get_args

from kldiv_cli.diagnosis import Finding

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "FORMATS",
    "ClosedPipe",
    "Format",
    "colours",
    "console_for",
    "is_terminal",
    "printable",
    "resolve_format",
    "tell",
    "tell_findings",
    "write",
]

Format = Literal["auto", "table", "plain", "json", "jsonl", "csv", "md"]
FORMATS: tuple[Format, ...] = get_args(Format)

_UNLIMITED = 100_000
"""Columns where there is no terminal: nothing is truncated in a pipe."""


class ClosedPipe(Exception):
    """Whoever read our output has gone away."""


def is_terminal(stream: TextIO) -> bool:
    """Ask the file itself, so that no variable can make a pipe a terminal."""
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
        color_system="auto" if terminal and coloured else ("256" if coloured else None),
        width=None if terminal else _UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def printable(text: str) -> str:
    """Text from outside, such as a file name, with control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write(text: str) -> None:
    """Write a result to stdout.

    Raises
    ------
    ClosedPipe
        Nobody reads it any more.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ClosedPipe from None


def tell(kind: str, text: str) -> None:
    """Say something beside the result, on one line of stderr."""
    sys.stdout.flush()
    print(f"{kind}: {printable(text)}", file=sys.stderr)


def tell_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        tell(finding.severity, finding.message)
