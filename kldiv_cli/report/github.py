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
"""Bytes; a summary of 1 MiB is not shown at all."""
_DIGITS: Final = 6


def annotate(results: Sequence[Checked]) -> list[str]:
    """At most ten commands for what is wrong, in the order of the results; the last tells of the others."""
    wrong = [
        (result.name, "; ".join([result.error] if result.error is not None else result.failures()))
        for result in results
        if result.status != "passed"
    ]
    shown = wrong if len(wrong) <= _MOST else wrong[: _MOST - 1]
    commands = [_command(f"kldiv check: {name}", message) for name, message in shown]
    if len(shown) < len(wrong):
        more = counted(len(wrong) - len(shown), "pair")
        commands.append(_command("kldiv check", f"and {more} more; the step summary has all of them"))
    return commands


def _command(title: str, message: str) -> str:
    return f"::error title={_escaped_property(printable(title))}::{_escaped(printable(message))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def step_summary(results: Sequence[Checked]) -> str:
    """The result in Markdown, cut to what GitHub shows."""
    text = f"## kldiv check\n\n{markdown(results, _DIGITS)}"
    encoded = text.encode()
    if len(encoded) <= _LARGEST:
        return text
    kept = encoded[:_LARGEST].rpartition(b"\n")[0].decode(errors="ignore")
    return f"{kept}\n\n*cut: the whole is {len(encoded)} bytes, --markdown FILE writes it*\n"
