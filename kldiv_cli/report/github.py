"""GitHub Actions: annotations as workflow commands, and a step summary in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kldiv_cli.findings import counted
from kldiv_cli.gate import Checked
from kldiv_cli.report.gate import markdown
from kldiv_cli.streams import printable

__all__ = ["annotate", "step_summary"]

_MOST: Final = 10
"""GitHub shows no more of one kind from one step."""
_LARGEST: Final = (1 << 20) - 1024
"""Bytes; of more than 1 MiB, all that a step wrote taken together, nothing is shown."""
_DIGITS: Final = 6


def annotate(results: Sequence[Checked]) -> list[str]:
    """At most ten commands for what is wrong, in the order of the results; the last tells of the others."""
    wrong = [result for result in results if result.status != "passed"]
    shown = wrong if len(wrong) <= _MOST else wrong[: _MOST - 1]
    commands = [_command(_title(result), _message(result)) for result in shown]
    if len(shown) < len(wrong):
        more = counted(len(wrong) - len(shown), "pair")
        commands.append(_command("kldiv check", f"and {more} more; the step summary has all of them"))
    return commands


def _title(result: Checked) -> str:
    """Words on both sides of the name, since the runner drops blanks and ``=`` at the ends of a title."""
    return f"kldiv check: {result.name} {'failed' if result.error is None else 'could not be computed'}"


def _message(result: Checked) -> str:
    return "; ".join(result.failures()) if result.error is None else result.error


def _command(title: str, message: str) -> str:
    return f"::error title={_escaped_property(printable(title))}::{_escaped(printable(message))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def step_summary(results: Sequence[Checked], taken: int = 0) -> str:
    """The result in Markdown, cut at a line to what GitHub shows of it below the bytes that are `taken`."""
    before = "\n" if taken else ""
    text = f"{before}## kldiv check\n\n{markdown(results, _DIGITS)}"
    encoded, room = text.encode(), _LARGEST - taken
    if len(encoded) <= room:
        return text
    kept = _whole_lines(encoded, room)
    told = f"*cut: the whole is {len(encoded)} bytes, --markdown FILE writes it*\n"
    return f"{kept}\n\n{told}" if kept else ""


def _whole_lines(encoded: bytes, most: int) -> str:
    """As many as there is room for; the header of a table only with the rule below it."""
    kept = encoded[: max(most, 0)].rpartition(b"\n")[0]
    if encoded[len(kept) :].startswith(b"\n| ---"):
        kept = kept.rpartition(b"\n")[0]
    return kept.decode().rstrip("\n")
