"""What is said beside the tables of many pairs: errors one by one, what is said of many alike once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from kldiv_cli.findings import counted

__all__ = ["Told"]

_ALIKE: Final = 3
"""Of no more pairs the same finding is told for each of them."""


class _Line(NamedTuple):
    kind: str
    text: str
    id: str | None = None
    """Of a finding that others may share."""


class Told:
    """Gathers, pair by pair, what is to be said; it keeps no more than it will say."""

    def __init__(self, most_errors: int | None = None) -> None:
        self._most_errors = most_errors
        self._lines: list[_Line] = []
        self._found: Counter[str] = Counter()
        self._errors = 0

    def error(self, text: str) -> None:
        """Take what went wrong."""
        self._errors += 1
        if self._most_errors is None or self._errors <= self._most_errors:
            self._lines.append(_Line("error", text))

    def finding(self, severity: str, id: str, text: str) -> None:
        """Take what was found in one pair, named in the text, and may be found in others."""
        self._found[id] += 1
        if self._found[id] <= _ALIKE:
            self._lines.append(_Line(severity, text, id))

    def lines(self) -> Iterator[tuple[str, str]]:
        """The kind of each line and what it says, in the order in which they were taken."""
        once: set[str] = set()
        for kind, text, id in self._lines:
            if id is None or self._found[id] <= _ALIKE:
                yield kind, text
            elif id not in once:
                once.add(id)
                others = counted(self._found[id] - 1, "other pair")
                yield kind, f"{text} ({id} in {others} too)"
        if self._most_errors is not None and self._errors > self._most_errors:
            yield "error", f"{self._errors - self._most_errors} more pairs could not be computed"
