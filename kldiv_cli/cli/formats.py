"""The format that a command's options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kldiv_cli.errors import UsageError

if TYPE_CHECKING:
    from kldiv_cli.report.console import Format

__all__ = ["choose_format"]


def choose_format(format: Format, *, json: bool, precision: int | None) -> Format:
    """A table on a terminal, plain text in a pipe, unless one was chosen."""
    from kldiv_cli.report.console import resolve_format

    if json and format not in ("auto", "json"):
        raise UsageError(f"json: contradicts --format {format}; give only one of them")
    chosen: Format = "json" if json else resolve_format(format)
    if precision is not None and chosen in ("json", "jsonl"):
        raise UsageError(f"precision: {chosen} has all digits; drop it or choose another --format")
    return chosen
